"""An export computes the same as the network when another program or reader loads it."""

import json

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from safetensors import safe_open
from tiny_network import ARCH, MEAN, METADATA, STD, save_checkpoint

import fcnlab
from fcnlab import config as configuration
from fcnlab.core import device
from fcnlab.core.errors import ConfigError, ExportError
from fcnlab.experiment import exporting
from fcnlab.export import export

SIZES = ((32, 32), (97, 130), (64, 200))


@pytest.fixture(autouse=True)
def nothing_to_compile(monkeypatch):
    """Compute operator by operator, and check exports at one size: the tests have sizes of their own."""
    monkeypatch.setattr(exporting, "SIZES", ((40, 64),))
    monkeypatch.setattr(device, "configure", lambda *arguments, **keys: ms.set_context(mode=ms.PYNATIVE_MODE))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.safetensors")


def run(checkpoint, file_format, output):
    overrides = [f"checkpoint={checkpoint}", f"format={file_format}", f"output={output}"]
    return export(configuration.compose(overrides, "export"))


def compare(checkpoint, compute):
    network = fcnlab.load(checkpoint)
    for height, width in SIZES:
        images = np.random.default_rng(height).standard_normal((1, 3, height, width)).astype(np.float32)
        expected = network(Tensor(images)).asnumpy()
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(compute(images), expected, atol=1e-4)


def check_description(read):
    assert json.loads(read("class_names")) == METADATA["class_names"]
    assert json.loads(read("palette")) == METADATA["palette"]
    assert (json.loads(read("mean")), json.loads(read("std"))) == (MEAN, STD)
    assert json.loads(read("fcnlab"))["arch"]["num_classes"] == 3


@pytest.mark.parametrize(
    ("stride", "norm"),
    [(8, "batch"), (2, "none"), *(pytest.param(stride, "batch", marks=pytest.mark.slow) for stride in (32, 16, 4, 2))],
)
def test_onnx_computes_the_same_at_any_size(tmp_path, stride, norm):
    onnxruntime = pytest.importorskip("onnxruntime")
    checkpoint = save_checkpoint(tmp_path / "best.safetensors", {**ARCH, "name": f"fcn{stride}s", "norm": norm})
    path = run(checkpoint, "onnx", tmp_path / "out" / "cells.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    compare(checkpoint, lambda images: session.run(["logits"], {"images": images})[0])
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    assert session.get_outputs()[0].shape == ["batch", 3, "height", "width"]
    check_description(session.get_modelmeta().custom_metadata_map.__getitem__)
    assert [item.name for item in path.parent.iterdir()] == ["cells.onnx"]


def test_mindir_computes_the_same_at_any_size(checkpoint, tmp_path):
    path = run(checkpoint, "mindir", tmp_path / "cells.mindir")
    cell = nn.GraphCell(ms.load(str(path)))
    compare(checkpoint, lambda images: cell(Tensor(images)).asnumpy())
    entries = {entry.key: entry.value for entry in ms.load_mindir(str(path)).user_info}
    check_description(entries.__getitem__)


def test_safetensors_is_a_checkpoint_again(checkpoint, tmp_path):
    path = run(checkpoint, "safetensors", tmp_path / "cells.safetensors")
    compare(checkpoint, lambda images: fcnlab.load(path)(Tensor(images)).asnumpy())
    with safe_open(str(path), framework="numpy") as file:
        check_description(file.metadata().__getitem__)
        assert file.get_tensor("fc6.weight").shape[2:] == (7, 7)
    assert fcnlab.load(path).class_names == METADATA["class_names"]


def test_an_export_that_differs_is_not_left_behind(checkpoint, tmp_path, monkeypatch):
    path = tmp_path / "cells.safetensors"
    path.write_text("an older one")
    monkeypatch.setattr(exporting, "_runner", lambda *arguments: lambda images: np.zeros((1, 3, *images.shape[2:])))
    with pytest.raises(ExportError, match="differs from the network's"):
        run(checkpoint, "safetensors", path)
    assert [item.name for item in tmp_path.iterdir()] == ["cells.safetensors"]
    assert path.read_text() == "an older one"


def test_the_files_ending_is_that_of_the_format(checkpoint, tmp_path):
    with pytest.raises(ExportError, match=r"must end in \.onnx, since format=onnx"):
        run(checkpoint, "onnx", tmp_path / "cells.mindir")


def test_a_file_without_a_name_is_named_after_the_checkpoint():
    assert str(exporting.default_path("runs:/0123/checkpoints/last.safetensors", "onnx")) == (
        "0123-checkpoints-last-safetensors.onnx"
    )
    assert str(exporting.default_path("models:/cells@champion", "mindir")) == "cells-champion.mindir"
    assert str(exporting.default_path("some/where/best.safetensors", "onnx")) == "best.onnx"


def test_the_format_is_one_of_three():
    with pytest.raises(ConfigError, match="format=tflite: choose one of mindir, onnx, safetensors"):
        configuration.compose(["checkpoint=a", "format=tflite"], "export")
