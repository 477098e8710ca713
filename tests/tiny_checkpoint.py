"""A checkpoint as a training leaves it, and what its network makes of images."""

import numpy as np
from mindspore import Tensor

import fcnlab
from fcnlab.models.checkpoint import save_weights

ARCH = {"name": "fcn16s", "num_classes": 3, "width": 1 / 32, "norm": "none", "dropout": 0.5}
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
METADATA = {
    "arch": ARCH,
    "class_names": ["background", "cell", "Hülle"],
    "ignore_index": 255,
    "normalisation": {"mean": MEAN, "std": STD},
}


def save_checkpoint(path):
    """Random scores: those of a new network are all zero, and every pixel would be of the first class."""
    network = fcnlab.build_model(**ARCH)
    random = np.random.default_rng(1)
    for parameter in network.trainable_params():
        if parameter.name.startswith("score") and parameter.name.endswith("weight"):
            weight = random.standard_normal(parameter.shape, dtype=np.float32)
            parameter.set_data(Tensor(weight - weight.mean(axis=0)))
    save_weights(path, network, METADATA)
    return path


def some_images(count, height, width):
    """Uint8 noise of several coarsenesses, so that the network sees more than one class."""
    random = np.random.default_rng(height)
    coarse = random.integers(0, 256, (count, -(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]


def expected_labels(checkpoint, images):
    """The arg max of the logits, N x H x W."""
    pixels = (images / 255 - np.array(MEAN)) / np.array(STD)
    logits = fcnlab.load(checkpoint)(Tensor(pixels.transpose(0, 3, 1, 2).astype(np.float32)))
    labels = logits.asnumpy().argmax(axis=1)
    assert len(np.unique(labels)) > 1  # otherwise this reference would agree with a constant
    return labels
