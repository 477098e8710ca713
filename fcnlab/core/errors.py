"""Errors that a user can mend. Their text is one line that names the key, file or value, and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FcnlabError(Exception):
    """Base of the errors that reach the user as one line; any other error is a bug and keeps its traceback."""


class ConfigError(FcnlabError):
    """A configuration key, type or value is wrong."""


class DataError(FcnlabError):
    """A data set's folder, file or content is wrong."""


class CheckpointError(FcnlabError):
    """A checkpoint cannot be read or written, or does not fit the network."""


class TrainingError(FcnlabError):
    """Training cannot continue, as after a loss that is not a number."""


class TrackingError(FcnlabError):
    """The tracking store or the local journal cannot be reached, or refuses a request."""


class RefusedError(TrackingError):
    """The tracking store, or its address, was refused in a way that trying again does not change."""


class MissingError(RefusedError):
    """The tracking store does not have what a request is about, as it was deleted or never there."""


class ExportError(FcnlabError):
    """A network cannot be written in a format so that it computes the same."""


def did_you_mean(word: str, known: Iterable[str], mark: str = "{}") -> str:
    """Return a question that names the known word nearest to another, with a blank behind it; empty if none is near.

    Args:
        word: What was given.
        known: What would have been right.
        mark: How the known word is written, with ``{}`` in its place.
    """
    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {mark.format(nearest[0])}? " if nearest else ""


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error, for an error of ours; the name of its class if it has no text."""
    return next(iter(str(error).splitlines()), type(error).__name__)
