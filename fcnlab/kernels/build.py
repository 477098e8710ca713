"""Compiles the C++ beside this file for this machine's processor, once, into the user's cache."""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import logging
import os
import platform
import shutil
import stat
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from fcnlab.core import owned_folder
from fcnlab.core.cache_folder import cache_folder
from fcnlab.core.files import replacing
from fcnlab.core.processor import cpu_flags, describe_cpu, usable_processors
from fcnlab.kernels.compiler import BuildError, Compiler, find_compiler

log = logging.getLogger(__name__)

FLAGS = (
    *("-std=c++17", "-O3", "-fPIC", "-pthread"),
    *("-fno-math-errno", "-fno-trapping-math"),  # so that loops with a branch become vector code
    "-Wl,-z,nodelete",  # MindSpore closes a library that it opened, while its threads wait in it for the next job
    "-ffp-contract=fast",  # GCC's default; without it, Clang before 14 multiplies and adds one after the other
)
OWN_LIBRARY = ("-static-libstdc++", "-static-libgcc")
"""These make a library independent of the C++ library that this process has loaded."""

MAX_LIBRARIES = 32
"""The largest number of libraries in the cache, from which the oldest are removed; each takes about 200 KiB.

A home that machines share has one for each kind of processor, compiler and C library.
"""

_SEAL_SIZE = hashlib.sha256().digest_size


def build(folder: Path | None = None) -> Path:
    """Return the library for this processor, and compile it if it is not in the cache yet.

    Args:
        folder: The cache of libraries; by default the user's.

    Raises:
        BuildError: If there is no compiler, or it fails.
    """
    compiler = find_compiler()
    folder = folder or cache_folder("kernels")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_foreign(folder)
        library = folder / f"{_digest(compiler)}.so"
        if not _is_whole(library):
            compile_library(compiler, library)
            _prune(folder)
        else:
            with suppress(OSError):  # a cache that can be read alone is good enough
                os.utime(library)
    except OSError as error:  # there is no folder that can be used: compile for this process alone
        if isinstance(error, _ForeignError):
            log.warning("operators are compiled for this process alone: %s", error)
        temporary = owned_folder.make("fcnlab-kernels-")
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        library = temporary / f"{_digest(compiler)}.so"
        compile_library(compiler, library)
    return library


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


def _digest(compiler: Compiler) -> str:
    """Return the digest of all that the library depends on, so that machines which share a home find their own."""
    machine = (describe_cpu(), *sorted(cpu_flags()), *platform.libc_ver())
    parts = (compiler.path, *compiler.flags, compiler.macros, *FLAGS, *machine)
    digest = hashlib.sha256(" ".join(parts).encode())
    for file in sorted(Path(__file__).parent.glob("*.[ch]*")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:32]


def compile_library(compiler: Compiler, library: Path) -> None:
    """Compile the operators to a library, which is there as a whole or not at all.

    Raises:
        BuildError: If the compiler fails.
        OSError: If the library's folder cannot be written.
    """
    log.info("compiling operators for this processor, once")
    began = time.perf_counter()
    # The longest come first, since two processors are then done at about the same time.
    sources = sorted(Path(__file__).parent.glob("*.cpp"), key=lambda path: path.stat().st_size, reverse=True)
    # The folder is this process's own, since others may be compiling the same library.
    with tempfile.TemporaryDirectory(prefix=".building-", dir=library.parent) as building:
        temporary = Path(building) / library.name
        objects = [temporary.with_name(f"{source.stem}.o") for source in sources]
        with ThreadPoolExecutor(usable_processors()) as pool:
            list(pool.map(lambda pair: _run(compiler, "-c", *pair), zip(objects, sources, strict=True)))
        _link(compiler, objects, temporary)
        _seal(temporary)
        with replacing(library) as partial:  # which waits for the disk
            temporary.replace(partial)
    log.debug("compiled in %.1f s", time.perf_counter() - began)


def _link(compiler: Compiler, objects: list[Path], library: Path) -> None:
    """Link a library that this process can load.

    The compiler may be newer than the C++ library of this process, as one of a cluster's modules or of conda is. The
    library then brings its own.
    """
    _run(compiler, "-shared", library, *objects)
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        another = library.with_name(f"own-{library.name}")  # since a name that has failed may be remembered
        try:
            compiler.run(*FLAGS, "-shared", *OWN_LIBRARY, "-o", str(another), *map(str, objects))
            ctypes.CDLL(str(another))
        except (OSError, BuildError):
            raise BuildError(f"what {compiler.path} made cannot be loaded: {error}") from error
        another.replace(library)


def _run(compiler: Compiler, how: str, output: Path, *inputs: Path) -> None:
    compiler.run(*FLAGS, how, "-o", str(output), *map(str, inputs))


def _prune(folder: Path) -> None:
    libraries = sorted(folder.glob("*.so"), key=lambda path: path.stat().st_mtime)
    for path in libraries[:-MAX_LIBRARIES]:
        path.unlink(missing_ok=True)
