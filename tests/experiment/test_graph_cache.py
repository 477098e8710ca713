"""Graphs of an earlier process are reused, and never for another cell."""

import collections
import functools
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import types

import mindspore as ms
import numpy as np
import pytest
import stored_cells
from conftest import copies_of_python
from mindspore import Tensor
from stored_cells import VALUES, Scale, Wrong, compiled

from fcnlab.config.roles import Role
from fcnlab.config.schema import SCHEMAS, Config, leaves, role_of
from fcnlab.core.cache_folder import cache_folder
from fcnlab.core.device import configure
from fcnlab.experiment.graph_cache import MAX_ENTRIES, GraphCache
from fcnlab.experiment.graph_key import UndescribedError, describe_cell

pytestmark = pytest.mark.usefixtures("forked_python")

SCRIPT = """
import json, sys
from pathlib import Path
from conftest import compose_tiny
import fcnlab
from fcnlab.experiment.graph_cache import GraphCache

compiled, loaded = GraphCache.compile, []

def watched(self, cell, *inputs):
    loaded.append(compiled(self, cell, *inputs))
    return loaded[-1]

def trained(folder, *overrides):
    config = compose_tiny("trainer.mode=graph", "arch=fcn32s", *overrides)
    config.tracking.name = "none"
    result = fcnlab.train(config, Path(folder))
    evaluation = result.best.evaluation
    return [result.losses, evaluation.loss, evaluation.confusion.counts.tolist()]

GraphCache.compile = watched
folder, without, *overrides = sys.argv[1:]
found = [trained(folder, *overrides)]
if without == "without":
    found.append(trained(folder + "-without", *overrides, "trainer.compile_cache=false"))
print(json.dumps([*found, loaded]))
"""


def train(folder, name, *overrides, without=True):
    """Train in a separate process, with the graphs that are kept in a folder and, unless told otherwise, without them.

    Returns:
        Losses, evaluation and confusion matrix of both trainings, and which of the first one's graphs were loaded.
    """
    folders = [os.path.dirname(stored_cells.__file__), *filter(None, [os.environ.get("PYTHONPATH")])]
    script = folder / "script.py"  # MindSpore opens the file of the program, and `-c` has none
    script.write_text(SCRIPT)
    cache = folder / "cache" / "fcnlab"
    if not cache.exists():  # it has the compiled operators
        cache.mkdir(parents=True)
        cache_folder("kernels").mkdir(parents=True, exist_ok=True)
        (cache / "kernels").symlink_to(cache_folder("kernels"))
    command = [sys.executable, str(script), str(folder / name), "without" if without else "with", *overrides]
    variables = {"PYTHONPATH": os.pathsep.join(folders), "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ | variables, timeout=1800)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


WEIGHTED = ["loss.class_weights=median_frequency", "arch.dropout=0.25"]
"""The overrides of the training that leaves its graphs; its class weights are numbers of the data set."""


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A folder in which a training has left its graphs and weights to start from, and what came of that training."""
    folder = tmp_path_factory.mktemp("warm")
    first, loaded = train(folder, "first", *WEIGHTED, "dataset.seed=3", without=False)
    assert loaded == [False, False]
    (folder / "start.safetensors").symlink_to(folder / "first" / "checkpoints" / "last.safetensors")
    return folder, first


@pytest.mark.slow  # small cells show below that each constant counts
def test_a_warm_cache_computes_what_is_computed_without_it(warm):
    """Learning rate, seed and the class weights of another data set are inputs of the same graphs."""
    folder, first = warm
    overrides = [*WEIGHTED, "dataset.seed=4", "optimizer.lr=0.02", "seed=5"]
    with_cache, without, loaded = train(folder, "second", *overrides)
    assert loaded == [True, True]
    assert with_cache == without
    assert with_cache != first
    assert len(list((folder / "cache" / "fcnlab" / "graphs").iterdir())) == 2


def in_a_process(folder, *words):
    """Return what `stored_cells` prints in a separate process."""
    command = [sys.executable, stored_cells.__file__, str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


SCALED, LESS = [7.0, 12.0], [2.0, 4.0]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder with the graphs of two cells, which an earlier process compiled."""
    folder = tmp_path_factory.mktemp("graphs")
    with copies_of_python(tmp_path_factory):
        assert in_a_process(folder, "Scale", "Minus") == [[False, SCALED], [False, LESS]]
    assert len(list(folder.iterdir())) == 2
    return folder


def test_each_graph_is_found_whatever_was_compiled_before_it(stored):
    """MindSpore numbers graphs by their order, which differs when a training only evaluates."""
    words = ["Minus", "Minus", "plain:Minus", "Scale", "Minus"]
    assert in_a_process(stored, *words) == [[True, LESS], [True, LESS], [True, SCALED], [True, LESS]]


def test_the_value_of_a_parameter_is_an_input_and_another_constant_another_graph(stored):
    found = in_a_process(stored, "Scale:weight=4", "Scale", "Scale:factor=3")
    assert found == [[True, [25.0, 42.0]], [True, SCALED], [False, [10.0, 17.0]]]


def test_a_graph_that_others_store_makes_none_wrong(stored):
    """MindSpore's number of the next graph is then higher than the cache expects."""
    found = in_a_process(stored, "Scale", "foreign:Minus", "Scale", "Minus")
    assert [value for _, value in found] == [SCALED, SCALED, LESS]
    assert found[0][0]


def test_a_graph_that_mindspore_cannot_read_is_made_anew(stored, tmp_path):
    folder = shutil.copytree(stored, tmp_path / "graphs")
    for entry in folder.iterdir():
        cut = (entry / "graph.mindir").read_bytes()[:100]
        (entry / "graph.mindir").write_bytes(cut)
        script = (entry / "compile_dependency.hash").read_bytes()
        record = json.loads((entry / "entry.json").read_text())
        record["digest"] = hashlib.sha256(script + cut).hexdigest()
        (entry / "entry.json").write_text(json.dumps(record))
    assert in_a_process(folder, "Scale") == [[False, SCALED]]
    assert in_a_process(folder, "Scale") == [[True, SCALED]]


def test_a_program_that_is_no_file_compiles_without_the_cache(tmp_path):
    """MindSpore opens the file of the running program, and raises an error if there is none."""
    code = (
        f"import sys; sys.path.append({os.path.dirname(stored_cells.__file__)!r}); from pathlib import Path;"
        f"from stored_cells import *; configure('cpu', 'graph'); print(compiled(Path({str(tmp_path)!r}), Scale()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(False, [7.0, 12.0])"
    assert not list(tmp_path.iterdir())


@pytest.fixture(autouse=True)
def graph_mode():
    configure("cpu", "graph")


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("other", "settings"),
    [
        ({"offset": (1.0, 3.0)}, {"loss.gamma": 2.0}),
        *(
            pytest.param(other, settings, marks=pytest.mark.slow)
            for other, settings in [
                ({"offset": (1.0, 3.0)}, {}),
                ({}, {"loss.gamma": 2.0}),
                *(
                    (other, {})
                    for other in (
                        {"factor": 3.0},
                        {"more": [1, {"a": (2, 3)}]},
                        {"more": np.float32(1)},
                        {"more": lambda: 1},
                    )
                ),
            ]
        ),
    ],
)
def test_another_constant_has_an_entry_of_its_own(tmp_path, other, settings):
    compiled(tmp_path, Scale())
    compiled(tmp_path, Scale(weight=3.0))
    assert len(entries(tmp_path)) == 1
    cell = Scale(**other)
    assert compiled(tmp_path, cell, **settings)[1] == (VALUES * cell.factor + cell.offset.asnumpy()).tolist()
    assert len(entries(tmp_path)) == 2


def test_a_closure_and_a_plain_object_are_described_by_what_they_hold():
    def scaler(factor):
        return lambda value: value * factor

    class Settings:
        def __init__(self, depth):
            self.depth = depth

    described, again = (
        [
            describe_cell(Scale(more=item))
            for item in (scaler(1), scaler(2), Settings(1), Settings(2), Scale(1), Scale(2))
        ]
        for _ in range(2)
    )
    assert described == again
    assert all(described.count(item) == 1 for item in described)


def scale_class(factor):
    class Closed(Scale):
        def construct(self, values):
            return values * factor

    return Closed


def with_buffer(value):
    cell = Scale()
    cell.register_buffer("kept", Tensor([value], ms.float32))
    return cell


def with_class_attribute(value):
    return type("Scale", (Scale,), {"bias": value, "__module__": Scale.__module__})()


class Slotted:
    __slots__ = ("__hidden",)

    def __init__(self, hidden):
        self.__hidden = hidden


def either(first):
    if first:
        return lambda value: value + 1
    return lambda value: value - 1


@pytest.mark.parametrize(
    "make",
    [
        lambda value: scale_class(value)(),
        with_buffer,
        with_class_attribute,
        lambda value: Scale(more=functools.partial(max, value)),
        lambda value: Scale(more=functools.partial(max, key=value)),
        lambda value: Scale(more=Slotted(value)),
        lambda value: Scale(more=collections.deque([value])),
        lambda value: Scale(more=type("Own", (collections.deque,), {})([value])),
        lambda value: Scale(more=either(value == 1.0)),
        lambda value: Scale(more={"requires_grad": value}),
        lambda value: Scale(more=types.SimpleNamespace(depth=value)),
    ],
)
def test_a_value_is_described_wherever_a_cell_keeps_it(make):
    try:
        one, again, other = (describe_cell(make(value)) for value in (1.0, 1.0, 2.0))
    except UndescribedError:
        return  # a cell that is compiled anew each time is never wrong
    assert one == again
    assert one != other


def test_an_attribute_that_is_called_like_one_of_mindspore_s_is_described():
    cells = [Scale(), Scale()]
    cells[1].requires_grad = 2.0
    assert describe_cell(cells[0]) != describe_cell(cells[1])


class Nested:
    """A chain of objects that is deeper than Python's recursion limit."""

    def __init__(self, depth):
        self.inner = None
        for _ in range(depth):
            outer = Nested(0)
            outer.inner, self.inner = self.inner, outer


@pytest.mark.parametrize("make", [lambda: (number for number in [1]), lambda: Nested(5000)])
def test_what_cannot_be_described_is_compiled_anew(tmp_path, caplog, make):
    caplog.set_level(logging.INFO)
    assert compiled(tmp_path, Scale(more=make())) == (False, SCALED)
    assert not entries(tmp_path)
    assert "compiled anew each time" in caplog.text


@pytest.mark.parametrize("content", [b"{}", *(pytest.param(other, marks=pytest.mark.slow) for other in (b"", None))])
def test_a_damaged_entry_is_made_anew(tmp_path, caplog, content):
    cache = GraphCache({}, folder=tmp_path)
    compiled(tmp_path, Scale())
    (entry,) = tmp_path.iterdir()
    whole = cache._fetch(entry)
    files = {path: path.read_bytes() for path in entry.iterdir()}
    assert {path.name for path in files} == {"graph.mindir", "compile_dependency.hash", "entry.json"}
    for path, kept in files.items():
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        caplog.clear()
        assert cache._fetch(entry) is None
        assert "is damaged" in caplog.text
        path.write_bytes(kept)
        assert cache._fetch(entry) is not None
    path.unlink()
    assert compiled(tmp_path, Scale()) == (False, SCALED)
    assert entries(tmp_path) == [entry.name]
    assert cache._fetch(entry).script == whole.script


@pytest.mark.parametrize("what", ["format", "script", "package", "version", "variable", "settings", "constant"])
def test_edited_code_and_other_versions_have_names_of_their_own(tmp_path, monkeypatch, what):
    """The name of an entry is the digest of this description."""
    cell, settings = Scale(), {}

    def described():
        return GraphCache(settings, folder=tmp_path / "graphs").describe(cell, Tensor(VALUES))

    before = described()
    assert described() == before
    if what == "format":
        monkeypatch.setattr("fcnlab.experiment.graph_cache.FORMAT", 1)
    elif what == "script":
        (tmp_path / "other.py").write_text("edited")
        monkeypatch.setattr(sys, "argv", [str(tmp_path / "other.py")])
    elif what == "package":
        monkeypatch.setattr("fcnlab.experiment.graph_key._digest_files", lambda paths, root: "edited")
    elif what == "version":
        monkeypatch.setattr("fcnlab.experiment.graph_key.version", lambda name: "3.0")
    elif what == "variable":
        monkeypatch.setenv("MS_DEV_JIT_SYNTAX_LEVEL", "0")
    elif what == "settings":
        settings["loss.gamma"] = 2.0
    else:
        cell = Scale(offset=(1.0, 3.0))
    assert described() != before


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_reuse(tmp_path):
    (tmp_path / "file").write_text("")
    assert compiled(tmp_path / "file" / "cache", Scale()) == (False, SCALED)


def test_a_graph_that_cannot_be_compiled_leaves_no_entry(tmp_path):
    with pytest.raises(Exception, match="missing"):
        GraphCache({}, folder=tmp_path).compile(Wrong(), Tensor(VALUES))
    assert not entries(tmp_path)
    assert compiled(tmp_path, Scale()) == (False, SCALED)
    assert len(entries(tmp_path)) == 1


def test_the_oldest_entries_go(tmp_path):
    for index in range(MAX_ENTRIES + 5):
        entry = tmp_path / f"{index:032x}"
        entry.mkdir()
        os.utime(entry, (index, index))
    compiled(tmp_path, Scale())
    assert len(entries(tmp_path)) == MAX_ENTRIES
    assert f"{5:032x}" not in entries(tmp_path)


UNTOUCHED = {
    *("resume", "from_run", "sweep.resume", "dataset.name", "augment.extra", "trainer.compile_cache"),
    "trainer.workers",
}
"""The keys that name something to resume, or a plug-in, or whether there is a cache, or that go with another key."""

SPECIAL = {
    "dataset.root": "elsewhere",
    "dataset.class_names": "[dark,light]",
    "dataset.palette": "[[0,0,0],[9,9,9]]",
    "dataset.image_size": "96",
    "dataset.crops_per_image": "3",
    "dataset.mean": "[0.4,0.5,0.6]",
    "dataset.std": "[0.3,0.2,0.25]",
    "augment.scale": "[0.5,2.0]",
    "augment.gamma": "[0.5,2.0]",
    "loss.class_weights": "[1.0,3.0]",
    "trainer.max_steps": "3",
    "trainer.loss_scale": "1024",
    "trainer.monitor": "val/loss",
    "trainer.patience": "1",
    "trainer.save_every": "1",
    "trainer.checkpoint_epochs": "1",
    "init_from": "start.safetensors",
    "optimizer.lr": "0.02",
    "sweep.id": "0" * 32,
    "sweep.threads": "1",
    "sweep.search_trial": "1",
    "sweep.starts_from": "1",
    "tracking.uri": "other",
    "tracking.experiment": "other",
    "tracking.run_name": "other",
    "tracking.register_as": "other",
    "tracking.alias": "other",
}
"""Other values of the keys for which there is no rule."""


def groups_of_keys():
    """Yield the overrides of a training, and those that change all keys of a section that shape no graph.

    A key that shapes a graph is a part of the graph's name, and a training that changes one compiles anew.
    """
    config = Config()
    for name in ("augment", "dataset", "trainer", "tracking", "sweep"):
        section = SCHEMAS["dataset"]["cells"]() if name == "dataset" else getattr(config, name)
        more = ["trainer.amp=O2"] if name == "trainer" else []  # the keys of the loss scale are refused without it
        yield pytest.param(more, [*more, *changes(section, f"{name}.")], id=name)
    whole = [word for word in changes(config, "") if "." not in word.partition("=")[0]]
    yield pytest.param([], whole, id="start")
    for name, option in SCHEMAS["schedule"].items():
        yield pytest.param([], [f"schedule={name}", *changes(option(), "schedule.")], id=f"schedule={name}")
    for group, more in (("optimizer", []), ("loss", ["loss.class_weights=[1.0,2.0]"])):
        for name, option in SCHEMAS[group].items():
            chosen = f"{group}={name}"
            yield pytest.param([chosen, *more], [chosen, *changes(option(), f"{group}.")], id=chosen)


def changes(section, prefix):
    """Return an override with another value for each key of a section that shapes no graph."""
    found = []
    for name, value, metadata in leaves(section, prefix):
        if name not in UNTOUCHED and not name.endswith(".name") and Role.SHAPES_GRAPH not in role_of(metadata):
            found.append(f"{name}={SPECIAL[name] if name in SPECIAL else other(value, metadata)}")
    return found


def other(value, metadata):
    """Return another value within the range of a key."""
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


@pytest.mark.slow
@pytest.mark.parametrize(("overrides", "changed"), groups_of_keys())
def test_keys_that_shape_no_graph_compute_with_a_warm_cache_what_they_compute_without(
    warm, request, overrides, changed
):
    folder, _ = warm
    number = request.node.callspec.id
    train(folder, f"{number}-base", *overrides, without=False)
    with_cache, without, loaded = train(folder, f"{number}-changed", *changed)
    assert loaded[0]  # the training step; the size of the images to evaluate may be another one
    assert with_cache == without
