"""Lets MindSpore have protobuf's Python implementation: its generated code is too old for the other ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

PROTOBUF = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"


def use_python_protobuf(environment: MutableMapping[str, str]) -> None:
    """Make MindSpore load protobuf's Python implementation.

    A module that loaded another implementation before, such as MLflow, keeps that one. MindSpore is then imported here,
    with a copy of protobuf that no other module sees.
    """
    loaded = sys.modules.get("google.protobuf.internal.api_implementation")
    if loaded is None or loaded.Type() == "python":
        environment.setdefault(PROTOBUF, "python")
    else:
        with _second_protobuf(environment):
            import_module("mindspore")


@contextmanager
def _second_protobuf(environment: MutableMapping[str, str]) -> Iterator[None]:
    """Give every import of protobuf within the block a separate copy, in Python."""
    modules = _take_protobuf()
    variable = environment.get(PROTOBUF)
    environment[PROTOBUF] = "python"
    try:
        yield
    finally:
        _take_protobuf()
        sys.modules.update(modules)
        sys.modules["google"].protobuf = modules["google.protobuf"]
        if variable is None:
            del environment[PROTOBUF]  # the choice is this process's, not that of the processes it starts
        else:
            environment[PROTOBUF] = variable


def _take_protobuf() -> dict[str, ModuleType]:
    """Remove protobuf from the imported modules, and return its modules."""
    names = [name for name in sys.modules if name == "google.protobuf" or name.startswith("google.protobuf.")]
    vars(sys.modules["google"]).pop("protobuf", None)
    return {name: sys.modules.pop(name) for name in names}
