"""MindSpore and MLflow work in one process, whichever is imported first."""

import os
import subprocess
import sys

import pytest

from fcnlab.core.protobuf import PROTOBUF

USE = """
import json, os, sys
from pathlib import Path

ORDER
import mindspore as ms
import numpy as np
from google.protobuf.internal import api_implementation
from mlflow.entities import Metric
from mlflow.utils.proto_json_utils import message_to_json, parse_dict

from fcnlab.core.errors import CheckpointError
from fcnlab.models.checkpoint import read_weights

# MindSpore uses protobuf for its own checkpoints and exported graphs, here whole and damaged ones.
ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
network = ms.nn.Dense(3, 2)
images = ms.Tensor(np.ones((1, 3), np.float32))
expected = network(images).asnumpy()
ms.save_checkpoint(network, "network.ckpt")
assert set(read_weights(Path("network.ckpt"))[0]) == {"weight", "bias"}
Path("damaged.ckpt").write_bytes(b"not a checkpoint at all" * 10)
try:
    read_weights(Path("damaged.ckpt"))
    raise AssertionError("a damaged checkpoint was read")
except CheckpointError:
    pass
ms.export(network, images, file_name="network", file_format="MINDIR")
exported = ms.nn.GraphCell(ms.load("network.mindir"))(images).asnumpy()
np.testing.assert_allclose(exported, expected, rtol=1e-6)

# MLflow uses it for messages to and from a server.
sent = message_to_json(Metric("loss", 0.5, timestamp=1, step=2).to_proto())
received = Metric("", 0.0, 0, 0).to_proto()
parse_dict(json.loads(sent), received)
assert Metric.from_proto(received) == Metric("loss", 0.5, timestamp=1, step=2)

import google.protobuf
assert google.protobuf is sys.modules["google.protobuf"]
print(api_implementation.Type(), os.environ.get(VARIABLE))
"""


@pytest.mark.parametrize(
    ("first", "variable", "expected"),
    [
        # In this order they work in every other test, too.
        pytest.param("import fcnlab, mlflow", None, ["python", "python"], marks=pytest.mark.slow),
        ("import mlflow, fcnlab", None, ["upb", "None"]),
        # This is what a child of the first case finds.
        pytest.param("import mlflow, fcnlab", "python", ["python", "python"], marks=pytest.mark.slow),
    ],
    ids=["before", "after", "after-inherited"],
)
def test_mlflow_and_mindspore_work_together_in_either_order(first, variable, expected, tmp_path):
    done = run(USE.replace("ORDER", first), variable, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == expected


def test_a_mindspore_that_cannot_load_leaves_protobuf_as_it_was(tmp_path):
    (tmp_path / "mindspore.py").write_text("from google.protobuf import message\nraise ImportError('broken')")
    code = """
import mlflow, os, sys
before = {name: module for name, module in sys.modules.items() if name.startswith("google.protobuf")}
try:
    import fcnlab
    raise AssertionError("MindSpore was not imported")
except ImportError as error:
    assert str(error) == "broken"
after = {name: module for name, module in sys.modules.items() if name.startswith("google.protobuf")}
assert before and before == after
print(os.environ.get(VARIABLE))
"""
    done = run(code, "upb", tmp_path)
    assert (done.returncode, done.stdout.split()) == (0, ["upb"]), done.stderr


def run(code, variable, folder):
    variables = {key: value for key, value in os.environ.items() if key != PROTOBUF}
    if variable is not None:
        variables[PROTOBUF] = variable
    script = [sys.executable, "-c", f"VARIABLE = {PROTOBUF!r}\n{code}"]
    return subprocess.run(script, capture_output=True, text=True, env=variables, cwd=folder, timeout=1800)
