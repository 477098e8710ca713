"""The networks of a sweep over folds answer as one."""

from contextlib import closing
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from recorded_trials import SWEEP, write

from fcnlab.config.schema import FolderConfig
from fcnlab.core.errors import CheckpointError
from fcnlab.experiment.evaluation_data import fit_to_network
from fcnlab.inference.ensemble import Ensemble
from fcnlab.inference.prediction import PredictionOutcome, list_images
from fcnlab.recording.journal import Journal
from fcnlab.sweeps.ensemble import checkpoints
from fcnlab.sweeps.manifest import SweepManifest
from fcnlab.sweeps.result import TrialResult


def network(probabilities, names=("a", "b"), step=3):
    """Make up a network that gives every image the same probabilities, C x H x W."""
    values = np.array(probabilities, np.float32)
    made = {"probabilities": lambda image, **views: values, "metadata": {"step": step, "arch": {}}, "source": "made up"}
    shape = {
        "num_classes": len(values),
        "class_names": list(names),
        "palette": np.zeros((2, 3)),
        "channels": 3,
        "bits": 8,
        "value_range": [],
    }
    return SimpleNamespace(**made, **shape)


def test_probabilities_are_averaged():
    one, other = [[[0.9, 0.4]], [[0.1, 0.6]]], [[[0.3, 0.4]], [[0.7, 0.6]]]
    both = Ensemble([network(one), network(other, step=9)], "sweep")
    np.testing.assert_allclose(both.probabilities(None), [[[0.6, 0.4]], [[0.4, 0.6]]], atol=1e-7)
    labels, confidence = both.predict_with_confidence(None)
    assert (labels.tolist(), labels.dtype, both.metadata["step"]) == ([[0, 1]], np.uint8, 9)
    np.testing.assert_allclose(confidence, [[0.6, 0.6]], atol=1e-7)
    np.testing.assert_array_equal(both.predict(None), labels)
    np.testing.assert_array_equal(network(one).probabilities(None), np.array(one, np.float32))  # it stays as it was
    with pytest.raises(CheckpointError, match=r"class_names .*cannot be averaged"):
        Ensemble([network(one), network(other, names=("a", "c"))], "sweep")
    scaled = network(one)
    scaled.value_range = [0, 4095]
    with pytest.raises(CheckpointError, match=r"value_range .*cannot be averaged"):
        Ensemble([scaled, network(other)], "sweep")


def test_images_and_data_sets_are_fitted_to_an_ensemble_as_to_a_network():
    """They ask it for all that they ask a network for."""
    parts = [network(np.zeros((2, 1, 1))) for _ in range(2)]
    for part in parts:
        part.value_range, part.bits = [0, 4095], 16
    ensemble = Ensemble(parts, "sweep")
    config = FolderConfig(num_classes=2, class_names=["a", "b"])
    assert (fitted := fit_to_network(config, ensemble)).value_range == [0, 4095]
    assert fitted.bits == 16
    file = Mock(images=Mock(return_value=[]))
    list_images([file], PredictionOutcome(), ensemble)
    file.images.assert_called_once_with(3, 16, [0, 4095])


def sweep(folder, *params, status="finished"):
    SweepManifest(SWEEP, ("dataset.fold=0,1",)).write(folder)
    for number, given in enumerate(params):
        place = write(folder / str(number), f"run {number}", params=given)
        (place / "checkpoints").mkdir()
        (place / "checkpoints" / "best.safetensors").touch()
        TrialResult(number, folder=str(place), status=status).write(folder)
    return folder


def test_each_fold_and_seed_has_a_network(tmp_path):
    folds = sweep(tmp_path, *({"dataset.fold": str(fold), "seed": str(seed)} for fold in (0, 1) for seed in (1, 2)))
    assert [path.parent.parent.name for path in checkpoints(folds)] == ["0", "1", "2", "3"]


def test_networks_of_other_kinds_and_missing_ones_are_refused(tmp_path):
    other = sweep(tmp_path / "other", {"arch.name": "fcn8s"}, {"arch.name": "fcn16s"})
    with pytest.raises(CheckpointError, match=r"differ in arch\.name; only those of a sweep over dataset\.fold"):
        checkpoints(other)
    with pytest.raises(CheckpointError, match="trial 0 is failed, so that its networks are no whole ensemble"):
        checkpoints(sweep(tmp_path / "failed", {"dataset.fold": "0"}, status="failed"))
    missing = sweep(tmp_path / "missing", {"dataset.fold": "0"})
    (missing / "0/checkpoints/best.safetensors").unlink()
    with pytest.raises(CheckpointError, match="trial 0 has no"):
        checkpoints(missing)


def test_a_sweep_that_was_stopped_before_its_last_trial_began_is_refused(tmp_path):
    """Its trials are finished, all of them that have begun."""
    folds = sweep(tmp_path, *({"dataset.fold": str(fold)} for fold in (0, 1)))
    for kind, fields, said in (
        ("run", {}, "the sweep is running"),
        ("end", {"status": "killed"}, "is killed, so that"),
    ):
        with closing(Journal(folds, exist_ok=True)) as journal:
            journal.append(kind, **fields)
        with pytest.raises(CheckpointError, match=said):
            checkpoints(folds)
    with closing(Journal(folds, exist_ok=True)) as journal:
        journal.append("resume", step=0)
        journal.append("end", status="finished")
    assert len(checkpoints(folds)) == 2
