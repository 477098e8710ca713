"""Measure how many requests a tracking server answers in a second, and derive how many trainings it bears at once.

    python experiments/scaling/tracking_server.py                             # a server of its own, on sqlite
    python experiments/scaling/tracking_server.py --uri http://server:5000    # that one, in an experiment of its own

Clients send without a pause what a training sends from time to time: the metrics of five seconds in one request, and
the images of an evaluation in one request each. Server and clients share this machine unless ``--uri`` is given.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

METRICS = 25
"""The values of a request: those of five steps."""
IMAGE = 60_000
"""The bytes of an image: an overlay of 512 x 512 pixels as a PNG."""
METRICS_EVERY, EVALUATION_EVERY = 5.0, 60.0
"""The seconds between two requests of metrics, as the product makes them, and between two evaluations."""
IMAGES = 12
"""The images of an evaluation: six overlays with a thumbnail each."""


class Client:
    """Sends requests of one run over one connection, and keeps how long each answer took.

    Args:
        uri: The address of the server.
    """

    def __init__(self, uri: str) -> None:
        self.seconds: list[float] = []
        self._connection = http.client.HTTPConnection(urlsplit(uri).netloc, timeout=60)
        experiment = self._experiment("scaling")
        run = self._post("runs/create", {"experiment_id": experiment, "start_time": _now()})["run"]
        self._run = run["info"]["run_id"]
        self._folder = f"{experiment}/{self._run}/artifacts"
        self._step = 0

    def send(self, what: str) -> None:
        """Send the metrics of some steps (``"metrics"``) or an image (``"image"``), and wait for the answer."""
        self._step += 1
        began = time.perf_counter()
        if what == "metrics":
            values = [
                {"key": f"metric{number % 5}", "value": 0.5, "timestamp": _now(), "step": 5 * self._step + number // 5}
                for number in range(METRICS)
            ]
            self._post("runs/log-batch", {"run_id": self._run, "metrics": values})
        else:
            place = f"/api/2.0/mlflow-artifacts/artifacts/{self._folder}/{self._step}.png"
            self._request("PUT", place, bytes(IMAGE), {"Content-Type": "image/png"})
        self.seconds.append(time.perf_counter() - began)

    def _experiment(self, name: str) -> str:
        try:
            return self._post("experiments/create", {"name": name})["experiment_id"]
        except RuntimeError:  # another client has made it
            place = f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={name}"
            return json.loads(self._request("GET", place))["experiment"]["experiment_id"]

    def _post(self, method: str, content: dict) -> dict:
        headers = {"Content-Type": "application/json"}
        return json.loads(self._request("POST", f"/api/2.0/mlflow/{method}", json.dumps(content).encode(), headers))

    def _request(self, verb: str, place: str, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
        self._connection.request(verb, place, body, headers or {})
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{verb} {place}: {answer.status} {text[:200]!r}")
        return text


def measure(uri: str, what: str, clients: int, seconds: float) -> tuple[float, list[float]]:
    """Let clients send without a pause, and return the answered requests of a second, and how long each took."""
    senders = [Client(uri) for _ in range(clients)]
    end = time.perf_counter() + seconds

    def work(client: Client) -> None:
        while time.perf_counter() < end:
            client.send(what)

    threads = [threading.Thread(target=work, args=[client]) for client in senders]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = [value for client in senders for value in client.seconds]
    return len(took) / (time.perf_counter() - began), took


def trainings_at_once(metrics_rate: float, image_rate: float) -> float:
    """Return how many trainings a server bears whose requests take all of its time, evenly spread.

    Args:
        metrics_rate: The requests of metrics that it answers in a second, when it does nothing else.
        image_rate: The images that it takes in a second, when it does nothing else.
    """
    busy = 1 / METRICS_EVERY / metrics_rate + IMAGES / EVALUATION_EVERY / image_rate
    return 1 / busy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--uri", help="a server that runs already")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16], help="clients at once")
    parser.add_argument("--seconds", type=float, default=10, help="seconds of each measurement")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that the server ends, too
    with contextlib.nullcontext(arguments.uri) if arguments.uri else own_server() as uri:
        print("| clients | what | requests a second | median, ms | slowest of 20, ms |\n|---|---|---|---|---|")
        best = {"metrics": 0.0, "image": 0.0}
        for clients in arguments.clients:
            for what in best:
                rate, took = measure(uri, what, clients, arguments.seconds)
                best[what] = max(best[what], rate)
                slow = statistics.quantiles(took, n=20)[-1]
                print(f"| {clients} | {what} | {rate:.0f} | {1e3 * statistics.median(took):.0f} | {1e3 * slow:.0f} |")
    print(
        f"\nA training sends metrics every {METRICS_EVERY:.0f} s, and {IMAGES} images if it evaluates every "
        f"{EVALUATION_EVERY:.0f} s: this server bears {trainings_at_once(best['metrics'], best['image']):.0f} at once."
    )


@contextlib.contextmanager
def own_server() -> Iterator[str]:
    """Start a server on sqlite for the length of a block, and yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        places = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/a"]
        words = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *places]
        with (Path(folder) / "log").open("wb") as log:
            server = subprocess.Popen([sys.executable, *words], stdout=log, stderr=log, cwd=folder)
        try:
            while "startup complete" not in (Path(folder) / "log").read_text():
                if server.poll() is not None:
                    raise RuntimeError((Path(folder) / "log").read_text())
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


def _now() -> int:
    return int(1e3 * time.time())


if __name__ == "__main__":
    main()
