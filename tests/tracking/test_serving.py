"""A model behind MLflow's own server, over HTTP."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from tiny_checkpoint import expected_labels, save_checkpoint, some_images

from fcnlab.tracking.packaging import package

START = 120  # seconds at most

pytestmark = pytest.mark.slow  # a server of its own


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("served") / "best.safetensors")


@pytest.fixture(scope="module")
def server(checkpoint):
    """``mlflow models serve`` in a process group of its own, as a shell would start it; yields its address."""
    folder = checkpoint.parent
    package(checkpoint, folder / "model")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["models", "serve", "-m", str(folder / "model"), "--env-manager", "local", "--host", "127.0.0.1"]
    # As in a shell where the environment is activated and nobody has set anything for MindSpore.
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PROTOCOL_BUFFERS")}
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with (folder / "server.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words, "--port", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=variables,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START
        while not answers(address):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the server did not start:\n{(folder / 'server.log').read_text()}")
            time.sleep(0.2)
        yield address
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(address):
    try:
        with urllib.request.urlopen(f"{address}/ping", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def invoke(address, body, kind="application/json"):
    """The answer's status and text."""
    request = urllib.request.Request(f"{address}/invocations", data=body.encode(), headers={"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def labels_from(address, images):
    status, text = invoke(address, json.dumps({"inputs": images.tolist()}))
    assert status == 200, text
    return np.array(json.loads(text)["predictions"])


def test_the_server_labels_images_of_several_sizes_for_several_clients(server, checkpoint):
    batches = [some_images(2, 40, 32), some_images(1, 61, 98), some_images(1, 64, 64), some_images(1, 33, 40)]
    with ThreadPoolExecutor(len(batches)) as clients:
        answers = list(clients.map(lambda images: labels_from(server, images), batches))
    for images, labels in zip(batches, answers, strict=True):
        assert labels.shape == images.shape[:3]
        assert (labels == expected_labels(checkpoint, images)).mean() > 0.999


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        ('{"inputs": [[[', "application/json", "JSON"),
        ('{"images": []}', "application/json", "inputs"),
        (json.dumps({"inputs": np.zeros((1, 64, 64, 4), int).tolist()}), "application/json", "(1, 64, 64, 4)"),
        (json.dumps({"inputs": np.zeros((64, 64, 3), int).tolist()}), "application/json", "(64, 64, 3)"),
        (json.dumps({"inputs": np.zeros((1, 16, 64, 3), int).tolist()}), "application/json", "at least 32 x 32 pixels"),
        (json.dumps({"inputs": [[[["red", "green", "blue"]]]]}), "application/json", "red"),
        (json.dumps({"inputs": [[[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]]]]}), "application/json", "shape"),
        ("1,2,3", "text/plain", "content type"),
    ],
    ids=["torn", "other-key", "four-channels", "no-batch", "too-small", "words", "ragged", "other-kind"],
)
def test_a_malformed_request_is_the_clients_mistake(server, body, kind, reason):
    status, text = invoke(server, body, kind)
    assert 400 <= status < 500, text
    assert reason in text
