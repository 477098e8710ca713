"""Hosts on one machine: network namespaces that a switch connects, whose links can be cut.

A namespace has addresses and connections of its own, as a host has; disk, memory and processors are shared. Linux and
the rights of an administrator are needed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Any


class Hosts:
    """Network namespaces with one link each to a switch, which exist for the length of a ``with`` block.

    Args:
        names: The names of the hosts.

    Raises:
        OSError: If ``ip`` is not installed.
        RuntimeError: If this user may not make a network namespace.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._prefix = f"fcnlab-{os.getpid()}"
        self._number = {name: number for number, name in enumerate(names, start=1)}

    def address(self, name: str) -> str:
        """Return the address of a host, which only the hosts can reach."""
        return f"10.77.0.{self._number[name]}"

    def start(self, name: str, command: Sequence[str], **options: Any) -> subprocess.Popen:
        """Start a command on a host; the options are those of `subprocess.Popen`."""
        return subprocess.Popen(["ip", "netns", "exec", self._namespace(name), *command], **options)

    def cut(self, name: str) -> None:
        """Cut the link of a host: what it sends is lost, as with a cable that was pulled out of the switch."""
        self._at_switch("link", "set", self._port(name), "down")

    def restore(self, name: str) -> None:
        """Connect a host again."""
        self._at_switch("link", "set", self._port(name), "up")

    def __enter__(self) -> Hosts:
        try:
            _ip("netns", "add", self._namespace("switch"))
            self._at_switch("link", "add", "bridge", "type", "bridge")
            self._at_switch("link", "set", "bridge", "up")
            for name in self._number:
                self._add(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for name in (*self._number, "switch"):
            with suppress(RuntimeError):
                _ip("netns", "del", self._namespace(name))

    def _add(self, name: str) -> None:
        namespace, port = self._namespace(name), self._port(name)
        _ip("netns", "add", namespace)
        self._at_switch("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        self._at_switch("link", "set", port, "master", "bridge")
        self._at_switch("link", "set", port, "up")
        _ip("-n", namespace, "address", "add", f"{self.address(name)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", namespace, "link", "set", device, "up")

    def _at_switch(self, *words: str) -> None:
        _ip("-n", self._namespace("switch"), *words)

    def _namespace(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    def _port(self, name: str) -> str:
        return f"port{self._number[name]}"


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
