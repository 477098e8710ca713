"""What all figures share: their resolution, their names and how they are saved.

Figures are drawn without pyplot, which would change the figures and the backend of a notebook in the same process.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fcnlab.core.files import replacing
from fcnlab.drawing.captions import caption

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 120
"""The resolution of a figure, in pixels per inch."""
FIGURE_MODULES = ("matplotlib.figure", "matplotlib.backends.backend_agg")
"""The modules of matplotlib that drawing imports, which takes a quarter of a second."""


def plain(name: str) -> str:
    """Return a name as one short line, in which matplotlib reads no dollar as mathematics."""
    return caption(name).replace("$", r"\$")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, which appears whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
