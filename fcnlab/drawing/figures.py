"""What all figures share: how text is shortened for them and how they are written.

They are drawn without pyplot, whose figures and backend belong to the whole process: a notebook's stay as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fcnlab.core.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 120
FIGURE_MODULES = ("matplotlib.figure", "matplotlib.backends.backend_agg")
"""The modules that drawing imports, which takes a quarter of a second."""

_NAME_LENGTH = 28  # characters of a name


def plain(name: str) -> str:
    """One short line, without the dollars that matplotlib takes for mathematics."""
    name = " ".join(name.split())
    if len(name) > _NAME_LENGTH:
        name = f"{name[: _NAME_LENGTH // 2]}…{name[1 - _NAME_LENGTH // 2 :]}"  # long names often differ at the end
    return name.replace("$", r"\$")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
