"""Trained networks in use, from images of any size to label maps. It knows no Hydra and no MLflow."""

from fcnlab.inference.trained import DEFAULT_TILE, TrainedNetwork

__all__ = ["DEFAULT_TILE", "TrainedNetwork"]
