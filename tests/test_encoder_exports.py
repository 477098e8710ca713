"""A checkpoint of every encoder is loaded, exported and packaged as what it is."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from tiny_network import METADATA, expected_labels, save_checkpoint, some_image, some_images

import fcnlab
from fcnlab import config as configuration
from fcnlab.core import device
from fcnlab.experiment import exporting
from fcnlab.export import export
from fcnlab.kernels import stock_operators

FCN = {"name": "fcn8s", "num_classes": 3, "width": 1 / 32, "norm": "batch", "dropout": 0.5}
ARCHS = {
    "vgg11": FCN | {"encoder": "vgg11", "norm": "group"},
    "vgg19": FCN | {"encoder": "vgg19", "norm": "none"},
    "alexnet": FCN | {"name": "fcn4s", "encoder": "alexnet", "norm": "none"},
    "alexnet-batch": FCN | {"encoder": "alexnet"},
    "resnet18": FCN | {"name": "fcn2s", "encoder": "resnet18"},
    "resnet50": FCN | {"encoder": "resnet50", "norm": "group"},
    "torchvision": {**FCN, "name": "torchvision/fcn_resnet50"},
}


@pytest.fixture(autouse=True)
def nothing_to_compile(monkeypatch):
    """Compute operator by operator, and check exports at one size: the tests have sizes of their own."""
    monkeypatch.setattr(exporting, "SIZES", ((40, 64),))
    monkeypatch.setattr(device, "configure", lambda *arguments, **keys: ms.set_context(mode=ms.PYNATIVE_MODE))


def run(tmp_path, arch, file_format):
    checkpoint = save_checkpoint(tmp_path / "best.safetensors", arch)
    overrides = [f"checkpoint={checkpoint}", f"format={file_format}", f"output={tmp_path}/out.{file_format}"]
    with stock_operators():  # which the file is made from: deep networks add up how the two kinds round
        network = fcnlab.load(checkpoint)
    return network, export(configuration.compose(overrides, "export"))


def compare(network, compute):
    """Compare logits at another size than the export has compared them at."""
    images = np.random.default_rng(0).standard_normal((1, 3, 97, 70)).astype(np.float32)
    expected = network(Tensor(images)).asnumpy()
    largest = np.abs(expected).max()
    assert largest > 0.05
    np.testing.assert_allclose(compute(images), expected, atol=exporting.TOLERANCE * max(1, largest / 10))


QUICK = ("resnet18", "alexnet", "alexnet-batch")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ARCHS]
)
def test_onnx_computes_the_same(tmp_path, name):
    onnxruntime = pytest.importorskip("onnxruntime")
    network, path = run(tmp_path, ARCHS[name], "onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    compare(network, lambda images: session.run(["logits"], {"images": images})[0])


@pytest.mark.slow  # ONNX guards the encoders, and test_export.py MindIR
@pytest.mark.parametrize("name", ["vgg11", "torchvision"])
def test_mindir_computes_the_same(tmp_path, name):
    network, path = run(tmp_path, ARCHS[name], "mindir")
    cell = nn.GraphCell(ms.load(str(path)))
    compare(network, lambda images: cell(Tensor(images)).asnumpy())


@pytest.mark.parametrize("name", ["alexnet", pytest.param("torchvision", marks=pytest.mark.slow)])
def test_a_label_map_is_that_of_the_logits(tmp_path, name):
    path = save_checkpoint(tmp_path / "best.safetensors", ARCHS[name])
    network = fcnlab.load(path)
    assert network.metadata["arch"] == ARCHS[name]
    images = some_images(1, 60, 90)
    labels = network.predict(images[0])
    np.testing.assert_array_equal(labels, expected_labels(path, images)[0])


@pytest.mark.slow  # tests/models/test_encoders.py has how far a network looks
def test_a_tile_of_a_resnet_has_the_labels_of_the_whole_image(tmp_path):
    """With group normalisation, which sees the whole image, there are no tiles."""
    arch = FCN | {"name": "fcn32s", "encoder": "resnet18"}
    image = some_image(40, 1200)
    for norm in ("batch", "group"):
        network = fcnlab.load(save_checkpoint(tmp_path / f"{norm}.safetensors", {**arch, "norm": norm}))
        whole = network.logits(image, tile=1408)
        np.testing.assert_allclose(network.logits(image, tile=640), whole, atol=1e-5 * max(10, np.abs(whole).max()))
        assert (len(list(network._cut(40, 1200, 640))) > 1) == (norm == "batch")


def test_what_another_package_serves_says_which_network_it_is(tmp_path):
    path = save_checkpoint(tmp_path / "best.safetensors", ARCHS["resnet18"])
    assert fcnlab.load(path).metadata == {**METADATA, "arch": ARCHS["resnet18"]}
