"""The alias goes to the best version of a registered model, in a real registry."""

import json
import math
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from tiny_network import expected_labels, save_checkpoint, some_images

from fcnlab.tracking.model_registry import Registration, register
from fcnlab.tracking.packaging import package


@pytest.fixture(scope="module")
def client(tmp_path_factory, empty_store):
    return MlflowClient(f"sqlite:///{shutil.copy(empty_store, tmp_path_factory.mktemp('store') / 'mlflow.db')}")


@pytest.fixture
def new_run(client, tmp_path):
    experiment = client.create_experiment(str(tmp_path), artifact_location=(tmp_path / "artifacts").as_uri())
    return lambda: client.create_run(experiment).info.run_id


@pytest.fixture
def add(client, new_run, request):
    """A function that registers the model of a new run under the name of the test."""

    def add(value, **changes):
        run_id = changes.pop("run_id", None) or new_run()
        arguments = {
            "name": request.node.name,
            "alias": "champion",
            "source": f"runs:/{run_id}/model",
            "run_id": run_id,
            "model_id": None,
            "monitor": "val/mean_iou",
            "value": value,
            "validation_digest": "0123abcd",
            "higher_is_better": True,
        }
        return register(client, **arguments | changes)

    return add


@pytest.fixture
def champion(client, request):
    """A function that returns the number of the version with the alias."""
    return lambda: int(client.get_model_version_by_alias(request.node.name, "champion").version)


def test_the_alias_goes_to_the_first_and_then_to_what_is_strictly_better(add, champion):
    assert add(0.5) == Registration("1", True, "version 1, the first")
    assert add(0.6) == Registration("2", True, "version 2: val/mean_iou 0.6 is better than 0.5 of version 1")
    assert champion() == 2
    for value in (0.55, 0.6, math.nan):
        worse = add(value)
        assert not worse.is_best
        assert f"stays at version 2 and is not version {worse.version}" in worse.reason
        assert f"val/mean_iou {value:g} is not better than 0.6" in worse.reason
        assert champion() == 2


def test_a_loss_is_better_when_it_is_lower(add, champion):
    for value, best in ((0.5, 1), (0.7, 1), (0.4, 3)):
        assert add(value, monitor="val/loss", higher_is_better=False).is_best is (value <= 0.5)
        assert champion() == best


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"validation_digest": "4567"}, "different validation data"),
        ({"monitor": "val/pixel_accuracy"}, "was chosen by val/mean_iou, this by val/pixel_accuracy"),
    ],
    ids=["data", "metric"],
)
def test_what_cannot_be_compared_does_not_take_the_alias(add, champion, changes, reason):
    add(0.5)
    other = add(0.9, **changes)
    assert (other.version, other.is_best) == ("2", False)
    assert reason in other.reason
    assert champion() == 1


def test_a_version_of_somebody_else_keeps_the_alias(add, champion, client, request, new_run):
    client.create_registered_model(request.node.name)
    client.create_model_version(request.node.name, "s3://theirs/model", new_run())
    client.set_registered_model_alias(request.node.name, "champion", "1")
    assert "something unknown" in add(0.9).reason
    assert champion() == 1
    for key, value in (("monitor", "val/mean_iou"), ("validation_digest", "0123abcd"), ("value", "good")):
        client.set_model_version_tag(request.node.name, "1", key, value)
    assert "not known" in add(0.9).reason
    assert champion() == 1


def test_registering_again_makes_no_second_version(add, champion, client, request, new_run):
    run_id = new_run()
    assert add(0.5, run_id=run_id).version == "1"
    assert add(0.5, run_id=run_id) == Registration("1", True, "version 1 already")
    assert add(0.6).version == "2"
    assert not add(0.5, run_id=run_id).is_best
    assert champion() == 2
    assert len(client.search_model_versions(f"name = '{request.node.name}'")) == 2
    assert add(0.5, run_id=run_id, name=f"{request.node.name} again").version == "1"


def test_an_answer_lost_before_the_alias_was_set_is_made_up_for(add, champion, client, request, monkeypatch, new_run):
    def lose(*arguments):
        raise MlflowException("connection lost")

    run_id = new_run()
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", lose)
        with pytest.raises(MlflowException):
            add(0.5, run_id=run_id)
    assert add(0.5, run_id=run_id).version == "1"
    assert champion() == 1


def test_a_version_says_what_it_was_chosen_by(add, client, request, new_run):
    run_id = new_run()
    add(1 / 3, run_id=run_id)
    version = client.get_model_version(request.node.name, "1")
    assert version.run_id == run_id
    assert version.tags["monitor"] == "val/mean_iou"
    assert float(version.tags["value"]) == 1 / 3
    assert version.tags["validation_digest"] == "0123abcd"


def test_several_may_register_at_once(add, champion):
    with ThreadPoolExecutor(4) as processes:
        results = list(processes.map(lambda _: add(0.5), range(4)))
    assert sorted(result.version for result in results) == ["1", "2", "3", "4"]
    assert str(champion()) in {result.version for result in results if result.is_best}


def test_whoever_loses_the_race_for_the_first_alias_is_compared_with_the_winner(add, champion, client, monkeypatch):
    add(0.6, alias="elsewhere")
    real, calls = client.set_registered_model_alias, []

    def lost(name, alias, version):
        calls.append(version)
        real(name, alias, "1")
        raise MlflowException("UNIQUE constraint failed")

    monkeypatch.setattr(client, "set_registered_model_alias", lost)
    loser = add(0.5)
    assert calls == ["2"]
    assert not loser.is_best
    assert "val/mean_iou 0.5 is not better than 0.6" in loser.reason
    assert champion() == 1


def test_a_name_that_the_registry_refuses_is_an_error(add):
    with pytest.raises(MlflowException, match="mine/yours"):
        add(0.5, name="mine/yours")


def test_the_best_model_is_loaded_by_its_alias(client, new_run, tmp_path, monkeypatch):
    """The model is logged and registered without MLflow's global store, and then loaded with it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    checkpoint = save_checkpoint(tmp_path / "best.safetensors")
    package(checkpoint, tmp_path / "packaged")
    run_id = new_run()
    experiment_id = client.get_run(run_id).info.experiment_id
    model_id = client.create_logged_model(experiment_id, "model", source_run_id=run_id).model_id
    client.log_model_artifacts(model_id, str(tmp_path / "packaged"))
    client.finalize_logged_model(model_id, "READY")
    for _ in range(2):
        result = register(
            client,
            name="cells",
            alias="champion",
            source=f"models:/{model_id}",
            run_id=run_id,
            model_id=model_id,
            monitor="val/mean_iou",
            value=0.5,
            validation_digest="0123abcd",
            higher_is_better=True,
        )
        assert (result.version, result.is_best) == ("1", True)
    assert not (tmp_path / "mlflow.db").exists()
    links = json.loads(client.get_logged_model(model_id).tags["mlflow.modelVersions"])
    assert links == [{"name": "cells", "version": "1"}]

    monkeypatch.setattr(sys, "path", list(sys.path))  # loading puts the model's code there
    mlflow.set_tracking_uri(client.tracking_uri)
    try:
        images = some_images(1, 40, 48)
        labels = mlflow.pyfunc.load_model("models:/cells@champion").predict(images)
        assert (labels == expected_labels(checkpoint, images)).mean() > 0.999
        assert labels.dtype == np.int32
        infos = [mlflow.models.get_model_info(uri) for uri in ("models:/cells@champion", f"runs:/{run_id}/model")]
        assert infos[0].model_uuid == infos[1].model_uuid
    finally:
        mlflow.set_tracking_uri(None)
