"""What a user sees: `mlflow ui` on the store of a real sweep, in a real browser."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from conftest import TINY
from mlflow import MlflowClient

pytest.importorskip("selenium")

pytestmark = pytest.mark.slow

NAMES = ["fcn16s-cells-seed0", "fcn32s-cells-seed0", "fcn8s-cells-seed0"]


def _browser():
    """The study's own script, which also makes the pictures of the README."""
    path = Path(__file__).parents[2] / "experiments" / "tracking" / "browser.py"
    specification = importlib.util.spec_from_file_location("browser", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


browser = _browser()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A folder in which the README's sweep has been run, on small images, and its runs by name."""
    folder = tmp_path_factory.mktemp("sweep")
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-m", "fcnlab.train", "-m", "arch=fcn32s,fcn16s,fcn8s", "tracking.overlays=1", *TINY]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return folder, {run.info.run_name: run.info for run in client.search_runs(["1"])}


@pytest.fixture(scope="module")
def pages(sweep, tmp_path_factory):
    """`mlflow ui` without a flag for its store, and a browser."""
    if browser.installed() is None:
        pytest.skip("Chromium and its driver are not installed")
    folder, _ = sweep
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "mlflow ui does not answer"
                time.sleep(0.2)
        with browser.Pages(f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("profile")) as pages:
            yield pages
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_the_runs_of_the_sweep_appear(sweep, pages):
    assert sorted(sweep[1]) == NAMES
    assert "3 matching runs" in pages.runs("1", NAMES)


def test_the_comparison_draws_the_mean_iou_of_each(sweep, pages):
    assert pages.compared("1", [run.run_id for run in sweep[1].values()], "val/mean_iou") == 3
    assert "val/mean_iou" in pages.text


def test_an_overlay_shows(sweep, pages):
    width, height = pages.overlay("1", sweep[1]["fcn8s-cells-seed0"].run_id)
    assert width > 2.5 * height  # image, label and prediction side by side


def test_the_description_says_how_to_reproduce_the_run(sweep, pages):
    run_id = sweep[1]["fcn8s-cells-seed0"].run_id
    assert f"python -m fcnlab.train from_run={run_id}" in pages.description("1", run_id)
