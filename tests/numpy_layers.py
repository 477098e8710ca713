"""Layers written anew in numpy, for references that share nothing with the package's networks.

All maps are of one image without its batch axis, C x H x W.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def relu(values):
    return np.maximum(values, 0)


def convolve(features, weight, bias=None, stride=1, padding=0, dilation=1):
    """A convolution; the groups follow from the shapes."""
    if dilation > 1:
        spread = np.zeros((*weight.shape[:2], *(dilation * (side - 1) + 1 for side in weight.shape[2:])))
        spread[:, :, ::dilation, ::dilation] = weight
        weight = spread
    features = np.pad(features, ((0, 0), (padding, padding), (padding, padding)))
    groups = len(features) // weight.shape[1]
    maps = []
    for part, kernels in zip(np.split(features, groups), np.split(weight, groups), strict=True):
        windows = sliding_window_view(part, weight.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
        maps.append(np.tensordot(kernels, windows, axes=((1, 2, 3), (0, 3, 4))))
    result = np.concatenate(maps)
    return result if bias is None else result + bias[:, None, None]


def max_pool(features, kernel, padding=0):
    """Max-pooling of stride 2, rounded down."""
    sides = ((0, 0), (padding, padding), (padding, padding))
    features = np.pad(features, sides, constant_values=-np.inf)
    return sliding_window_view(features, (kernel, kernel), axis=(1, 2))[:, ::2, ::2].max(axis=(3, 4))


def batch_norm(features, gamma, beta, mean, variance):
    """Batch normalisation in evaluation."""
    columns = (values[:, None, None] for values in (gamma, beta, mean, variance))
    gamma, beta, mean, variance = columns
    return (features - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def interpolate(values, height, width):
    """Bilinear interpolation whose corners are aligned, one cell after the other."""
    result = np.empty((len(values), height, width))
    places = []
    for length, cells in ((height, values.shape[1]), (width, values.shape[2])):
        found = np.maximum((np.arange(length) + 0.5) * cells / length - 0.5, 0)
        lower = np.minimum(found.astype(int), cells - 1)
        places.append((lower, np.minimum(lower + 1, cells - 1), found - lower))
    (top, bottom, down), (left, right, across) = places
    for row in range(height):
        for column in range(width):
            upper = values[:, top[row], left[column]] * (1 - across[column])
            upper = upper + values[:, top[row], right[column]] * across[column]
            lower = values[:, bottom[row], left[column]] * (1 - across[column])
            lower = lower + values[:, bottom[row], right[column]] * across[column]
            result[:, row, column] = upper * (1 - down[row]) + lower * down[row]
    return result
