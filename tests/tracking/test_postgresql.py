"""Trainings are recorded in PostgreSQL, as the README documents for a lab."""

import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from local_server import free_port, tracking_server
from mlflow import MlflowClient

import fcnlab
from fcnlab.tracking.journal_sender import sync

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32" or shutil.which("initdb") is None, reason="PostgreSQL is not installed"),
]


PASSWORD = secrets.token_hex(8)  # not a literal: a run records this file while it is not committed


@pytest.fixture
def database():
    """The URI of a new PostgreSQL cluster with a password, which is deleted afterwards."""
    pytest.importorskip("psycopg")
    # Not tmp_path: the server does not run as root, and its user must be able to read the folder.
    folder = Path(tempfile.mkdtemp(prefix="fcnlab-postgresql-"))
    user = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    if os.getuid() == 0:
        os.chown(folder, user.pw_uid, user.pw_gid)
    port = free_port()

    def run(*command):
        subprocess.run(command, check=True, user=user.pw_uid, cwd=folder, stdout=subprocess.DEVNULL)

    (folder / "password").write_text(PASSWORD)
    run("initdb", "-D", folder / "data", "-U", "lab", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    run("pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log", "-o", options, "start")
    yield f"postgresql://lab:{PASSWORD}@127.0.0.1:{port}/postgres"
    run("pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
    shutil.rmtree(folder)


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
        result = fcnlab.train(tiny("tracking.register_as=net"), tmp_path / "out")
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
