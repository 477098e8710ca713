"""Runs ``python -m module`` or ``python -c code`` in a process that has imported MindSpore and MLflow already.

To import them takes ten seconds of processor time, which nearly every test of a command would spend. `forking_server`
has imported them once; this program, which stands in for Python, asks it for a copy of itself, and lends it its
arguments, variables, working directory, and standard streams. It passes signals on, and ends with the copy's exit code
or signal. If it is killed, the server kills the copy. Tests that stop a process, or limit it, run Python itself.
"""

import array
import contextlib
import json
import os
import signal
import socket
import sys


def main():
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.connect(os.environ["FCNLAB_TESTS_FORKING_SERVER"])
        ignored = [number for number in PASSED_ON if signal.getsignal(number) == signal.SIG_IGN]
        request = {"words": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd(), "ignored": ignored}
        signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
        content = json.dumps(request).encode()
        streams = array.array("i", [0, 1, 2])
        server.sendmsg([len(content).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
        server.sendall(content)
        answers = server.makefile()
        pid = int(answers.readline())
        for number in PASSED_ON:
            if number not in ignored:
                signal.signal(number, lambda given, _: passed_on(pid, given))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        for descriptor in (0, 1, 2):  # whoever reads the output, or writes the input, has to do with the copy alone
            os.close(descriptor)
        code = int(answers.readline())
    if code < 0:  # a signal
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    os._exit(code)


PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def passed_on(pid, number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


if __name__ == "__main__":
    main()
