"""The losses by their papers' formulas, in float64 numpy."""

import numpy as np

VOID = 255
WEIGHTS = [1.0, 2.5, 0.0, 0.5]
"""The weights of four classes."""


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def focal(probabilities, labels, gamma=2.0, weights=None):
    """Lin et al., equation 5, a pixel at a time."""
    total, loss = 0.0, 0.0
    for image, row, column in np.ndindex(labels.shape):
        label = labels[image, row, column]
        if label != VOID:
            p = probabilities[image, label, row, column]
            weight = weights[label] if weights else 1.0
            total += weight
            loss -= weight * (1 - p) ** gamma * np.log(p)
    return loss / total


def dice(probabilities, labels, weights=None):
    """Milletari et al., section 3, a class at a time."""
    counted = labels != VOID
    losses, shares = [], []
    for index in range(probabilities.shape[1]):
        g = (labels == index)[counted].astype(np.float64)
        if g.sum() == 0:
            continue
        p = probabilities[:, index][counted]
        losses.append(1 - 2 * (p * g).sum() / ((p**2).sum() + (g**2).sum()))
        shares.append(weights[index] if weights else 1.0)
    return np.average(losses, weights=shares)
