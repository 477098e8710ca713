"""Graphs of an earlier process: faster, and never another's."""

import json
import os
import subprocess
import sys

import pytest

from fcnlab.compile_cache import MAX_ENTRIES, entry_name, reused_graphs
from fcnlab.train import graph_shape

SCRIPT = """
import json, sys, tempfile
from pathlib import Path
from conftest import compose_tiny
import fcnlab
from fcnlab.compile_cache import reused_graphs
from fcnlab.train import graph_shape

config = compose_tiny("tracking=none", *sys.argv[2:])
cache = Path(sys.argv[1]) / "cache"

def written():
    return {path: path.stat().st_mtime_ns for path in cache.glob(".private-*/**/*") if path.is_file()}

with reused_graphs(graph_shape(config), cache) as found:
    before = written()
    result = fcnlab.train(config, tempfile.mkdtemp(dir=sys.argv[1]))
    reused = written() == before
print(json.dumps([found, reused, result.losses, result.best.evaluation.metrics["val/loss"]]))
"""


def run(folder, *overrides):
    path = {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *filter(None, [os.environ.get("PYTHONPATH")])])}
    script = folder / "script.py"  # MindSpore opens the program's file, so that `-c` will not do
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(folder), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **path}, timeout=180)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_the_second_process_finds_the_graphs_and_computes_the_same(tmp_path):
    first, second = run(tmp_path), run(tmp_path)
    assert [first[:2], second[:2]] == [[False, False], [True, True]]
    assert first[2:] == second[2:]
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize(
    "change",
    ["arch=fcn16s", "arch.width=0.5", "optimizer=sgd", "optimizer.beta1=0.8", "dataset.crop_size=64",
     "trainer.batch_size=2", "trainer.clip_norm=1", "loss.class_weights=[1,2]", "dataset.ignore_index=254"],
)  # fmt: skip
def test_what_shapes_a_graph_names_another_entry(tiny, change):
    assert entry_name(graph_shape(tiny())) != entry_name(graph_shape(tiny(change)))


def test_another_script_and_an_edited_one_have_entries_of_their_own(tiny, tmp_path, monkeypatch):
    """MindSpore takes no graph of theirs, so that an entry of that name would never be of use."""
    names = set()
    for name, text in (("train.py", "first"), ("train.py", "edited"), ("process.py", "first")):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(sys, "argv", [str(tmp_path / name)])
        names |= {entry_name(graph_shape(tiny())) for _ in range(2)}
    assert len(names) == 3


@pytest.mark.parametrize(
    "change", ["seed=1", "dataset.num_train=9", "trainer.epochs=3", "tracking=none", "augment=none"]
)
def test_what_does_not_shares_it(tiny, change):
    assert entry_name(graph_shape(tiny())) == entry_name(graph_shape(tiny(change)))


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_reuse(tmp_path):
    (tmp_path / "file").write_text("")
    with reused_graphs({}, tmp_path / "file" / "cache") as found:
        assert not found


def test_a_training_that_fails_leaves_no_entry(tmp_path):
    with pytest.raises(RuntimeError), reused_graphs({"a": 1}, tmp_path):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_the_oldest_entries_go(tmp_path):
    for index in range(MAX_ENTRIES + 5):
        entry = tmp_path / f"{index:032x}"
        entry.mkdir()
        os.utime(entry, (index, index))
    with reused_graphs({"a": 1}, tmp_path) as found:
        assert not found
    kept = {path.name for path in tmp_path.iterdir()}
    assert len(kept) == MAX_ENTRIES
    assert entry_name({"a": 1}) in kept
    assert f"{5:032x}" not in kept
