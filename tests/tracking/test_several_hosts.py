"""Trainings on hosts whose links are cut lose nothing, and record nothing twice."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "cluster"

pytestmark = pytest.mark.slow


@pytest.fixture
def several_hosts(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import several_hosts
    from hosts import Hosts

    try:
        with Hosts(["one"]):
            pass
    except (OSError, RuntimeError) as error:
        pytest.skip(f"network namespaces cannot be made here: {error}")
    yield several_hosts
    for name in ("several_hosts", "hosts"):
        del sys.modules[name]


def test_a_link_that_is_cut_loses_and_doubles_nothing(several_hosts, tmp_path):
    before = namespaces()
    shaky, lost = several_hosts.trial(tmp_path / "cluster", 400)
    assert shaky.endswith("points, each once")
    assert lost.endswith("points, each once")
    assert "the tracking store has everything again" in (tmp_path / "cluster" / "shaky.log").read_text()
    assert "fcnlab.track sync" in (tmp_path / "cluster" / "lost.log").read_text()
    assert namespaces() <= before


def namespaces():
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in listed.splitlines()}  # a number may follow the name
