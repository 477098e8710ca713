"""The device is chosen by what the machine has."""

import pytest

from fcnlab.core import device
from fcnlab.core.errors import ConfigError


def test_auto_is_the_cpu_where_there_is_nothing_else(monkeypatch):
    monkeypatch.setattr(device, "_has_ascend", lambda: False)
    assert device.configure("auto") == "CPU"
    with pytest.raises(ConfigError, match=r"trainer\.device=ascend.*trainer\.device=cpu"):
        device.configure("ascend")
