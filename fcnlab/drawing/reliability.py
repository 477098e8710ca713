"""The reliability figure: how often a network is right, by how sure it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fcnlab.drawing.figures import DPI, save
from fcnlab.metrics.calibration import Calibration


def draw_reliability(calibration: Calibration, path: Path) -> None:
    """Draw the share of right pixels in each bin of confidence, and how many pixels each bin has.

    Args:
        calibration: The counts of an evaluation.
        path: The PNG, whose folder is created if it is missing.

    Raises:
        OSError: If the file cannot be written.
    """
    from matplotlib.figure import Figure

    count = len(calibration.pixels)
    edges = np.linspace(0, 1, count + 1)
    figure = Figure(figsize=(4.6, 5.2), dpi=DPI, layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    upper.bar(edges[:-1], np.nan_to_num(calibration.accuracy), 1 / count, align="edge", color="C0", edgecolor="white")
    upper.plot([0, 1], [0, 1], color="0.4", linestyle="--", linewidth=1)
    upper.set(ylabel="share of right pixels", ylim=(0, 1), xlim=(0, 1))
    error = calibration.error
    title = "no pixel is labelled" if np.isnan(error) else f"expected calibration error {error:.4f}"
    upper.set_title(title, fontsize=9, color="0.35", loc="left")
    shares = calibration.pixels / max(calibration.pixels.sum(), 1)
    lower.bar(edges[:-1], shares, 1 / count, align="edge", color="0.6", edgecolor="white")
    lower.set(xlabel="confidence: the probability of the predicted class", ylabel="share of pixels")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    save(figure, path)
