"""The networks that FCN's authors published, by their definition, in numpy."""

import mindspore as ms
import numpy as np
from mindspore import Tensor
from numpy.lib.stride_tricks import sliding_window_view
from numpy_layers import convolve, relu

from fcnlab.kernels import stock_operators
from fcnlab.models import build_model

STRIDES = {"fcn32s": 32, "fcn16s": 16, "fcn8s": 8, "fcn8s_atonce": 8, "fcn_alexnet": 32}


def pool(features, kernel):
    """Max-pooling of stride 2, rounded up."""
    height, width = (-(-(length - kernel) // 2) * 2 + kernel for length in features.shape[1:])
    beyond = ((0, 0), (0, height - features.shape[1]), (0, width - features.shape[2]))
    features = np.pad(features, beyond, constant_values=-np.inf)
    return sliding_window_view(features, (kernel, kernel), axis=(1, 2))[:, ::2, ::2].max(axis=(3, 4))


def deconvolve(features, weight, stride):
    kernel = weight.shape[2]
    height, width = (stride * (length - 1) + kernel for length in features.shape[1:])
    result = np.zeros((weight.shape[1], height, width))
    for row, column in np.ndindex(*features.shape[1:]):
        place = np.s_[:, stride * row : stride * row + kernel, stride * column : stride * column + kernel]
        result[place] += np.tensordot(features[:, row, column], weight, axes=1)
    return result


def crop(values, offset, like):
    return values[:, offset : offset + like.shape[1], offset : offset + like.shape[2]]


def response_norm(features):
    squares = np.pad(features**2, ((2, 2), (0, 0), (0, 0)))
    return features / (1 + 1e-4 / 5 * sum(squares[shift : shift + len(features)] for shift in range(5))) ** 0.75


def published(name, weights, image):
    """Compute the logits of one image, C x H x W, by the published definition of a network."""

    def layer(name, features, **options):
        return convolve(features, weights[f"{name}.weight"], weights[f"{name}.bias"], **options)

    def up(name, features, stride):
        return deconvolve(features, weights[f"{name}.weight"], stride)

    features, pools = image, []
    if name == "fcn_alexnet":
        features = response_norm(pool(relu(layer("encoder.block1.conv1", features, stride=4, padding=100)), 3))
        features = response_norm(pool(relu(layer("encoder.block2.conv1", features, padding=2)), 3))
        for index in (1, 2, 3):
            features = relu(layer(f"encoder.block3.conv{index}", features, padding=1))
        pools = [pool(features, 3)]
    else:
        for block, depth in enumerate((2, 2, 3, 3, 3), 1):
            for index in range(1, depth + 1):
                padding = 100 if (block, index) == (1, 1) else 1
                features = relu(layer(f"encoder.block{block}.conv{index}", features, padding=padding))
            features = pool(features, 2)
            pools.append(features)
    score = layer("score", relu(layer("fc7", relu(layer("fc6", pools[-1])))))
    stride, at_once = STRIDES[name], name == "fcn8s_atonce"
    if stride <= 16:
        score = up("upsample_pool4", score, 2)
        score = score + crop(layer("score_pool4", pools[3] * (0.01 if at_once else 1)), 5, score)
    if stride <= 8:
        score = up("upsample_pool3", score, 2)
        score = score + crop(layer("score_pool3", pools[2] * (0.0001 if at_once else 1)), 9, score)
    offset = {32: 19, 16: 27, 8: 31}[stride] if name != "fcn_alexnet" else 18
    return crop(up("upsample", score, stride), offset, image)


def normalised(features, gamma, beta, mean, variance):
    """Batch normalisation as it computes in evaluation."""
    gamma, beta, mean, variance = (part[:, None, None] for part in (gamma, beta, mean, variance))
    return (features - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def random_network(name, width=1 / 32):
    """Return a network without dropout of random weights, also in its biases, scores and upsampling."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    with stock_operators():
        network = build_model(f"paper/{name}", num_classes=3, width=width, dropout=0, seed=1)
    random = np.random.default_rng(2)
    for key, parameter in network.parameters_dict().items():
        noise = random.standard_normal(parameter.shape)
        if key.startswith("upsample"):
            noise = parameter.asnumpy() + 0.05 * noise
        elif key.endswith("bias"):
            noise = np.abs(0.1 * noise)  # so that few ReLUs are dead
        elif not key.startswith("score"):
            continue
        parameter.set_data(Tensor(noise.astype(np.float32)))
    return network
