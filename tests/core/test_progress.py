"""The screen shows the progress of long work."""

import logging

from rich.console import Console

from fcnlab.core import progress as module
from fcnlab.core.progress import clock, in_words, tracked


def test_lines_come_every_few_seconds_with_rate_and_what_is_left(caplog, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def items():
        for index in range(101):
            now[0] += 30 if index == 0 else 0.5  # the first waits for the compiler
            yield index

    with caplog.at_level(logging.INFO):
        assert list(tracked(items(), 101, "images", Console(force_terminal=False))) == list(range(101))
    lines = [record.message for record in caplog.records]
    assert lines[1] == "21/101 images  2.0/s  left 0:40"
    assert len(lines) == 5  # 30 s, then every 10 s


def test_a_rate_that_is_not_known_is_not_shown(caplog, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def items():
        for index in range(3):
            now[0] += 20
            yield index

    screen = Console(force_terminal=True, record=True, width=120)
    with caplog.at_level(logging.INFO):
        list(tracked(items(), 3, "images", Console(force_terminal=False)))
        assert next(tracked(items(), 3, "images", screen)) == 0
    assert [record.message for record in caplog.records] == ["1/3 images", "2/3 images  0.1/s  left 0:20"]
    assert "nan" not in screen.export_text()


def test_a_terminal_gets_a_bar_that_ends_with_the_work():
    screen = Console(force_terminal=True, record=True, width=120)
    work = tracked(range(5), 5, "images", screen)
    assert [next(work) for _ in range(4)] == [0, 1, 2, 3]
    work.close()  # as an interrupted loop does
    text = screen.export_text()
    assert "3/5" in text
    assert "images" in text


def test_a_clock():
    assert [clock(seconds) for seconds in (5, 65.4, 7209)] == ["0:05", "1:05", "2:00:09"]


def test_a_time_in_a_sentence():
    assert [in_words(seconds) for seconds in (5, 65.4, 7209)] == ["5 s", "1 min 5 s", "2 h 0 min"]
