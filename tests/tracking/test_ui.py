"""What a user sees of a sweep in a browser with `mlflow ui`."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from conftest import TINY, user_environment
from local_server import LocalServer
from mlflow import MlflowClient

pytest.importorskip("selenium")

pytestmark = pytest.mark.slow

METRIC = "val/mean_iou"
NAMES = ["fcn16s-cells-seed0", "fcn32s-cells-seed0", "fcn8s-cells-seed0"]


def _browser():
    """Import the script that also makes the pictures of the README."""
    path = Path(__file__).parents[2] / "experiments" / "tracking" / "browser.py"
    specification = importlib.util.spec_from_file_location("browser", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


browser = _browser()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A folder in which the README's sweep has been run, on small images, and its runs by name."""
    if browser.installed() is None:
        pytest.skip("Chromium or its driver is not installed")
    folder = tmp_path_factory.mktemp("sweep")
    arguments = ["-m", "arch=fcn32s,fcn16s,fcn8s", "tracking.overlays=1", "tracking.register_as=strides", *TINY]
    command = [sys.executable, "-m", "fcnlab.train", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=user_environment(), capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stderr
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fcnlab").experiment_id
    return folder, {run.info.run_name: run for run in client.search_runs([experiment])}


@pytest.fixture(scope="module")
def pages(sweep, tmp_path_factory):
    """`mlflow ui` without a flag for its store, and a browser."""
    folder, _ = sweep
    with (
        LocalServer(folder, ["ui", "--workers", "1"]) as server,
        browser.Pages(server.uri, tmp_path_factory.mktemp("failures")) as pages,
    ):
        yield pages


@pytest.fixture
def fcn8s(sweep):
    """The experiment and the run of FCN-8s, as the pages name them."""
    info = sweep[1]["fcn8s-cells-seed0"].info
    return info.experiment_id, info.run_id


def test_the_runs_of_the_sweep_appear_with_their_mean_iou(sweep, pages, fcn8s):
    shown = pages.runs(fcn8s[0], METRIC)
    assert sorted(shown) == NAMES
    for name, run in sweep[1].items():
        assert float(shown[name]) == pytest.approx(run.data.metrics[METRIC])


def test_the_comparison_draws_the_mean_iou_of_each(sweep, pages, fcn8s):
    drawn = pages.compared(fcn8s[0], [run.info.run_id for run in sweep[1].values()], METRIC)
    assert drawn == dict.fromkeys(NAMES, 2)  # an evaluation after each of two epochs
    assert METRIC in pages.text


def test_a_run_shows_its_curves(pages, fcn8s):
    assert pages.curve(*fcn8s, "learning_rate") == 4  # steps


def test_an_overlay_shows_whole(sweep, pages, fcn8s):
    (written,) = sweep[0].glob("multirun/*/*/2/overlays/000004-0.png")
    height, width, _ = cv2.imread(str(written)).shape
    assert pages.overlay(*fcn8s) == (width, height)


def test_the_learning_curves_show_among_the_artifacts(sweep, pages, fcn8s):
    (written,) = sweep[0].glob("multirun/*/*/2/figures/learning_curves.png")
    height, width, _ = cv2.imread(str(written)).shape
    assert pages.figure(*fcn8s, "figures/learning_curves.png") == (width, height)


def test_the_description_says_how_to_reproduce_the_run(pages, fcn8s):
    text = pages.description(*fcn8s)
    assert "Reproduce:" in text
    assert f"python -m fcnlab.train from_run={fcn8s[1]}" in text


def test_the_registry_shows_the_champion(pages):
    text = pages.models()
    assert "strides" in text
    assert "champion" in text
