"""A trained network together with the preparation of its images and the names of its classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
from mindspore import Tensor, nn

from fcnlab.core.errors import CheckpointError
from fcnlab.data.channels import by_fours, with_axis
from fcnlab.data.loader import normalise
from fcnlab.drawing.html_table import html_table
from fcnlab.drawing.palette import class_palette
from fcnlab.inference.forward import ForwardPass, Output
from fcnlab.inference.tiling import GRID, Tile, overlap, tiles
from fcnlab.metrics.names import class_names
from fcnlab.models.fcn import FCN, MINIMUM_SIZE

DEFAULT_TILE = 1408
"""The side of a tile in pixels; at width 1, a forward pass of this size takes less than 2 GiB besides the weights."""


class TrainedNetwork(nn.Cell):
    """A trained network, as `fcnlab.load` returns it: a cell from normalised images to logits that predicts label maps.

    `predict`, `probabilities` and `logits` take images of any size. A larger image than a tile is cut into overlapping
    tiles whose logits are those of the whole image, so that only the result grows with the image.

    Args:
        network: The network, with its weights.
        metadata: The document of the checkpoint.
        source: The name of the checkpoint in errors.

    Attributes:
        class_names: The names of the C classes.
        palette: The classes' colours, C x 3 uint8 RGB.
        channels: The number of the images' channels.
        bits: The number of bits of each channel in training, 8 or 16.
        value_range: The lowest and the highest value of the files of 16 bits that it was trained on, which were scaled
            to the full range of ``bits``; empty if they were not. `fcnlab.predict` scales files in this way. Arrays are
            taken as they are: `fcnlab.data.channels.in_range` scales them.

    Inputs:
        N x channels x H x W, float32, normalised, as the network alone takes it.

    Outputs:
        Logits, N x C x H x W, float32.
    """

    def __init__(self, network: nn.Cell, metadata: Mapping[str, Any], source: str) -> None:
        super().__init__(auto_prefix=False)  # the names of parameters are those of checkpoints and stay as they are
        self.network = network
        self.metadata = dict(metadata)
        self.source = source
        self.num_classes = int(metadata["arch"]["num_classes"])
        self.class_names = class_names(metadata.get("class_names") or (), self.num_classes)
        self.palette = class_palette(self.class_names, metadata.get("palette") or ())
        self.channels = int(metadata["arch"].get("in_channels", 3))
        self.bits = int(metadata.get("bits", 8))
        self.value_range = [int(value) for value in metadata.get("value_range", [])]
        self._forward = ForwardPass(network, self.channels)
        self.set_train(False)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits, by calling the network, which checks the images' size."""
        return self.network(images)

    def construct(self, images: Tensor) -> Tensor:
        """Return the logits within the graph of another cell."""
        return self.network(images)

    def __repr__(self) -> str:
        """Return one line, without the layers."""
        names = ", ".join(self.class_names[:8]) + (", ..." if self.num_classes > 8 else "")
        name = self.metadata["arch"].get("name")
        return f"TrainedNetwork({name}, {self.num_classes} classes ({names}), {self.source!r})"

    def _repr_html_(self) -> str:
        arch = ", ".join(f"{key} {value}" for key, value in self.metadata["arch"].items())
        rows = [[name] for name in self.class_names]
        return html_table(f"{self.source}: {arch}", ["class"], rows, self.palette[: self.num_classes].tolist())

    @property
    def normalisation(self) -> dict[str, list[float]]:
        """The ``mean`` and ``std`` that `fcnlab.data.normalise` takes.

        Raises:
            CheckpointError: If the checkpoint does not hold them.
        """
        if "normalisation" not in self.metadata:
            raise CheckpointError(f"{self.source}: does not say its normalisation; give the checkpoint of a training")
        return self.metadata["normalisation"]

    def predict(
        self, image: np.ndarray, *, flip: bool = False, scales: Sequence[float] = (1.0,), tile: int = DEFAULT_TILE
    ) -> np.ndarray:
        """Return the class of every pixel.

        Args:
            image: An image of any size: H x W x 3 RGB or H x W grey, uint8. For a network with other channels, it is
                H x W x channels, uint8 or uint16.
            flip: Whether to average the probabilities with those of the image mirrored left and right.
            scales: The factors on the image's size over which the probabilities are averaged.
            tile: The largest side in pixels that is computed at once; it bounds the memory.

        Returns:
            Class indices, H x W, uint8 (int32 with more than 256 classes).

        Raises:
            ValueError: If the image has another shape or type.
            ConfigError: If the tile is too small.
            CheckpointError: If the checkpoint does not hold its normalisation.
        """
        image = self._checked(image)
        dtype = np.uint8 if self.num_classes <= 256 else np.int32
        if flip or tuple(scales) != (1.0,):
            return self.probabilities(image, flip=flip, scales=scales, tile=tile).argmax(axis=0).astype(dtype)
        labels = np.empty(image.shape[:2], dtype)
        for place, values in self._tiles(image, "classes", tile):
            labels[place] = values
        return labels

    def predict_with_confidence(
        self, image: np.ndarray, *, flip: bool = False, scales: Sequence[float] = (1.0,), tile: int = DEFAULT_TILE
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the class of every pixel, and the probability that the network gives it.

        Arguments and errors are those of `predict`. No more memory is taken than for a tile of all probabilities.

        Returns:
            Class indices, H x W, as `predict` returns them, and probabilities, H x W float32.
        """
        image = self._checked(image)
        dtype = np.uint8 if self.num_classes <= 256 else np.int32
        if flip or tuple(scales) != (1.0,):
            probabilities = self.probabilities(image, flip=flip, scales=scales, tile=tile)
            return probabilities.argmax(axis=0).astype(dtype), probabilities.max(axis=0)
        labels, confidence = np.empty(image.shape[:2], dtype), np.empty(image.shape[:2], np.float32)
        for place, values in self._tiles(image, "probabilities", tile):
            labels[place], confidence[place] = values.argmax(axis=0), values.max(axis=0)
        return labels, confidence

    def probabilities(
        self,
        image: np.ndarray,
        *,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        tile: int = DEFAULT_TILE,
        dtype: type = np.float32,
    ) -> np.ndarray:
        """Return the probability of each class at every pixel, C x H x W; the errors are those of `predict`.

        Args:
            image: See `predict`.
            flip: See `predict`.
            scales: See `predict`.
            tile: See `predict`.
            dtype: The type of the result; float16 takes half the memory.
        """
        image = self._checked(image)
        if not (flip or tuple(scales) != (1.0,)):
            return self._whole(image, "probabilities", tile, dtype)
        height, width = image.shape[:2]
        total = np.zeros((self.num_classes, height, width), np.float32)
        views = 0
        for scale in scales:
            scaled = _scaled(image, scale)
            for mirrored in (False, True) if flip else (False,):
                view = by_fours(partial(cv2.flip, flipCode=1), scaled) if mirrored else scaled
                planes = self._whole(view, "probabilities", tile, np.float32)
                for plane, target in zip(planes, total, strict=True):
                    plane = cv2.flip(plane, 1) if mirrored else plane
                    target += plane if scale == 1 else cv2.resize(plane, (width, height))
                views += 1
        total /= views
        return total.astype(dtype, copy=False)

    def logits(self, image: np.ndarray, *, tile: int = DEFAULT_TILE) -> np.ndarray:
        """Return the logits of every pixel, C x H x W float32; arguments and errors are those of `predict`."""
        return self._whole(self._checked(image), "logits", tile, np.float32)

    def _whole(self, image: np.ndarray, output: Output, tile: int, dtype: type) -> np.ndarray:
        planes = np.empty((self.num_classes, *image.shape[:2]), dtype)
        for place, values in self._tiles(image, output, tile):
            planes[(slice(None), *place)] = values
        return planes

    def _tiles(self, image: np.ndarray, output: Output, tile: int) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
        """Yield the place and the output of each part of an image."""
        height, width = image.shape[:2]
        for part in self._cut(height, width, tile):
            rows, columns = part
            values = self._forward(self._prepare(image, part), output)[0]
            kept = tuple(slice(span.first - span.start, span.last - span.start) for span in part)
            yield (slice(rows.first, rows.last), slice(columns.first, columns.last)), values[(..., *kept)]

    def _cut(self, height: int, width: int, tile: int) -> Iterator[Tile]:
        reach = self.network.reach if isinstance(self.network, FCN) else None
        if reach is not None:
            return tiles(height, width, tile, overlap(self.network.head_kernel or 1, reach))
        # The receptive field of another package's network is unknown, and that of group normalisation is the image.
        return tiles(height, width, max(height, width) + GRID, 0)

    def _prepare(self, image: np.ndarray, part: Tile) -> np.ndarray:
        """Return a tile for the network, 1 x channels x h x w float32, with zeros beyond the image."""
        rows, columns = part
        pixels = image[rows.start : rows.stop, columns.start : columns.stop]
        sides = (rows.stop - rows.start, columns.stop - columns.start)
        if getattr(self.network, "published", False):
            # More zeros than such a network's own padding would be further cells of its coarsest map.
            sides = tuple(max(MINIMUM_SIZE, length) for length in pixels.shape[:2])
        batch = np.zeros((1, self.channels, *sides), np.float32)
        inside = batch[0, :, : pixels.shape[0], : pixels.shape[1]]
        normalise(np.ascontiguousarray(pixels), **self.normalisation, out=inside)
        return batch

    def _checked(self, image: np.ndarray) -> np.ndarray:
        """Return an image with the network's channels."""
        if (self.channels, self.bits) == (3, 8):
            return _rgb(image)
        image = with_axis(np.asarray(image))
        known = image.dtype in (np.uint8, np.uint16)
        if not known or image.ndim != 3 or image.shape[2] != self.channels or image.size == 0:
            raise ValueError(
                f"an image must be H x W x {self.channels} of uint8 or uint16, not {image.dtype} of shape {image.shape}"
            )
        return image


def _rgb(image: np.ndarray) -> np.ndarray:
    """Return an image with three channels."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or image.size == 0:
        raise ValueError(
            f"an image must be H x W x 3 (RGB) or H x W (grey) of uint8, not {image.dtype} of shape {image.shape}"
        )
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image


def _scaled(image: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1:
        return image
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return by_fours(partial(cv2.resize, dsize=(width, height), interpolation=smooth), image)
