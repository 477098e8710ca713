"""Transforms of an image that leave its label alone: gamma, colour, blur, noise.

`gamma`, `colour_jitter`, `blur` and `noise` are factories for `fcnlab.registry.TRANSFORMS`, as in `fcnlab.data.warps`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from fcnlab.core.errors import ConfigError
from fcnlab.data.channels import by_fours, full_range, look_up
from fcnlab.data.dataset import Sample, Transform

if TYPE_CHECKING:
    from fcnlab.config.schema import AugmentConfig

_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # shares of red, green and blue in brightness (Rec. 601)


def apply_gamma(image: np.ndarray, gamma: float) -> np.ndarray:
    """Return ``(image / full range) ** gamma * full range``: a gamma above 1 makes an H x W x C image darker."""
    largest = full_range(image)
    levels = (np.arange(largest + 1) / largest) ** gamma * largest
    return look_up(image, np.rint(levels).astype(image.dtype))


def jitter_colours(image: np.ndarray, saturation: float, hue: float) -> np.ndarray:
    """Change the colours of an H x W x 3 uint8 RGB image.

    Args:
        image: The image.
        saturation: A factor on the difference of each pixel from its grey.
        hue: The angle by which the colours turn, as a share of a full turn.
    """
    if hue:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
        hsv[..., 0] += np.uint8(round(hue * 256) % 256)  # A full turn is 256, so that it wraps by itself.
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    if saturation == 1:
        return image
    mix = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * np.tile(_GREY, (3, 1))
    return cv2.transform(image, mix)  # which rounds and saturates


def gamma(augment: AugmentConfig, ignore_index: int) -> Transform | None:
    """Make a transform by a gamma from the range ``augment.gamma``, whose logarithm is drawn uniformly."""
    low, high = augment.gamma
    if low == high == 1:
        return None

    def apply(sample: Sample, rng: np.random.Generator) -> Sample:
        power = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        return sample._replace(image=apply_gamma(sample.image, power))

    return apply


def colour_jitter(augment: AugmentConfig, ignore_index: int) -> Transform | None:
    """Make a transform of saturation and hue, by up to ``augment.saturation`` and ``augment.hue`` either way.

    The transform raises a ConfigError for an image that does not have three channels of 8 bits.
    """
    if augment.saturation == 0 and augment.hue == 0:
        return None

    def apply(sample: Sample, rng: np.random.Generator) -> Sample:
        if sample.image.shape[2] != 3 or sample.image.dtype != np.uint8:
            raise ConfigError(
                f"augment.saturation and augment.hue need red, green and blue of 8 bits; '{sample.name}' "
                f"has {sample.image.shape[2]} channels of {sample.image.dtype}: set both to 0"
            )
        saturation = rng.uniform(1 - augment.saturation, 1 + augment.saturation)
        hue = rng.uniform(-augment.hue, augment.hue)
        return sample._replace(image=jitter_colours(sample.image, saturation, hue))

    return apply


def blur(augment: AugmentConfig, ignore_index: int) -> Transform | None:
    """Make a Gaussian blur, with a standard deviation of up to ``augment.blur`` pixels."""
    if augment.blur == 0:
        return None

    def apply(sample: Sample, rng: np.random.Generator) -> Sample:
        deviation = rng.uniform(0, augment.blur)
        if deviation < 0.2:  # No neighbour would count.
            return sample
        image = by_fours(
            lambda group: cv2.GaussianBlur(group, (0, 0), deviation, borderType=cv2.BORDER_REFLECT_101), sample.image
        )
        return sample._replace(image=image)

    return apply


def noise(augment: AugmentConfig, ignore_index: int) -> Transform | None:
    """Make a transform that adds normal noise, independent for each pixel and channel.

    Its standard deviation is up to ``augment.noise`` of the full range.
    """
    if augment.noise == 0:
        return None

    def apply(sample: Sample, rng: np.random.Generator) -> Sample:
        largest = full_range(sample.image)
        deviation = np.float32(rng.uniform(0, augment.noise) * largest)
        values = sample.image + rng.standard_normal(sample.image.shape, dtype=np.float32) * deviation
        return sample._replace(image=np.clip(np.rint(values), 0, largest).astype(sample.image.dtype))

    return apply
