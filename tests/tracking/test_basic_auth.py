"""A server of MLflow with names and passwords: the right one, a wrong one, and one that expires in the middle."""

import secrets

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

ADMIN = "admin"
FIRST, SECOND, WRONG = (secrets.token_hex(12) for _ in range(3))


@pytest.fixture
def server(tmp_path, monkeypatch):
    pytest.importorskip("flask_wtf")
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///auth.db\n"
        f"admin_username = {ADMIN}\nadmin_password = {FIRST}\n"
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
        yield started


def sign_in(monkeypatch, password):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)


def change_password(server, password):
    mlflow.server.get_app_client("basic-auth", tracking_uri=server.uri).update_user_password(ADMIN, password)


def test_what_a_wrong_or_an_expired_password_holds_up_is_sent_with_the_right_one(server, tmp_path, monkeypatch, caplog):
    sign_in(monkeypatch, FIRST)
    folder = write_run(tmp_path / "run", end=None)
    follower = JournalFollower(folder, server.uri, "study", interval=0.01)
    run_id = follower.start()["run_id"]
    change_password(server, SECOND)  # which the process that sends does not know
    with Journal(folder, exist_ok=True) as written:
        written.append("tags", values={"late": "yes"})
        written.append("end", status="finished")
    reason = follower.end("FINISHED", 2.0)
    assert "401" in reason
    assert "the training continues" in caplog.text
    assert not [secret for secret in (FIRST, SECOND) if secret in reason + caplog.text]

    sign_in(monkeypatch, WRONG)
    with pytest.raises(TrackingError, match="401") as caught:
        sync(folder)
    assert "\n" not in str(caught.value)
    assert WRONG not in str(caught.value)

    sign_in(monkeypatch, SECOND)
    assert sync(folder) == run_id
    client = MlflowClient(server.uri)
    check_whole(client, run_id)
    assert client.get_run(run_id).data.tags["late"] == "yes"


def test_a_training_with_a_wrong_password_says_so_at_its_start(server, tmp_path, monkeypatch):
    sign_in(monkeypatch, WRONG)
    follower = JournalFollower(write_run(tmp_path / "run"), server.uri, "study", interval=0.01)
    follower.start()
    assert "401" in follower.end("FINISHED", 0.5)
