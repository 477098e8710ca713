"""What an MLflow model of this package runs: MLflow executes this file to load one.

Not to be imported: executing this file tells MLflow which model it is.
"""

from __future__ import annotations

import fcnlab  # before MindSpore, which could not load after MLflow without it

# isort: split
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from fcnlab.core.environment import MAX_PIXELS


class ServedModel(PythonModel):
    """Label maps from a checkpoint."""

    def load_context(self, context: PythonModelContext) -> None:
        """Build the network of the model's checkpoint."""
        self._network = fcnlab.load(context.artifacts["checkpoint"])

    def predict(self, model_input: np.ndarray) -> np.ndarray:
        """Classify every pixel; several threads may call this at once.

        Args:
            model_input: RGB images, N x H x W x 3, uint8, any H and W from 32 up; or with the network's own channels
                and bits.

        Returns:
            Class indices, N x H x W, int32.

        Raises:
            MlflowException: If an image is too small or too large, which a server answers as a bad request.
        """
        from fcnlab.models.fcn import MINIMUM_SIZE  # it brings MindSpore, which packaging a model can do without

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
            label[...] = self._network.predict(image)
        return labels


set_model(ServedModel())
