"""A recorded configuration is composed again, and trains to the same losses."""

import dataclasses
import pickle
import shutil
import subprocess
import sys
from functools import partial
from importlib.metadata import EntryPoint, EntryPoints

import pytest
import training_command
from conftest import refused
from hydra.core.config_store import ConfigStore
from mlflow import MlflowClient
from omegaconf import OmegaConf

import fcnlab
from fcnlab import config as configuration
from fcnlab.config import flatten, folder, to_yaml
from fcnlab.config.schema import FolderConfig, OptimizerConfig, SGDConfig
from fcnlab.core.errors import ConfigError
from fcnlab.experiment import primary_config
from fcnlab.registry import factories

UNUSUAL = [
    "arch=fcn4s",
    "arch.width=0.5",
    "dataset=folder",
    "dataset.root='somewhere/é'",
    "dataset.num_classes=3",
    "dataset.class_names=['1','two words','null']",
    "dataset.mean=[0.1,0.2,0.3]",
    "augment=strong",
    "augment.rotate90=true",
    "optimizer=sgd",
    "optimizer.lr=1e-5",
    "optimizer.momentum=0.7",
    "schedule=poly",
    "schedule.power=2",
    "loss.class_weights=[1,2,3]",
    "trainer.epochs=3",
    "trainer.max_steps=77",
    "tracking.experiment=other",
    "tracking.run_name=mine",
    "seed=4",
    "init_from=weights.safetensors",
]
"""Overrides with which every section differs from ``conf/``."""

SECTIONS = ("arch", "dataset", "augment", "optimizer", "schedule", "loss", "trainer", "tracking", "seed")

NO_RUN = "0123456789abcdef" * 2


def same(config, other, *but):
    """Whether two configurations agree in every key except some."""
    return {**flatten(config), **dict.fromkeys(but)} == {**flatten(other), **dict.fromkeys(but)}


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def unusual():
    """A configuration that differs from the defaults in every section; to compose it takes a second."""
    return fcnlab.compose(UNUSUAL)


@pytest.fixture
def record(tmp_path):
    """A function that records a configuration as a training does, in a folder of the working directory."""

    def write(config, folder="old", edit=lambda text: text):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.yaml").write_text(edit(to_yaml(config)), encoding="utf-8")
        return config

    return write


@pytest.fixture
def old(record, unusual):
    """The configuration that an output folder ``old`` records."""
    return record(unusual)


def replace(*pairs):
    """Return a function that replaces parts of a text, each of which must be there."""

    def edit(text):
        for before, after in pairs:
            assert before in text
            text = text.replace(before, after)
        return text

    return edit


def test_every_recorded_value_is_composed_again(old):
    new = fcnlab.compose(["from_run=old"])
    assert same(new, old, "from_run")
    assert new.from_run == "old"
    assert type(new.dataset) is FolderConfig
    assert type(new.optimizer) is SGDConfig
    defaults = fcnlab.compose()
    for section in SECTIONS:
        assert getattr(old, section) != getattr(defaults, section), section


def test_defaults_that_changed_since_do_not_matter(record, tmp_path, monkeypatch):
    old = record(fcnlab.compose())
    conf = tmp_path / "conf"
    shutil.copytree(configuration.config_folder(), conf)
    changes = {
        "train": [("arch: fcn8s", "arch: fcn2s"), ("optimizer: adam", "optimizer: sgd"), ("seed: 0", "seed: 9")],
        "dataset/cells": [("num_train: 32", "num_train: 99"), ("std: [0.2", "std: [0.9")],
        "augment/light": [("flip: 0.5", "flip: 0.25")],
        "base_adam": [("lr: 0.001", "lr: 0.5")],
        "schedule/cosine": [("final: 0.0", "final: 0.5")],
        "base_loss": [("class_weights: null", "class_weights: [3, 4]")],
        "trainer/default": [("epochs: 20", "epochs: 21")],
        "tracking/mlflow": [("experiment: fcnlab", "experiment: other")],
    }
    for name, pairs in changes.items():
        file = conf / f"{name}.yaml"
        file.write_text(replace(*pairs)(file.read_text()))
    monkeypatch.setattr(folder, "PACKAGE", tmp_path)
    today = fcnlab.compose()
    for section in SECTIONS:
        assert getattr(old, section) != getattr(today, section), section
    assert same(fcnlab.compose(["from_run=old"]), old, "from_run")


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        (["optimizer.lr=0.1"], {"optimizer.lr": 0.1}),
        (["seed=8", "init_from=null"], {"seed": 8, "init_from": None}),
        (["arch=fcn16s"], {"arch.name": "fcn16s", "arch.stride": 16, "arch.width": 0.25}),
        (["optimizer=sgd"], {"optimizer.lr": 0.01, "optimizer.momentum": 0.9}),
        (["optimizer=sgd", "optimizer.momentum=0.1"], {"optimizer.lr": 0.01, "optimizer.momentum": 0.1}),
        (["optimizer=from_run", "optimizer.momentum=0.1"], {"optimizer.momentum": 0.1}),
        (["tracking=none"], {"tracking.name": "none", "tracking.experiment": "fcnlab", "tracking.run_name": None}),
        (["tracking.uri=sqlite:///x.db"], {"tracking.uri": "sqlite:///x.db"}),
    ],
    ids=" ".join,
)
def test_overrides_apply_on_top(old, overrides, changed):
    new = fcnlab.compose(["from_run=old", *overrides])
    assert flatten(new) == {**flatten(old), "from_run": "old", **changed}


@pytest.mark.usefixtures("old")
def test_another_option_has_its_own_keys():
    new = fcnlab.compose(["optimizer=adam", "optimizer.beta1=0.5", "from_run=old"])
    assert vars(new.optimizer) == {**vars(fcnlab.compose().optimizer), "beta1": 0.5}


def test_an_experiment_applies_on_top(record):
    record(fcnlab.compose(["dataset.num_train=7", "dataset.std=[0.3,0.3,0.3]", "arch=fcn4s", "trainer.patience=3"]))
    new = fcnlab.compose(["from_run=old", "experiment=smoke", "trainer.batch_size=3"])
    assert (new.dataset.num_train, new.arch.width, new.trainer.epochs) == (4, 0.0625, 2)  # the experiment's
    assert (new.dataset.std, new.arch.name, new.trainer.patience) == ([0.3] * 3, "fcn4s", 3)  # the record's
    assert new.trainer.batch_size == 3


@pytest.mark.usefixtures("old")
def test_an_experiment_that_chooses_a_group_replaces_the_section():
    overrides = ["experiment=isbi2012", "dataset.root=slices", "loss.class_weights=[1,1]"]
    new = fcnlab.compose(["from_run=old", *overrides])
    assert new.dataset == fcnlab.compose(overrides).dataset
    assert (new.arch.name, new.optimizer.momentum) == ("fcn4s", 0.7)


@pytest.mark.usefixtures("old")
def test_a_run_of_a_run(record):
    second = record(fcnlab.compose(["from_run=old", "seed=5"]), "second")
    third = fcnlab.compose(["from_run=second"])
    assert (second.from_run, third.from_run) == ("old", "second")
    assert same(third, second, "from_run")


def test_what_a_record_lacks_is_todays_default(old, tmp_path):
    file = tmp_path / "old" / "config.yaml"
    recorded = OmegaConf.load(file)
    del recorded["augment"], recorded["init_from"], recorded["trainer"]["epochs"]
    OmegaConf.save(recorded, file)
    new = fcnlab.compose(["from_run=old"])
    assert new.augment == fcnlab.compose().augment
    assert (new.init_from, new.trainer.epochs, new.trainer.max_steps) == (None, 20, 77)
    assert new.dataset == old.dataset


@pytest.mark.parametrize(
    "overrides",
    [["from_run=null"], ["from_run=old", "from_run=null"]],
    ids=["null", "null last"],
)
@pytest.mark.usefixtures("old")
@pytest.mark.slow
def test_null_is_as_without(overrides):
    assert fcnlab.compose(overrides) == fcnlab.compose()


@pytest.mark.parametrize(
    "overrides",
    [["from_run='é = è'"], ['from_run="é = è"'], ["++from_run='é = è'"], ["from_run=elsewhere", "from_run='é = è'"]],
    ids=" ".join,
)
@pytest.mark.slow
def test_quotes_quote_and_the_last_one_counts(record, unusual, overrides):
    old = record(unusual, "é = è")
    new = fcnlab.compose(overrides)
    assert same(new, old, "from_run")
    assert new.from_run == "é = è"


@pytest.mark.usefixtures("old")
def test_nothing_is_left_behind():
    fcnlab.compose(["from_run=old"])
    with pytest.raises(ConfigError, match=r"optimizer=from_run: known are adam, adamw, sgd$"):
        fcnlab.compose(["optimizer=from_run"])


@pytest.mark.usefixtures("old")
def test_a_job_in_another_process_can_compose_it():
    """Launchers send Hydra's store of configurations to the job, pickled."""
    with primary_config.registered(["from_run=old"]) as name:
        store = pickle.loads(pickle.dumps(ConfigStore.instance()))
    assert OmegaConf.get_type(store.load(f"optimizer/{name}.yaml").node) is SGDConfig
    assert store.load(f"{name}.yaml").node.seed == 4


refusal = partial(refused, fcnlab.compose)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["from_run=nowhere"], ["from_run=nowhere", "run id", "folder with a config.yaml"]),
        (["from_run=old,new"], ["from_run=old,new", "one value"]),
        (["from_run=a=b"], ["from_run=a=b", "quote"]),
        (["from_run=é"], ["from_run=é", "quote"]),
        (["from_run=old", "optimizer.beta1=1"], ["optimizer.beta1", "no such key"]),
        (["from_run=old", "arch=fcn9s"], ["arch=fcn9s", "fcn8s"]),
        (["from_run=old", "trainer.epochs=0"], ["trainer.epochs=0", "at least 1"]),
        ([f"from_run={NO_RUN}"], [f"from_run={NO_RUN}", "mlflow.db", "no such file", "tracking.uri=..."]),
        ([f"from_run={NO_RUN}", "tracking.uri=sqlite:///other.db"], ["sqlite:///other.db", "no such file"]),
        ([f"from_run={NO_RUN}", "tracking.uri=a,b"], ["tracking.uri=a,b", "one value"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
@pytest.mark.usefixtures("old")
@pytest.mark.slow
def test_a_mistake_is_one_line(tmp_path, overrides, expected):
    text = refusal(*overrides)
    assert all(word in text for word in expected), text
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("  epochs: 3\n", "  rounds: 3\n", ["trainer.rounds", "no such key", "fcnlab 0.0.9"]),
        ("  momentum: 0.7\n", "  beta1: 0.7\n", ["optimizer.beta1", "no such key", "fcnlab 0.0.9"]),
        ("seed: 4\n", "speed: 4\n", ["speed", "no such key", "fcnlab 0.0.9"]),
        ("seed: 4\n", "seed: [4]\n", ["seed", "fcnlab 0.0.9"]),
        ("  epochs: 3\n", "  epochs: three\n", ["trainer.epochs", "three", "fcnlab 0.0.9"]),
        ("  epochs: 3\n", "  epochs: [3\n", ["config.yaml is not YAML"]),
        ("  power: 2.0\n", "  power: -2.0\n", ["schedule.power=-2.0", "above 0"]),
    ],
)
@pytest.mark.slow
def test_a_record_that_does_not_fit_this_version_is_one_line(record, unusual, before, after, expected):
    record(unusual, edit=replace((before, after), (f"fcnlab {fcnlab.__version__}", "fcnlab 0.0.9")))
    text = refusal("from_run=old")
    assert all(word in text for word in expected), text


@pytest.mark.parametrize("text", ["", "[1, 2]"])
def test_a_file_without_a_configuration_is_refused(tmp_path, text):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.yaml").write_text(text)
    assert refusal("from_run=old") == "from_run=old: config.yaml holds no configuration"


class Lion:
    @dataclasses.dataclass
    class Config(OptimizerConfig):
        name: str = "lion"
        mane: float = 0.5


def test_a_plug_in_is_found_and_missed_only_where_it_is_used(record, monkeypatch):
    mine = EntryPoints([EntryPoint("lion", f"{__name__}:Lion", "fcnlab.optimizers")])
    with monkeypatch.context() as patch:
        patch.setattr(factories, "entry_points", lambda: mine)
        record(fcnlab.compose(["optimizer=lion", "optimizer.mane=0.75"]))
        assert fcnlab.compose(["from_run=old"]).optimizer.mane == 0.75
    ConfigStore.instance().repo["optimizer"].pop("lion.yaml")
    assert "unknown optimizer 'lion'" in refusal("from_run=old")
    assert fcnlab.compose(["from_run=old", "optimizer=sgd"]).optimizer.name == "sgd"


@pytest.mark.usefixtures("old")
def test_from_run_in_a_file_is_refused(tmp_path):
    """The defaults have been composed by the time that the file is read."""
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "again.yaml").write_text("# @package _global_\nfrom_run: old\n")
    text = refusal(f"hydra.searchpath=[file://{tmp_path / 'mine'}]", "experiment=again")
    assert "from_run=old: give it on the command line" in text


@pytest.fixture
def store(tmp_path, unusual, empty_store):
    """A store with one run that recorded another store's address, and one run without a record."""
    uri = f"sqlite:///{shutil.copy(empty_store, tmp_path / 'store.db')}"
    client = MlflowClient(uri)
    experiment = client.create_experiment("fcnlab", artifact_location=str(tmp_path / "artifacts"))
    config = dataclasses.replace(unusual, tracking=dataclasses.replace(unusual.tracking, uri="sqlite:///long/gone.db"))
    run, empty = (client.create_run(experiment).info.run_id for _ in range(2))
    client.log_text(run, to_yaml(config), "config.yaml")
    return uri, config, run, empty


def test_a_run_is_found_in_the_store_that_is_named(store, monkeypatch, tmp_path):
    uri, old, run, empty = store
    new = fcnlab.compose([f"from_run={run}", f"tracking.uri={uri}", "optimizer=adam"])
    assert same(new, dataclasses.replace(old, optimizer=fcnlab.compose().optimizer), "from_run", "tracking.uri")
    assert (new.from_run, new.tracking.uri) == (run, uri)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    new = fcnlab.compose([f"from_run={run}"])
    assert same(new, old, "from_run", "tracking.uri")
    assert new.tracking.uri is None  # the environment chooses the store, as for any other run

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (tmp_path / "store.db").rename(tmp_path / "mlflow.db")
    assert same(fcnlab.compose([f"from_run={run}"]), old, "from_run", "tracking.uri")

    assert all(word in refusal(f"from_run={NO_RUN}") for word in (NO_RUN, "not found", "tracking.uri=..."))
    assert all(word in refusal(f"from_run={empty}") for word in (empty, "config.yaml"))


@pytest.mark.slow
def test_the_same_losses_again(tiny_overrides, tmp_path):
    """The training is in graph mode, with dropout, augmentation and batches in random order."""
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.create_experiment("fcnlab", artifact_location=str(tmp_path / "artifacts"))

    def losses(*overrides):
        before = {run.info.run_id for run in client.search_runs([experiment])}
        code, _, err = training_command.run(tmp_path, *overrides)
        assert code == 0, err
        new = [run for run in client.search_runs([experiment]) if run.info.run_id not in before]
        parents = {run.data.tags.get("mlflow.parentRunId") for run in new}  # a sweep has one
        (run,) = (run for run in new if run.info.run_id not in parents)
        history = client.get_metric_history(run.info.run_id, "train/loss")
        return run, [(metric.step, metric.value) for metric in history]

    old, first = losses("arch=fcn16s", "augment=strong", "optimizer.lr=0.01", "seed=3", *tiny_overrides)
    assert [step for step, _ in first] == [1, 2, 3, 4]
    (folder,) = (tmp_path / "outputs").glob("*/*")
    assert same(fcnlab.compose([f"from_run={folder}"]), fcnlab.compose([f"from_run={old.info.run_id}"]), "from_run")

    new, again = losses(f"from_run={old.info.run_id}")
    assert again == first
    assert new.data.params == {**old.data.params, "from_run": old.info.run_id}

    other, another = losses("-m", f"from_run={old.info.run_id}", "seed=1", "optimizer=from_run")
    assert other.data.params == {**new.data.params, "seed": "1", "sweep.id": other.data.params["sweep.id"]}
    assert [step for step, _ in another] == [1, 2, 3, 4]
    assert another != first


@pytest.mark.usefixtures("old")
def test_from_run_beside_a_config_name_is_refused():
    code, _, err = training_command.run(".", "--config-name", "train", "from_run=old")
    assert code == 1
    assert err.count("\n") == 1
    assert "--config-name" in err


def test_a_command_without_it_does_not_wait_for_mlflow():
    script = "import sys, fcnlab.train; sys.exit('mlflow' in sys.modules or 'mindspore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=1800, check=False).returncode == 0
