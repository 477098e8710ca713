"""Graphs of an earlier process: faster, and never another's."""

import json
import logging
import os
import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest
from conftest import compose_tiny
from mindspore import Parameter, Tensor, nn

import fcnlab
from fcnlab.config.schema import SCHEMAS, Config, leaves
from fcnlab.device import configure
from fcnlab.graph_cache import MAX_ENTRIES, GraphCache
from fcnlab.graph_key import describe_cell

SCRIPT = """
import json, sys
from pathlib import Path
from conftest import compose_tiny
import fcnlab
from fcnlab.graph_cache import GraphCache

compiled, loaded = GraphCache.compile, []

def watched(self, cell, *inputs):
    loaded.append(compiled(self, cell, *inputs))
    return loaded[-1]

GraphCache.compile = watched
result = fcnlab.train(compose_tiny("tracking=none", *sys.argv[2:]), Path(sys.argv[1]) / "run")
print(json.dumps([loaded, result.losses, result.best.evaluation.metrics["val/loss"]]))
"""


def run(folder, name, *overrides):
    """Train in a process of its own, with the graphs of a folder: what was loaded, and what came out."""
    path = {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *filter(None, [os.environ.get("PYTHONPATH")])])}
    script = folder / "script.py"  # MindSpore opens the program's file, so that `-c` will not do
    script.write_text(SCRIPT)
    graphs = {"XDG_CACHE_HOME": str(folder / "cache")}
    if "XDG_CACHE_HOME" in os.environ:  # the operators need not be compiled again
        (folder / "cache" / "fcnlab").mkdir(parents=True, exist_ok=True)
        link = folder / "cache" / "fcnlab" / "kernels"
        if not link.exists():
            link.symlink_to(os.path.join(os.environ["XDG_CACHE_HOME"], "fcnlab", "kernels"))
    command = [sys.executable, str(script), str(folder / name), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **path, **graphs}, timeout=180)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_five_learning_rates_are_compiled_once_and_compute_what_they_say(tmp_path):
    first = run(tmp_path, "first", "optimizer.lr=0.001")
    second = run(tmp_path, "second", "optimizer.lr=0.01", "seed=5")
    again = run(tmp_path, "again", "optimizer.lr=0.01", "seed=5", "trainer.compile_cache=false")
    assert first[0] == [False, False]
    assert second[0] == [True, True]
    assert again[0] == []
    assert second[1:] == again[1:]
    assert first[1:] != second[1:]
    assert len(list((tmp_path / "cache" / "fcnlab" / "graphs").iterdir())) == 2


class Scale(nn.Cell):
    """A graph with every kind of constant in it."""

    def __init__(self, factor=2.0, offset=(1.0, 2.0), weight=1.0, noise=None):
        super().__init__()
        self.factor = factor
        self.offset = Tensor(list(offset), ms.float32)
        self.weight = Parameter(Tensor([weight], ms.float32), name="weight")
        if noise is not None:
            self.noise = noise

    def construct(self, values):
        return values * self.factor * self.weight + self.offset


class Minus(nn.Cell):
    """Another graph of the same inputs."""

    def construct(self, values):
        return values - 1


VALUES = np.array([3.0, 5.0], np.float32)


@pytest.fixture(autouse=True)
def graph_mode():
    configure("cpu", "graph")


def compiled(folder, cell, **settings):
    """Whether a cell's graph was loaded, and what it computes."""
    loaded = GraphCache(settings, folder=folder).compile(cell, Tensor(VALUES))
    return loaded, cell(Tensor(VALUES)).asnumpy().tolist()


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_each_graph_is_found_whatever_was_compiled_before_it(tmp_path):
    """MindSpore numbers graphs by their order, which differs when a training only evaluates."""
    expected = {Scale: (VALUES * 2 + [1, 2]).tolist(), Minus: (VALUES - 1).tolist()}
    for order, loaded in (((Scale, Minus), False), ((Minus, Scale), True), ((Minus, Minus, Scale), True)):
        for cls in order:
            assert compiled(tmp_path, cls()) == (loaded, expected[cls])
    assert len(entries(tmp_path)) == 2


def test_a_graph_between_that_is_not_stored_changes_nothing(tmp_path):
    compiled(tmp_path, Scale())
    Minus().compile(Tensor(VALUES))
    assert compiled(tmp_path, Scale()) == (True, (VALUES * 2 + [1, 2]).tolist())


def test_a_graph_that_others_store_costs_one_compilation(tmp_path):
    """MindSpore has then counted further than is known here."""
    compiled(tmp_path, Scale())
    ms.set_context(enable_compile_cache=True)
    Minus().compile(Tensor(VALUES))
    ms.set_context(enable_compile_cache=False)
    assert compiled(tmp_path, Scale())[1] == (VALUES * 2 + [1, 2]).tolist()
    assert compiled(tmp_path, Scale()) == (True, (VALUES * 2 + [1, 2]).tolist())


@pytest.mark.parametrize(
    ("other", "settings"),
    [
        ({"factor": 3.0}, {}),
        ({"offset": (1.0, 3.0)}, {}),
        ({"noise": [1, {"a": (2, 3)}]}, {}),
        ({"noise": np.float32(1)}, {}),
        ({"noise": lambda: 1}, {}),
        ({}, {"loss.class_weights": [1.0, 2.0]}),
    ],
)
def test_another_constant_is_another_graph(tmp_path, other, settings):
    compiled(tmp_path, Scale())
    cell = Scale(**other)
    loaded, found = compiled(tmp_path, cell, **settings)
    assert not loaded
    assert found == (VALUES * cell.factor + cell.offset.asnumpy()).tolist()


def test_the_value_of_a_parameter_is_an_input(tmp_path):
    compiled(tmp_path, Scale())
    assert compiled(tmp_path, Scale(weight=4.0)) == (True, (VALUES * 8 + [1, 2]).tolist())


def test_a_closure_and_a_plain_object_are_described_by_what_they_hold():
    def scaler(factor):
        return lambda value: value * factor

    class Settings:
        def __init__(self, depth):
            self.depth = depth

    described = [describe_cell(Scale(noise=item)) for item in (scaler(1), scaler(2), Settings(1), Settings(2))]
    assert described == [describe_cell(Scale(noise=item)) for item in (scaler(1), scaler(2), Settings(1), Settings(2))]
    assert all(described.count(item) == 1 for item in described)


def test_what_cannot_be_described_is_compiled_anew(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert compiled(tmp_path, Scale(noise=iter([1])))[1] == (VALUES * 2 + [1, 2]).tolist()
    assert not list(tmp_path.iterdir())
    assert "compiled anew each time" in caplog.text


@pytest.mark.parametrize("name", ["graph.mindir", "compile_dependency.hash", "entry.json"])
@pytest.mark.parametrize("content", [b"", b"{}", None])
def test_a_damaged_entry_is_made_anew(tmp_path, caplog, name, content):
    compiled(tmp_path, Scale())
    (entry,) = tmp_path.iterdir()
    file = entry / name
    file.chmod(0o600)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    assert compiled(tmp_path, Scale()) == (False, (VALUES * 2 + [1, 2]).tolist())
    assert compiled(tmp_path, Scale())[0]


def test_an_entry_of_an_older_version_is_not_trusted(tmp_path, monkeypatch):
    monkeypatch.setattr("fcnlab.graph_cache.FORMAT", 1)
    compiled(tmp_path, Scale())
    monkeypatch.undo()
    assert not compiled(tmp_path, Scale())[0]


@pytest.mark.parametrize("what", ["script", "package", "version", "variable"])
def test_edited_code_and_other_versions_have_entries_of_their_own(tmp_path, monkeypatch, what):
    compiled(tmp_path / "graphs", Scale())
    if what == "script":
        (tmp_path / "other.py").write_text("edited")
        monkeypatch.setattr(sys, "argv", [str(tmp_path / "other.py")])
    elif what == "package":
        monkeypatch.setattr("fcnlab.graph_key._digest_files", lambda paths, root: "edited")
    elif what == "version":
        monkeypatch.setattr("fcnlab.graph_key.version", lambda name: "3.0")
    else:
        monkeypatch.setenv("MS_DEV_JIT_SYNTAX_LEVEL", "0")
    assert not compiled(tmp_path / "graphs", Scale())[0]


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_reuse(tmp_path):
    (tmp_path / "file").write_text("")
    assert compiled(tmp_path / "file" / "cache", Scale()) == (False, (VALUES * 2 + [1, 2]).tolist())


class Wrong(nn.Cell):
    """Cannot be compiled."""

    def construct(self, values):
        return values + self.missing


def test_a_graph_that_cannot_be_compiled_leaves_no_entry(tmp_path):
    with pytest.raises(Exception, match="missing"):
        GraphCache({}, folder=tmp_path).compile(Wrong(), Tensor(VALUES))
    assert not list(tmp_path.iterdir())
    assert compiled(tmp_path, Scale()) == (False, (VALUES * 2 + [1, 2]).tolist())
    assert compiled(tmp_path, Scale())[0]


def test_the_oldest_entries_go(tmp_path):
    for index in range(MAX_ENTRIES + 5):
        entry = tmp_path / f"{index:032x}"
        entry.mkdir()
        os.utime(entry, (index, index))
    compiled(tmp_path, Scale())
    kept = {path.name for path in tmp_path.iterdir()}
    assert len(kept) == MAX_ENTRIES
    assert f"{5:032x}" not in kept
    assert compiled(tmp_path, Scale())[0]


UNTOUCHED = {"resume", "from_run", "sweep.resume", "dataset.name", "augment.extra"}
"""Keys that name something to go on with, or a plug-in."""

SPECIAL = {
    "arch.name": ["arch=fcn16s"],
    "arch.stride": ["arch=fcn32s"],
    "arch.width": ["arch.width=0.0625"],
    "dataset.root": ["dataset.root=elsewhere"],
    "dataset.num_classes": ["dataset.num_classes=3", "dataset.class_names=[]"],
    "dataset.class_names": ["dataset.class_names=[dark,light]"],
    "dataset.palette": ["dataset.palette=[[0,0,0],[9,9,9]]"],
    "dataset.crop_size": ["dataset.crop_size=64"],
    "dataset.image_size": ["dataset.image_size=96"],
    "dataset.mean": ["dataset.mean=[0.4,0.5,0.6]"],
    "dataset.std": ["dataset.std=[0.3,0.2,0.25]"],
    "augment.scale": ["augment.scale=[0.5,2.0]"],
    "augment.gamma": ["augment.gamma=[0.5,2.0]"],
    "optimizer.name": ["optimizer=sgd"],
    "schedule.name": ["schedule=constant"],
    "loss.name": ["loss=dice"],
    "loss.class_weights": ["loss.class_weights=[1.0,3.0]"],
    "trainer.max_steps": ["trainer.max_steps=3"],
    "trainer.clip_norm": ["trainer.clip_norm=0.01"],
    "trainer.monitor": ["trainer.monitor=val/loss"],
    "trainer.compile_cache": [],
    "trainer.patience": ["trainer.patience=1"],
    "trainer.save_every": ["trainer.save_every=1"],
    "trainer.checkpoint_epochs": ["trainer.checkpoint_epochs=1"],
    "init_from": ["init_from=start.safetensors"],
    "sweep.id": ["sweep.id=" + "0" * 32],
    "sweep.threads": ["sweep.threads=1"],
    "sweep.search_trial": ["sweep.search_trial=1"],
    "tracking.name": ["tracking=none"],
    "tracking.uri": ["tracking.uri=other"],
    "tracking.experiment": ["tracking.experiment=other"],
    "tracking.run_name": ["tracking.run_name=other"],
    "tracking.register_as": ["tracking.register_as=other"],
    "tracking.alias": ["tracking.alias=other"],
}


def variations():
    """For each key of the schema the words that change it by itself, in every option of a group that has it."""
    sections = [("", Config(), [])]
    for group in ("optimizer", "schedule", "loss"):
        sections += [(f"{group}.", option(), [f"{group}={name}"]) for name, option in SCHEMAS[group].items()]
    sections.append(("dataset.", SCHEMAS["dataset"]["cells"](), []))
    for prefix, section, words in sections:
        for name, value, metadata in leaves(section, prefix):
            if name in UNTOUCHED or (not prefix and name.startswith(("optimizer.", "schedule.", "loss.", "dataset."))):
                continue
            changed = SPECIAL[name] if name in SPECIAL else [f"{name}={other(value, metadata)}"]
            yield pytest.param([*words, *changed], id=" ".join([*words, name]))


def other(value, metadata):
    """Another value within the range of a key."""
    if "choices" in metadata:
        return next(choice for choice in metadata["choices"] if choice != value)
    if isinstance(value, bool):
        return not value
    candidates = [value + 1, value / 2, value * 2, value + 0.25, value - 1]
    return next(type(value)(found) for found in candidates if type(value)(found) != value and allowed(found, metadata))


def allowed(value, metadata):
    return (
        metadata.get("minimum", -np.inf) <= value <= metadata.get("maximum", np.inf)
        and metadata.get("above", -np.inf) < value < metadata.get("below", np.inf)
    )  # fmt: skip


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A folder where a training has left its graphs, with weights to start from."""
    folder = tmp_path_factory.mktemp("warm")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        result = fcnlab.train(compose_tiny("tracking=none"), folder / "first")
    (folder / "start.safetensors").symlink_to(result.last_checkpoint)
    return folder


def trained(folder, words):
    """Losses of the training and of its evaluations, with the tracking left out."""
    config = compose_tiny("tracking=none", *words)
    config.tracking.name = "none"
    result = fcnlab.train(config)
    return result.losses, result.best.evaluation.loss, result.best.evaluation.confusion.counts.tolist()


def check_a_variation(warm, monkeypatch, words):
    monkeypatch.chdir(warm)
    assert trained(warm, words) == trained(warm, [*words, "trainer.compile_cache=false"])


@pytest.mark.slow
@pytest.mark.parametrize("words", variations())
def test_every_key_computes_with_a_warm_cache_what_it_computes_without(warm, monkeypatch, words):
    check_a_variation(warm, monkeypatch, words)


@pytest.mark.parametrize(
    "words",
    [["loss.class_weights=median_frequency", "dataset.seed=3"], ["optimizer.weight_decay=0.3"], ["optimizer.lr=0.05"]],
    ids=lambda words: words[0],
)
def test_some_keys_compute_with_a_warm_cache_what_they_compute_without(warm, monkeypatch, words):
    if words[0].startswith("loss"):  # the numbers of another data set are in the cache
        trained(warm, [*words[:1], "dataset.seed=4"])
    check_a_variation(warm, monkeypatch, words)
