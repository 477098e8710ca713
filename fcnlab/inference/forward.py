"""The compiled forward pass: one graph for images of all sizes, and one for each size that is frequent."""

from __future__ import annotations

import threading
from typing import Literal

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

Output = Literal["logits", "probabilities", "classes"]
"""Logits or probabilities, N x C x H x W float32, or the class of the largest logit, N x H x W int32."""

_PIXELS = 1408**2
"""The most pixels of all sizes with a graph of their own, as each keeps a part of its memory after a forward pass."""
_OFTEN = 3
"""The number of times that a size comes before a second of compiling is worth it."""


class ForwardPass:
    """Runs a network on arrays; several threads may call it at once.

    A graph for one size is up to a quarter faster than the one for all sizes, but takes a second or more to compile.

    Args:
        network: A cell in evaluation mode, from N x channels x H x W float32 to N x C x H x W logits.
        channels: The number of the images' channels.
    """

    def __init__(self, network: nn.Cell, channels: int = 3) -> None:
        self._network = network
        self._channels = channels
        self._any_size: dict[Output, _CompiledForward] = {}
        self._one_size: dict[tuple[Output, tuple[int, ...]], _CompiledForward] = {}
        self._seen: dict[tuple[Output, tuple[int, ...]], int] = {}
        self._lock = threading.Lock()

    def __call__(self, images: np.ndarray, output: Output) -> np.ndarray:
        """Run the network once.

        Args:
            images: N x channels x H x W float32, normalised; H and W are multiples of 32.
            output: The kind of the result.
        """
        with self._lock:  # MindSpore does not promise that threads may share a graph
            return self._graph(output, images.shape)(Tensor(images)).asnumpy()

    def _graph(self, output: Output, shape: tuple[int, ...]) -> _CompiledForward:
        key = (output, shape)
        self._seen[key] = self._seen.get(key, 0) + 1
        # The very first size is probably that of all images.
        often = self._seen[key] >= _OFTEN or len(self._seen) == 1
        if key not in self._one_size and often and self._has_room(shape):
            self._one_size[key] = _CompiledForward(self._network, output)
        if key in self._one_size:
            return self._one_size[key]
        if output not in self._any_size:
            graph = _CompiledForward(self._network, output)
            graph.set_inputs(Tensor(shape=[None, self._channels, None, None], dtype=ms.float32))
            self._any_size[output] = graph
        return self._any_size[output]

    def _has_room(self, shape: tuple[int, ...]) -> bool:
        pixels = sum(_pixels(kept) for _, kept in self._one_size)
        return not self._one_size or pixels + _pixels(shape) <= _PIXELS


def _pixels(shape: tuple[int, ...]) -> int:
    return shape[0] * shape[2] * shape[3]


class _CompiledForward(nn.Cell):
    def __init__(self, network: nn.Cell, output: Output) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.output = output

    @ms.jit  # MindSpore's graph mode would be set for the whole process that uses the network
    def construct(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        if self.output == "classes":
            return logits.argmax(axis=1)
        if self.output == "probabilities":
            return ops.softmax(logits, axis=1)
        return logits
