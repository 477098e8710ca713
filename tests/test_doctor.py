"""``fcnlab doctor`` says what a training here would use, and what is wrong with it."""

import re

import mindspore as ms
import pytest

import fcnlab
from fcnlab.core.cache_folder import cache_folder
from fcnlab.diagnosis import operators
from fcnlab.doctor import main
from fcnlab.kernels import selection


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Measure for a moment only, in an empty folder."""
    monkeypatch.setattr(operators, "_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def lines(capsys, *words):
    """Return what each part is said to be."""
    main(words)
    return dict(re.findall(r"^(\S[^:]*): +(.*)$", capsys.readouterr().out, re.MULTILINE))


def test_what_is_here_is_said(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(selection, "library", lambda: None)
    monkeypatch.setattr(operators, "compiler", lambda: (True, "g++"))
    monkeypatch.setenv(selection.VARIABLE, "0")
    graphs = cache_folder("graphs") / "entry"
    graphs.mkdir(parents=True)
    (graphs / "graph.mindir").write_bytes(bytes(3 * 2**20))
    said = lines(capsys)
    assert said["fcnlab"].startswith(f"{fcnlab.__version__} in ")
    assert f"mindspore {ms.__version__}" in said["packages"]
    assert re.search(r", \d+ cores, \d+ usable", said["processor"])
    assert said["cache of graphs"] == f"{graphs.parent}: 1 files, 3.0 MiB"
    assert re.match(r"MindSpore's, as FCNLAB_KERNELS=0 asks for them; .* computes \d+ GFLOP/s$", said["operators"])
    assert said["tracking store"] == f"sqlite:///{tmp_path}/mlflow.db: the first training makes it"
    assert not (tmp_path / "mlflow.db").exists()


def test_the_speeds_are_those_of_both_kinds_of_operators():
    if selection.library() is None:
        pytest.skip("there are no compiled operators here")
    is_right, text = operators.speed()
    assert is_right
    assert re.fullmatch(r"compiled \w+; .* computes [1-9]\d* GFLOP/s, and [1-9]\d* with MindSpore's", text)


def test_what_is_wrong_is_said_and_is_the_exit_code(capsys, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/g++")
    monkeypatch.setattr(selection, "library", lambda: None)
    monkeypatch.delenv(selection.VARIABLE, raising=False)
    with pytest.raises(SystemExit) as caught:
        main(["--uri", "sqlite:///:memory:"])
    assert caught.value.code == 1
    out, err = capsys.readouterr()
    assert "no C++ compiler (/nowhere/g++)" in out
    assert "as there are no compiled ones" in out
    assert "is a database in memory" in out
    assert err == "fcnlab: 3 of these lines say what is wrong\n"


def test_a_store_says_how_many_experiments_it_has(capsys, monkeypatch, own_store):
    monkeypatch.setattr(operators, "compiler", lambda: (True, "g++"))
    monkeypatch.setattr(operators, "speed", lambda: (True, "fast"))
    assert lines(capsys)["tracking store"].endswith("mlflow.db: 1 experiment")  # MLflow's own
