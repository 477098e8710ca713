"""A trained network that knows how its images are to be prepared and what its classes are."""

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
from fcnlab.drawing.palette import palette
from fcnlab.inference.forward import ForwardPass, Output
from fcnlab.inference.tiling import GRID, Tile, overlap, tiles
from fcnlab.metrics.names import class_names
from fcnlab.models.fcn import FCN

DEFAULT_TILE = 1408
"""Side of a tile in pixels: at width 1, a forward pass of this size takes less than 2 GiB beside the weights."""


class TrainedNetwork(nn.Cell):
    """What `fcnlab.load` returns: a cell from normalised images to logits, and label maps of plain images.

    `predict` and its siblings take images of any size. What is larger than a tile is cut into overlapping tiles, whose
    logits are those of the whole image, so that memory does not grow with the image but by the result.

    Args:
        network: The network, with its weights.
        metadata: What the checkpoint says of it.
        source: What errors call the checkpoint.

    Attributes:
        class_names: C of them.
        palette: The classes' colours, C x 3 uint8 RGB.
        channels: Of the images that it was trained on.
        bits: Of their channels.

    Inputs:
        N x channels x H x W, float32, normalised, as the network alone takes it.

    Outputs:
        Logits, N x C x H x W, float32.
    """

    def __init__(self, network: nn.Cell, metadata: Mapping[str, Any], source: str) -> None:
        super().__init__(auto_prefix=False)  # parameter names are the checkpoint's vocabulary and stay as they are
        self.network = network
        self.metadata = dict(metadata)
        self.source = source
        self.num_classes = int(metadata["arch"]["num_classes"])
        self.class_names = class_names(metadata.get("class_names") or (), self.num_classes)
        self.palette = np.array(metadata.get("palette") or palette(self.num_classes), dtype=np.uint8)
        self.channels = int(metadata["arch"].get("in_channels", 3))
        self.bits = int(metadata.get("bits", 8))
        self._forward = ForwardPass(network, self.channels)
        self.set_train(False)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits, by the network alone, which checks the images' size."""
        return self.network(images)

    def construct(self, images: Tensor) -> Tensor:
        """Logits, within the graph of another cell."""
        return self.network(images)

    @property
    def normalisation(self) -> dict[str, list[float]]:
        """The ``mean`` and ``std`` that `fcnlab.data.normalise` takes.

        Raises:
            CheckpointError: If the checkpoint does not say them.
        """
        if "normalisation" not in self.metadata:
            raise CheckpointError(f"{self.source}: does not say its normalisation; give the checkpoint of a training")
        return self.metadata["normalisation"]

    def predict(
        self, image: np.ndarray, *, flip: bool = False, scales: Sequence[float] = (1.0,), tile: int = DEFAULT_TILE
    ) -> np.ndarray:
        """The class of every pixel.

        Args:
            image: H x W x 3 RGB or H x W grey, uint8, of any size; of a network for other channels H x W x channels,
                uint8 or uint16.
            flip: Average the probabilities with those of the image mirrored left and right.
            scales: Average the probabilities over these factors on the image's size.
            tile: Largest side in pixels that is computed at once; it bounds the memory.

        Returns:
            Class indices, H x W, uint8 (int32 with more than 256 classes).

        Raises:
            ValueError: If the image is of another shape or type.
            ConfigError: If the tile is too small.
            CheckpointError: If the checkpoint does not say its normalisation.
        """
        image = self._checked(image)
        dtype = np.uint8 if self.num_classes <= 256 else np.int32
        if flip or tuple(scales) != (1.0,):
            return self.probabilities(image, flip=flip, scales=scales, tile=tile).argmax(axis=0).astype(dtype)
        labels = np.empty(image.shape[:2], dtype)
        for place, values in self._tiles(image, "classes", tile):
            labels[place] = values
        return labels

    def probabilities(
        self,
        image: np.ndarray,
        *,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        tile: int = DEFAULT_TILE,
        dtype: type = np.float32,
    ) -> np.ndarray:
        """The probability of each class at every pixel.

        Args:
            image: As for `predict`.
            flip: As for `predict`.
            scales: As for `predict`.
            tile: As for `predict`.
            dtype: Of the result; float16 takes half the memory.

        Returns:
            C x H x W.

        Raises:
            ValueError: As for `predict`.
            ConfigError: As for `predict`.
            CheckpointError: As for `predict`.
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
        """The logits of every pixel, C x H x W float32; the arguments and errors are those of `predict`."""
        return self._whole(self._checked(image), "logits", tile, np.float32)

    def _whole(self, image: np.ndarray, output: Output, tile: int, dtype: type) -> np.ndarray:
        planes = np.empty((self.num_classes, *image.shape[:2]), dtype)
        for place, values in self._tiles(image, output, tile):
            planes[(slice(None), *place)] = values
        return planes

    def _tiles(self, image: np.ndarray, output: Output, tile: int) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
        """What the network says of an image part by part: where the part is, and its values."""
        height, width = image.shape[:2]
        for part in self._cut(height, width, tile):
            rows, columns = part
            values = self._forward(self._prepare(image, part), output)[0]
            kept = tuple(slice(span.first - span.start, span.last - span.start) for span in part)
            yield (slice(rows.first, rows.last), slice(columns.first, columns.last)), values[(..., *kept)]

    def _cut(self, height: int, width: int, tile: int) -> Iterator[Tile]:
        if isinstance(self.network, FCN):
            return tiles(height, width, tile, overlap(self.network.fc6.weight.shape[2]))
        # How far another package's network looks is not known: it gets the whole image.
        return tiles(height, width, max(height, width) + GRID, 0)

    def _prepare(self, image: np.ndarray, part: Tile) -> np.ndarray:
        """A tile for the network, 1 x channels x h x w float32; beyond the image it is 0, as the network pads."""
        rows, columns = part
        pixels = image[rows.start : rows.stop, columns.start : columns.stop]
        batch = np.zeros((1, self.channels, rows.stop - rows.start, columns.stop - columns.start), np.float32)
        inside = batch[0, :, : pixels.shape[0], : pixels.shape[1]]
        normalise(np.ascontiguousarray(pixels), **self.normalisation, out=inside)
        return batch

    def _checked(self, image: np.ndarray) -> np.ndarray:
        """An image with the network's channels."""
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
    """An image with three channels."""
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
