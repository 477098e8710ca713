"""Draws an image, its label, its prediction and the kinds of its errors side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from fcnlab.core.errors import TrackingError
from fcnlab.data.channels import to_rgb
from fcnlab.drawing.captions import LONGEST, caption
from fcnlab.drawing.lettering import Entry
from fcnlab.drawing.palette import VOID_COLOUR, class_palette
from fcnlab.drawing.panels import class_entries, legend_rows, side_by_side

MISSED, FALSE, WRONG_CLASS = (255, 48, 48), (0, 224, 255), (255, 255, 0)
"""The colours of the kinds of errors, which the colour-blind can tell apart, too, and from greys."""


def comparison(
    image: np.ndarray,
    label: np.ndarray,
    prediction: np.ndarray,
    *,
    class_names: Sequence[str],
    ignore_index: int,
    height: int = 512,
    class_colours: Sequence[Sequence[int]] | np.ndarray = (),
) -> np.ndarray:
    """Draw an image, its label, the prediction and the errors side by side, with titles and a legend.

    Errors have the colours of their kinds on the dimmed image; see `mark_errors`.

    Args:
        image: H x W x C uint8 or uint16, which `to_rgb` turns into colours.
        label: The class indices, H x W, with ``ignore_index`` for void pixels, which are grey.
        prediction: The predicted class indices, H x W.
        class_names: The names of the classes, without void.
        ignore_index: The label of void pixels.
        height: The largest height and width of a panel, in pixels.
        class_colours: The colours of the classes, C x 3 RGB; if empty, those of `class_palette`.

    Returns:
        A uint8 RGB picture.
    """
    panels = compared(image, label, prediction, class_names, ignore_index, class_colours)
    palette = class_palette(class_names, class_colours)
    errors = error_entries(class_names)
    rows = legend_rows(min(label.shape[0], height)) - len(errors)
    entries = [*class_entries(label.astype(np.uint8), palette, class_names, rows), *errors]
    return side_by_side(panels, entries, height)


def compared(
    image: np.ndarray,
    label: np.ndarray,
    prediction: np.ndarray,
    class_names: Sequence[str],
    ignore_index: int,
    class_colours: Sequence[Sequence[int]] | np.ndarray = (),
) -> dict[str, np.ndarray]:
    """Return the uint8 RGB panels of `comparison`, H x W x 3, by their titles; the arguments are those."""
    image = to_rgb(image)
    colours = np.full((256, 3), VOID_COLOUR, dtype=np.uint8)
    colours[: len(class_names)] = class_palette(class_names, class_colours)
    return {
        "image": image,
        "label": colours[label.astype(np.uint8)],
        "prediction": cv2.addWeighted(image, 0.5, colours[prediction.astype(np.uint8)], 0.5, 0),
        "errors": mark_errors(image, label, prediction, ignore_index),
    }


def mark_errors(image: np.ndarray, label: np.ndarray, prediction: np.ndarray, ignore_index: int) -> np.ndarray:
    """Draw the pixels that are predicted wrong on a grey, dimmed image, each in the colour of its kind.

    The first class counts as the background. A pixel of another class that is predicted as the first one is missed, a
    pixel of the first class that is predicted as another one is false, and all others have the wrong class. Void pixels
    have no errors.

    Args:
        image: H x W x 3 uint8 RGB.
        label: The class indices, H x W, with ``ignore_index`` for void pixels.
        prediction: The predicted class indices, H x W.
        ignore_index: The label of void pixels.

    Returns:
        H x W x 3 uint8 RGB.
    """
    dimmed = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] // 2
    marked = np.repeat(dimmed, 3, axis=2)
    wrong = (prediction != label) & (label != ignore_index)
    marked[wrong] = WRONG_CLASS
    marked[wrong & (prediction == 0)] = MISSED
    marked[wrong & (label == 0)] = FALSE
    return marked


def error_entries(class_names: Sequence[str]) -> list[Entry]:
    """Return the legend of the kinds of errors that `mark_errors` draws."""
    room = LONGEST - len("missed: taken for ")
    first = caption(class_names[0], room)
    second = caption(class_names[1], room) if len(class_names) == 2 else "another"
    entries = [(MISSED, f"missed: taken for {first}"), (FALSE, f"false: taken for {second}")]
    return entries if len(class_names) == 2 else [*entries, (WRONG_CLASS, "wrong class")]


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write a uint8 RGB picture as a PNG, whose folder is created if it is missing.

    Raises:
        TrackingError: If the picture cannot be written.
    """
    _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise TrackingError(f"{path}: cannot write the picture ({error.strerror}); free space") from error
