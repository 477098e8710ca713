"""Convolutions of stride 1 whose output is as large as their input, and their gradients, by the definition."""

import numpy as np


def shifted(images, row, column, size):
    """Return ``images``, shifted so that pixel (y + row - size // 2, x + column - size // 2) comes to (y, x)."""
    reach = size // 2
    padded = np.pad(images.astype(np.float64), ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    return padded[:, :, row : row + images.shape[2], column : column + images.shape[3]]


def convolution(images, weight):
    """Convolve in double precision."""
    size = weight.shape[2]
    return sum(
        np.einsum("nihw,oi->nohw", shifted(images, row, column, size), weight[:, :, row, column].astype(np.float64))
        for row, column in np.ndindex(size, size)
    )


def input_gradient(gradient, weight):
    """Return the gradient of the images from that of the output."""
    return convolution(gradient, weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3))


def weight_gradient(images, gradient, size):
    """Return the gradient of a weight of that size from that of the output."""
    result = np.zeros((gradient.shape[1], images.shape[1], size, size))
    for row, column in np.ndindex(size, size):
        moved = shifted(images, row, column, size)
        result[:, :, row, column] = np.einsum("nihw,nohw->oi", moved, gradient.astype(np.float64))
    return result


def all_three(images, weight, bias, gradient):
    """Return the output, the gradient of the images and that of the weight."""
    return (
        convolution(images, weight) + bias[:, None, None],
        input_gradient(gradient, weight),
        weight_gradient(images, gradient, weight.shape[2]),
    )
