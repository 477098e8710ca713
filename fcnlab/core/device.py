"""Selects the device and the execution mode."""

from __future__ import annotations

from pathlib import Path

from fcnlab.core import environment
from fcnlab.core.errors import ConfigError
from fcnlab.core.processor import thread_limit


def configure(device: str = "auto", mode: str = "graph", key: str = "trainer.device") -> str:
    """Select the device and the execution mode for this process.

    Args:
        device: "cpu", "ascend", or "auto" for Ascend where there is one and the CPU elsewhere.
        mode: "graph" (compiled) or "pynative" (operator by operator).
        key: The configuration key of the device, for an error.

    Returns:
        MindSpore's name for the device, "CPU" or "Ascend".

    Raises:
        ConfigError: If the device is "ascend" and there is none.
    """
    import mindspore as ms

    environment.announce()
    available = _has_ascend()
    if device == "ascend" and not available:
        raise ConfigError(f"{key}=ascend: no Ascend device is visible here; use {key}=cpu")
    target = "Ascend" if available and device != "cpu" else "CPU"
    # Some versions log an error for ms.set_device.
    ms.set_context(mode=ms.GRAPH_MODE if mode == "graph" else ms.PYNATIVE_MODE, device_target=target)
    if target == "CPU":
        # PyNative mode hands each operator through four threads, which wait actively for one another: on a CPU this
        # takes more time than it saves. Without them an error is raised where its operator was called, too.
        ms.set_context(pynative_synchronize=True)
    if (limit := thread_limit()) is not None:
        ms.set_context(runtime_num_threads=limit)
    return target


def _has_ascend() -> bool:
    """Whether there is an Ascend device; MindSpore is asked only where a device node suggests one.

    On other machines, MindSpore would print a page of warnings.
    """
    if not any(Path("/dev").glob("davinci[0-9]*")):
        return False
    import mindspore as ms

    return bool(ms.hal.is_available("Ascend"))
