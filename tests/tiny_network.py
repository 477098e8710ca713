"""A tiny checkpoint as a training leaves it, whose network tells its three classes apart, and images for it."""

import numpy as np
from mindspore import Tensor

import fcnlab
from fcnlab.experiment import loading
from fcnlab.models.checkpoint import save_weights

ARCH = {"name": "fcn8s", "num_classes": 3, "width": 1 / 32, "norm": "batch", "dropout": 0.5}
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
METADATA = {
    "arch": ARCH,
    "class_names": ["background", "cell", "Hülle"],
    "ignore_index": 255,
    "palette": [[0, 0, 0], [250, 120, 10], [20, 60, 240]],
    "normalisation": {"mean": MEAN, "std": STD},
    "step": 12,
}


def save_checkpoint(path, arch=ARCH, metadata=None):
    """Write a checkpoint of random scores, asymmetric upsampling and batch norm statistics as after a training."""
    network = fcnlab.build_model(**arch)
    random = np.random.default_rng(1)
    for name, parameter in network.parameters_dict().items():
        value = parameter.asnumpy()
        noise = random.standard_normal(value.shape).astype(np.float32)
        if name.startswith("score"):
            value = 0.1 * (noise - noise.mean(axis=0))  # logits of a few units, as after a training
        elif name.startswith("upsample"):
            value = value + 0.05 * noise
        elif name.endswith(("moving_mean", "beta", "bias")):
            value = 0.1 * noise
        elif name.endswith(("moving_variance", "gamma")):
            value = 1 + 0.2 * np.abs(noise)
        else:
            continue
        parameter.set_data(Tensor(np.ascontiguousarray(value, dtype=np.float32)))
    save_weights(path, network, {**METADATA, "arch": arch, **(metadata or {})})
    return path


def some_image(height, width, seed=0):
    """Return noise of several coarsenesses, H x W x 3 uint8, in which the network sees more than one class."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (-(-height // 16), -(-width // 16), 3), dtype=np.uint8)
    fine = random.integers(0, 40, (height, width, 3), dtype=np.uint8)
    large = coarse.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
    return np.clip(large.astype(int) + fine, 0, 255).astype(np.uint8)


def some_images(count, height, width):
    """Return different images of one size, N x H x W x 3 uint8."""
    return np.stack([some_image(height, width, seed) for seed in range(count)])


def expected_labels(checkpoint, images):
    """Return the arg max of the logits, N x H x W."""
    pixels = (images / 255 - np.array(MEAN)) / np.array(STD)
    logits = fcnlab.load(checkpoint)(Tensor(pixels.transpose(0, 3, 1, 2).astype(np.float32)))
    labels = logits.asnumpy().argmax(axis=1)
    assert len(np.unique(labels)) > 1  # otherwise this reference would agree with a constant
    return labels


def compile_once(patch):
    """Let the commands of a test file share the networks that they load, since compiling one takes a second."""
    loaded, read = {}, loading.read_network

    def shared(path, source):
        key = path.read_bytes()
        if key not in loaded:
            loaded[key] = read(path, source)
        return loaded[key]

    patch.setattr(loading, "read_network", shared)


def arrays(network):
    """Return the values of a network's parameters by name."""
    return {name: parameter.asnumpy() for name, parameter in network.parameters_dict().items()}
