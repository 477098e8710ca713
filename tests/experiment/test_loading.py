"""Checkpoints describe their network, so that it is built from them alone."""

import numpy as np
import pytest
from mindspore import Tensor

import fcnlab
from fcnlab.core.errors import CheckpointError
from fcnlab.models.checkpoint import save_weights

ARCH = {"name": "fcn16s", "num_classes": 3, "width": 1 / 64, "norm": "none", "dropout": 0.5}


def test_a_checkpoint_says_which_network_it_is(tmp_path):
    network = fcnlab.build_model(**ARCH, seed=5)
    save_weights(tmp_path / "best.safetensors", network, {"arch": ARCH})
    loaded = fcnlab.load(tmp_path / "best.safetensors")
    images = Tensor(np.random.default_rng(0).random((1, 3, 48, 40), dtype=np.float32))
    assert not loaded.training
    np.testing.assert_array_equal(loaded(images).asnumpy(), network.set_train(False)(images).asnumpy())
    assert loaded(images).shape == (1, 3, 48, 40)


def test_a_trainings_output_folder_stands_for_its_best_checkpoint(tmp_path):
    network = fcnlab.build_model(**ARCH, seed=5)
    for name, step in (("best", 1), ("last", 2)):
        save_weights(tmp_path / "checkpoints" / f"{name}.safetensors", network, {"arch": ARCH, "step": step})
    assert fcnlab.load(tmp_path).metadata["step"] == 1
    with pytest.raises(CheckpointError, match="is a folder with neither"):
        fcnlab.load(tmp_path / "checkpoints")


def test_one_that_does_not_is_refused(tmp_path):
    save_weights(tmp_path / "weights.safetensors", fcnlab.build_model(**ARCH), {})
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: does not say which network.*init_from"):
        fcnlab.load(tmp_path / "weights.safetensors")


def test_a_run_that_is_not_there_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    with pytest.raises(CheckpointError) as caught:
        fcnlab.load("runs:/0123456789abcdef0123456789abcdef")
    assert "\n" not in str(caught.value)
    assert "runs:/0123456789abcdef0123456789abcdef" in str(caught.value)
