"""Signals reach the main thread at the right moment, in a separate process without MindSpore."""

import signal
import subprocess
import sys
import time
from functools import partial

import pytest

PROGRAM = """
import sys, time
from fcnlab.core import interrupts
from fcnlab.core.interrupts import Terminated

interrupts.OVERDUE_SECONDS = float(sys.argv[2])
interrupts.LIMIT_SECONDS = float(sys.argv[3])
interrupts.limit_end()
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
        for _ in range(600):  # a longer sleep would not notice the signal
            time.sleep(0.1)
except Terminated as end:
    print("terminated", end.number, flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def start(tmp_path, seconds, overdue=60, limit=60, program=PROGRAM, before=()):
    script = tmp_path / "program.py"
    script.write_text(program)
    words = [*before, sys.executable, str(script), str(seconds), str(overdue), str(limit)]
    # Whoever runs the tests may have them ignore SIGHUP, which a child inherits, as below nohup.
    hears = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hears)
    assert process.stdout.readline() == "in\n"
    return process


def send(process, *numbers):
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.1)


LOSING = """
import sys, time
from fcnlab.core import interrupts

interrupts.install()

def waits_at_its_end():
    try:
        yield
    finally:
        print("in", flush=True)
        for _ in range(600):
            time.sleep(0.1)

class Waits:
    def __del__(self):
        print("in", flush=True)
        for _ in range(600):
            time.sleep(0.1)

try:
    if sys.argv[1] == "generator":
        left = waits_at_its_end()
        next(left)
    else:
        left = Waits()
    del left
    for _ in range(600):
        time.sleep(0.1)
except interrupts.Terminated as end:
    print("terminated", end.number)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("what", ["generator", "object"])
@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGINT, "interrupted\n"), (signal.SIGTERM, "terminated 15\n")], ids=str
)
def test_a_signal_is_not_lost_where_python_lets_no_error_out(tmp_path, what, number, words):
    """It lets none out of a generator or an object that nothing refers to any more."""
    process = start(tmp_path, what, program=LOSING)
    send(process, number)
    assert process.communicate(timeout=1800) == (words, "")
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("number", "words"),
    [
        pytest.param(signal.SIGINT, "interrupted", id="ctrl-c"),
        pytest.param(signal.SIGTERM, "terminated 15", id="sigterm"),
        pytest.param(signal.SIGHUP, "terminated 1", id="sighup", marks=pytest.mark.slow),
    ],
)
def test_a_signal_waits_for_what_must_not_be_torn(tmp_path, number, words):
    process = start(tmp_path, 1.5)
    send(process, number)
    if number != signal.SIGINT:
        send(process, number)  # as a batch system may
    out, _ = process.communicate(timeout=1800)
    assert out.split() == ["whole", *words.split()]


def test_a_hang_up_that_is_ignored_stays_ignored(tmp_path):
    process = start(tmp_path, 0.5, before=["nohup"])
    send(process, signal.SIGHUP)
    assert process.stdout.readline() == "whole\n"
    assert process.stdout.readline() == "out\n"
    send(process, signal.SIGTERM)
    assert process.communicate(timeout=1800)[0] == "terminated 15\n"


OPEN_THREAD = """
import signal, sys, threading, time
from fcnlab.core import interrupts

def stay_open():  # as a library's thread that was started before
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    time.sleep(60)

threading.Thread(target=stay_open, daemon=True).start()
interrupts.install()
try:
    print("in", flush=True)
    for _ in range(600):
        time.sleep(0.01)
except interrupts.Terminated:
    print("terminated", flush=True)
"""


def test_a_signal_that_another_thread_takes_is_not_lost(tmp_path):
    for _ in range(5):
        process = start(tmp_path, 0, program=OPEN_THREAD)
        send(process, signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert (out, err) == ("terminated\n", "")


HANGING = """
import sys, time
from fcnlab.core import interrupts

interrupts.LIMIT_SECONDS = float(sys.argv[3])
interrupts._SECONDS_AFTER_SAVING = 0.1
interrupts.limit_end()
interrupts.install()
known = interrupts.knowing_way_on(lambda: "python -m fcnlab.train resume=here" if float(sys.argv[1]) else "")
known.__enter__()
try:
    print("in", flush=True)
    for _ in range(600):
        time.sleep(0.1)
except KeyboardInterrupt:
    print(0 < interrupts.seconds_left() <= interrupts.LIMIT_SECONDS, flush=True)
    with interrupts.saving():
        time.sleep(float(sys.argv[1]))
        print("saved", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("seconds_to_save", [0, 3])
def test_what_hangs_after_the_signal_is_not_waited_for_but_a_state_is(tmp_path, seconds_to_save):
    process = start(tmp_path, seconds_to_save, limit=1.5, program=HANGING)
    send(process, signal.SIGTERM)
    out, err = process.communicate(timeout=1800)
    assert process.returncode == 143
    assert out.split() == ["True", "saved"]
    way_on = "; to go on: python -m fcnlab.train resume=here" if seconds_to_save else ""
    assert err == f"fcnlab: ended while it still waited for something; the last whole checkpoint is kept{way_on}\n"


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_ctrl_c_ends_it_at_once(tmp_path, first):
    process = start(tmp_path, 30)
    began = time.monotonic()
    send(process, first, signal.SIGINT)
    out, err = process.communicate(timeout=1800)
    assert time.monotonic() - began < 25
    assert process.returncode == 130
    assert out == ""
    assert err == "fcnlab: ended at once; the last whole checkpoint is kept\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_takes_too_long_is_not_waited_for(tmp_path, number, code):
    process = start(tmp_path, 30, overdue=0.3)
    send(process, number)
    out, err = process.communicate(timeout=1800)
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
    assert process.communicate(timeout=1800)[0] == "prepared\ninterrupted\n"
