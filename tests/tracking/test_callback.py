"""When a training ends, its journal is in the store, whatever happened in between."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from local_server import tracking_server
from mlflow import MlflowClient
from written_journal import check_whole, losses, write_run

import fcnlab
from fcnlab.core.errors import TrackingError
from fcnlab.tracking import callback as callback_module
from fcnlab.tracking import sending_client
from fcnlab.tracking.callback import MLflowCallback
from fcnlab.tracking.sending_client import SendingClient, wait_for
from fcnlab.training.callbacks import Callback

pytestmark = pytest.mark.usefixtures("forked_python")


def configured(tiny, uri):
    return tiny(f"tracking.uri={uri}", "tracking.experiment=study")


@pytest.mark.slow  # one that is lost at the beginning is replaced below
def test_the_process_that_sends_is_replaced_when_it_is_lost_or_hangs(tiny, tmp_path, uri, monkeypatch, caplog):
    monkeypatch.setattr(sending_client, "_SECONDS_OF_SILENCE", 1.5)
    callback = MLflowCallback(configured(tiny, uri), write_run(tmp_path / "run"), interval=1000.0)
    callback.on_start(None)
    callback.on_step(None)
    run_id = callback.run_id
    process = callback._channel.client
    process._process.kill()
    process._reader.join(10)
    callback.on_evaluation(None)
    assert callback._channel.client is not process
    wait_for(callback._started)
    os.kill(callback._channel.client._process.pid, signal.SIGSTOP)
    callback.on_end("finished")
    check_whole(MlflowClient(uri), run_id)
    assert "not everything" not in caplog.text


@pytest.mark.usefixtures("own_python")
def test_a_process_that_hangs_holds_no_training_that_was_told_to_end(tiny, tmp_path, uri, monkeypatch, caplog):
    monkeypatch.setattr(callback_module, "_SECONDS_WHEN_KILLED", 1.0)
    callback = MLflowCallback(configured(tiny, uri), write_run(tmp_path / "run", end=None), interval=1000.0)
    callback.on_start(None)
    callback.on_step(None)
    os.kill(callback._channel.client._process.pid, signal.SIGSTOP)
    began = time.monotonic()
    callback.on_end("killed")
    assert time.monotonic() - began < 30
    assert f"send the rest with `python -m fcnlab.track sync {tmp_path / 'run'}`" in caplog.text


def test_a_process_that_is_killed_while_it_opens_the_store_is_replaced(tiny, tmp_path, uri, monkeypatch, caplog):
    call = SendingClient.call
    killed = []

    def kill_at_open(self, channel, name, arguments):
        answer = call(self, channel, name, arguments)
        if name == "open" and not killed:
            self._process.kill()
            killed.append(name)
        return answer

    monkeypatch.setattr(SendingClient, "call", kill_at_open)
    callback = MLflowCallback(configured(tiny, uri), write_run(tmp_path / "run"))
    callback.on_start(None)
    callback.on_end("finished")
    check_whole(MlflowClient(uri), callback.run_id)
    assert killed


def test_processes_that_are_always_killed_are_one_line(tiny, tmp_path, uri, monkeypatch):
    monkeypatch.setattr(sending_client, "_COMMAND", (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    monkeypatch.setattr(sending_client, "_shared", None)
    with pytest.raises(TrackingError, match=r"was lost while it opened .*, at attempt 3; .*tracking=none$"):
        MLflowCallback(configured(tiny, uri), write_run(tmp_path / "run"))


def test_what_is_left_is_said_with_the_command_that_sends_it(tiny, tmp_path, uri, caplog):
    folder = write_run(tmp_path / "run")
    callback = MLflowCallback(configured(tiny, uri), folder, interval=1000.0)
    callback.on_start(None)
    process = callback._channel.client
    process._process.kill()
    process._reader.join(10)
    shutil.rmtree(folder)
    callback.on_end("failed")
    assert "cannot send its journal (No such file or directory)" in caplog.text
    assert f"send the rest with `python -m fcnlab.track sync {folder}`" in caplog.text


@pytest.mark.slow  # which package may import MLflow is checked with the style
def test_a_training_does_not_wait_for_mlflow_to_be_imported(tmp_path, uri, tiny_overrides):
    """MindSpore holds Python's lock while it compiles, so that no thread could import meanwhile."""
    overrides = [*tiny_overrides, "trainer.mode=pynative", f"tracking.uri={uri}"]
    code = "import sys, fcnlab; fcnlab.train(fcnlab.compose(sys.argv[1:])); sys.exit('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *overrides], cwd=tmp_path, timeout=1800, check=False)
    assert done.returncode == 0
    (run,) = MlflowClient(uri).search_runs(["1"])
    assert run.info.status == "FINISHED"


@pytest.fixture
def server(tmp_path, empty_store):
    (tmp_path / "server").mkdir()
    shutil.copy(empty_store, tmp_path / "server" / "server.db")
    with tracking_server(tmp_path / "server") as server:
        yield server


@pytest.mark.slow
def test_a_server_killed_and_restarted_in_the_middle_misses_nothing(tiny, tmp_path, server):
    """Training goes on while the server is away; a second one, for which it never comes back, is sent later."""
    seconds_away = []

    class Outage(Callback):
        def on_step(self, record):
            if record.step == 3:
                server.kill()
                self.began = time.monotonic()
            if record.step == 10:
                seconds_away.append(time.monotonic() - self.began)
                if self.returns:
                    server.start()

    outage = Outage()
    overrides = [f"tracking.uri={server.uri}", "trainer.epochs=6", "trainer.eval_every=3", "tracking.wait=600"]
    config = tiny(*overrides)
    client = MlflowClient(server.uri)

    outage.returns = True
    result = fcnlab.train(config, tmp_path / "back", callbacks=[outage])
    check_training(client, result.run_id, result)
    assert client.list_artifacts(result.run_id, "checkpoints")

    outage.returns = False
    config.tracking.wait = 1.0
    result = fcnlab.train(config, tmp_path / "gone", callbacks=[outage])
    server.start()
    assert client.get_run(result.run_id).info.status == "RUNNING"
    command = [sys.executable, "-m", "fcnlab.track", "sync", str(tmp_path / "gone")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    assert result.run_id in done.stdout
    check_training(client, result.run_id, result)
    assert max(seconds_away) < 300  # seven tiny steps: waiting for MLflow's own retries would take much longer


def check_training(client, run_id, result):
    assert client.get_run(run_id).info.status == "FINISHED"
    assert losses(client, run_id) == list(enumerate(result.losses, start=1))
    assert [point.step for point in client.get_metric_history(run_id, "val/mean_iou")] == [6, 12]


def test_a_run_without_a_step_is_known_at_its_end(tiny, tmp_path, uri):
    callback = MLflowCallback(configured(tiny, uri), write_run(tmp_path / "run"))
    callback.on_start(None)
    callback.on_end("finished")
    check_whole(MlflowClient(uri), callback.run_id)


def test_the_first_step_says_that_no_run_could_be_made(tiny, tmp_path, uri, caplog):
    callback = MLflowCallback(configured(tiny, uri), tmp_path / "no journal")
    callback.on_start(None)
    with pytest.raises(TrackingError, match="cannot send its journal"):
        callback.on_step(None)
    callback.on_end("failed")
    assert "not everything is in the tracking store" in caplog.text


def test_a_training_goes_on_though_the_process_is_lost_before_there_is_a_run(tiny, tmp_path, uri):
    callback = MLflowCallback(configured(tiny, uri), write_run(tmp_path / "run"))
    callback._channel.client._process.kill()
    callback.on_start(None)
    callback.on_step(None)
    assert callback.before_state() == {"run_id": None}
    callback.on_evaluation(None)
    callback.on_step(None)
    assert callback.before_state() == {"run_id": callback.run_id}
    callback.on_end("finished")
    check_whole(MlflowClient(uri), callback.run_id)


def test_a_training_goes_on_though_no_other_process_can_be_started(tiny, tmp_path, uri, monkeypatch, caplog):
    callback = MLflowCallback(configured(tiny, uri), write_run(tmp_path / "run"))
    callback.on_start(None)
    callback.on_step(None)
    process = callback._channel.client
    process._process.kill()
    process._reader.join(10)
    monkeypatch.setattr(sending_client.subprocess, "Popen", refuse)
    callback.on_evaluation(None)
    callback.on_end("finished")
    assert "cannot start the process that sends to MLflow (Cannot allocate memory)" in caplog.text
    assert "not everything is in the tracking store" in caplog.text


def refuse(*_, **__):
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
