"""The export of a network as MINDIR, MindSpore's own format, for images of any size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from fcnlab.core.errors import ExportError
from fcnlab.inference.tiling import GRID
from fcnlab.models.fcn import FCN

_LARGEST = 2**30 - 2**20
"""The number of bytes above which MindSpore would write the weights to separate files."""


class _AnySize(nn.Cell):
    """An `FCN` whose padding a MINDIR graph can compute.

    MindSpore refuses to load a graph whose padding depends on an unknown size. So all images are padded by as much as
    any of them may need, and then cropped to the multiple of 32 that each of them needs.
    """

    def __init__(self, network: FCN) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, images: Tensor) -> Tensor:
        height = images.shape[2]
        width = images.shape[3]
        images = ops.pad(images, (0, GRID - 1, 0, GRID - 1))
        images = images[:, :, : (height + GRID - 1) // GRID * GRID, : (width + GRID - 1) // GRID * GRID]
        return self.network.padded_logits(images)[:, :, :height, :width]


def write_mindir(path: Path, network: nn.Cell, metadata: Mapping[str, str], channels: int = 3) -> None:
    """Write a network as MINDIR.

    Args:
        path: The file, whose name ends in ``.mindir``.
        network: The network, in evaluation mode.
        metadata: The entries of the file's ``user_info``.
        channels: The number of the images' channels.

    Raises:
        ExportError: If the network is larger than MindSpore writes into one file.
    """
    size = sum(parameter.nbytes for parameter in network.get_parameters())
    if size > _LARGEST:
        raise ExportError(
            f"format=mindir: the weights take {size / 2**30:.1f} GiB, and MindSpore splits files above 1; use "
            "format=safetensors"
        )

    def describe(model: Any) -> None:
        for key, value in metadata.items():
            model.user_info.add(key=key, value=value)

    grows = isinstance(network, FCN) and not network.published  # those pad images of all sizes alike
    cell = (_AnySize(network) if grows else network).set_train(False)
    images = Tensor(shape=[None, channels, None, None], dtype=ms.float32)
    ms.export(cell, images, file_name=str(path), file_format="MINDIR", custom_func=describe)


def mindir_runner(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from images to logits that runs a MINDIR file's graph; both are N x ... float32 arrays."""
    cell = nn.GraphCell(ms.load(str(path)))
    return lambda images: cell(Tensor(images)).asnumpy()
