"""The code of a packaged model: MLflow executes this file to load one.

No other module imports this file, since executing it tells MLflow which model to load.
"""

from __future__ import annotations

import fcnlab  # first, as MindSpore cannot be loaded after MLflow without it

# isort: split
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from fcnlab.core.environment import MAX_PIXELS
from fcnlab.core.memory import Release


class ServedModel(PythonModel):
    """Turns images into label maps with the network of a checkpoint."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the network of the model's checkpoint."""
        self._network = fcnlab.load(context.artifacts["checkpoint"])
        self._memory = Release()

    def predict(self, model_input: np.ndarray) -> np.ndarray:
        """Classify every pixel. Several threads may call this at once.

        Args:
            model_input: N x H x W x 3 uint8 RGB images with H and W of at least 32, or images with the channels and
                bits on which the network was trained.

        Returns:
            Class indices, N x H x W, int32.

        Raises:
            MlflowException: If an image is too small or too large. A server answers this as a bad request.
        """
        # Not at the top: packaging a model executes this file, and does not need MindSpore.
        from fcnlab.models.fcn import MINIMUM_SIZE

        self._memory.soon()  # the document that held the images took ten times as much, and is freed in a moment
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
        for image, label in zip(model_input, labels, strict=True):  # one by one, to save memory
            label[...] = self._network.predict(image)
        self._memory.soon()
        return labels


set_model(ServedModel())
