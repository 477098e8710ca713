"""A process goes on when nobody reads what it prints any more."""

import os
import pty
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from fcnlab.core.output import outlive_reader

outlive_reader()
print("read", flush=True)
sys.stdin.readline()
for _ in range(3):
    print("not read", flush=True)
    print("neither", file=sys.stderr)
os.write(1, b"nor by a library")
with open(sys.argv[1], "w") as file:
    file.write("whole")
"""


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_what_nobody_reads_is_dropped(tmp_path, kind):
    reader, writer = os.pipe() if kind == "pipe" else pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tmp_path / "done"],
        stdin=subprocess.PIPE,
        stdout=writer,
        stderr=writer,
        start_new_session=True,
    )
    os.close(writer)
    assert os.read(reader, 100).strip() == b"read"
    os.close(reader)
    process.communicate(b"\n", timeout=1800)
    assert process.returncode == 0
    assert (tmp_path / "done").read_text() == "whole"


def test_what_is_read_is_as_it_was(tmp_path):
    code = (
        "import sys; from fcnlab.core.output import outlive_reader\n"
        "before = [(s.encoding, s.errors, s.line_buffering, s.isatty()) for s in (sys.stdout, sys.stderr)]\n"
        "outlive_reader()\n"
        "print(before == [(s.encoding, s.errors, s.line_buffering, s.isatty()) for s in (sys.stdout, sys.stderr)])\n"
        "print('ä', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=1800, check=True)
    assert (done.stdout, done.stderr) == ("True\n", "ä\n")


def test_a_full_disk_takes_what_it_can(tmp_path):
    code = "from fcnlab.core.output import outlive_reader; outlive_reader(); print('lost', flush=True); print('lost')"
    with open("/dev/full", "w") as full:
        assert subprocess.run([sys.executable, "-c", code], stdout=full, timeout=1800).returncode == 0
