"""Try a cluster on one machine: a tracking server, two trainings on hosts of their own, and links that are cut.

    sudo .venv/bin/python experiments/cluster/several_hosts.py results

One training loses its link in the middle and gets it back. The other one loses it for good and ends without the
server; ``python -m fcnlab.track sync`` sends the rest from there once the link is back. At the end, every point of both
journals must be in the store, once.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hosts import Hosts

from fcnlab.recording import journal

TINY = (
    *("arch=fcn32s", "arch.width=0.03125", "trainer.mode=pynative", "trainer.epochs=1000", "trainer.eval_every=50"),
    *("dataset.num_train=8", "dataset.num_val=2", "dataset.image_size=64", "dataset.crop_size=64"),
    *("trainer.batch_size=4", "tracking.experiment=cluster"),
)
WAIT = 20
"""The seconds that a training waits for the server at its end."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="an empty folder for the store and the trainings")
    parser.add_argument("--steps", type=int, default=600, help="steps of each training")
    arguments = parser.parse_args()
    for line in trial(arguments.folder.absolute(), arguments.steps):
        print(line, flush=True)


def trial(folder: Path, steps: int) -> list[str]:
    """Train on two hosts whose links are cut, and compare the store with the journals.

    Args:
        folder: A folder, which is made, for everything.
        steps: The steps of each training.

    Returns:
        A line for each training.

    Raises:
        RuntimeError: If the store does not have exactly what a journal has.
    """
    folder.mkdir(parents=True)
    with Hosts(("store", "shaky", "lost")) as hosts:
        uri = f"http://{hosts.address('store')}:5000"
        server = _start_server(hosts, folder)
        trainings: dict[str, subprocess.Popen] = {}
        try:
            for number, name in enumerate(("shaky", "lost")):
                words = [*TINY, f"seed={number}", f"trainer.max_steps={steps}", f"tracking.wait={WAIT}"]
                words += [f"tracking.uri={uri}", f"hydra.run.dir={folder / name}"]
                trainings[name] = _start(hosts, name, ["-m", "fcnlab.train", *words], folder / f"{name}.log")
            cut_at = {name: _cut_after(hosts, name, folder, steps // 4) for name in trainings}
            _wait(lambda: _recorded(folder / "shaky") > cut_at["shaky"] + steps // 4, "the training without its link")
            hosts.restore("shaky")
            restored_at = _recorded(folder / "shaky")
            codes = {name: process.wait() for name, process in trainings.items()}
            hosts.restore("lost")
            sync = _start(hosts, "lost", ["-m", "fcnlab.track", "sync", str(folder / "lost")], folder / "sync.log")
            if any(codes.values()) or sync.wait():
                raise RuntimeError(f"a command failed: {codes}, {(folder / 'sync.log').read_text()}")
        finally:
            for process in (*trainings.values(), server):
                process.terminate()
                process.wait()
    counted = {name: compare(folder, name) for name in trainings}
    return [
        f"shaky: cut at step {cut_at['shaky']}, restored at {restored_at}: {counted['shaky']} points, each once",
        f"lost: cut at step {cut_at['lost']}, sent after its end: {counted['lost']} points, each once",
    ]


def compare(folder: Path, name: str) -> int:
    """Compare the store with the journal of a training, and return the number of points.

    Raises:
        RuntimeError: If a metric has other points in the store, or one of them twice.
    """
    from mlflow import MlflowClient  # not at the top: it follows MindSpore

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    run_id = journal.sent_to(folder / name)
    status = client.get_run(run_id).info.status
    if status != "FINISHED":
        raise RuntimeError(f"{name}: its run is {status}")
    points = 0
    for metric, expected in journal.history(folder / name / journal.FILE).items():
        found = [(point.step, point.value) for point in client.get_metric_history(run_id, metric)]
        if sorted(found) != sorted(expected):
            raise RuntimeError(f"{name}: {metric} has {len(found)} points in the store and {len(expected)} here")
        points += len(found)
    return points


def _start(hosts: Hosts, name: str, words: list[str], log: Path) -> subprocess.Popen:
    with log.open("ab") as output:
        return hosts.start(
            name, [sys.executable, *words], cwd=log.parent, stdout=output, stderr=subprocess.STDOUT, env=_environment()
        )


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def _start_server(hosts: Hosts, folder: Path) -> subprocess.Popen:
    places = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "a")]
    words = ["-m", "mlflow", "server", "--workers", "1", "--host", hosts.address("store"), "--port", "5000", *places]
    server = _start(hosts, "store", words, folder / "server.log")
    _wait(lambda: "startup complete" in (folder / "server.log").read_text(), "the server")
    return server


def _cut_after(hosts: Hosts, name: str, folder: Path, step: int) -> int:
    """Cut the link of a host once its training has recorded some steps, and return how many it has."""
    _wait(lambda: _recorded(folder / name) > step, f"the training on {name}")
    hosts.cut(name)
    return _recorded(folder / name)


def _recorded(folder: Path) -> int:
    path = folder / journal.FILE
    return path.read_bytes().count(b'"train/loss"') if path.exists() else 0


def _wait(condition: Callable[[], bool], what: str, seconds: float = 900) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: nothing happened for {seconds:.0f} s")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
