"""No folder called ``~`` is made, whichever file states the output folder."""

import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from fcnlab.config import config_folder
from fcnlab.config.home_folder import HomeFolder


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def composed(path):
    hydra = {"run": {"dir": path}, "sweep": {"dir": path}, "overrides": {"hydra": []}}
    config = OmegaConf.create({"hydra": hydra})
    OmegaConf.set_readonly(config.hydra, True)
    return config


@pytest.mark.parametrize(
    ("given", "expected"),
    [("~/runs", "{}/runs"), ("~", "{}"), ("runs/~", "runs/~"), ("~other/runs", "~other/runs"), ("/a/b", "/a/b")],
)
def test_a_tilde_at_the_beginning_is_the_home_folder(home, given, expected):
    expected = expected.format(home)
    config = composed(given)
    HomeFolder().on_run_start(config)
    assert (config.hydra.run.dir, config.hydra.sweep.dir) == (expected, given)
    HomeFolder().on_multirun_start(config)
    assert config.hydra.sweep.dir == expected
    assert config.hydra.overrides.hydra == ([] if expected == given else [f"hydra.sweep.dir='{expected}'"])
    assert OmegaConf.is_readonly(config.hydra)


@pytest.mark.parametrize("name", ["train", "base_command"])
def test_every_command_has_it_before_any_other_callback(name):
    callbacks = OmegaConf.load(config_folder() / f"{name}.yaml").hydra.callbacks
    assert next(iter(callbacks.values()))._target_ == "fcnlab.config.home_folder.HomeFolder"


@pytest.mark.slow  # the tests above have the rule
@pytest.mark.parametrize("words", [["seed=1"], ["-m", "seed=1,2"]])
def test_no_folder_called_so_is_made(home, tmp_path, words):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    text = "# @package _global_\nhydra:\n  run:\n    dir: ~/runs\n  sweep:\n    dir: ~/runs\n"
    (tmp_path / "mine" / "experiment" / "home.yaml").write_text(text)
    words = [
        "--config-dir",
        "mine",
        *words,
        "experiment=home",
        "dataset=folder",
        "dataset.root=missing",
        "tracking=none",
    ]
    done = subprocess.run([sys.executable, "-m", "fcnlab.train", *words], capture_output=True, text=True)
    assert "there is no folder 'missing'" in done.stdout + done.stderr
    assert (home / "runs").is_dir()
    assert not (tmp_path / "~").exists()
