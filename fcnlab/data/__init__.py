"""Data sets, joint image and label transforms, and the input pipeline.

Everything here is numpy and OpenCV: no MindSpore, no Hydra, no MLflow, and no configuration but the values it is given.
"""

from fcnlab.data.dataset import SPLITS, Dataset, Sample
from fcnlab.data.loader import Batch, EvalLoader, TrainLoader, normalise
from fcnlab.data.transforms import TrainTransform
from fcnlab.data.wrappers import Cached

__all__ = [
    "SPLITS",
    "Batch",
    "Cached",
    "Dataset",
    "EvalLoader",
    "Sample",
    "TrainLoader",
    "TrainTransform",
    "normalise",
]
