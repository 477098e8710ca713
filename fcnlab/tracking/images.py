"""Pictures of predictions, for people to look at."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import cv2
import numpy as np

from fcnlab.data.channels import to_rgb
from fcnlab.errors import TrackingError
from fcnlab.palette import palette


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
    """The image, its label and the prediction side by side, with wrong pixels in yellow.

    Args:
        image: H x W x C, uint8 or uint16, of which `to_rgb` is drawn.
        label: H x W class indices with ``ignore_index`` for void, which stays grey.
        prediction: H x W class indices.
        num_classes: Without void.
        ignore_index: Label of void pixels.
        height: Largest height of the picture, in pixels.
        class_colours: num_classes x 3 uint8 RGB; by default PASCAL VOC's.

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
    """Write a uint8 RGB picture; its folder is made when missing.

    Raises:
        TrackingError: If the disk does not take it.
    """
    _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise TrackingError(f"{path}: cannot write the picture ({error.strerror}); free space") from error


_WRITTEN_OUT = re.compile(r"[^A-Za-z0-9_\-./ ]|-(?=u)|(?:\A|(?<=/))/|(?:\A|(?<=/))\.(?=\.?(?:/|\Z))|/\Z")
"""What does not stand for itself in the key of an image: what MLflow does not take, the mark's own beginning, and the
slashes and dots that the path of a file would lose."""
_LONGEST_KEY = 120
"""MLflow makes it a part of a file's name, beside a step, a time and an identifier of its own."""


def image_key(name: str) -> str:
    """What MLflow calls the picture of a sample; no two samples' pictures have the same name.

    A character that MLflow does not take there is written by its number, ``a+b`` as ``a-u002B-b``. The end of what is
    too long for the name of a file is a digest of the whole name.
    """
    key = _WRITTEN_OUT.sub(lambda found: f"-u{ord(found[0]):04X}-", name)
    if len(key) <= _LONGEST_KEY:
        return key
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:24]
    end = f"-u-{digest}"  # the mark without a number, as in no other key
    begin = ""
    for written in re.findall(r"-u[0-9A-F]{4,6}-|.", key):  # so that none is cut into something else
        if len(begin) + len(written) + len(end) > _LONGEST_KEY:
            break
        begin += written
    return begin + end


def name_of_key(key: str) -> str | None:
    """What `image_key` made a key of; None if the key holds only a digest of its end."""
    found = list(re.finditer(r"-u(?:([0-9A-F]{4,6})-|-[0-9a-f]{24}\Z)", key))
    if found and found[-1][1] is None:
        return None
    name, end = "", 0
    for written in found:
        name += key[end : written.start()] + chr(int(written[1], 16))
        end = written.end()
    return name + key[end:]
