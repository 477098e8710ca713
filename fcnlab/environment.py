"""Gives models that version 0.2.0 packaged what their code imports, where this version was imported before."""

from fcnlab.core.environment import MAX_PIXELS

__all__ = ["MAX_PIXELS"]
