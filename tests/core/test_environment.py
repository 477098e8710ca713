"""The environment variables are set before MindSpore loads."""

import os
import subprocess
import sys

import pytest

from fcnlab.core import device, environment
from fcnlab.core.environment import ISA
from fcnlab.core.protobuf import PROTOBUF

AVX512 = {"avx2", "avx512f"}


@pytest.mark.parametrize(
    ("version", "machine", "flags", "expected"),
    [
        ("2.8.0", "x86_64", AVX512, False),
        ("2.9.0", "x86_64", AVX512, True),
        ("2.10.0", "x86_64", AVX512, True),
        ("3.0", "x86_64", AVX512, True),
        ("2.10.0", "x86_64", {"avx2"}, False),
        ("2.10.0", "aarch64", AVX512, False),
    ],
)
def test_only_onednn_3_on_avx512_needs_the_cap(version, machine, flags, expected):
    assert environment.needs_cap(version, machine, flags) is expected


_WITHOUT_HOME = """
import os, pwd, stat, sys
def nobody(uid): raise KeyError(uid)
pwd.getpwuid = nobody
os.environ.pop("HOME", None)
import fcnlab
from fcnlab.core import environment
from fcnlab.core.cache_folder import cache_folder
if sys.argv[1:]:
    import mlflow.environment_variables  # it asks for a home folder on import
assert os.path.expanduser("~") != "~"
folder = cache_folder("kernels")
home = os.environ["HOME"]
assert stat.S_IMODE(os.stat(home).st_mode) == 0o700, home
assert os.fork() or sys.exit()  # the forked process leaves the folder there
os.wait()
assert os.path.isdir(home)
print(home, folder, len(environment._notices), sep="|")
"""


@pytest.mark.parametrize("chosen", [None, pytest.param("chosen", marks=pytest.mark.slow)])
def test_without_a_home_folder_there_is_a_private_one_for_a_while(tmp_path, chosen):
    """The user of a container may have a number only, and no entry among the users."""
    variables = {key: value for key, value in os.environ.items() if key not in ("HOME", "XDG_CACHE_HOME")}
    variables |= {"TMPDIR": str(tmp_path)} | ({"XDG_CACHE_HOME": str(tmp_path / chosen)} if chosen else {})
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_HOME, *([chosen] if chosen else [])],
        capture_output=True,
        text=True,
        env=variables,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    home, folder, notices = done.stdout.strip().split("|")
    assert home.startswith(f"{tmp_path}/fcnlab-home-")
    assert folder == f"{tmp_path / chosen if chosen else home + '/.cache'}/fcnlab/kernels"
    assert (int(notices) == 0) == bool(chosen)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def affected_machine(monkeypatch):
    monkeypatch.setattr(environment, "version", lambda package: "2.10.0")
    monkeypatch.setattr(environment.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(environment, "cpu_flags", lambda: AVX512)
    monkeypatch.delitem(sys.modules, "mindspore", raising=False)
    monkeypatch.setattr(environment, "_notices", [])


PIXELS, LIMIT = "OPENCV_IO_MAX_IMAGE_PIXELS", str(environment.MAX_PIXELS)
BARS = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"


@pytest.mark.usefixtures("affected_machine")
def test_the_cap_is_set_and_announced():
    variables = {}
    environment.prepare(variables)
    assert variables == {ISA: "AVX2", PROTOBUF: "python", "GLOG_v": "3", PIXELS: LIMIT, BARS: "false"}
    assert len(environment._notices) == 1
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in environment._notices[0]


@pytest.mark.usefixtures("affected_machine")
def test_the_users_own_settings_stay():
    chosen = {ISA: "AVX512_CORE", PROTOBUF: "python", "GLOG_v": "1", PIXELS: "1000", BARS: "true"}
    variables = dict(chosen)
    environment.prepare(variables)
    assert variables == chosen
    assert not environment._notices


def test_the_notice_is_logged_once(caplog, monkeypatch):
    monkeypatch.setattr(environment, "_notices", ["capped"])
    with caplog.at_level("INFO"):
        device.configure("cpu")
        device.configure("cpu")
    assert [record.message for record in caplog.records if record.name == "fcnlab.core.environment"] == ["capped"]
