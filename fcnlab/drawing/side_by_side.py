"""Draws an image, its label and its prediction side by side."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from fcnlab.core.errors import TrackingError
from fcnlab.data.channels import to_rgb
from fcnlab.drawing.palette import palette


def comparison(
    image: np.ndarray,
    label: np.ndarray,
    prediction: np.ndarray,
    *,
    num_classes: int,
    ignore_index: int,
    height: int = 512,
    class_colours: np.ndarray | None = None,
) -> np.ndarray:
    """Draw an image, its label and the prediction side by side, with wrong pixels in yellow.

    Args:
        image: H x W x C uint8 or uint16, which `to_rgb` turns into colours.
        label: The class indices, H x W, with ``ignore_index`` for void pixels, which are grey.
        prediction: The predicted class indices, H x W.
        num_classes: The number of classes, without void.
        ignore_index: The label of void pixels.
        height: The largest height of the picture, in pixels.
        class_colours: The colours of the classes, num_classes x 3 uint8 RGB; by default those of PASCAL VOC.

    Returns:
        A uint8 RGB picture, about 3 W wide.
    """
    image = to_rgb(image)
    colours = np.full((256, 3), 128, dtype=np.uint8)
    colours[:num_classes] = palette(num_classes) if class_colours is None else class_colours
    predicted = cv2.addWeighted(image, 0.5, colours[prediction.astype(np.uint8)], 0.5, 0)
    wrong = (prediction != label) & (label != ignore_index)
    predicted[wrong] = (255, 255, 0)
    gap = np.full((image.shape[0], max(image.shape[1] // 64, 2), 3), 255, dtype=np.uint8)
    picture = np.hstack([image, gap, colours[label.astype(np.uint8)], gap, predicted])
    factor = min(height / picture.shape[0], 1.0)
    return cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1 else picture


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
