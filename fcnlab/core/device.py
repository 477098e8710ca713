"""The one place that picks where and how the network runs."""

from __future__ import annotations

from pathlib import Path

from fcnlab.core import environment
from fcnlab.core.errors import ConfigError


def configure(device: str = "auto", mode: str = "graph", key: str = "trainer.device") -> str:
    """Select the device and the execution mode for this process.

    Args:
        device: "cpu", "ascend", or "auto": Ascend where there is one, else the CPU.
        mode: "graph" (compiled) or "pynative" (operator by operator).
        key: What an error calls the choice of the device.

    Returns:
        MindSpore's name of the device, "CPU" or "Ascend".

    Raises:
        ConfigError: If Ascend is asked for and there is none.
    """
    import mindspore as ms

    environment.announce()
    available = _has_ascend()
    if device == "ascend" and not available:
        raise ConfigError(f"{key}=ascend: no Ascend device is visible here; use {key}=cpu")
    target = "Ascend" if available and device != "cpu" else "CPU"
    # Not ms.set_device: it logs an error on some versions.
    ms.set_context(mode=ms.GRAPH_MODE if mode == "graph" else ms.PYNATIVE_MODE, device_target=target)
    return target


def _has_ascend() -> bool:
    """Device nodes first: asking MindSpore on a machine without any prints a page of warnings."""
    if not any(Path("/dev").glob("davinci[0-9]*")):
        return False
    import mindspore as ms

    return bool(ms.hal.is_available("Ascend"))
