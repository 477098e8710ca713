"""Finds a C++ compiler that is new enough, and runs it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

OLDEST = {"GCC": 9, "Clang": 11}
"""The oldest compilers that the operators were built and tested with, by ``make test-compilers``."""

NAMES = ("g++", "clang++", "c++")
"""The usual names of a compiler, which are tried in this order."""

WITHOUT_AMX = ("-mno-amx-tile", "-mno-amx-bf16")
"""What lets a compiler do without the matrix instructions of the processor."""

_SECONDS = 300
"""The time after which a compiler is considered to hang."""

_ANOTHER = "CXX=<path> chooses another"


class BuildError(Exception):
    """The reason why there is no library, in one line."""


class Compiler(NamedTuple):
    """A compiler that is new enough.

    Attributes:
        path: The program.
        flags: What chooses this machine's processor.
        macros: What the compiler defines for this processor: its version and the processor's instruction sets.
    """

    path: str
    flags: tuple[str, ...]
    macros: str

    def run(self, *arguments: str) -> str:
        """Run the compiler, and return what it writes to its output.

        Raises:
            BuildError: If it fails or hangs, with its first error.
        """
        return _run(self.path, *self.flags, *arguments)


def find_compiler() -> Compiler:
    """Return ``$CXX`` or, if it is not set, the first compiler with a usual name that is new enough.

    Raises:
        BuildError: If there is none.
    """
    candidates = (os.environ["CXX"],) if os.environ.get("CXX") else NAMES
    reasons = []
    for path in filter(None, map(shutil.which, candidates)):
        try:
            return _examine(path)
        except BuildError as error:
            reasons.append(str(error))
    if reasons:
        raise BuildError("; ".join(reasons))
    raise BuildError(f"no C++ compiler ({', '.join(candidates)}); install g++, as in apt install g++")


def processor_flags(machine: str) -> tuple[str, ...]:
    """Return the compiler's flags for all that this machine's processor can do.

    Args:
        machine: The kind of processor, as `platform.machine` names it.
    """
    # On AArch64, -march chooses instruction sets without a processor to tune for, and Clang before 15 knows no
    # -march=native there; -mcpu chooses both.
    return ("-mcpu=native",) if machine in ("aarch64", "arm64") else ("-march=native",)


def _examine(path: str) -> Compiler:
    flags = processor_flags(platform.machine())
    macros = _macros(path, flags)
    if "AMX" in macros and not _assembles_amx(path, flags):
        flags += WITHOUT_AMX
        macros = _macros(path, flags)
    for kind, macro in (("Clang", "__clang_major__"), ("GCC", "__GNUC__")):  # Clang defines both
        if found := re.search(rf"^#define {macro} (\d+)$", macros, re.MULTILINE):
            version = int(found[1])
            if version < OLDEST[kind]:
                needed = " or ".join(f"{name} {number}" for name, number in OLDEST.items())
                raise BuildError(
                    f"{path} is {kind} {version}, and the operators take {needed}; CXX=<path> chooses another"
                )
            return Compiler(path, flags, macros)
    raise BuildError(f"{path} is neither GCC nor Clang; {_ANOTHER}")


def _macros(path: str, flags: tuple[str, ...]) -> str:
    return _run(path, *flags, "-x", "c++", "-dM", "-E", os.devnull)


def _assembles_amx(path: str, flags: tuple[str, ...]) -> bool:
    """Whether the assembler knows the matrix instructions, too: GCC takes the system's, which may be older."""
    with tempfile.TemporaryDirectory(prefix="fcnlab-") as folder:
        source = Path(folder) / "amx.s"
        source.write_text("tilerelease\n", encoding="ascii")
        try:
            _run(path, *flags, "-c", "-o", f"{folder}/amx.o", str(source))
        except BuildError:
            return False
    return True


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{command[0]} took more than {_SECONDS} s") from error
    except OSError as error:
        raise BuildError(f"{command[0]} does not run: {error.strerror}") from error
    if done.returncode != 0:
        lines = done.stderr.splitlines() or ["?"]
        reason = next((line for line in lines if "error" in line.lower()), lines[0])  # GCC's assembler writes Error
        raise BuildError(f"{command[0]} failed: {reason.strip()}")
    return done.stdout
