"""Loss cells, from logits and labels to a scalar.

All of them are a `SummedLoss`, so that the loss of many images follows from sums over each of them: ``val/loss`` is the
loss of all validation images as one batch, which is what training minimises.
"""

from fcnlab.losses.class_weights import check_class_weights
from fcnlab.losses.cross_entropy import CrossEntropy, Focal
from fcnlab.losses.dice import Combined, Dice
from fcnlab.losses.sums import AccumulatedLoss, SummedLoss

__all__ = ["AccumulatedLoss", "Combined", "CrossEntropy", "Dice", "Focal", "SummedLoss", "check_class_weights"]
