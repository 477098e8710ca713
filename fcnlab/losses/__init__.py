"""Loss cells: from logits and labels to a scalar."""

from fcnlab.losses.cross_entropy import CrossEntropy, Focal
from fcnlab.losses.dice import Combined, Dice
from fcnlab.losses.weights import check_class_weights

__all__ = ["Combined", "CrossEntropy", "Dice", "Focal", "check_class_weights"]
