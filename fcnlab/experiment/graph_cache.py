"""Compiled graphs that outlive the process, so that only the first run of a kind waits for the compiler.

MindSpore can store its graphs and load them in another process, but it believes the folder that it is given: the n-th
graph that a process compiles is the n-th file, whatever it is a graph of. So each graph has an entry of its own here,
and while it is compiled, MindSpore's folder holds the file of that graph, under the number that MindSpore expects, or
none at all.

An entry is named by a digest of everything that could make it wrong: the settled configuration, the cells themselves
with their constants, the versions, the source code. What nobody classified counts.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import mindspore as ms
from mindspore import Tensor, nn

from fcnlab.core.cache_folder import cache_folder
from fcnlab.data.fingerprint import digest_of
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
"""Counts changes of what an entry is. Entries of format 1 could hold another data set's class weights."""

MAX_ENTRIES = 128
"""The oldest go first; an entry takes less than 1 MiB, and a training has two."""

_GRAPH, _SCRIPT, _RECORD = "graph.mindir", "compile_dependency.hash", "entry.json"  # the second as MindSpore calls it
_DAYS_OF_A_REMNANT = 7


class GraphCache:
    """Compiles cells, or loads what an earlier process compiled of the same.

    A folder that cannot be written, or an entry that is damaged, costs the reuse and not the training.

    Args:
        configuration: The keys that shape graphs, with their settled values.
        origins: Of the plug-ins whose code takes part in the graphs.
        folder: Of all entries; by default in the user's cache.
    """

    def __init__(
        self, configuration: Mapping[str, Any], origins: Sequence[Origin] = (), folder: Path | None = None
    ) -> None:
        self._configuration = dict(configuration)
        self._origins = list(origins)
        self._folder = folder or cache_folder("graphs")

    def compile(self, cell: nn.Cell, *inputs: Tensor) -> bool:
        """Compile a cell in its present mode, for inputs of these shapes and types.

        Args:
            cell: What is to be called afterwards. Its inputs may have dynamic shapes, by ``set_inputs``.
            inputs: Examples.

        Returns:
            Whether the graph was loaded in place of being compiled.
        """
        try:
            document = self.describe(cell, *inputs)
        except Exception as error:  # of whatever a plug-in holds: it costs the reuse, and not the training
            why = f"it holds {error}" if isinstance(error, UndescribedError) else f"{type(error).__name__}: {error}"
            log.info("%s: this graph is compiled anew each time (%s)", _name(cell), why)
            cell.compile(*inputs)
            return False
        entry = self._folder / digest_of([document])
        with _workplace.lock:
            found = self._fetch(entry)
            try:
                loaded, stored = _workplace.compile(cell, inputs, found)
            except Exception:
                if found is None:
                    raise  # it is not the entry's fault
                log.warning("%s: MindSpore could not use this compiled graph, so it is removed and made anew", entry)
                shutil.rmtree(entry, ignore_errors=True)
                loaded, stored = _workplace.compile(cell, inputs, None)
        if stored is not None:
            with suppress(OSError):  # another process was faster, or the disk is full: that costs the reuse
                self._keep(entry, stored, document)
        if loaded:
            log.info("%s: this graph was compiled by an earlier process (%s)", _name(cell), entry.name)
        return loaded

    def describe(self, cell: nn.Cell, *inputs: Tensor) -> dict[str, Any]:
        """Everything that could make a stored graph another one than this cell's, as JSON takes it."""
        return {
            "format": FORMAT,
            "configuration": self._configuration,
            "cell": describe_cell(cell),
            "inputs": describe_inputs(cell, inputs),
            "machine": describe_machine(),
            "code": describe_code(self._origins),
        }

    def _fetch(self, entry: Path) -> _Stored | None:
        """The graph of an entry; None if there is none, or it is not as it was written."""
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
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=self._folder))
        try:
            (partial / _GRAPH).write_bytes(stored.graph)
            (partial / _SCRIPT).write_bytes(stored.script)
            readable = {key: value for key, value in document.items() if key != "cell"}  # which takes 100 KiB
            record = {"digest": stored.digest, "of": readable}
            (partial / _RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
            shutil.rmtree(entry, ignore_errors=True)  # one that is damaged, or that MindSpore did not take
            partial.rename(entry)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        _prune(self._folder)


class _Stored(NamedTuple):
    """What MindSpore stores of a graph.

    Attributes:
        graph: Its file.
        script: MindSpore's digest of the script that runs, without which it takes no file.
    """

    graph: bytes
    script: bytes

    @property
    def digest(self) -> str:
        """The digest of both."""
        return hashlib.sha256(self.script + self.graph).hexdigest()


class _Workplace:
    """The folder that MindSpore reads graphs from and writes them to, and the number of the next one.

    MindSpore keeps to the folder that it was first told of, so that there is one for a process. It stores a graph only
    beside its digest of the script, so that this one stays there. After a graph that it did not find, it loads no other
    in the same process, but goes on to store them. It counts the graphs that it compiled with its cache switched on,
    others' too; where its number is not the one expected here, it finds no file, compiles, and what it writes tells the
    number.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._root: Path | None = None
        self._next = 0

    def compile(self, cell: nn.Cell, inputs: Sequence[Tensor], found: _Stored | None) -> tuple[bool, _Stored | None]:
        """Compile a cell while the folder holds its graph, if there is one, and no other.

        Returns:
            Whether the graph was loaded, and otherwise what MindSpore stored of it; None if that is elsewhere.
        """
        try:
            if sys.argv and sys.argv[0] and not os.path.isfile(sys.argv[0]):
                raise FileNotFoundError(sys.argv[0])  # MindSpore reads the script that runs; `python -c` has none
            folder = self._prepared(found)
        except OSError:
            cell.compile(*inputs)
            return False, None
        before = _times(folder)
        ms.set_context(enable_compile_cache=True, compile_cache_path=str(self._root))
        try:
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

    def _prepared(self, found: _Stored | None) -> Path:
        if self._root is None or not self._root.is_dir():
            self._root = Path(tempfile.mkdtemp(prefix="fcnlab-graphs-"))
            atexit.register(shutil.rmtree, self._root, ignore_errors=True)
        folder = self._root / "rank_0" / "graph_cache"
        folder.mkdir(parents=True, exist_ok=True)
        if found is not None:
            if not (folder / _SCRIPT).exists():
                (folder / _SCRIPT).write_bytes(found.script)
            (folder / f"compile_cache_{self._next}.mindir").write_bytes(found.graph)
        return folder


_workplace = _Workplace()


def _name(cell: nn.Cell) -> str:
    return type(cell).__name__.lstrip("_")


def _times(folder: Path) -> dict[Path, int]:
    """The graphs in a folder, with the times at which they were written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("compile_cache_*.mindir")}


def _read(graph: Path | None) -> _Stored | None:
    try:
        return None if graph is None else _Stored(graph.read_bytes(), graph.with_name(_SCRIPT).read_bytes())
    except OSError:
        return None


def _prune(folder: Path) -> None:
    """Remove the oldest entries, and what killed processes left."""
    found = {path: path.stat().st_mtime for path in folder.iterdir()}
    entries = sorted((path for path in found if not path.name.startswith(".")), key=found.get)
    long_ago = time.time() - _DAYS_OF_A_REMNANT * 24 * 3600
    remnants = [path for path, moment in found.items() if path.name.startswith(".") and moment < long_ago]
    for path in [*entries[:-MAX_ENTRIES], *remnants]:
        shutil.rmtree(path, ignore_errors=True)
