"""States on disk: each is whole or absent, older ones are kept as long as needed, and only their own network fits."""

import errno
import io
import os

import mindspore as ms
import numpy as np
import pytest

from fcnlab.core import files
from fcnlab.core.errors import CheckpointError
from fcnlab.metrics.confusion import ConfusionMatrix
from fcnlab.training.callbacks import EvaluationEvent
from fcnlab.training.evaluation import Evaluation
from fcnlab.training.state import Progress, StateFolder, read_state

DOCUMENT = {"ignore_index": 255, "class_names": ["a", "b"], "arch": {"name": "fcn8s"}}


def parameters(value=1.0, **changes):
    """Return parameters of a network and an optimizer; some of them are scalars and integers."""
    arrays = {
        "fc6.weight": np.full((2, 3), value, np.float32),
        "optimizer.first.fc6.weight": np.full((2, 3), -value, np.float32),
        "optimizer.beta1_power": np.array(value, np.float32),
        "optimizer.count": np.array([7], np.int32),
        **changes,
    }
    return {name: ms.Parameter(ms.Tensor(array), name=name) for name, array in arrays.items() if array is not None}


def progress(steps):
    confusion = ConfusionMatrix(2, 255)
    confusion.update(np.array([0, 1, 1]), np.array([0, 1, 0]))
    best = EvaluationEvent(2, 1, Evaluation(0.25, confusion, ["a", "b"], []), improved=True)
    losses = [1 / (step + 3) for step in range(steps)]
    return Progress(steps, 3, 2, 1, 4, True, losses, best)


def test_everything_comes_back(tmp_path):
    path = StateFolder(tmp_path).save(progress(5), parameters(1 / 3), {**DOCUMENT, "run": {"run_id": "x"}})
    state = read_state(path)
    then = progress(5)
    for name in ("steps", "epochs", "evaluated_at", "evaluations_since_best", "skipped", "stopped_early", "losses"):
        assert getattr(state.progress, name) == getattr(then, name)
    assert state.progress.best.evaluation.metrics == then.best.evaluation.metrics
    assert (state.progress.best.step, state.progress.best.epoch) == (2, 1)
    assert state.document["run"] == {"run_id": "x"}
    others = parameters(0.0)
    state.load_into(others)
    for name, parameter in parameters(1 / 3).items():
        np.testing.assert_array_equal(others[name].asnumpy(), parameter.asnumpy())
        assert others[name].shape == parameter.shape
        assert others[name].dtype == parameter.dtype


@pytest.mark.parametrize(
    "changes",
    [{"fc6.weight": np.zeros((2, 4), np.float32)}, {"more": np.zeros(1, np.float32)}, {"fc6.weight": None},
     {"optimizer.count": np.zeros(1, np.int64)}],
    ids=["shape", "missing", "left over", "type"],
)  # fmt: skip
def test_a_state_of_another_network_or_optimizer_sets_nothing(tmp_path, changes):
    state = read_state(StateFolder(tmp_path).save(progress(1), parameters(), DOCUMENT))
    others = parameters(2.0, **changes)
    with pytest.raises(CheckpointError, match=r"of another network or optimizer|of another one") as caught:
        state.load_into(others)
    assert "\n" not in str(caught.value)
    assert "init_from" in str(caught.value)
    assert others["optimizer.beta1_power"].asnumpy() == 2


def test_the_newest_two_stay_and_what_was_gone_back_from_goes(tmp_path):
    folder = StateFolder(tmp_path)
    for steps in (10, 20, 30):
        folder.save(progress(steps), parameters(), DOCUMENT)
    assert [path.name for path in folder.paths()] == ["state_00000030.safetensors", "state_00000020.safetensors"]
    folder.save(progress(25), parameters(), DOCUMENT)
    assert [path.name for path in folder.paths()] == ["state_00000025.safetensors", "state_00000020.safetensors"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("when", ["write", "sync"])
def test_a_disk_that_does_not_take_it_leaves_those_before(tmp_path, monkeypatch, code, when):
    folder = StateFolder(tmp_path)
    for steps in (1, 2):
        folder.save(progress(steps), parameters(), DOCUMENT)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    class Full(io.BufferedWriter):
        def write(self, data):
            if self.tell() + len(data) > 100:
                raise OSError(code, os.strerror(code))
            return super().write(data)

    def sync(path):
        raise OSError(code, os.strerror(code))

    if when == "write":
        monkeypatch.setattr("pathlib.Path.open", lambda path, mode: Full(io.FileIO(path, "w")))
    else:
        monkeypatch.setattr(files, "sync", sync)
    with pytest.raises(CheckpointError, match=f"{os.strerror(code)}.*free space") as caught:
        folder.save(progress(3), parameters(), DOCUMENT)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert folder.newest().progress.steps == 2


def test_weights_alone_are_no_state(tmp_path):
    from fcnlab.models.checkpoint import save_parameters

    save_parameters(tmp_path / "best.safetensors", parameters(), DOCUMENT)
    with pytest.raises(CheckpointError, match=r"holds no whole state of a training .*init_from"):
        read_state(tmp_path / "best.safetensors")


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
@pytest.mark.parametrize("name", ["fc6.weight", "optimizer.first.fc6.weight", "optimizer.beta1_power"])
def test_a_state_that_holds_no_numbers_is_refused_and_the_one_before_taken(tmp_path, caplog, name, bad):
    folder = StateFolder(tmp_path)
    folder.save(progress(1), parameters(), DOCUMENT)
    array = parameters()[name].asnumpy().copy()
    array.flat[-1] = bad
    skipped = progress(2)
    skipped.losses[1] = np.nan  # the loss of a skipped step may be NaN
    path = folder.save(skipped, parameters(**{name: array}), DOCUMENT)
    with pytest.raises(CheckpointError) as caught:
        read_state(path)
    assert str(caught.value).startswith(f"{path}: {name} holds NaN or infinity")
    assert "\n" not in str(caught.value)
    assert folder.newest().progress.steps == 1
    assert "falling back to state_00000001.safetensors" in caplog.text
    assert np.isnan(read_state(folder.save(skipped, parameters(), DOCUMENT)).progress.losses[1])
