"""MindSpore's launcher ``msrun``, as a process that this package starts for the workers of one training."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fcnlab.core import interrupts, starter
from fcnlab.core.errors import ConfigError
from fcnlab.core.processor import thread_limit
from fcnlab.core.starter import Starter

LOG = "msrun.log"
"""The log file of ``msrun`` itself, beside ``worker_0.log`` and the others."""

_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_TO_END = 30.0
"""How long ``msrun`` may take to end once all workers have ended; it looks at them once a second."""
_NAMES = ("python", "python3")
"""The only names of an interpreter that ``msrun`` takes, and it looks for them in the search path."""
_OF_ALL_THREADS = ("OPENCV_FOR_THREADS_NUM", "OPENBLAS_NUM_THREADS")


class End(NamedTuple):
    """How the workers of a training have ended.

    Attributes:
        code: The exit code of worker 0, as a process in their place would have it.
        reason: One line about the end, if no worker could say it.
    """

    code: int
    reason: str | None


def run(count: int, module: str, task: bytes, logs: Path) -> End:
    """Start workers on this machine and wait until all of them have ended.

    Signals that interrupt this process reach the workers, which then save their state. When this process is killed, the
    workers notice it and do the same.

    Args:
        count: The number of workers.
        module: The module that each worker runs; it connects by `fcnlab.core.starter.connect`.
        task: What each worker gets.
        logs: The folder of the log files, which is made.

    Raises:
        ConfigError: If ``msrun`` cannot start workers here.
        OSError: If the log files cannot be written.
    """
    if not starter.is_possible:
        raise ConfigError(f"trainer.workers={count}: msrun starts workers on Linux alone; leave the key out")
    name, folder = interpreter()
    logs.mkdir(parents=True, exist_ok=True)
    with _reserved_port() as port, Starter(count, task) as workers, open(logs / LOG, "wb") as log:
        process = subprocess.Popen(
            command(count, port.getsockname()[1], logs, name, module),
            env=environment(os.environ, folder) | workers.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the workers through here, once
        )
        interrupt = _wait(process, workers)
    return _end(process.returncode, interrupt, workers, logs)


def command(count: int, port: int, logs: Path, python: str, module: str) -> list[str]:
    """Return the command line that starts workers on this machine.

    Args:
        count: Their number.
        port: The port through which they find each other.
        logs: The folder of their log files.
        python: The name of the interpreter, which is found in the search path.
        module: The module that each of them runs.
    """
    return [
        *(sys.executable, "-m", "mindspore.parallel.cluster.run"),
        *(f"--worker_num={count}", f"--local_worker_num={count}", f"--master_port={port}", f"--log_dir={logs}"),
        *("--join=True", f"--tail_worker_log={count}"),  # there is no such worker, so that it prints no worker's log
        *(python, "-m", module),
    ]


def interpreter(executable: str = sys.executable) -> tuple[str, Path]:
    """Return the name by which ``msrun`` finds this interpreter, and the folder to search for it first.

    Raises:
        ConfigError: If the interpreter has no such name.
    """
    own = Path(executable)
    for name in _NAMES:
        with suppress(OSError):
            if own.with_name(name).samefile(own):
                return name, own.parent
    raise ConfigError(
        f"trainer.workers: msrun starts no other interpreter than python or python3, and in {own.parent} neither is "
        f"{own.name}; make a virtual environment: {own.name} -m venv"
    )


def environment(variables: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the environment of ``msrun``, in which it finds the interpreter and each worker counts its threads anew.

    Args:
        variables: The environment of this process.
        folder: The folder of the interpreter.
    """
    # `fcnlab.core.environment` has set these for all processors of this process, of which a worker has a share.
    limit = str(thread_limit())
    kept = {name: value for name, value in variables.items() if name not in _OF_ALL_THREADS or value != limit}
    return {**kept, "PATH": os.pathsep.join([str(folder), kept.get("PATH", os.defpath)])}


def _reserved_port() -> socket.socket:
    """Return a socket that holds a free port: no other process is given it, but ``msrun``'s scheduler can bind it."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    # Set after the port was chosen, so that nobody else has it. The scheduler sets it, too, and this one never listens.
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return held


def _wait(process: subprocess.Popen[bytes], workers: Starter) -> KeyboardInterrupt | None:
    """Wait for the end of all processes, and return the interrupt that ended them."""
    interrupt = None
    since = None
    while process.poll() is None or workers.has_workers:
        try:
            workers.look(_SECONDS_BETWEEN_LOOKS)
            if workers.has_begun:
                interrupts.be_silent()  # worker 0 speaks for all
            if workers.is_over:
                workers.release_scheduler()
                since = since or time.monotonic()
                if time.monotonic() - since > _SECONDS_TO_END:
                    _kill(process)
        except KeyboardInterrupt as error:
            interrupt = error
            workers.refuse_more()
            workers.send_signal(getattr(error, "number", signal.SIGINT))
            if not workers.has_workers:
                workers.release_scheduler()
                _kill(process)
    return interrupt


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end(returned: int, interrupt: KeyboardInterrupt | None, workers: Starter, logs: Path) -> End:
    """Find out how a training has ended, of which ``msrun`` says whether all went well at most."""
    code = workers.codes.get(0)
    if interrupt is not None and (code is None or code < 0 or not workers.has_begun):
        number = getattr(interrupt, "number", signal.SIGINT)
        return End(128 + number, None if workers.has_begun else "interrupted before the workers began")
    if not workers.has_begun:
        return End(1, f"msrun ended with exit code {returned} before its workers began; see {logs / LOG}{_last(logs)}")
    if code is None:
        return End(1, None)
    if code < 0:
        why = ", as the system does when memory runs out" if code == -signal.SIGKILL else ""
        return End(
            1,
            f"worker 0 was ended by {signal.Signals(-code).name}{why}; the same command with resume=auto goes on from "
            "the last state",
        )
    return End(code, None)


def _last(logs: Path) -> str:
    """Return what a log says last, in brackets."""
    with suppress(OSError):
        lines = (logs / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f" ({lines[-1].strip()[:200]})" if lines else ""
    return ""
