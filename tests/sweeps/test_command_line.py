"""Which sweep a command line begins or resumes."""

import pytest

from fcnlab.core.errors import ConfigError
from fcnlab.sweeps.command_line import begin, is_multirun
from fcnlab.sweeps.manifest import SweepManifest

ID = "0123456789abcdef0123456789abcdef"
OVERRIDES = ("arch=fcn8s,fcn16s", "seed=1,2")


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A sweep that was begun with `OVERRIDES`; the working directory is the one it was begun in."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "multirun/today/now"
    SweepManifest(ID, OVERRIDES).write(folder)
    return folder


def values(arguments, key):
    return [word.partition("=")[2] for word in arguments if word.lstrip("+").partition("=")[0] == key]


def test_several_trainings_are_asked_for_by_a_flag_or_by_resuming():
    assert is_multirun(["-m", "seed=1,2"])
    assert is_multirun(["--multirun"])
    assert is_multirun(["sweep.resume=x"])
    assert not is_multirun(["seed=1"])


def test_each_sweep_has_an_id_and_its_overrides():
    first, arguments = begin(["-m", *OVERRIDES])
    second, _ = begin(["-m", *OVERRIDES])
    assert first.id != second.id
    assert first.overrides == OVERRIDES
    assert arguments == ["-m", *OVERRIDES]


@pytest.mark.parametrize("name", ["folder", "id"])
def test_resuming_repeats_the_overrides_in_the_same_folder(begun, name):
    source = {"folder": str(begun), "id": ID}[name]
    found, arguments = begin([f"sweep.resume={source}", "hydra/launcher=parallel"])
    assert found.id == ID
    assert arguments[:3] == ["-m", *OVERRIDES]
    assert "sweep.skip_finished=true" in arguments
    assert "hydra/launcher=parallel" in arguments
    assert values(arguments, "hydra.sweep.dir")[0].strip("'").endswith("multirun/today/now")


def test_the_same_overrides_find_their_newest_sweep(begun):
    found, arguments = begin(["-m", *OVERRIDES, "sweep.skip_finished=true"])
    assert found.id == ID
    assert values(arguments, "hydra.sweep.dir")
    other, arguments = begin(["-m", "arch=fcn8s", "sweep.skip_finished=true"])
    assert other.id != ID
    assert not values(arguments, "hydra.sweep.dir")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweep.resume=nowhere"], r"sweep\.resume=nowhere: is neither the folder of a sweep"),
        ([f"sweep.resume={ID}", "seed=3"], r"leave out seed=3"),
        (["-m", "seed=1,2", "hydra.sweep.dir=multirun/today/now"], r"holds a sweep already.*sweep\.resume="),
        (["-m", "sweep.id=abc"], r"sweep\.id: a sweep gets its id by itself"),
        ([f"sweep.resume={'f' * 32}"], r"no sweep below multirun/ has this id"),
    ],
)
def test_what_cannot_be_begun_is_one_line(begun, arguments, said):
    with pytest.raises(ConfigError, match=said) as caught:
        begin(arguments)
    assert "\n" not in str(caught.value)
    assert not (begun.parents[2] / "mlflow.db").exists()  # looking for a run makes no store
