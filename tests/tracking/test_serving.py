"""MLflow's own server serves a model over HTTP."""

import json
import os
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from local_server import LocalServer
from tiny_network import expected_labels, save_checkpoint, some_images

from fcnlab.tracking.packaging import package

pytestmark = pytest.mark.slow  # a server of its own


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("served") / "best.safetensors")


@pytest.fixture(scope="module")
def server(checkpoint):
    """The address of ``mlflow models serve``."""
    folder = checkpoint.parent
    package(checkpoint, folder / "model")
    # A user's shell has the environment activated, and no variables for MindSpore.
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PROTOCOL_BUFFERS")}
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    arguments = ["models", "serve", "-m", str(folder / "model"), "--env-manager", "local"]
    with LocalServer(folder, arguments, "/ping", variables) as server:
        yield server.uri


def invoke(address, body, kind="application/json"):
    """Return the status and the text of the answer."""
    request = urllib.request.Request(f"{address}/invocations", data=body.encode(), headers={"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=1800) as response:
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
