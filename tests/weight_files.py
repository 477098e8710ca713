"""Small files of weights in the formats of other packages, written by hand, so that no test needs those packages."""

import struct
import zipfile

import numpy as np

DEPTHS = (2, 2, 3, 3, 3)
"""The convolutions in each block of VGG-16."""

# Protobuf


def varint(value):
    out = bytearray()
    value &= 2**64 - 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field, value):
    return varint(field << 3) + varint(value)


def content(field, value):
    value = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(value)) + value


def onnx_tensor(name, array, **how):
    """A TensorProto: ``raw`` as it mostly is, in a field of its own, or as bfloat16."""
    dims = b"".join(number(1, size) for size in array.shape)
    if how.get("bfloat16"):
        data = number(2, 16) + content(9, (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes())
    elif how.get("half"):
        bits = array.astype("<f2").view("<u2").ravel()
        data = number(2, 10) + content(5, b"".join(varint(int(value)) for value in bits))
    elif how.get("raw", True):
        data = number(2, 1) + content(9, array.astype("<f4").tobytes())
    else:
        data = number(2, 1) + content(4, array.astype("<f4").tobytes())
    return dims + data + content(8, name)


def onnx_node(kind, inputs, outputs):
    return b"".join([*(content(1, name) for name in inputs), *(content(2, name) for name in outputs), content(4, kind)])


def onnx_file(tensors, nodes=(), metadata=None):
    """A ModelProto of tensors, as bytes each, and nodes."""
    graph = b"".join([*(content(1, node) for node in nodes), *(content(5, tensor) for tensor in tensors)])
    entries = (content(14, content(1, key) + content(2, value)) for key, value in (metadata or {}).items())
    return number(1, 8) + content(2, "tests") + content(7, graph) + b"".join(entries)


def caffe_file(layers, version=2):
    """A NetParameter: from the name of a layer to its blobs, as Caffe wrote them until 2014 (1) or since (2)."""
    parts = [content(1, "net")]
    for name, blobs in layers.items():
        written = [caffe_blob(blob, version) for blob in blobs]
        if version == 1:
            parts.append(content(2, content(4, name) + number(5, 4) + b"".join(content(6, blob) for blob in written)))
        else:
            layer = content(1, name) + content(2, "Convolution")
            parts.append(content(100, layer + b"".join(content(7, blob) for blob in written)))
    return b"".join(parts)


def caffe_blob(array, version):
    data = content(5, array.astype("<f4").tobytes())
    if version == 1:
        shape = (1,) * (4 - array.ndim) + array.shape
        return b"".join(number(index, size) for index, size in enumerate(shape, 1)) + data
    return content(7, content(1, b"".join(map(varint, array.shape)))) + data


# PyTorch

_STORAGES = {
    "f4": "FloatStorage",
    "f2": "HalfStorage",
    "f8": "DoubleStorage",
    "i8": "LongStorage",
    "u2": "BFloat16Storage",
}


def _text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def _integer(value):
    return b"J" + struct.pack("<i", value)


def torch_tensor(key, array, shape=None, strides=None, offset=0, storage=None, size=None):
    """The pickle of a tensor that sees a storage."""
    shape = array.shape if shape is None else shape
    strides = [step // array.itemsize for step in array.strides] if strides is None else strides
    storage = storage or _STORAGES[array.dtype.str[1:]]
    size = array.size if size is None else size
    return b"".join(
        [
            b"ctorch._utils\n_rebuild_tensor_v2\n((",
            *(_text("storage"), b"ctorch\n", storage.encode(), b"\n", _text(key), _text("cpu"), _integer(size), b"tQ"),
            *(_integer(offset), b"(", *map(_integer, shape), b"t(", *map(_integer, strides), b"t"),
            b"\x89ccollections\nOrderedDict\n)RtR",
        ]
    )


def torch_dict(items):
    """The pickle of an OrderedDict of what is pickled already."""
    pairs = b"".join(_text(key) + value for key, value in items.items())
    return b"ccollections\nOrderedDict\n)R(" + pairs + b"u"


def torch_file(path, arrays, pickled=None):
    """A ``.pth`` of float arrays; ``pickled`` takes the place of the pickle of their dict."""
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    tensors = {name: torch_tensor(str(index), array) for index, (name, array) in enumerate(arrays.items())}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + (torch_dict(tensors) if pickled is None else pickled) + b".")
        archive.writestr("archive/version", "3\n")
        for index, array in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{index}", array.tobytes())
    return path


# VGG


def vgg_convolutions(width=1 / 32, depths=DEPTHS, seed=0):
    """The weights and biases of a VGG's convolutions, O x I x 3 x 3, with their block and place in it."""
    random = np.random.default_rng(seed)
    inputs, layers = 3, {}
    for block, (depth, channels) in enumerate(zip(depths, (64, 128, 256, 512, 512), strict=True), 1):
        for index in range(1, depth + 1):
            outputs = max(1, round(channels * width))
            weight = random.standard_normal((outputs, inputs, 3, 3)) * np.sqrt(2 / (9 * inputs))
            layers[block, index] = weight.astype(np.float32), random.standard_normal(outputs).astype(np.float32)
            inputs = outputs
    return layers


def vgg_dense(width=1 / 32, seed=1):
    """The matrices (outputs x inputs) and biases of VGG's first two dense layers."""
    random = np.random.default_rng(seed)
    channels, hidden = round(512 * width), round(4096 * width)
    return {
        name: (random.standard_normal((hidden, inputs), np.float32), random.standard_normal(hidden, np.float32))
        for name, inputs in (("fc6", channels * 49), ("fc7", hidden))
    }


def torchvision_vgg(norm=False, layer="features", mindspore=False, **options):
    """The names that torchvision (or MindSpore's model zoo) gives the layers, with batch norm if asked for."""
    random, arrays, position, block_before = np.random.default_rng(2), {}, 0, 1
    norms = ("gamma", "beta", "moving_mean", "moving_variance") if mindspore else ("weight", "bias", "running_mean",
                                                                                   "running_var")  # fmt: skip
    for (block, _), (weight, bias) in vgg_convolutions(**options).items():
        position += block > block_before  # a pooling
        block_before = block
        arrays[f"{layer}.{position}.weight"], arrays[f"{layer}.{position}.bias"] = weight, bias
        if norm:
            for part in norms:
                value = random.standard_normal(len(bias)).astype(np.float32) * 0.2
                arrays[f"{layer}.{position + 1}.{part}"] = value + (part in (norms[0], norms[3]))
            if not mindspore:
                arrays[f"{layer}.{position + 1}.num_batches_tracked"] = np.array(3, np.int64)
        position += 3 if norm else 2
    for place, (weight, bias) in zip((0, 3), vgg_dense(options.get("width", 1 / 32)).values(), strict=True):
        arrays[f"classifier.{place}.weight"], arrays[f"classifier.{place}.bias"] = weight, bias
    return arrays
