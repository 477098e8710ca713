"""Describes everything that a compiled graph follows from, alike in two processes that compile the same graph."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.ops import Primitive

import fcnlab
from fcnlab import kernels
from fcnlab.core import workers
from fcnlab.registry import Origin

_CONTEXT = ("mode", "device_target", "deterministic", "enable_graph_kernel", "graph_kernel_flags", "max_call_depth")
_VARIABLES = ("MS_", "MINDSPORE_", "GRAPH_")
_OF_A_START = {"MS_ROLE", "MS_SCHED_HOST", "MS_SCHED_PORT", "MS_NODE_ID", "MS_TOPO_TIMEOUT"}
"""The variables by which the workers of ``msrun`` find each other, which shape no graph."""


class UndescribedError(Exception):
    """A cell holds something that cannot be described, so no stored graph can be known to be the cell's."""


def describe_cell(cell: nn.Cell) -> list[Any]:
    """Describe a cell: its classes, its modes, its parameters without their values, and every other attribute.

    The compiler may turn any attribute into a constant; the value of a parameter is an input of the graph.

    Raises:
        UndescribedError: If the content of an attribute cannot be seen.
    """
    return _Description().of(cell)


def describe_inputs(cell: nn.Cell, inputs: Sequence[Tensor]) -> list[Any]:
    """Return the shapes and types that a cell is compiled for; those of `nn.Cell.set_inputs` take precedence."""
    return [[list(item.shape), str(item.dtype)] for item in cell.get_inputs() or inputs]


def describe_machine() -> dict[str, Any]:
    """Describe the compiler and the machine that the graph runs on.

    A graph names the library of the compiled operators. The library's name is a digest of the processor and of the
    sources that it was built from.
    """
    commit = Path(ms.__file__).with_name(".commit_id")
    return {
        "mindspore": [version("mindspore"), commit.read_text(encoding="utf-8") if commit.is_file() else None],
        "context": {key: repr(ms.get_context(key)) for key in _CONTEXT},
        "environment": {
            key: value
            for key, value in sorted(os.environ.items())
            if key.startswith(_VARIABLES) and key not in _OF_A_START
        },
        "worker": [workers.current().rank, workers.current().count],
        "python": platform.python_version(),
        "machine": platform.machine(),
        "operators": str(kernels.library()),
    }


def describe_code(origins: Sequence[Origin]) -> dict[str, Any]:
    """Describe the source code that a graph is compiled from.

    That is all of this package, the running script and every other loaded module that was not installed. With plug-ins,
    it is also all of their packages, the values of their variables, and the version of every installed distribution.

    Args:
        origins: The origins of the plug-ins whose code takes part.

    Raises:
        UndescribedError: If the content of one of their variables cannot be seen.
    """
    package = Path(fcnlab.__file__).parent
    script = Path(sys.argv[0])
    loose = _sources_not_installed(package)
    described: dict[str, Any] = {
        "fcnlab": _digest_files(package.rglob("*.py"), package),
        "script": [str(script.resolve()), _digest_files([script], script.parent)],
        "loaded": _digest_files(loose, None),
    }
    if origins:
        described["plugins"] = [list(origin) for origin in origins]
        described["packages"] = {origin.module: _digest_package(origin.module) for origin in origins}
        described["values"] = _describe_modules({origin.module.partition(".")[0] for origin in origins}, loose)
        described["installed"] = sorted(_installed())
    return described


def _describe_modules(packages: set[str], loose: Sequence[Path]) -> dict[str, Any]:
    """Describe what modules hold now: the loaded code, which may be older than its file, and the variables' values.

    Args:
        packages: The names of packages, all of whose loaded modules are described.
        loose: The files of further modules to describe.
    """
    files = {str(path) for path in loose}
    described = {}
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] in packages or (getattr(module, "__file__", None) in files and name != "__main__"):
            held = {key: value for key, value in sorted(vars(module).items()) if key[:2] != "__"}
            values = {key: value for key, value in held.items() if _is_plain(value) or _is_code(value)}
            classes = {
                key: _class_members(value)
                for key, value in held.items()
                if isinstance(value, type) and value.__module__ == name
            }
            described[name] = _Description().of([values, classes])
    return described


def _is_plain(value: Any) -> bool:
    """Whether a value is of a type that holds data."""
    return value is None or isinstance(value, _PLAIN)


_PLAIN = (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict, np.ndarray, np.generic, Tensor)


class _Description:
    """Describes Python values as JSON; a value that was described before is referred to by its number."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # keeps the values alive, so that no id is used twice

    def of(self, value: Any) -> Any:
        """Describe any value."""
        if value is None or isinstance(value, bool | int | float | complex | str):
            return repr(value)
        # Two equal constants may be one object in compiled code and two in code from a .pyc file.
        if not isinstance(value, tuple | bytes | frozenset | types.CodeType):
            if id(value) in self._seen:
                return ["again", self._seen[id(value)]]
            self._seen[id(value)] = len(self._kept)
            self._kept.append(value)
        return self._of_new(value)

    def _of_new(self, value: Any) -> Any:
        if isinstance(value, nn.Cell):
            parts = {key: item for key, item in sorted(vars(value).items()) if key not in _OF_THE_PROCESS}
            return [_class(value), self._of_items(_class_members(type(value))), self._of_items(parts)]
        if isinstance(value, Parameter):
            return [value.name, list(value.shape), str(value.dtype), bool(value.requires_grad)]
        if isinstance(value, Tensor):
            return _array(value.asnumpy())
        if isinstance(value, np.ndarray | np.generic):
            return _array(np.asarray(value))
        if isinstance(value, bytes | bytearray):
            return hashlib.sha256(value).hexdigest()
        if isinstance(value, list | tuple):
            return [_class(value), [self.of(item) for item in value]]
        if isinstance(value, set | frozenset):
            return sorted(json.dumps(self.of(item)) for item in value)
        if isinstance(value, Mapping):
            return self._of_items(value)
        if isinstance(value, Primitive):
            return [_class(value), value.name, self._of_items(dict(sorted(value.attrs.items())))]
        if isinstance(value, type | types.ModuleType | types.BuiltinFunctionType | np.dtype | ms.dtype.Type):
            return str(value)
        if isinstance(value, types.MethodType):
            return [self.of(value.__func__), self.of(value.__self__)]
        if isinstance(value, types.FunctionType):
            return self._of_function(value)
        if isinstance(value, types.CodeType):
            return [value.co_code.hex(), self.of(value.co_consts), self.of(value.co_names), self.of(value.co_varnames)]
        if isinstance(value, functools.partial):
            return [self.of(value.func), self.of(value.args), self.of(value.keywords)]
        if type(value).__module__.startswith("mindspore"):
            if not hasattr(value, "__dict__"):
                raise UndescribedError(f"a {_class(value)}")
            return [_class(value), self._of_items(dict(sorted(vars(value).items())))]
        try:  # describe what another process would need to make the same object
            reduced = value.__reduce_ex__(4)
        except Exception as error:
            raise UndescribedError(f"a {_class(value)}") from error
        if isinstance(reduced, str):
            return [_class(value), reduced]
        make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        of_content = [None if part is None else list(part) for part in (items, pairs)]
        return [_class(value), self.of(make), self.of(arguments), self.of(state), self.of(of_content)]

    def _of_function(self, function: types.FunctionType) -> Any:
        if function.__module__.startswith("mindspore"):
            # MindSpore numbers its functions in the order of their making, and its code follows from its version.
            closure = [cell.cell_contents for cell in function.__closure__ or () if _is_set(cell)]
            closure = [item for item in closure if not isinstance(item, int | str)]
            return [function.__module__, function.__qualname__, self.of(closure)]
        closure = [cell.cell_contents for cell in function.__closure__ or () if _is_set(cell)]
        held = (closure, function.__defaults__, function.__kwdefaults__, function.__code__)
        return [function.__module__, function.__qualname__, *map(self.of, held)]

    def _of_items(self, items: Mapping[Any, Any]) -> list[Any]:
        return [[self.of(key), self.of(item)] for key, item in items.items()]


_OF_THE_PROCESS = {*vars(nn.Cell())} - {"_cells", "_params", "_buffers", "training", "requires_grad", "cell_type"}
"""The attributes of a cell that MindSpore uses for its own bookkeeping."""


def _class_members(cls: type) -> dict[str, Any]:
    """Return the methods and the data of a cell's class, without those of MindSpore's classes."""
    own = [part for part in cls.__mro__ if not part.__module__.startswith(("mindspore", "builtins"))]
    found = {key: value for part in reversed(own) for key, value in vars(part).items() if key not in _OF_A_CLASS}
    return {key: value for key, value in sorted(found.items()) if _is_plain(value) or _is_code(value)}


_OF_A_CLASS = ("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__firstlineno__", "__annotations__")


def _is_code(value: Any) -> bool:
    return isinstance(value, types.FunctionType)


def _is_set(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # the variable has not been assigned yet
        return False


def _array(array: np.ndarray) -> list[Any]:
    return [str(array.dtype), list(array.shape), hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()]


def _class(thing: Any) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _digest_files(paths: Iterator[Path] | Sequence[Path], root: Path | None) -> str:
    found = hashlib.sha256()
    for path in sorted(paths):
        try:
            content = hashlib.sha256(path.read_bytes()).digest()
        except OSError:
            content = b"unreadable"
        found.update(f"{path.relative_to(root) if root else path}\0".encode("utf-8", "surrogateescape") + content)
    return found.hexdigest()


def _digest_package(module: str) -> str:
    """Return the digest of all Python files of a module's package, or of the module itself."""
    top = sys.modules.get(module.partition(".")[0])
    folders = [Path(folder) for folder in getattr(top, "__path__", ())]
    if folders:
        return "".join(_digest_files(folder.rglob("*.py"), folder) for folder in folders)
    file = getattr(top, "__file__", None)
    return _digest_files([Path(file)], Path(file).parent) if file else "unknown"


def _sources_not_installed(package: Path) -> list[Path]:
    """Return the files of all loaded modules that are neither below Python's own folders nor in this package."""
    own = tuple(f"{folder}{os.sep}" for folder in {*sysconfig.get_paths().values(), str(package)})
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    return [Path(file) for file in files if file and file.endswith(".py") and not file.startswith(own)]


def _installed() -> Iterator[str]:
    """Yield the name and the version of every installed distribution."""
    for folder in sys.path:
        if os.path.isdir(folder):
            yield from (name for name in os.listdir(folder) if name.endswith((".dist-info", ".egg-info")))
