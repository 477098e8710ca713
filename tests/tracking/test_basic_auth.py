"""A server of MLflow with names and passwords: the right one, a wrong one, and one that expires in the middle."""

import secrets
from contextlib import contextmanager

import mlflow.server
import pytest
from conftest import user_environment
from local_server import LocalServer
from mlflow import MlflowClient
from written_journal import check_whole, write_run

from fcnlab.core.errors import TrackingError
from fcnlab.recording.journal import Journal
from fcnlab.tracking.journal_follower import JournalFollower
from fcnlab.tracking.journal_sender import sync

pytestmark = pytest.mark.slow  # the server starts in ten seconds

ADMIN, USER = "admin", "lab"
OF_ADMIN, FIRST, SECOND, WRONG = (secrets.token_hex(12) for _ in range(4))


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server on which a user has a password."""
    pytest.importorskip("flask_wtf")
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///auth.db\n"
        f"admin_username = {ADMIN}\nadmin_password = {OF_ADMIN}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    variables = {
        **user_environment(),
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
    }
    places = ["--backend-store-uri", "sqlite:///server.db", "--artifacts-destination", str(folder / "artifacts")]
    arguments = ["server", "--app-name", "basic-auth", "--workers", "1", *places]
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with LocalServer(folder, arguments, environment=variables) as started:
        with signed_in(OF_ADMIN, ADMIN):
            users(started).create_user(USER, FIRST)
        yield started


@contextmanager
def signed_in(password, name=USER):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", name)
        patch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        yield


def users(server):
    return mlflow.server.get_app_client("basic-auth", tracking_uri=server.uri)


def test_what_a_wrong_or_an_expired_password_holds_up_is_sent_with_the_right_one(server, tmp_path, caplog):
    with signed_in(FIRST):
        folder = write_run(tmp_path / "run", end=None)
        follower = JournalFollower(folder, server.uri, "study", interval=0.01)
        run_id = follower.start()["run_id"]
    with signed_in(OF_ADMIN, ADMIN):
        users(server).update_user_password(USER, SECOND)
    with signed_in(FIRST):
        written = Journal(folder, exist_ok=True)
        written.append("tags", values={"late": "yes"})
        written.append("end", status="finished")
        written.close()
        reason = follower.end("FINISHED", 20.0)
    assert "401" in reason
    assert "MLFLOW_TRACKING_PASSWORD" in reason
    assert "the training continues" in caplog.text

    with signed_in(WRONG), pytest.raises(TrackingError, match="401") as caught:
        sync(folder)
    assert "\n" not in str(caught.value)
    assert not [secret for secret in (FIRST, SECOND, WRONG) if secret in f"{reason} {caplog.text} {caught.value}"]

    with signed_in(SECOND):
        assert sync(folder) == run_id
        client = MlflowClient(server.uri)
        check_whole(client, run_id)
        assert client.get_run(run_id).data.tags["late"] == "yes"


def test_a_training_with_a_wrong_password_says_so_at_its_start(server, tmp_path):
    with signed_in(WRONG), pytest.raises(TrackingError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        JournalFollower(write_run(tmp_path / "run"), server.uri, "study", interval=0.01)
    assert "401" in str(caught.value)
    assert WRONG not in str(caught.value)
