"""What msrun says of a process, and which share of the processors each of its workers has."""

import pytest

from fcnlab.core import launch, processor
from fcnlab.core.launch import Launch, read

WORKER = {"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "4", "MS_NODE_ID": "3", "RANK_ID": "3"}
MSRUN = ["python", "/bin/msrun", "--worker_num=4"]


def test_a_process_without_msrun_has_no_launch():
    assert read({"RANK_ID": "0", "MS_WORKER_NUM": "2"}, MSRUN, 1) is None
    assert read({"MS_ROLE": "MS_PSERVER"}, MSRUN, 1) is None


@pytest.mark.parametrize(
    ("words", "here", "joined"),
    [
        ([*MSRUN, "--local_worker_num=2", "--join=True"], 2, True),
        ([*MSRUN, "--local_worker_num", "2", "--join", "False"], 2, False),
        ([*MSRUN, "--bind_core=True", "--local_worker_num=2"], 1, False),  # each is bound to processors of its own
        (MSRUN, 4, False),
        ([], 4, False),  # msrun has ended
        ([*MSRUN, "--join"], 4, False),
    ],
)
def test_the_command_line_of_msrun_says_how_its_workers_live(words, here, joined):
    assert read(WORKER, words, 7) == Launch("worker", 3, 4, here, joined, 7)


def test_the_scheduler_has_no_rank_and_a_worker_may_have_none_yet():
    variables = {"MS_ROLE": "MS_SCHED", "MS_WORKER_NUM": "2", "RANK_ID": "0"}
    assert read(variables, [], 7) == Launch("scheduler", None, 2, 2, False, 7)
    assert read({**variables, "MS_ROLE": "MS_WORKER"}, [], 7).rank is None


@pytest.mark.parametrize(("workers", "share"), [(1, 8), (2, 4), (3, 2), (16, 1)])
def test_workers_share_the_processors(monkeypatch, workers, share):
    monkeypatch.setattr(processor, "_processors", lambda: 8)
    monkeypatch.setattr(processor, "processor_quota", lambda: None)
    monkeypatch.setattr(launch, "current", lambda: Launch("worker", 0, workers, workers, True, 1))
    assert processor.usable_processors() == share
    assert processor.thread_limit() == (None if workers == 1 else share)
