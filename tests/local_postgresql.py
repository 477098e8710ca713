"""A PostgreSQL cluster of its own on the loopback interface, for tests of a lab's store."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from local_server import free_port

PASSWORD = secrets.token_hex(8)  # not a literal: a run records this file while it is not committed


@contextmanager
def postgresql():
    """Start a new PostgreSQL cluster with a password, yield its URI, and delete it; skip where it is not installed."""
    if shutil.which("initdb") is None:
        pytest.skip("PostgreSQL is not installed")
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
