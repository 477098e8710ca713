"""What an MLflow model of this package runs: MLflow executes this file to load one.

Not to be imported: executing this file tells MLflow which model it is.
"""

from __future__ import annotations

import threading
from pathlib import Path

import fcnlab  # noqa: F401 - before MindSpore, which could not load after MLflow without it

# isort: split
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from fcnlab.data.loader import normalise
from fcnlab.environment import MAX_PIXELS
from fcnlab.loading import read_network
from fcnlab.models.fcn import MINIMUM_SIZE


class Classes(nn.Cell):
    """The class of every pixel, N x H x W, of images, N x 3 x H x W."""

    def __init__(self, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        # A dynamic height and width compile once for images of all sizes.
        self.set_inputs(Tensor(shape=[None, 3, None, None], dtype=ms.float32))

    @ms.jit  # not by MindSpore's graph mode, which would be set for the whole process that loads this model
    def construct(self, images: Tensor) -> Tensor:
        """Choose the largest logit."""
        return self.network(images).argmax(axis=1)


class ServedModel(PythonModel):
    """Label maps from a checkpoint."""

    def load_context(self, context: PythonModelContext) -> None:
        """Build the network of the model's checkpoint."""
        path = context.artifacts["checkpoint"]
        network, metadata = read_network(Path(path), path)
        self._classes = Classes(network)
        self._normalisation = metadata["normalisation"]
        self._lock = threading.Lock()

    def predict(self, model_input: np.ndarray) -> np.ndarray:
        """Classify every pixel; several threads may call this at once.

        Args:
            model_input: RGB images, N x H x W x 3, uint8, any H and W from 32 up.

        Returns:
            Class indices, N x H x W, int32.

        Raises:
            MlflowException: If an image is too small or too large, which a server answers as a bad request.
        """
        height, width = model_input.shape[1:3]
        if min(height, width) < MINIMUM_SIZE:
            raise MlflowException.invalid_parameter_value(
                f"an image must be at least {MINIMUM_SIZE} x {MINIMUM_SIZE} pixels, not {height} x {width}"
            )
        if height * width > MAX_PIXELS:
            raise MlflowException.invalid_parameter_value(
                f"an image may have {MAX_PIXELS:,} pixels, not {height} x {width}: cut it into tiles"
            )
        labels = np.empty(model_input.shape[:3], np.int32)
        for image, label in zip(model_input, labels, strict=True):  # one by one: the memory that one image takes
            batch = Tensor(normalise(image, **self._normalisation)[np.newaxis])
            with self._lock:  # MindSpore does not promise that threads may share a graph
                label[...] = self._classes(batch).asnumpy()[0]
        return labels


set_model(ServedModel())
