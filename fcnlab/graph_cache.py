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
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn

from fcnlab.graph_key import UndescribedError, describe_cell, describe_code, describe_inputs, describe_machine, digest
from fcnlab.registry import Origin
from fcnlab.user_cache import cache_folder

log = logging.getLogger(__name__)

FORMAT = 2
"""Counts changes of what an entry is. Entries of format 1 could hold another data set's class weights."""

MAX_ENTRIES = 128
"""The oldest go first; an entry takes less than 1 MiB, and a training has two."""

_GRAPH, _DEPENDENCIES, _RECORD = "graph.mindir", "compile_dependency.hash", "entry.json"
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
        except UndescribedError as error:
            log.info("the graph of %s is compiled anew each time: it holds %s", type(cell).__name__, error)
            cell.compile(*inputs)
            return False
        entry = self._folder / digest(document)
        with _workplace.lock:
            found = self._fetch(entry)
            try:
                loaded, written = _workplace.compile(cell, inputs, found)
            except Exception:
                if found is None:
                    raise  # it is not the entry's fault
                log.warning("%s: MindSpore could not use this compiled graph, so it is removed and made anew", entry)
                shutil.rmtree(entry, ignore_errors=True)
                loaded, written = _workplace.compile(cell, inputs, None)
        if written:
            self._keep(entry, written, document)
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

    def _fetch(self, entry: Path) -> dict[str, bytes] | None:
        """The files of an entry; None if there is none, or it is not as it was written."""
        try:
            record = json.loads((entry / _RECORD).read_text(encoding="utf-8"))
            files = {name: (entry / name).read_bytes() for name in (_GRAPH, _DEPENDENCIES)}
            if record["files"] != _digests(files):
                raise ValueError
            os.utime(entry)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            log.warning("%s: is damaged, so that the graph is compiled anew", entry)
            shutil.rmtree(entry, ignore_errors=True)
            return None
        return files

    def _keep(self, entry: Path, files: Mapping[str, bytes], document: Mapping[str, Any]) -> None:
        with suppress(OSError):  # another process was faster, or the disk is full
            self._folder.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=self._folder))
            try:
                for name, content in files.items():
                    (partial / name).write_bytes(content)
                readable = {key: value for key, value in document.items() if key != "cell"}  # which takes 100 KiB
                record = {"files": _digests(files), "of": readable}
                (partial / _RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
                shutil.rmtree(entry, ignore_errors=True)  # of another process, or one that MindSpore did not take
                partial.rename(entry)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            _prune(self._folder)


class _Workplace:
    """The folder that MindSpore reads graphs from and writes them to, and the number of the next one.

    MindSpore keeps to the folder that it was first told of, so that there is one for a process. It counts the graphs
    that it compiled with its cache switched on, others' too; where its number is not the one expected here, it finds no
    file, compiles, and what it writes tells the number.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._root: Path | None = None
        self._next = 0

    def compile(
        self, cell: nn.Cell, inputs: Sequence[Tensor], files: Mapping[str, bytes] | None
    ) -> tuple[bool, dict[str, bytes]]:
        """Compile a cell while the folder holds the given files, if any, and nothing else.

        Returns:
            Whether MindSpore loaded them, and the files that it wrote otherwise: none if it wrote elsewhere.
        """
        try:
            folder, placed = self._prepared(files)
        except OSError:
            cell.compile(*inputs)
            return False, {}
        before = _times(folder)
        ms.set_context(enable_compile_cache=True, compile_cache_path=str(self._root))
        try:
            cell.compile(*inputs)
            graph = next((path for path, moment in _times(folder).items() if before.get(path) != moment), None)
            if graph is not None:
                self._next = int(graph.stem.rpartition("_")[2])
            self._next += graph is not None or placed
            return placed and graph is None, self._read(graph)
        finally:
            ms.set_context(enable_compile_cache=False)
            for path in folder.glob("*.mindir"):
                path.unlink(missing_ok=True)

    def _prepared(self, files: Mapping[str, bytes] | None) -> tuple[Path, bool]:
        """The folder, and whether it holds the files now."""
        if self._root is None or not self._root.is_dir():
            self._root = Path(tempfile.mkdtemp(prefix="fcnlab-graphs-"))
            atexit.register(shutil.rmtree, self._root, ignore_errors=True)
        folder = self._root / "rank_0" / "graph_cache"
        folder.mkdir(parents=True, exist_ok=True)
        if files is None:
            return folder, False
        # MindSpore reads one digest of the script and what that imports for all graphs of a process, and stores no
        # other graph if it is missing: it stays once it is there.
        dependencies = folder / _DEPENDENCIES
        if not dependencies.exists():
            dependencies.write_bytes(files[_DEPENDENCIES])
        elif dependencies.read_bytes() != files[_DEPENDENCIES]:
            return folder, False
        (folder / f"compile_cache_{self._next}.mindir").write_bytes(files[_GRAPH])
        return folder, True

    @staticmethod
    def _read(graph: Path | None) -> dict[str, bytes]:
        """The files of an entry, as MindSpore wrote them."""
        if graph is None:
            return {}
        try:
            files = {_GRAPH: graph, _DEPENDENCIES: graph.with_name(_DEPENDENCIES)}
            return {name: path.read_bytes() for name, path in files.items()}
        except OSError:
            return {}


_workplace = _Workplace()


def _times(folder: Path) -> dict[Path, int]:
    """The graphs in a folder, with the times at which they were written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("compile_cache_*.mindir")}


def _digests(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def _prune(folder: Path) -> None:
    entries = sorted(
        (path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.stat().st_mtime
    )
    long_ago = time.time() - _DAYS_OF_A_REMNANT * 24 * 3600
    remnants = [path for path in folder.glob(".*") if path.stat().st_mtime < long_ago]  # of processes that were killed
    for path in [*entries[:-MAX_ENTRIES], *remnants]:
        shutil.rmtree(path, ignore_errors=True)
