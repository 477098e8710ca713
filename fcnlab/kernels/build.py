"""Compiles the C++ beside this file for this machine's processor, once, into the user's cache."""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import logging
import os
import shutil
import stat
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from fcnlab.core.cache_folder import cache_folder
from fcnlab.core.files import replacing
from fcnlab.core.processor import cpu_flags, describe_cpu

log = logging.getLogger(__name__)

FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fPIC", "-pthread"),
    *("-fno-math-errno", "-fno-trapping-math"),  # so that loops with a branch become vector code
)
MAX_LIBRARIES = 8
"""The largest number of libraries in the cache, from which the oldest are removed; each takes about 400 KiB."""

_SEAL_SIZE = hashlib.sha256().digest_size

_SECONDS = 300
"""The time after which a compiler is considered to hang."""


class BuildError(Exception):
    """The reason why there is no library, in one line."""


def build(folder: Path | None = None) -> Path:
    """Return the library for this processor, and compile it if it is not in the cache yet.

    Args:
        folder: The cache of libraries; by default the user's.

    Raises:
        BuildError: If there is no compiler, or it fails.
    """
    sources = sorted(Path(__file__).parent.glob("*.cpp"))
    compiler = find_compiler()
    folder = folder or cache_folder("kernels")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_foreign(folder)
        library = folder / f"{_digest(compiler)}.so"
        if not _is_whole(library):
            _compile(compiler, sources, library)
            _prune(folder)
        else:
            with suppress(OSError):  # a cache that can be read alone is good enough
                os.utime(library)
    except OSError as error:  # there is no folder that can be used: compile for this process alone
        if isinstance(error, _ForeignError):
            log.warning("operators are compiled for this process alone: %s", error)
        temporary = Path(tempfile.mkdtemp(prefix="fcnlab-kernels-"))
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        library = temporary / f"{_digest(compiler)}.so"
        _compile(compiler, sources, library)
    return library


def find_compiler() -> str:
    """Return ``$CXX`` or, if it is not set, the first compiler with a usual name.

    Raises:
        BuildError: If there is no compiler.
    """
    candidates = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    for candidate in candidates:
        found = shutil.which(candidate)
        if found:
            return found
    raise BuildError(f"no C++ compiler ({', '.join(candidates)}); install g++, as in apt install g++")


class _ForeignError(PermissionError):
    """A folder of libraries that others may write."""


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder that another user may write, since this process runs what is in it.

    The own folder is closed to others where it is open to them, as with a umask of 002.

    Raises:
        OSError: If the folder cannot be looked at, or others may write it.
    """
    if _is_open_to_others(folder) and folder.stat().st_uid == os.geteuid():
        folder.chmod(0o700)
    if _is_open_to_others(folder):
        raise _ForeignError(f"others may write {folder}; remove it, or set XDG_CACHE_HOME to a folder of your own")


def _is_open_to_others(path: Path) -> bool:
    found = path.stat()
    return found.st_uid not in (0, os.geteuid()) or bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _is_whole(library: Path) -> bool:
    """Whether a library is there, was written to its end, and by nobody else: loading a cut one ends the process."""
    try:
        content = library.read_bytes()
    except FileNotFoundError:
        return False
    code, seal = content[:-_SEAL_SIZE], content[-_SEAL_SIZE:]
    return hashlib.sha256(code).digest() == seal and not _is_open_to_others(library)


def _seal(library: Path) -> None:
    """Append the digest of a library to it, where the loader does not look."""
    with library.open("r+b") as file:
        digest = hashlib.sha256(file.read()).digest()
        file.write(digest)
    library.chmod(0o755)


def _digest(compiler: str) -> str:
    """Return the digest of everything that the library depends on."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    digest = hashlib.sha256(version + " ".join((compiler, *FLAGS, describe_cpu(), *sorted(cpu_flags()))).encode())
    for file in sorted(Path(__file__).parent.glob("*.[ch]*")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:32]


def _compile(compiler: str, sources: list[Path], library: Path) -> None:
    log.info("compiling operators for this processor, once")
    began = time.perf_counter()
    # The folder is this process's own, since others may be compiling the same library.
    with tempfile.TemporaryDirectory(prefix=".building-", dir=library.parent) as building:
        temporary = Path(building) / library.name
        objects = [temporary.with_name(f"{source.stem}.o") for source in sources]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda pair: _run(compiler, "-c", *pair), zip(objects, sources, strict=True)))
        _run(compiler, "-shared", temporary, *objects)
        try:
            ctypes.CDLL(str(temporary))
        except OSError as error:
            raise BuildError(f"what {compiler} made cannot be loaded: {error}") from error
        _seal(temporary)
        with replacing(library) as partial:  # which waits for the disk
            temporary.replace(partial)
    log.debug("compiled in %.1f s", time.perf_counter() - began)


def _run(compiler: str, how: str, output: Path, *inputs: Path) -> None:
    command = [compiler, *FLAGS, how, "-o", str(output), *map(str, inputs)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{compiler} took more than {_SECONDS} s") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["?"]
        raise BuildError(f"{compiler} failed: {lines[0].strip()}")


def _prune(folder: Path) -> None:
    libraries = sorted(folder.glob("*.so"), key=lambda path: path.stat().st_mtime)
    for path in libraries[:-MAX_LIBRARIES]:
        path.unlink(missing_ok=True)
