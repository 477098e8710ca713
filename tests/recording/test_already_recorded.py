"""What an interrupted training recorded is found in its journal."""

import json

from fcnlab.recording import journal
from fcnlab.recording.already_recorded import AlreadyRecorded
from fcnlab.recording.journal import Journal


def test_a_picture_of_an_older_journal_is_known_whatever_its_key_was(tmp_path):
    written = Journal(tmp_path)
    written.append("run", journal="x")
    written.append("image", path="overlays/000002-0.png", key="overlay/Zelle _", step=2)
    written.close()
    assert AlreadyRecorded.read(tmp_path / journal.FILE, 1).overlays == {"overlays/000002-0.png"}


def test_the_time_between_interruption_and_resumption_does_not_count(tmp_path):
    path = tmp_path / journal.FILE
    entries = [
        {"kind": "run", "time": 1000},
        {"kind": "metrics", "time": 3000, "step": 1, "values": {"train/loss": 0.5}},
        {"kind": "metrics", "time": 4000, "step": 2, "values": {"train/loss": 0.4}},
        {"kind": "metrics", "time": 5000, "step": 2, "values": {"val/loss": 0.6}},
        {"kind": "metrics", "time": 5500, "step": 7, "values": {"system/disk_usage_percentage": 1.0}},
        {"kind": "resume", "time": 90_000, "step": 1},
        {"kind": "metrics", "time": 92_000, "step": 2, "values": {"train/loss": 0.4}},
    ]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    found = AlreadyRecorded.read(path, first_step=2)
    assert found.seconds == 4.5 + 2.0
    assert found.resumed_at == [1]
    assert found.losses == {("val/loss", 2): 0.6}  # step 2 is evaluated after its state is saved
    assert found.system_readings == 8
