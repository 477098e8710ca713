"""A training that reproduces a run says where it departs from it."""

from dataclasses import replace
from pathlib import Path

import pytest

import fcnlab
from fcnlab.experiment import reproduce
from fcnlab.models.foreign import Initialisation
from fcnlab.recording import journal
from fcnlab.recording.tags import INITIALISED_TAG, WORKERS_TAG

THEN, NOW = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("tags", "digest", "warns"),
    [
        ({INITIALISED_TAG: f"PyTorch, VGG-16 of torchvision's names, sha256:{THEN}"}, NOW, True),
        ({INITIALISED_TAG: f"PyTorch, VGG-16 of torchvision's names, sha256:{THEN}"}, THEN, False),
        ({}, NOW, False),  # the run started from random weights, and its configuration says so
        ({INITIALISED_TAG: f"PyTorch, VGG-16 of torchvision's names, sha256:{THEN}"}, None, False),
    ],
)
def test_weights_that_have_changed_since_are_said(tmp_path, caplog, tags, digest, warns):
    run = journal.Journal(tmp_path)
    run.append("run", tags=tags)
    run.close()
    config = replace(fcnlab.compose(["init_from=vgg16.pth"]), from_run=str(tmp_path))
    done = None if digest is None else Initialisation(Path("vgg16.pth"), digest, "PyTorch", None, None, [])
    reproduce.compare_weights(config, done)
    assert ("init_from=vgg16.pth is not the file that that run started from" in caplog.text) == warns
    assert (f"(SHA-256 {NOW}, then {THEN})" in caplog.text) == warns


@pytest.mark.parametrize(
    ("tags", "count", "said"),
    [
        ({WORKERS_TAG: "2"}, 1, "was trained by 2 workers, and this one is by one process"),
        ({}, 3, "was trained by one process, and this one is by 3 workers"),
        ({WORKERS_TAG: "2, then 1 from step 4"}, 2, "was trained by 2 workers, then one process, and this one is by 2"),
        ({WORKERS_TAG: "2"}, 2, ""),
        ({}, 1, ""),
    ],
)
def test_another_number_of_workers_is_said(tmp_path, caplog, tags, count, said):
    run = journal.Journal(tmp_path)
    run.append("run", tags=tags)
    run.close()
    reproduce.compare_workers(replace(fcnlab.compose([]), from_run=str(tmp_path)), count)
    assert said in caplog.text
    assert bool(caplog.text) == bool(said)
