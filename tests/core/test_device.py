"""The device is chosen by what the machine has."""

import mindspore as ms
import pytest

from fcnlab.core import device
from fcnlab.core.errors import ConfigError


def test_auto_is_the_cpu_where_there_is_nothing_else(monkeypatch):
    monkeypatch.setattr(device, "_has_ascend", lambda: False)
    assert device.configure("auto") == "CPU"
    with pytest.raises(ConfigError, match=r"trainer\.device=ascend.*trainer\.device=cpu"):
        device.configure("ascend")


def test_operators_run_one_after_another_on_a_cpu():
    """Otherwise four threads of MindSpore's wait actively, and an error is raised after its operator."""
    ms.set_context(pynative_synchronize=False)
    device.configure("cpu", "pynative")
    assert ms.get_context("pynative_synchronize")
