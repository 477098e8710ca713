"""Several trained networks that answer as one: their probabilities are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fcnlab.core.errors import CheckpointError
from fcnlab.inference.trained import DEFAULT_TILE, TrainedNetwork


class Ensemble:
    """Networks of one kind of images and the same classes, such as those of all folds.

    It has what `fcnlab.predict` and `fcnlab.evaluate` ask of a `TrainedNetwork`; attributes are those of the first.

    Args:
        networks: At least one network.
        source: The name of the ensemble in errors.

    Raises:
        CheckpointError: If the networks differ in their classes or in the images that they take.
    """

    def __init__(self, networks: Sequence[TrainedNetwork], source: str) -> None:
        first = networks[0]
        for network in networks[1:]:
            for name in ("class_names", "channels", "bits", "value_range"):
                if getattr(network, name) != getattr(first, name):
                    raise CheckpointError(
                        f"{source}: {network.source} has {name} {getattr(network, name)}, and {first.source} has "
                        f"{getattr(first, name)}: their probabilities cannot be averaged"
                    )
        self.networks = list(networks)
        self.source = source
        self.metadata = {**first.metadata, "step": max(int(one.metadata.get("step", 0)) for one in networks)}
        self.num_classes, self.class_names = first.num_classes, first.class_names
        self.palette, self.channels, self.bits = first.palette, first.channels, first.bits
        self.value_range = first.value_range

    def __repr__(self) -> str:
        """Return one line."""
        return f"Ensemble({len(self.networks)} networks, {self.num_classes} classes, {self.source!r})"

    def probabilities(self, image: np.ndarray, **views: Any) -> np.ndarray:
        """Return the mean of the networks' probabilities; arguments and errors are those of `TrainedNetwork`."""
        dtype = views.pop("dtype", np.float32)
        total = self.networks[0].probabilities(image, **views).astype(np.float32, copy=True)
        for network in self.networks[1:]:
            total += network.probabilities(image, **views)
        return (total / len(self.networks)).astype(dtype, copy=False)

    def predict_with_confidence(
        self, image: np.ndarray, *, flip: bool = False, scales: Sequence[float] = (1.0,), tile: int = DEFAULT_TILE
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the class of the largest mean probability and that probability, as `TrainedNetwork` does."""
        mean = self.probabilities(image, flip=flip, scales=scales, tile=tile)
        dtype = np.uint8 if self.num_classes <= 256 else np.int32
        return mean.argmax(axis=0).astype(dtype), mean.max(axis=0)

    def predict(self, image: np.ndarray, **views: Any) -> np.ndarray:
        """Return the class of the largest mean probability; arguments and errors are those of `TrainedNetwork`."""
        return self.predict_with_confidence(image, **views)[0]
