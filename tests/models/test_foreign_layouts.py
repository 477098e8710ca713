"""The names of other packages become ours, with the arrays in the shapes that ours have."""

import math

import numpy as np
import pytest
import weight_files as files

from fcnlab.core.errors import CheckpointError
from fcnlab.models.foreign import WeightsFile, recognise
from fcnlab.models.foreign.initialisation import _fit_scales
from fcnlab.models.foreign.input_convention import (
    FCN_CAFFE,
    FCN_MINDSPORE,
    TORCHVISION,
    VGG_CAFFE,
    InputConvention,
)

CONVOLUTIONS = files.vgg_convolutions()
DENSE = files.vgg_dense()


def check(file, expected_layout, convention, fc6=True, convolutions=CONVOLUTIONS):
    found = recognise(file, "init_from=x")
    assert expected_layout in found.layout
    assert found.convention == convention
    for (block, index), (weight, bias) in convolutions.items():
        layer = f"encoder.block{block}.conv{index}"
        np.testing.assert_array_equal(found.entries[f"{layer}.weight"].array, weight)
        np.testing.assert_array_equal(found.entries[f"{layer}.bias"].array, bias)
    for layer, (matrix, bias) in DENSE.items() if fc6 else ():
        side = 7 if layer == "fc6" else 1
        np.testing.assert_array_equal(
            found.entries[f"{layer}.weight"].array, matrix.reshape(len(matrix), -1, side, side)
        )
        np.testing.assert_array_equal(found.entries[f"{layer}.bias"].array, bias)
    assert ("fc6.weight" in found.entries) is fc6
    return found


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.net."])
def test_torchvision(prefix):
    arrays = {prefix + name: array for name, array in files.torchvision_vgg().items()}
    arrays[f"{prefix}classifier.6.weight"] = np.zeros((10, 128), np.float32)
    found = check(WeightsFile("PyTorch", arrays), "VGG-16 of torchvision", TORCHVISION)
    assert found.entries["fc6.weight"].action == "reshaped"
    assert found.entries["fc6.weight"].sources == (f"{prefix}classifier.0.weight",)
    assert found.entries["encoder.block3.conv3.weight"].sources == (f"{prefix}features.14.weight",)
    assert "classifier.6" not in str(found.entries.keys())


@pytest.mark.parametrize(("depths", "name"), [((1, 1, 2, 2, 2), 11), ((2, 2, 2, 2, 2), 13), ((2, 2, 4, 4, 4), 19)])
def test_torchvision_of_other_depths(depths, name):
    file = WeightsFile("PyTorch", files.torchvision_vgg(depths=depths))
    check(file, f"VGG-{name} of", TORCHVISION, convolutions=files.vgg_convolutions(depths=depths))


@pytest.mark.parametrize("mindspore", [False, True])
def test_batch_norm_of_torchvision_and_mindspore(mindspore):
    layer = "layers" if mindspore else "features"
    arrays = files.torchvision_vgg(norm=True, layer=layer, mindspore=mindspore)
    arrays |= {"moments.layers.0.weight": np.zeros((2, 3, 3, 3), np.float32), "global_step": np.zeros(1, np.float32)}
    found = check(WeightsFile("MindSpore" if mindspore else "PyTorch", arrays), "VGG-16", TORCHVISION)
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    theirs = names if mindspore else ("weight", "bias", "running_mean", "running_var")
    for ours, name in zip(names, theirs, strict=True):
        entry = found.entries[f"encoder.block2.norm1.{ours}"]
        assert entry.sources == (f"{layer}.8.{name}",)  # after two convolutions, each with norm and ReLU, and a pooling


def test_a_dense_layer_of_other_images_is_left_out():
    arrays = files.torchvision_vgg()
    arrays["classifier.0.weight"] = np.zeros((128, 16), np.float32)  # for images of 32 x 32
    del arrays["classifier.3.weight"]
    check(WeightsFile("PyTorch", arrays), "VGG-16", TORCHVISION, fc6=False)


def keras(prefix="", suffix=("kernel", "bias")):
    arrays = {}
    for (block, index), (weight, bias) in CONVOLUTIONS.items():
        layer = f"{prefix}block{block}_conv{index}/block{block}_conv{index}"
        arrays[f"{layer}{suffix[0]}"], arrays[f"{layer}{suffix[1]}"] = weight.transpose(2, 3, 1, 0), bias
    for name, (matrix, bias) in DENSE.items():
        layer = f"{prefix}fc{int(name[2]) - 5}/fc{int(name[2]) - 5}"
        side = 7 if name == "fc6" else 1
        kernel = matrix.reshape(len(matrix), -1, side, side).transpose(2, 3, 1, 0)
        arrays[f"{layer}{suffix[0]}"], arrays[f"{layer}{suffix[1]}"] = kernel.reshape(-1, len(matrix)), bias
    return arrays


@pytest.mark.parametrize(
    ("prefix", "suffix"),
    [("", ("_W_1:0", "_b_1:0")), ("model_weights/", ("/kernel:0", "/bias:0")), ("", ("/kernel", "/bias"))],
    ids=["as distributed", "a model", "weights"],
)
def test_keras(prefix, suffix):
    found = check(WeightsFile("Keras", keras(prefix, suffix)), "VGG-16 of Keras", VGG_CAFFE)
    assert found.entries["encoder.block1.conv1.weight"].action == "reshaped"


def test_keras_3_names_its_layers_by_their_number():
    arrays = {}
    for number, (weight, bias) in enumerate(CONVOLUTIONS.values()):
        layer = f"layers/conv2d_{number}" if number else "layers/conv2d"
        arrays[f"{layer}/vars/0"], arrays[f"{layer}/vars/1"] = weight.transpose(2, 3, 1, 0), bias
    arrays = dict(sorted(arrays.items()))  # as HDF5 has them: conv2d_10 before conv2d_2
    kernels = keras()
    for number, layer in enumerate(("fc1", "fc2")):
        name = "layers/dense_1" if number else "layers/dense"
        arrays[f"{name}/vars/0"], arrays[f"{name}/vars/1"] = (
            kernels[f"{layer}/{layer}kernel"],
            kernels[f"{layer}/{layer}bias"],
        )
    check(WeightsFile("Keras", arrays), "VGG-16 of Keras", VGG_CAFFE)


def test_keras_in_onnx():
    arrays = {}
    for (block, index), (weight, bias) in reversed(CONVOLUTIONS.items()):
        layer = f"functional_1/block{block}_conv{index}_1"
        arrays[f"{layer}/convolution/ReadVariableOp:0"] = weight
        arrays[f"{layer}/Squeeze:0"] = bias[:, None, None][None] if block == 2 else bias
    arrays["functional_1/dense_1/Cast/ReadVariableOp:0"] = np.zeros((25088, 3), np.float32)
    found = check(WeightsFile("ONNX", arrays), "VGG-16 of Keras", VGG_CAFFE, fc6=False)
    assert found.entries["encoder.block1.conv1.weight"].action == "taken"


def by_order(weights):
    arrays, convolutions = {}, []
    for number, (weight, bias) in enumerate(weights):
        arrays[f"onnx::Conv_{900 - number}"], arrays[f"b{number}"] = weight, bias
        convolutions.append({"weight": f"onnx::Conv_{900 - number}", "bias": f"b{number}"})
    arrays["head"] = np.zeros((3, 16, 1, 1), np.float32)
    return WeightsFile("ONNX", arrays, convolutions=[*convolutions, {"weight": "head"}])


def test_onnx_without_names_goes_by_the_order_of_its_convolutions():
    check(by_order(CONVOLUTIONS.values()), "by the order", None, fc6=False)
    with pytest.raises(CheckpointError, match="layout is not known"):
        recognise(by_order([*CONVOLUTIONS.values()][::-1]), "init_from=x")
    with pytest.raises(CheckpointError, match="layout is not known"):
        recognise(by_order([*CONVOLUTIONS.values()][:9]), "init_from=x")


def caffe(heads=(), of_2014=False):
    arrays = {}
    for (block, index), (weight, bias) in CONVOLUTIONS.items():
        arrays[f"conv{block}_{index}.weight"] = weight
        arrays[f"conv{block}_{index}.bias"] = bias[None, None, None] if of_2014 else bias
    for name, (matrix, bias) in DENSE.items():
        arrays[f"{name}.weight"], arrays[f"{name}.bias"] = matrix[None, None], bias[None, None, None]
    random = np.random.default_rng(3)
    return arrays | {name: random.standard_normal(shape, np.float32) for name, shape in heads}


@pytest.mark.parametrize("of_2014", [False, True])
def test_caffe(of_2014):
    found = check(WeightsFile("Caffe", caffe([("fc8.weight", (10, 128))], of_2014)), "VGG of Caffe", VGG_CAFFE)
    assert found.entries["encoder.block1.conv1.bias"].action == ("reshaped" if of_2014 else "taken")
    assert found.entries["fc6.weight"].action == found.entries["fc6.bias"].action == "reshaped"


SKIPS = [("score_fr.weight", (21, 128, 1, 1)), ("score_fr.bias", (21,)), ("upscore2.weight", (21, 21, 4, 4)),
         ("score_pool4.weight", (21, 16, 1, 1)), ("score_pool4.bias", (21,)),
         ("score_pool3.weight", (21, 8, 1, 1)), ("upscore_pool4.weight", (21, 21, 4, 4))]  # fmt: skip


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        ([*SKIPS[:2], ("upscore.weight", (21, 21, 64, 64))], {"score", "upsample"}),
        ([*SKIPS[:5], ("upscore16.weight", (21, 21, 32, 32))], {"score", "upsample_pool4", "score_pool4", "upsample"}),
        (
            [*SKIPS, ("upscore8.weight", (21, 21, 16, 16))],
            {"score", "upsample_pool4", "score_pool4", "upsample_pool3", "score_pool3", "upsample"},
        ),
    ],
    ids=["32s", "16s", "8s"],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_fcn_of_its_authors_and_of_torchfcn(heads, expected, prefix):
    arrays = caffe(heads)
    file = WeightsFile("PyTorch", {prefix + name: array for name, array in arrays.items()})
    found = check(file, "FCN of its authors", FCN_CAFFE)
    assert {name.rpartition(".")[0] for name in found.entries if name.startswith(("score", "upsample"))} == expected
    ours = {"upscore2": "upsample_pool4", "upscore_pool4": "upsample_pool3", "score_fr": "score"}
    for name, _ in heads:
        layer, _, part = name.rpartition(".")
        layer = ours.get(layer, "upsample" if layer.startswith("upscore") else layer)
        np.testing.assert_array_equal(found.entries[f"{layer}.{part}"].array, arrays[name])


def test_the_factors_of_the_net_at_once_go_into_its_scores():
    arrays = caffe([*SKIPS, ("upscore8.weight", (21, 21, 16, 16)), ("scale_pool3.weight", (8,))])
    entries = recognise(WeightsFile("Caffe", arrays), "init_from=x").entries
    np.testing.assert_array_equal(entries["scale_pool3"].array, arrays["scale_pool3.weight"])
    _fit_scales(entries, ())
    entry = entries["score_pool3.weight"]
    assert (entry.action, entry.sources) == ("converted", ("score_pool3.weight", "scale_pool3.weight"))
    pixel = np.random.default_rng(4).standard_normal(8)
    expected = arrays["score_pool3.weight"][:, :, 0, 0] @ (arrays["scale_pool3.weight"] * pixel)
    np.testing.assert_allclose(entry.array[:, :, 0, 0] @ pixel, expected, rtol=1e-5)


def mindspore_fcn():
    random, arrays = np.random.default_rng(5), {}
    layers = {(block, index): weight for (block, index), (weight, _) in CONVOLUTIONS.items()}
    for block, name in ((6, "fc6"), (7, "fc7")):
        matrix = DENSE[name][0]
        layers[block, 1] = matrix.reshape(len(matrix), -1, *((7, 7) if block == 6 else (1, 1)))
    for (block, index), weight in layers.items():
        arrays[f"conv{block}.{3 * index - 3}.weight"] = weight
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            arrays[f"conv{block}.{3 * index - 2}.{part}"] = random.random(len(weight)).astype(np.float32) + 0.5
    return arrays | {name: random.standard_normal(shape, np.float32) for name, shape in SKIPS if "bias" not in name}


def test_fcn_of_mindspore():
    arrays = mindspore_fcn()
    found = recognise(WeightsFile("MindSpore", arrays), "init_from=x")
    assert (found.layout, found.convention) == ("FCN8s of MindSpore's names", FCN_MINDSPORE)
    assert found.entries["encoder.block3.conv3.weight"].sources == ("conv3.6.weight",)
    assert found.entries["encoder.block3.norm3.gamma"].sources == ("conv3.7.gamma",)
    assert found.entries["fc6.norm.beta"].sources == ("conv6.1.beta",)
    assert found.entries["fc7.weight"].sources == ("conv7.0.weight",)
    assert found.entries["upsample_pool4.weight"].sources == ("upscore2.weight",)


def test_our_own():
    arrays = {"encoder.block1.conv1.weight": CONVOLUTIONS[1, 1][0], "fc7.bias": np.zeros(3, np.float32)}
    document = {"normalisation": {"mean": [0.1, 0.2, 0.3], "std": [1.0, 0.5, 2.0]}, "class_names": ["a", "b"]}
    found = recognise(WeightsFile("safetensors", arrays, document), "init_from=x")
    assert (found.entries.keys(), found.class_names) == (arrays.keys(), ["a", "b"])
    assert found.convention == InputConvention((0.1, 0.2, 0.3), (1.0, 0.5, 2.0))
    for hostile in ({"normalisation": 3, "class_names": [1]}, {"normalisation": {"mean": [0.1], "std": None}},
                    {"normalisation": {"mean": [0.1] * 3, "std": [0.0] * 3}},
                    {"normalisation": {"mean": [0.1] * 3, "std": [-0.5] * 3}},
                    {"normalisation": {"mean": [math.nan] * 3, "std": [0.5] * 3}},
                    {"normalisation": {"mean": [124.0] * 3, "std": [0.5] * 3}}):  # fmt: skip
        found = recognise(WeightsFile("safetensors", arrays, hostile), "init_from=x")
        assert (found.convention, list(found.class_names)) == (None, [])


def test_what_is_not_known_is_refused_by_its_names():
    file = WeightsFile("PyTorch", {"layer1.0.conv1.weight": np.zeros((2, 3, 3, 3), np.float32)})
    with pytest.raises(CheckpointError, match=r"init_from=x: is a PyTorch file of 1 arrays \('layer1.0.conv1.weight'"):
        recognise(file, "init_from=x")
