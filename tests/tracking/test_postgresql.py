"""Trainings are recorded in PostgreSQL, as the README documents for a lab."""

import time

import pytest
from local_postgresql import PASSWORD, postgresql
from local_server import tracking_server
from mlflow import MlflowClient

import fcnlab
from fcnlab.tracking.journal_sender import sync

pytestmark = pytest.mark.slow


@pytest.fixture
def database():
    with postgresql() as uri:
        yield uri


@pytest.mark.parametrize("through_server", [True, False], ids=["through a server", "without a server"])
def test_a_training_is_recorded_in_postgresql(tiny, tmp_path, database, through_server, monkeypatch, caplog):
    if through_server:
        (tmp_path / "server").mkdir()
        server = tracking_server(tmp_path / "server", database)
        server.start()
        uri = server.uri
    else:
        uri = database
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    try:
        began = time.monotonic()
        result = fcnlab.train(tiny("tracking.register_as=net", "tracking.wait=600"), tmp_path / "out")
        assert time.monotonic() - began < 600
        client = MlflowClient(uri)
        run = client.get_run(result.run_id)
        assert run.info.status == "FINISHED"
        points = client.get_metric_history(result.run_id, "train/loss")
        assert [(point.step, point.value) for point in points] == list(enumerate(result.losses, start=1))
        assert client.get_model_version_by_alias("net", "champion").run_id == result.run_id
        assert sync(tmp_path / "out") == result.run_id
        text = caplog.text + str(run.data.tags) + str(run.data.params)
        assert PASSWORD not in text
        assert not [
            path for path in (tmp_path / "out").rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()
        ]
    finally:
        if through_server:
            server.kill()
