"""The images' mean follows from the weights that a training starts from, unless the user gives one."""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import weight_files as files
from conftest import refused, user_environment
from test_resume import assert_same_end, train_until

import fcnlab
from fcnlab.experiment import resume
from fcnlab.models.checkpoint import read_weights
from fcnlab.recording import journal

IMAGENET = [0.485, 0.456, 0.406]
CELLS = [0.55, 0.55, 0.55]


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    return files.torch_file(tmp_path_factory.mktemp("vgg") / "vgg16.pth", files.torchvision_vgg())


@pytest.fixture
def start(tiny, vgg):
    """A function that composes a tiny training from VGG-16."""

    def compose(*overrides):
        return tiny("tracking=none", "arch.norm=none", f"init_from={vgg}", "trainer.epochs=1", *overrides)

    return compose


def mean_of(result):
    """The mean that a training's checkpoint, record and log say, which must be one."""
    folder = result.last_checkpoint.parent.parent
    _, document = read_weights(result.last_checkpoint)
    found = document["normalisation"]["mean"]
    values = resume.recorded.config_values(folder)
    assert values["dataset.mean"] == found
    (run,) = (entry.fields for entry in journal.read(folder / journal.FILE) if entry.kind == "run")
    assert run["params"]["dataset.mean"] == str(found)
    return found


def test_the_mean_is_what_the_weights_expect(start, caplog):
    with caplog.at_level("INFO"):
        result = fcnlab.train(start())
    assert mean_of(result) == IMAGENET
    assert "dataset.mean=[0.485, 0.456, 0.406]: the images' mean is what the weights of init_from expect" in caplog.text
    weights, _ = read_weights(result.last_checkpoint)
    assert weights["encoder.block1.conv1.bias"].shape == (2,)


def test_a_mean_of_the_users_stays(start, caplog):
    with caplog.at_level("INFO"):
        result = fcnlab.train(start("dataset.mean=[0.55,0.55,0.55]"))
    assert mean_of(result) == CELLS
    assert "with init_mean=true, or with dataset.mean=[0.485, 0.456, 0.406], it is exact there, too" in caplog.text


def test_who_gave_the_mean(tmp_path):
    own = tmp_path / "experiment"
    own.mkdir()
    (own / "plain.yaml").write_text("# @package _global_\nseed: 5\n")
    (own / "centred.yaml").write_text("# @package _global_\ndataset: {mean: [0.55, 0.55, 0.55]}\n")
    path = f"hydra.searchpath=[file://{tmp_path}]"

    def takes(*overrides):
        return fcnlab.compose(["init_from=vgg.pth", *overrides]).init_mean

    assert takes()
    assert takes("dataset.std=[1,1,1]")
    assert takes("experiment=smoke")
    assert takes(path, "experiment=plain")
    assert not takes(path, "experiment=centred")
    assert not takes("dataset.mean=[0.55,0.55,0.55]")
    assert not takes("++dataset.mean=[0.1,0.2,0.3]")
    assert not takes("init_mean=false")
    text = refused(fcnlab.compose, "init_from=vgg.pth", "init_mean=true", "dataset.mean=[0.1,0.2,0.3]")
    assert text.startswith("dataset.mean and init_mean=true: give one")


@pytest.mark.slow  # what a run recorded is reproduced and resumed in the tests of both
@pytest.mark.parametrize("by_path", [False, True], ids=["auto", "path"])
def test_a_reproduction_and_a_resumption_have_the_same_mean(start, vgg, tmp_path, by_path):
    config = start("dataset.num_train=1", "dataset.crops_per_image=1", "trainer.batch_size=1", "trainer.epochs=2")
    whole = fcnlab.train(config, tmp_path / "whole")
    assert mean_of(whole) == IMAGENET
    again = fcnlab.train(fcnlab.compose([f"from_run={tmp_path / 'whole'}"]), tmp_path / "again")
    assert mean_of(again) == IMAGENET
    assert_same_end(tmp_path / "again", tmp_path / "whole")
    folder = tmp_path / "resumed"
    train_until(config, folder, 1)
    moved = vgg.rename(tmp_path / "elsewhere.pth")  # a resumption needs no file of weights
    try:
        if by_path:
            resumed = fcnlab.train(fcnlab.compose([f"resume={folder}"]))
        else:
            resumed = fcnlab.train(replace(config, resume="auto"), folder)
    finally:
        moved.rename(vgg)
    assert mean_of(resumed) == IMAGENET
    assert_same_end(folder, tmp_path / "whole")


def test_the_newest_training_of_a_configuration_is_found_again(start):
    config = start("trainer.epochs=2")
    train_until(config, None, 1)
    (folder,) = {path.parent for path in resume.Path("outputs").rglob(journal.FILE)}
    assert resume.newest_training(config) == folder
    assert resume.newest_training(start("trainer.epochs=2", "dataset.mean=[0.485,0.456,0.406]")) is None


def test_a_run_from_before_the_key_is_reproduced_with_its_mean(start, tmp_path):
    fcnlab.train(start("init_mean=false"), tmp_path / "old")
    record = tmp_path / "old" / "config.yaml"
    text = record.read_text()
    assert "init_mean: false\n" in text
    record.write_text(text.replace("init_mean: false\n", ""))
    config = fcnlab.compose([f"from_run={tmp_path / 'old'}"])
    assert (config.init_mean, config.dataset.mean) == (False, CELLS)


def test_weights_of_this_package_keep_their_images_from_stage_to_stage(start, tiny, caplog):
    first = fcnlab.train(start())
    caplog.clear()
    with caplog.at_level("INFO"):
        second = fcnlab.train(
            tiny(
                "tracking=none",
                "arch.norm=none",
                "arch=fcn16s",
                f"init_from={first.last_checkpoint}",
                "trainer.max_steps=1",
            )
        )
    assert mean_of(second) == IMAGENET
    assert re.search(r"^encoder.block1.conv1.weight +taken ", caplog.text, re.MULTILINE)


@pytest.mark.slow
def test_trials_of_a_sweep_may_differ(vgg, tmp_path, tiny_overrides):
    own = files.torch_file(
        tmp_path / "caffe.pth",
        {
            f"conv{block}_{index}.{part}": array
            for (block, index), layer in files.vgg_convolutions().items()
            for part, array in zip(("weight", "bias"), layer, strict=True)
        },
    )
    words = [
        *tiny_overrides,
        "tracking=none",
        "arch=fcn32s",
        "arch.norm=none",
        "trainer.max_steps=1",
        "trainer.mode=pynative",
    ]
    subprocess.run(
        [sys.executable, "-m", "fcnlab.train", "-m", *words, f"init_from={vgg},{own}"],
        cwd=tmp_path,
        env=user_environment(),
        check=True,
        capture_output=True,
        timeout=1800,
    )
    found = {path.parent for path in tmp_path.glob("multirun/*/*/*/config.yaml")}
    means = sorted(resume.recorded.config_values(folder)["dataset.mean"] for folder in found)
    np.testing.assert_allclose(means, [IMAGENET, [0.48502, 0.457957, 0.407604]], atol=1e-5)
