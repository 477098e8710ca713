"""Fully convolutional networks for semantic segmentation on MindSpore, configured by Hydra and tracked in MLflow."""

__version__ = "0.1.0"
