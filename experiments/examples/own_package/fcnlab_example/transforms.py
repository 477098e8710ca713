"""A transform with keys of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fcnlab.config.schema import Role, key
from fcnlab.data import Sample


@dataclass
class ShadeConfig:
    """The keys of the transform, which stand below ``augment.shade``."""

    strength: float = key(0.5, Role.FREE, minimum=0, maximum=1)


def shade(augment: Any, ignore_index: int, strength: float) -> Callable[[Sample, np.random.Generator], Sample] | None:
    """Darken one half of an image."""
    if strength == 0:
        return None

    def transform(sample: Sample, generator: np.random.Generator) -> Sample:
        image = sample.image.copy()
        image[:, : image.shape[1] // 2] = image[:, : image.shape[1] // 2] * (1 - strength * generator.random())
        return sample._replace(image=image)

    return transform


shade.Config = ShadeConfig
