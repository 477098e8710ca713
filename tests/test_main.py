"""``fcnlab <command>`` is ``python -m fcnlab.<command>``, and says which commands there are."""

import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
import yaml

import fcnlab
from fcnlab.__main__ import COMMANDS, main


def said(capsys, *words):
    main(words)
    return capsys.readouterr().out


def test_help_lists_each_command_that_there_is(capsys):
    listed = said(capsys, "--help")
    assert said(capsys) == said(capsys, "-h") == listed
    for name in COMMANDS:
        assert f"\n  {name} " in listed
    package = Path(fcnlab.__file__).parent
    first = {path.stem: path.read_text(encoding="utf-8").partition("\n")[0] for path in package.glob("*.py")}
    assert {*COMMANDS} == {name for name, line in first.items() if f"python -m fcnlab.{name}`" in line}


def test_the_version_is_said(capsys):
    assert said(capsys, "--version") == f"fcnlab {fcnlab.__version__}\n"


def test_an_unknown_command_is_one_line_that_names_the_nearest(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["trian", "arch=fcn8s"])
    assert caught.value.code == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("fcnlab: trian: no such command; did you mean train? there are prepare, train")


def test_the_program_s_name_is_this_command():
    (script,) = entry_points(group="console_scripts", name="fcnlab")
    assert script.load() is main


def test_a_command_gets_its_words(tmp_path):
    """Its mistakes are one line, and its exit code is the program's, as with ``python -m fcnlab.train``."""
    command = [sys.executable, "-m", "fcnlab", "train", "arch=fcn9s"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("fcnlab: arch=fcn9s: ")
    assert done.stderr.count("\n") == 1


def test_the_citation_names_this_version():
    path = Path(fcnlab.__file__).parents[1] / "CITATION.cff"
    if not path.exists():
        pytest.skip("the package is not in a checkout")
    citation = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert citation["version"] == fcnlab.__version__ == version("fcnlab")
