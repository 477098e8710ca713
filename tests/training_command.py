"""Runs ``python -m fcnlab.train`` as its users do: in a process of its own, in a folder, with no store chosen."""

import subprocess
import sys

from conftest import user_environment


def start(folder, *overrides, **popen):
    """Start a training or a sweep in a folder, and return its process, whose output is text in two pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "fcnlab.train", *overrides],
        cwd=folder,
        env=user_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **popen,
    )


def finish(process, seconds=1800):
    """Wait for the end of a process, and return its exit code, its output and its errors."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def run(folder, *overrides, seconds=1800):
    """Train in a folder, and return the exit code, the output and the errors."""
    return finish(start(folder, *overrides), seconds)
