"""What predictions are measured by: the confusion matrix, boundaries, and the partition into cells.

Everything here is numpy and OpenCV.
"""

from fcnlab.metrics.boundary import BoundaryF1
from fcnlab.metrics.confusion import ConfusionMatrix
from fcnlab.metrics.partition import PartitionScores, thin

__all__ = ["BoundaryF1", "ConfusionMatrix", "PartitionScores", "thin"]
