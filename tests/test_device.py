"""The choice of device, and the cap on oneDNN."""

import sys

import pytest

from fcnlab import device
from fcnlab.errors import ConfigError

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
    assert device.needs_cap(version, machine, flags) is expected


@pytest.fixture
def affected_machine(monkeypatch):
    monkeypatch.setattr(device, "version", lambda package: "2.10.0")
    monkeypatch.setattr(device.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(device, "_cpu_flags", lambda: AVX512)
    monkeypatch.delitem(sys.modules, "mindspore", raising=False)
    monkeypatch.setattr(device, "_notices", [])


@pytest.mark.usefixtures("affected_machine")
def test_the_cap_is_set_and_announced():
    environment = {}
    device.cap_onednn(environment)
    assert environment == {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    assert len(device._notices) == 1
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in device._notices[0]


@pytest.mark.usefixtures("affected_machine")
def test_the_users_own_setting_stays():
    environment = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}
    device.cap_onednn(environment)
    assert environment == {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}
    assert not device._notices


def test_mindspores_warnings_are_off_unless_asked_for():
    environment = {}
    device.quiet_mindspore(environment)
    assert environment == {"GLOG_v": "3"}
    environment["GLOG_v"] = "1"
    device.quiet_mindspore(environment)
    assert environment == {"GLOG_v": "1"}


def test_the_notice_is_logged_once(caplog, monkeypatch):
    monkeypatch.setattr(device, "_notices", ["capped"])
    with caplog.at_level("INFO"):
        device.configure("cpu")
        device.configure("cpu")
    assert [record.message for record in caplog.records if record.name == "fcnlab.device"] == ["capped"]


def test_auto_is_the_cpu_where_there_is_nothing_else(monkeypatch):
    monkeypatch.setattr(device, "_has_ascend", lambda: False)
    assert device.configure("auto") == "CPU"
    with pytest.raises(ConfigError, match=r"trainer\.device=ascend.*trainer\.device=cpu"):
        device.configure("ascend")
