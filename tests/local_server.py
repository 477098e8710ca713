"""Servers of MLflow on the loopback interface, which tests start, kill and start again."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

from conftest import user_environment


def free_port():
    """Return a port of the loopback interface on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class LocalServer:
    """Runs one of MLflow's serving commands in a process group of its own, as a shell would.

    Args:
        folder: The working directory, where ``server.log`` holds what the server prints.
        arguments: What follows ``mlflow`` on the command line, without host and port.
        health: The page that answers once the server is ready.
        environment: The environment variables; None for a user's own.
    """

    def __init__(self, folder, arguments, health="/health", environment=None):
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.health = health
        self.command = [sys.executable, "-m", "mlflow", *arguments, "--host", "127.0.0.1", "--port", str(self.port)]
        self.environment = user_environment() if environment is None else environment

    def start(self):
        """Start the server, and wait until it answers."""
        log = self.folder / "server.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + 300
        while not self._answers():
            assert time.monotonic() < deadline, f"the server does not answer:\n{log.read_text()}"
            assert self.process.poll() is None, f"the server ended:\n{log.read_text()}"
            time.sleep(0.2)

    def _answers(self):
        try:
            with urllib.request.urlopen(f"{self.uri}{self.health}", timeout=5) as response:
                return response.status == 200
        except OSError:
            return False

    def kill(self):
        """Kill the server and everything that it started, as a crash would."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *error):
        self.kill()


def tracking_server(folder, store=None):
    """Return `mlflow server` with proxied artifacts, on a database of its own unless a store is given."""
    store = store or f"sqlite:///{folder / 'server.db'}"
    places = ["--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts")]
    return LocalServer(folder, ["server", "--workers", "1", *places])
