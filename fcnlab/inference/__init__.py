"""The trained network in use: images of any size in, label maps out. It knows no Hydra and no MLflow."""

from fcnlab.inference.trained import DEFAULT_TILE, TrainedNetwork

__all__ = ["DEFAULT_TILE", "TrainedNetwork"]
