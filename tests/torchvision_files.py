"""State dicts of torchvision's names and random values, and what torchvision's networks compute with them, in numpy."""

import numpy as np
from numpy_layers import batch_norm, convolve, interpolate, max_pool, relu

UNITS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class _Maker:
    def __init__(self, width, seed):
        self.random, self.width, self.arrays = np.random.default_rng(seed), width, {}

    def scaled(self, channels):
        return max(1, round(channels * self.width))

    def convolution(self, name, inputs, outputs, kernel, bias=False):
        weight = self.random.standard_normal((outputs, inputs, kernel, kernel)) * np.sqrt(2 / (inputs * kernel**2))
        self.arrays[f"{name}.weight"] = weight.astype(np.float32)
        if bias:
            self.arrays[f"{name}.bias"] = self.random.standard_normal(outputs).astype(np.float32) / 10

    def norm(self, name, channels):
        values = self.random.standard_normal((4, channels)).astype(np.float32) / 10
        parts = {"weight": 0.8, "bias": 0, "running_mean": 0, "running_var": 1}
        for (part, offset), value in zip(parts.items(), values, strict=True):
            self.arrays[f"{name}.{part}"] = value + np.float32(offset)
        self.arrays[f"{name}.num_batches_tracked"] = np.array(7, np.int64)


def resnet(depth, width=1 / 32, seed=0, prefix=""):
    """A ResNet's state dict."""
    maker, deep, inputs = _Maker(width, seed), depth >= 50, max(1, round(64 * width))
    maker.convolution(f"{prefix}conv1", 3, inputs, 7)
    maker.norm(f"{prefix}bn1", inputs)
    for stage, (units, full) in enumerate(zip(UNITS[depth], (64, 128, 256, 512), strict=True), 1):
        channels, outputs = maker.scaled(full), maker.scaled(full * (4 if deep else 1))
        for unit in range(units):
            name = f"{prefix}layer{stage}.{unit}"
            sizes = [(inputs, channels, 1), (channels, channels, 3), (channels, outputs, 1)]
            sizes = sizes if deep else [(inputs, channels, 3), (channels, outputs, 3)]
            for index, (before, after, kernel) in enumerate(sizes, 1):
                maker.convolution(f"{name}.conv{index}", before, after, kernel)
                maker.norm(f"{name}.bn{index}", after)
            if unit == 0 and (stage > 1 or inputs != outputs):
                maker.convolution(f"{name}.downsample.0", inputs, outputs, 1)
                maker.norm(f"{name}.downsample.1", outputs)
            inputs = outputs
    maker.arrays[f"{prefix}fc.weight"] = np.zeros((10, inputs), np.float32)
    maker.arrays[f"{prefix}fc.bias"] = np.zeros(10, np.float32)
    return maker.arrays


def fcn_resnet(depth, classes=5, width=1 / 32, seed=0):
    """The state dict of an FCN on a ResNet, with its auxiliary classifier."""
    arrays = resnet(depth, width, seed, "backbone.")
    arrays = {name: array for name, array in arrays.items() if not name.startswith("backbone.fc.")}
    maker = _Maker(width, seed + 1)
    for head, full in (("classifier", 2048), ("aux_classifier", 1024)):
        inner = maker.scaled(full) // 4
        maker.convolution(f"{head}.0", maker.scaled(full), inner, 3)
        maker.norm(f"{head}.1", inner)
        maker.convolution(f"{head}.4", inner, classes, 1, bias=True)
    return arrays | maker.arrays


def alexnet(width=1 / 32, seed=0):
    """AlexNet's state dict."""
    maker, inputs = _Maker(width, seed), 3
    for place, full, kernel in ((0, 64, 11), (3, 192, 5), (6, 384, 3), (8, 256, 3), (10, 256, 3)):
        maker.convolution(f"features.{place}", inputs, maker.scaled(full), kernel, bias=True)
        inputs = maker.scaled(full)
    hidden = maker.scaled(4096)
    for place, before, after in ((1, inputs * 36, hidden), (4, hidden, hidden), (6, hidden, 10)):
        weight = maker.random.standard_normal((after, before)).astype(np.float32)
        maker.arrays[f"classifier.{place}.weight"] = weight
        maker.arrays[f"classifier.{place}.bias"] = np.ones(after, np.float32)
    return maker.arrays


def resnet_maps(arrays, depth, image, prefix="", dilated=False):
    """The five maps of a ResNet, finest first."""
    arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
    parts = ("weight", "bias", "running_mean", "running_var")

    def layer(convolution, norm, features, stride=1, padding=0, dilation=1):
        features = convolve(features, arrays[f"{prefix}{convolution}.weight"], None, stride, padding, dilation)
        return batch_norm(features, *(arrays[f"{prefix}{norm}.{part}"] for part in parts))

    features = relu(layer("conv1", "bn1", image, 2, 3))
    maps, dilation = [features], 1
    features = max_pool(features, 3, padding=1)
    for stage, units in enumerate(UNITS[depth], 1):
        for unit in range(units):
            name, spread = f"layer{stage}.{unit}", dilation
            stride = 2 if unit == 0 and stage > 1 else 1
            if dilated and stride == 2 and stage > 2:
                stride, dilation = 1, dilation * 2
            if depth >= 50:
                changed = relu(layer(f"{name}.conv1", f"{name}.bn1", features))
                changed = relu(layer(f"{name}.conv2", f"{name}.bn2", changed, stride, spread, spread))
                changed = layer(f"{name}.conv3", f"{name}.bn3", changed)
            else:
                changed = relu(layer(f"{name}.conv1", f"{name}.bn1", features, stride, 1))
                changed = layer(f"{name}.conv2", f"{name}.bn2", changed, 1, 1)
            if f"{prefix}{name}.downsample.0.weight" in arrays:
                features = layer(f"{name}.downsample.0", f"{name}.downsample.1", features, stride)
            features = relu(features + changed)
        maps.append(features)
    return maps


def fcn_resnet_logits(arrays, depth, image):
    """The logits of an FCN on a dilated ResNet."""
    features = resnet_maps(arrays, depth, image, "backbone.", dilated=True)[-1]
    arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
    features = convolve(features, arrays["classifier.0.weight"], padding=1)
    parts = ("weight", "bias", "running_mean", "running_var")
    features = relu(batch_norm(features, *(arrays[f"classifier.1.{part}"] for part in parts)))
    score = convolve(features, arrays["classifier.4.weight"], arrays["classifier.4.bias"])
    return interpolate(score, *image.shape[1:])


def alexnet_maps(arrays, image):
    """The map of AlexNet's first convolution and the three pooled ones."""
    arrays, maps, features = {name: array.astype(np.float64) for name, array in arrays.items()}, [], image
    for place, stride, padding in ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)):
        weight, bias = (arrays[f"features.{place}.{part}"] for part in ("weight", "bias"))
        features = relu(convolve(features, weight, bias, stride, padding))
        if place == 0:
            maps.append(features)
        if place in (0, 3, 10):
            features = max_pool(features, 3)
            maps.append(features)
    return maps
