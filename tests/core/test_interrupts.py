"""Signals reach the main thread at the right moment, in a separate process without MindSpore."""

import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import sys, time
from fcnlab.core import interrupts
from fcnlab.core.interrupts import Terminated

interrupts.OVERDUE_SECONDS = float(sys.argv[2])
interrupts.install()

def busy(seconds):  # a long call that Python cannot interrupt
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass

try:
    with interrupts.before_forced_exit(lambda: print("last words", flush=True)):
        with interrupts.deferred():
            print("in", flush=True)
            busy(float(sys.argv[1]))
            print("whole", flush=True)
        print("out", flush=True)
        time.sleep(60)
except Terminated:
    print("terminated", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def start(tmp_path, seconds, overdue=60):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    words = [sys.executable, str(script), str(seconds), str(overdue)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in\n"
    return process


def send(process, *numbers):
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")], ids=["ctrl-c", "sigterm"]
)
def test_a_signal_waits_for_what_must_not_be_torn(tmp_path, number, word):
    process = start(tmp_path, 1.5)
    send(process, number)
    if number == signal.SIGTERM:
        send(process, signal.SIGTERM)  # as a batch system may
    out, _ = process.communicate(timeout=120)
    assert out.split() == ["whole", word]


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_ctrl_c_ends_it_at_once(tmp_path, first):
    process = start(tmp_path, 30)
    began = time.monotonic()
    send(process, first, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert time.monotonic() - began < 25
    assert process.returncode == 130
    assert out == ""
    assert err == "fcnlab: ended at once; the last whole checkpoint is kept\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_takes_too_long_is_not_waited_for(tmp_path, number, code):
    process = start(tmp_path, 30, overdue=0.3)
    send(process, number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert out == "last words\n"
    assert len(err.splitlines()) == 1


def test_what_is_to_be_done_first_is_done_before_the_main_thread_hears_of_it(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        """
import signal, time
from fcnlab.core import interrupts

def first():
    print("prepared", flush=True)
    time.sleep(0.5)

interrupts.install()
interrupts.on_first_signal(first)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # as multiprocessing does
print("in", flush=True)
try:
    for _ in range(200):
        time.sleep(0.1)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "prepared\ninterrupted\n"
