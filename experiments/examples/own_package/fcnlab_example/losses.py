"""A loss with a key of its own."""

from dataclasses import dataclass

from mindspore import Tensor, nn, ops


@dataclass
class TverskyConfig:
    """The keys of the loss, in a class that derives from none."""

    alpha: float = 0.5


class Tversky(nn.Cell):
    """One minus the Tversky index of class 1 (Salehi et al. 2017); void pixels do not count."""

    Config = TverskyConfig

    def __init__(self, ignore_index: int, num_classes: int, alpha: float) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.alpha = alpha

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        found = ops.softmax(logits, 1)[:, 1]
        found = found * (labels != self.ignore_index).astype(found.dtype)
        wanted = (labels == 1).astype(found.dtype)
        hits = (found * wanted).sum()
        misses = self.alpha * (found * (1 - wanted)).sum() + (1 - self.alpha) * ((1 - found) * wanted).sum()
        return 1 - (hits + 1) / (hits + misses + 1)
