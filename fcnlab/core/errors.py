"""Errors that a user can mend. Their text is one line: the key, file or value, and the way out."""

from __future__ import annotations


class FcnlabError(Exception):
    """Base of every mistake that reaches the user as one line; anything else is a bug and keeps its traceback."""


class ConfigError(FcnlabError):
    """A configuration key, type or value is wrong."""


class DataError(FcnlabError):
    """A data set's folder, file or content is wrong."""


class CheckpointError(FcnlabError):
    """A checkpoint cannot be read, written or does not fit the network."""


class TrainingError(FcnlabError):
    """Training cannot go on, such as after a loss that is not a number."""


class TrackingError(FcnlabError):
    """The tracking store or the local journal cannot be reached, or refuses."""


class RefusedError(TrackingError):
    """The tracking store, or whoever reads its address, refuses, and will do the same next time."""


class ExportError(FcnlabError):
    """A network cannot be written in a format, or not faithfully."""


def first_line(error: BaseException) -> str:
    """What a library's error says, for an error of ours: its first line, or its kind if it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)
