"""Random transforms of an image together with its label.

The functions are deterministic: `TrainTransform` draws their parameters. None writes to its arguments.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from fcnlab.data.channels import by_fours, full_range, look_up
from fcnlab.data.dataset import Sample
from fcnlab.registry import TRANSFORMS

if TYPE_CHECKING:
    from fcnlab.config.schema import AugmentConfig

_MAX_DRAWS = 10  # how often a window with too much void is drawn again before the best of them is taken


def crop_window(sample: Sample, top: int, left: int, side: int, ignore_index: int) -> Sample:
    """Cut a square out of a sample, which may reach beyond the borders.

    Beyond them, the label is ``ignore_index`` and the image the mean colour of what was cut out.

    Args:
        sample: An H x W image and its label.
        top: The first row, negative above the image.
        left: The first column, negative left of the image.
        side: The side of the square, in pixels; it must share at least one pixel with the image.
        ignore_index: The label of void.
    """
    height, width = sample.label.shape
    rows = slice(max(top, 0), min(top + side, height))
    columns = slice(max(left, 0), min(left + side, width))
    image, label = sample.image[rows, columns], sample.label[rows, columns]
    borders = (rows.start - top, top + side - rows.stop, columns.start - left, left + side - columns.stop)
    if any(borders):
        image = by_fours(
            lambda group: cv2.copyMakeBorder(group, *borders, cv2.BORDER_CONSTANT, value=cv2.mean(group)), image
        )
        label = cv2.copyMakeBorder(label, *borders, cv2.BORDER_CONSTANT, value=(ignore_index,))
    return Sample(image, label, sample.name)


def resize(sample: Sample, side: int) -> Sample:
    """Resize a square sample to ``side`` x ``side``: the image smoothly, the label to the nearest pixel."""
    current = sample.label.shape[0]
    if current == side:
        return sample
    smooth = cv2.INTER_AREA if current > side else cv2.INTER_LINEAR
    image = by_fours(lambda group: cv2.resize(group, (side, side), interpolation=smooth), sample.image)
    # INTER_NEAREST samples at pixel corners, which would shift the label against the image.
    label = cv2.resize(sample.label, (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
    return Sample(image, label, sample.name)


def flip(sample: Sample, *, horizontal: bool, vertical: bool) -> Sample:
    """Mirror left and right, top and bottom, or both."""
    if not (horizontal or vertical):
        return sample
    code = -1 if horizontal and vertical else int(horizontal)
    image = by_fours(lambda group: cv2.flip(group, code), sample.image)
    return Sample(image, cv2.flip(sample.label, code), sample.name)


def rotate90(sample: Sample, quarters: int) -> Sample:
    """Turn anticlockwise by ``quarters`` of a full turn (0 to 3)."""
    if quarters == 0:
        return sample
    code = (cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)[quarters - 1]
    image = by_fours(lambda group: cv2.rotate(group, code), sample.image)
    return Sample(image, cv2.rotate(sample.label, code), sample.name)


def adjust(image: np.ndarray, *, brightness: float, contrast: float) -> np.ndarray:
    """Change an image's brightness and contrast.

    Args:
        image: H x W x C, uint8 or uint16.
        brightness: A share of the full range, which is added.
        contrast: A factor on the difference from the image's mean over all pixels and channels.

    Returns:
        A new image of the same type, or the same image if there is nothing to change.
    """
    if brightness == 0 and contrast == 1:
        return image
    largest = full_range(image)
    mean = sum(cv2.mean(image)[:3]) / 3 if image.shape[2] == 3 else float(image.mean())
    levels = (np.arange(largest + 1) - mean) * contrast + mean + largest * brightness
    return look_up(image, np.clip(np.rint(levels), 0, largest).astype(image.dtype))


class TrainTransform:
    """A random square crop that is scaled, mirrored, turned, brightened, contrasted, and changed by `TRANSFORMS`.

    The window is cut out before it is resized, so that the cost depends on the crop, not on the image. An image that is
    smaller than its window lies at a random place within it.

    Args:
        augment: The transforms' ranges and probabilities, which `fcnlab.config` has checked.
        crop_size: The side of the crops, in pixels.
        ignore_index: The label of what lies beyond the image.
    """

    def __init__(self, augment: AugmentConfig, crop_size: int, ignore_index: int) -> None:
        self._augment = augment
        self._log_scale = [math.log(factor) for factor in augment.scale]
        self._crop_size = crop_size
        self._ignore_index = ignore_index
        names = [*TRANSFORMS.builtin(), *augment.extra]
        self._more = [TRANSFORMS.get(name)(augment, ignore_index, **_keys(augment, name)) for name in names]

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Draw one crop.

        Args:
            sample: An H x W image and its label, of any size.
            rng: The source of all randomness.

        Returns:
            A ``crop_size`` x ``crop_size`` sample. It may share memory with ``sample``.
        """
        augment = self._augment
        scale = math.exp(rng.uniform(*self._log_scale))
        side = max(1, round(self._crop_size / scale))
        top, left = (_offset(length, side, rng) for length in sample.label.shape)
        # Transforms that came later have generators of their own, so that they do not change what the others draw.
        placing, *generators = rng.spawn(1 + len(self._more))
        top, left = self._place(sample.label, side, (top, left), placing)
        crop = resize(crop_window(sample, top, left, side, self._ignore_index), self._crop_size)
        crop = flip(
            crop,
            horizontal=rng.random() < augment.horizontal_flip,
            vertical=rng.random() < augment.vertical_flip,
        )
        if augment.rotate90:
            crop = rotate90(crop, int(rng.integers(4)))
        brightness = rng.uniform(-augment.brightness, augment.brightness)
        contrast = rng.uniform(1 - augment.contrast, 1 + augment.contrast)
        crop = crop._replace(image=adjust(crop.image, brightness=brightness, contrast=contrast))
        for transform, generator in zip(self._more, generators, strict=True):
            if transform is not None:
                crop = transform(crop, generator)
        return crop

    def _place(self, label: np.ndarray, side: int, drawn: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        """Return where the window begins: on a pixel of some class, or where not too much of it is void."""
        if rng.random() < self._augment.class_crops:
            return self._on_a_class(label, side, drawn, rng)
        best, least = drawn, _void_share(label, side, drawn, self._ignore_index)
        for _ in range(_MAX_DRAWS):
            if least <= self._augment.max_void:
                break
            place = tuple(_offset(length, side, rng) for length in label.shape)
            share = _void_share(label, side, place, self._ignore_index)
            if share < least:
                best, least = place, share
        return best

    def _on_a_class(
        self, label: np.ndarray, side: int, drawn: tuple[int, int], rng: np.random.Generator
    ) -> tuple[int, int]:
        """Return a window that holds a random pixel of a class; each class of the image is as likely as any other."""
        counts = np.bincount(label.ravel(), minlength=256)
        counts[self._ignore_index] = 0
        classes = np.flatnonzero(counts)
        if classes.size == 0:
            return drawn
        chosen = classes[rng.integers(classes.size)]
        pixel = np.flatnonzero(label.ravel() == chosen)[rng.integers(counts[chosen])]
        place = []
        for position, length in zip(divmod(int(pixel), label.shape[1]), label.shape, strict=True):
            low, high = sorted((0, length - side))  # the range in which every window begins
            low, high = max(low, position - side + 1), min(high, position)
            place.append(int(rng.integers(low, high, endpoint=True)))
        return place[0], place[1]


def _keys(augment: AugmentConfig, name: str) -> dict[str, Any]:
    """Return the keys of a transform that has some of its own, in the section of its name."""
    section = getattr(augment, name, None)
    return dict(vars(section)) if dataclasses.is_dataclass(section) else {}


def _void_share(label: np.ndarray, side: int, place: tuple[int, int], ignore_index: int) -> float:
    """Return the share of a window that is void or beyond the image."""
    top, left = place
    inside = label[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)]
    return 1 - int(np.count_nonzero(inside != ignore_index)) / side**2


def _offset(length: int, side: int, rng: np.random.Generator) -> int:
    """Draw where a window of ``side`` begins: within ``length`` if it fits, else so that it holds all of it."""
    spare = length - side
    return int(rng.integers(min(spare, 0), max(spare, 0), endpoint=True))
