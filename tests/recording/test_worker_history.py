"""A run's tag says how many workers trained which part of it."""

import pytest

from fcnlab.recording import journal, worker_history
from fcnlab.recording.already_recorded import AlreadyRecorded
from fcnlab.recording.journal import Journal
from fcnlab.recording.tags import WORKERS_TAG


@pytest.mark.parametrize(
    ("starts", "history", "words"),
    [
        ([(2, 0)], "2", "2 workers"),
        ([(2, 0), (2, 4)], "2", "2 workers"),
        ([(1, 0), (2, 4)], "1, then 2 from step 4", "one process, then 2 workers"),
        ([(12, 0), (3, 40), (3, 50), (1, 60)], "12, then 3 from step 40, then 1 from step 60", None),
    ],
)
def test_each_change_of_the_number_is_told(starts, history, words):
    found = str(starts[0][0])
    for count, step in starts[1:]:
        found = worker_history.resumed(found, count, step)
    assert found == history
    counts = [count for index, (count, _) in enumerate(starts) if index == 0 or count != starts[index - 1][0]]
    assert worker_history.counts(history) == counts
    assert words is None or worker_history.in_words(counts) == words


def test_a_run_without_the_tag_was_trained_by_one_process():
    assert worker_history.counts(None) == [1]


def test_the_newest_tag_of_a_journal_counts(tmp_path):
    path = tmp_path / journal.FILE
    written = Journal(tmp_path)
    written.append("run", tags={"seed": "0"})
    assert AlreadyRecorded.read(path, 0).workers == worker_history.ALONE
    written.append("tags", values={WORKERS_TAG: "1, then 2 from step 4"})
    written.append("tags", values={"resumed_at_steps": "4, 6"})
    written.close()
    assert AlreadyRecorded.read(path, 0).workers == "1, then 2 from step 4"
