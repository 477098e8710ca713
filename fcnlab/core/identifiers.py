"""The identifiers of runs, journals and sweeps."""

from __future__ import annotations

import re


def is_identifier(text: str) -> bool:
    """Whether a text has the form of an identifier: 32 lower-case hexadecimal digits, as MLflow gives to a run."""
    return re.fullmatch("[0-9a-f]{32}", text) is not None
