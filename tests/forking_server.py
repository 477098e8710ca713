"""Serves copies of a process that has imported MindSpore and MLflow; `forked_python` tells why, and asks for them.

It has one thread, as a copy of a process with several would have locks that nobody opens.
"""

import array
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import tempfile

MODULES = (
    "fcnlab.train",
    "fcnlab.experiment.run",
    "fcnlab.experiment.assembly",
    "fcnlab.recording.recorder",
    "fcnlab.sweeps.job",
    "fcnlab.sweeps.sweep",
    "fcnlab.tracking.sending_server",
    "fcnlab.tracking.store",
    "fcnlab.predict",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.tracking._tracking_service.utils",
)


def serve(path, owner):
    """Serve until the process of the tests has ended.

    Args:
        path: The address of the socket.
        owner: The id of that process.

    Returns:
        In a copy: what it is to run. In the server: None, at the end.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path + ".new")
    listener.listen(64)
    os.rename(path + ".new", path)
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    copies = {}
    while is_alive(owner):
        for key, _ in waiting.select(0.05):
            if key.fileobj is listener:
                connection, _ = listener.accept()
                request = received(connection)
                if request is None:
                    continue
                pid = os.fork()
                if not pid:
                    listener.close()
                    for other in copies.values():
                        other.close()
                    connection.close()
                    waiting.close()
                    return request
                for descriptor in request["streams"]:
                    os.close(descriptor)
                connection.sendall(f"{pid}\n".encode())
                copies[pid] = connection
                waiting.register(connection, selectors.EVENT_READ, pid)
            else:  # the program that asked has ended, which sends nothing
                waiting.unregister(key.fileobj)
                if key.data in copies:
                    os.kill(key.data, signal.SIGKILL)
        while copies:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            with copies.pop(pid) as connection, contextlib.suppress(OSError, KeyError):  # it may have gone already
                connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                waiting.unregister(connection)
    return None


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def received(connection):
    """Return a request, with the descriptors of its standard streams; None if whoever asked has gone."""
    size, ancillary, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(12))
    if not ancillary:
        connection.close()
        return None
    streams = array.array("i")
    streams.frombytes(ancillary[0][2][:12])
    content = b""
    while len(content) < int.from_bytes(size, "big"):
        part = connection.recv(2**20)
        if not part:  # it was killed while it asked
            for descriptor in streams:
                os.close(descriptor)
            connection.close()
            return None
        content += part
    return {**json.loads(content), "streams": list(streams)}


def run(request, kept):
    """Become what `forked_python` was started as.

    Args:
        request: What it sent.
        kept: The variables that the imports set.
    """
    os.setsid()
    for number, descriptor in enumerate(request["streams"]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False, buffering=1 if os.isatty(1) else -1)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1, errors="backslashreplace")  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    for number in request["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    environment = {**kept, **request["environment"]}
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)
    tempfile.tempdir = None  # TMPDIR may be another one
    os.chdir(request["folder"])
    sys.path[:0] = [place for place in environment.get("PYTHONPATH", "").split(os.pathsep) if place]
    words = request["words"]
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, os.getcwd())
        sys.modules.pop(words[1], None)  # it was imported, and is to be run
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        sys.path.insert(0, "")
        exec(compile(words[1], "<string>", "exec"), sys.modules["__main__"].__dict__)
    else:
        sys.argv = words
        sys.path.insert(0, os.path.dirname(os.path.abspath(words[0])))
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    # What a copy starts is a copy, too.
    sys.executable = sys.argv[3]
    before = dict(os.environ)
    for name in MODULES:
        importlib.import_module(name)
    set_by_imports = {name: value for name, value in os.environ.items() if name not in before}
    gc.collect()
    gc.freeze()  # otherwise the first collection of each copy would write to all of the memory that it shares
    found = serve(sys.argv[1], int(sys.argv[2]))
    if found is not None:
        run(found, set_by_imports)
