"""``python -m fcnlab.compare``."""

import math
import shutil

import pytest
from mlflow import MlflowClient
from recorded_trials import SWEEP, write
from rich.console import Console

from fcnlab import compare as module
from fcnlab.compare import compare
from fcnlab.comparison.texts import counted
from fcnlab.config import compose
from fcnlab.core.errors import FcnlabError
from fcnlab.recording.journal import Journal
from fcnlab.sweeps.manifest import SweepManifest
from fcnlab.sweeps.result import TrialResult
from fcnlab.tracking.journal_sender import sync


@pytest.fixture(scope="module")
def recorded_sweep(tmp_path_factory, empty_store):
    """A sweep over two architectures and two seeds, in its folder and in a store."""
    root = tmp_path_factory.mktemp("sweep")
    folder = root / "multirun/s"
    shutil.copy(empty_store, root / "store.db")
    uri = f"sqlite:///{root / 'store.db'}"
    tags = {"fcnlab.sweep": SWEEP}
    sync(write(folder, "sweep", tags={**tags, "fcnlab.role": "sweep"}, identity=SWEEP), uri)
    SweepManifest(SWEEP, ("seed=1,2",)).write(folder)
    for number in range(4):
        params = {"arch.name": ("fcn32s", "fcn8s")[number // 2], "seed": str(number % 2)}
        place = folder / str(number)
        sync(write(place, f"run {number}", tags={**tags, "fcnlab.trial": str(number)}, params=params), uri)
        TrialResult(number, folder=str(place), status="finished", value=0.6).write(folder)
    return folder, uri


@pytest.fixture
def sweep(recorded_sweep, tmp_path, monkeypatch):
    """`recorded_sweep`, seen from an empty working directory in which no store is chosen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return recorded_sweep


def words(*given):
    return compose(given, "compare")


@pytest.fixture
def printed(monkeypatch):
    console = Console(width=100, record=True)
    monkeypatch.setattr(module, "get_console", lambda: console)
    monkeypatch.setattr(module, "Console", lambda width: console)
    return console


def test_a_folder_and_a_filter_hold_together(sweep, printed):
    folder, store = sweep
    found = compare(words(f"sweep={folder}", "filter='params.seed = \"1\"'", f"tracking.uri={store}"))
    assert [[trial.seed for trial in group.trials] for group in found.groups] == [["1"], ["1"]]


@pytest.mark.parametrize("by", ["folder", "id", "experiment", "filter"])
def test_trainings_are_named_in_any_way(sweep, printed, by, tmp_path):
    folder, store = sweep
    given = {"folder": f"sweep={folder}", "id": f"sweep={SWEEP}", "experiment": "tracking.experiment=study"}
    given["filter"] = "filter='params.`arch.name` LIKE \"fcn%\"'"
    output = [] if by == "id" else [f"output={tmp_path / 'report'}"]
    found = compare(words(given[by], f"tracking.uri={store}", *output))
    assert [group.label for group in found.groups] == ["fcn32s", "fcn8s"]
    text = printed.export_text()
    assert "fcn32s" in text
    assert "0.6000 ± 0.0000" in text
    assert (tmp_path / "report/comparison.md").is_file() == bool(output)


def test_the_result_is_added_to_the_parent(sweep, printed):
    folder, store = sweep
    compare(words(f"sweep={SWEEP}", "log_to=parent", f"tracking.uri={store}"))
    client = MlflowClient(store)
    (parent,) = client.search_runs(["1"], "tags.`fcnlab.role` = 'sweep'")
    found = {item.path for item in client.list_artifacts(parent.info.run_id, "comparison")}
    assert "comparison/comparison.csv" in found
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "say which trainings"),
        (["tracking.experiment=none"], "there is no experiment 'none'"),
        ([f"sweep={'f' * 32}"], "fits no training in"),
        (["sweep=nowhere"], "fits no training in"),
        (
            ["tracking.experiment=study", "monitor=val/iou/none"],
            r"none of the 4 trainings has it: they have val/iou/cell",
        ),
        (["tracking.experiment=study", "baseline='arch=fcn4s'"], "fits 0 groups"),
        (["tracking.experiment=study", "log_to=parent"], "say which with sweep="),
        (["filter='x y z'"], "tracking store"),
        (["tracking.experiment=study", "filter='attributes.status = \"RUNNING\"'"], "fits no training in"),
    ],
)
def test_what_cannot_be_compared_is_one_line(sweep, printed, given, said):
    _, store = sweep
    with pytest.raises(FcnlabError, match=said) as caught:
        compare(words(*given, f"tracking.uri={store}"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("by", ["folder", "store"])
@pytest.mark.parametrize(("value", "said"), [(math.nan, "not a number"), (math.inf, "infinite")])
def test_a_loss_that_is_no_number_does_not_count(tmp_path, uri, printed, by, value, said):
    """MLflow's database holds the largest number in place of infinity."""
    folder = tmp_path / "multirun/s"
    SweepManifest(SWEEP, ("seed=1,2",)).write(folder)
    for number, loss in enumerate([0.5, value]):
        params, tags = {"seed": str(number), "trainer.monitor": "val/loss"}, {"fcnlab.sweep": SWEEP}
        place = write(folder / str(number), f"run {number}", tags=tags, params=params, end=None)
        journal = Journal(place, exist_ok=True)
        journal.append("metrics", step=4, values={"val/loss": loss})
        journal.append("end", status="finished")
        journal.close()
        TrialResult(number, folder=str(place), status="finished").write(folder)
        if by == "store":
            sync(place, uri)
    found = compare(words(f"sweep={folder if by == 'folder' else SWEEP}", f"tracking.uri={uri}"))
    (group,) = found.groups
    assert (counted(group), group.mean("val/loss")) == ("1 of 2", 0.5)
    assert f"its val/loss is {said}" in printed.export_text()


def test_a_metric_without_any_number_is_one_line(tmp_path, uri):
    params = {"trainer.monitor": "val/loss"}
    place = write(tmp_path / "run", params=params, end=None)
    journal = Journal(place, exist_ok=True)
    journal.append("metrics", step=4, values={"val/loss": math.nan})
    journal.append("end", status="finished")
    journal.close()
    sync(place, uri)
    with pytest.raises(FcnlabError, match="monitor=val/loss: none of the 1 trainings has a finite value of it"):
        compare(words("tracking.experiment=study", f"tracking.uri={uri}"))


def test_a_store_that_is_not_there_is_not_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(FcnlabError, match="no such file"):
        compare(words("tracking.experiment=study"))
    assert list(tmp_path.iterdir()) == []
