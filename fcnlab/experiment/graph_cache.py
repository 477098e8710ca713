"""Keeps compiled graphs for later processes, so that only the first training of a kind waits for the compiler.

MindSpore can store its graphs and load them in another process, but it trusts the folder that it is given: it takes the
n-th file for the n-th graph that a process compiles, whatever the graph is. So each graph has an entry of its own here.
While a graph is compiled, MindSpore's folder holds only the file of that graph, under the number that MindSpore
expects, or no file at all.

The name of an entry is a digest of everything that could make it wrong: the settled configuration, the cells with their
constants, the versions and the source code. A configuration key without a role counts, too.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import shutil
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import mindspore as ms
from mindspore import Tensor, nn

from fcnlab.core import launch, owned_folder, workers
from fcnlab.core.cache_folder import cache_folder
from fcnlab.core.kept_sys import kept_sys
from fcnlab.data.digests import digest_of
from fcnlab.experiment.graph_key import (
    UndescribedError,
    describe_cell,
    describe_code,
    describe_inputs,
    describe_machine,
)
from fcnlab.registry import Origin

log = logging.getLogger(__name__)

FORMAT = 2
"""The version of the entries' format. Entries of format 1 could hold another data set's class weights."""

MAX_ENTRIES = 128
"""The number of entries that are kept, newest first; an entry takes less than 1 MiB. A training has two or three."""

_GRAPH, _SCRIPT, _RECORD = "graph.mindir", "compile_dependency.hash", "entry.json"  # the second name is MindSpore's
_PARTIAL = ".partial-"


class GraphCache:
    """Compiles cells, or loads the graphs that an earlier process compiled of the same cells.

    A folder that cannot be written, or a damaged entry, costs a compilation, and does not end the training.

    Args:
        configuration: The keys that shape graphs, with their settled values.
        origins: The origins of the plug-ins whose code takes part in the graphs.
        folder: The folder of all entries; by default in the user's cache.
    """

    def __init__(
        self, configuration: Mapping[str, Any], origins: Sequence[Origin] = (), folder: Path | None = None
    ) -> None:
        self._configuration = dict(configuration)
        self._origins = list(origins)
        self._folder = folder or cache_folder("graphs")
        owned_folder.remove_left(_PARTIAL, self._folder)

    def compile(self, cell: nn.Cell, *inputs: Tensor) -> bool:
        """Compile a cell in its present mode, for inputs of these shapes and types.

        Args:
            cell: The cell, which is ready to be called afterwards. ``set_inputs`` may give it dynamic shapes.
            inputs: Examples of the inputs.

        Returns:
            Whether the graph was loaded rather than compiled.
        """
        try:
            document = self.describe(cell, *inputs)
        except Exception as error:  # a plug-in may hold anything: the error must not end the training
            why = f"it holds {error}" if isinstance(error, UndescribedError) else f"{type(error).__name__}: {error}"
            log.info("%s: this graph is compiled anew each time (%s)", _name(cell), why)
            cell.compile(*inputs)
            return False
        entry = self._folder / digest_of([document])
        with _mindspore_folder.lock:
            found = self._fetch(entry)
            try:
                loaded, stored = _mindspore_folder.compile(cell, inputs, found)
            except Exception:
                if found is None:
                    raise  # no entry is to blame
                log.warning("%s: MindSpore could not use this compiled graph, so it is removed and made anew", entry)
                shutil.rmtree(entry, ignore_errors=True)
                loaded, stored = _mindspore_folder.compile(cell, inputs, None)
        if stored is not None:
            with suppress(OSError):  # another process was faster, or the disk is full
                self._keep(entry, stored, document)
        if loaded:
            log.info("%s: this graph was compiled by an earlier process (%s)", _name(cell), entry.name)
        return loaded

    def describe(self, cell: nn.Cell, *inputs: Tensor) -> dict[str, Any]:
        """Describe everything that a cell's graph follows from, as a JSON document."""
        return {
            "format": FORMAT,
            "configuration": self._configuration,
            "cell": describe_cell(cell),
            "inputs": describe_inputs(cell, inputs),
            "machine": describe_machine(),
            "code": describe_code(self._origins),
        }

    def _fetch(self, entry: Path) -> _Stored | None:
        """Return the graph of an entry; None if there is no such entry, or it is damaged."""
        try:
            record = json.loads((entry / _RECORD).read_text(encoding="utf-8"))
            stored = _Stored((entry / _GRAPH).read_bytes(), (entry / _SCRIPT).read_bytes())
            if record["digest"] != stored.digest:
                raise ValueError
            os.utime(entry)
        except (OSError, ValueError, KeyError, TypeError):
            if entry.exists():
                log.warning("%s: is damaged, so that the graph is compiled anew", entry)
            return None
        return stored

    def _keep(self, entry: Path, stored: _Stored, document: Mapping[str, Any]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = owned_folder.make(_PARTIAL, self._folder)
        try:
            (partial / _GRAPH).write_bytes(stored.graph)
            (partial / _SCRIPT).write_bytes(stored.script)
            readable = {key: value for key, value in document.items() if key != "cell"}  # the cell takes 100 KiB
            record = {"digest": stored.digest, "of": readable}
            (partial / _RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
            shutil.rmtree(entry, ignore_errors=True)  # it is damaged, or MindSpore refused it
            owned_folder.release(partial)
            partial.rename(entry)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        _prune(self._folder)


class _Stored(NamedTuple):
    """The files that MindSpore stores for a graph.

    Attributes:
        graph: The content of the graph's file.
        script: The content of the file with MindSpore's digest of the running script, without which it loads no graph.
    """

    graph: bytes
    script: bytes

    @property
    def digest(self) -> str:
        """The digest of both files."""
        return hashlib.sha256(self.script + self.graph).hexdigest()


class _MindSporeFolder:
    """The folder that MindSpore loads graphs from and stores them in, with the number of the next graph.

    MindSpore keeps to the first folder that a process gives it, so a process has one. It stores a graph only beside its
    digest of the script, so that file stays there. Once it has found no file for a graph, it loads no other graph in
    the same process, but still stores graphs. It numbers all graphs that were compiled with its cache switched on, also
    by other code. If its number is not the one expected here, it finds no file and compiles, and the name of the file
    that it writes gives the number.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._root: Path | None = None
        self._next = 0

    def compile(self, cell: nn.Cell, inputs: Sequence[Tensor], found: _Stored | None) -> tuple[bool, _Stored | None]:
        """Compile a cell while the folder holds only its graph, or no graph.

        Returns:
            Whether the graph was loaded; and the graph that MindSpore stored, None if it stored none here.
        """
        try:
            if sys.argv and sys.argv[0] and not os.path.isfile(sys.argv[0]):
                raise FileNotFoundError(sys.argv[0])  # MindSpore reads the script that runs; `python -c` has none
            folder = self._prepare(found)
        except OSError:
            cell.compile(*inputs)
            return False, None
        before = _times(folder)
        ms.set_context(enable_compile_cache=True, compile_cache_path=str(self._root))
        try:
            with kept_sys():
                cell.compile(*inputs)
            written = next((path for path, moment in _times(folder).items() if before.get(path) != moment), None)
            if written is not None:
                self._next = int(written.stem.rpartition("_")[2])
            self._next += written is not None or found is not None
            return found is not None and written is None, _read(written)
        finally:
            ms.set_context(enable_compile_cache=False)
            for path in folder.glob("*.mindir"):
                path.unlink(missing_ok=True)

    def _prepare(self, found: _Stored | None) -> Path:
        if self._root is None or not self._root.is_dir():
            self._root = owned_folder.make("fcnlab-graphs-")
            atexit.register(shutil.rmtree, self._root, ignore_errors=True)
        folder = self._root / f"rank_{workers.current().rank}" / "graph_cache"
        folder.mkdir(parents=True, exist_ok=True)
        if found is not None:
            if not (folder / f"{_prefix()}{_SCRIPT}").exists():
                (folder / f"{_prefix()}{_SCRIPT}").write_bytes(found.script)
            (folder / f"{_prefix()}compile_cache_{self._next}.mindir").write_bytes(found.graph)
        return folder


_mindspore_folder = _MindSporeFolder()


def _prefix() -> str:
    """Return what MindSpore puts before the names of its files: the role of a process that ``msrun`` has started."""
    return "" if launch.current() is None else os.environ["MS_ROLE"]


def _name(cell: nn.Cell) -> str:
    return type(cell).__name__.lstrip("_")


def _times(folder: Path) -> dict[Path, int]:
    """Return the times at which the graphs in a folder were written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("*compile_cache_*.mindir")}


def _read(graph: Path | None) -> _Stored | None:
    try:
        return (
            None
            if graph is None
            else _Stored(graph.read_bytes(), graph.with_name(f"{_prefix()}{_SCRIPT}").read_bytes())
        )
    except OSError:
        return None


def _prune(folder: Path) -> None:
    """Remove the oldest entries, and what processes left that were killed."""
    owned_folder.remove_left(".", folder)  # also what an earlier version left
    found = {path: path.stat().st_mtime for path in folder.iterdir() if not path.name.startswith(".")}
    for path in sorted(found, key=found.get)[:-MAX_ENTRIES]:
        shutil.rmtree(path, ignore_errors=True)
