"""What is set before MindSpore loads."""

import os
import subprocess
import sys

import pytest

from fcnlab import device, environment
from fcnlab.environment import ISA, PROTOBUF

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


@pytest.fixture
def affected_machine(monkeypatch):
    monkeypatch.setattr(environment, "version", lambda package: "2.10.0")
    monkeypatch.setattr(environment.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(environment, "cpu_flags", lambda: AVX512)
    monkeypatch.delitem(sys.modules, "mindspore", raising=False)
    monkeypatch.setattr(environment, "_notices", [])


@pytest.mark.usefixtures("affected_machine")
def test_the_cap_is_set_and_announced():
    variables = {}
    environment.prepare(variables)
    assert variables == {ISA: "AVX2", PROTOBUF: "python", "GLOG_v": "3"}
    assert len(environment._notices) == 1
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in environment._notices[0]


@pytest.mark.usefixtures("affected_machine")
def test_the_users_own_settings_stay():
    variables = {ISA: "AVX512_CORE", PROTOBUF: "python", "GLOG_v": "1"}
    environment.prepare(variables)
    assert variables == {ISA: "AVX512_CORE", PROTOBUF: "python", "GLOG_v": "1"}
    assert not environment._notices


def test_the_notice_is_logged_once(caplog, monkeypatch):
    monkeypatch.setattr(environment, "_notices", ["capped"])
    with caplog.at_level("INFO"):
        device.configure("cpu")
        device.configure("cpu")
    assert [record.message for record in caplog.records if record.name == "fcnlab.environment"] == ["capped"]


@pytest.mark.parametrize(
    ("first", "code"), [("import fcnlab, mlflow", 0), ("import mlflow, fcnlab", 1)], ids=["before", "after"]
)
def test_mlflow_and_mindspore_share_protobuf_or_say_how(first, code):
    """Loaded the other way round, MindSpore dies with a fatal error of the interpreter."""
    clean = {key: value for key, value in os.environ.items() if key != PROTOBUF}
    code_line = [sys.executable, "-c", f"{first}; import mindspore"]
    done = subprocess.run(code_line, capture_output=True, text=True, env=clean)
    assert done.returncode == code, done.stderr
    if code:
        assert "ImportError: import fcnlab before mlflow" in done.stderr.strip().splitlines()[-1]
