"""Kills and faults for a given number of minutes: ``make test-faults MINUTES=30`` or ``python tests/faults.py -h``.

Each turn draws a kind of fault, lets it happen to a training or to what a training is sent by or to, resumes what was
interrupted, and looks whether everything is as if nothing had happened. It prints a table at the end, and the seed of
each turn that went wrong, with which it can be repeated.
"""

import argparse
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT.parent), str(ROOT), str(ROOT / "experiment")]

import fcnlab  # noqa: E402

# isort: split
import killed_trainings  # noqa: E402
from conftest import TINY, user_environment  # noqa: E402
from fake_server import FakeServer  # noqa: E402
from killed_trainings import content, difference, forked, one  # noqa: E402
from written_journal import STEPS, write_run  # noqa: E402

from fcnlab.recording import journal  # noqa: E402


@dataclass
class Outcome:
    """What became of one turn: how often something was killed, refused or lost, and what was wrong at the end."""

    faults: int
    problem: str | None


class Turns:
    """The kinds of faults; each method is one, and the first line of its documentation is its name in the table."""

    def __init__(self, folder):
        self.folder = folder
        for name in killed_trainings.MODULES:
            __import__(name)
        self.config = fcnlab.compose(killed_trainings.OVERRIDES)
        code, answer = forked(one, self.config, folder / "whole")
        assert code == 0, answer
        self.points = killed_trainings.json.loads(answer)
        self.expected = content(folder / "whole")
        self.words = [*TINY, "arch=fcn32s", "trainer.epochs=12", "trainer.eval_every=6", "tracking.overlays=1"]
        self.words.append("trainer.checkpoint_minutes=0")
        self.command(folder, "tracking=none", "hydra.run.dir=real").wait()
        self.real = self.without_times(content(folder / "real"))

    def command(self, folder, *words):
        folder.mkdir(exist_ok=True)
        environment = {**user_environment(), "PYTHONPATH": str(ROOT.parent)}
        with (folder / "printed.log").open("ab") as printed:
            return subprocess.Popen(
                [sys.executable, "-m", "fcnlab.train", *self.words, *words],
                cwd=folder,
                env=environment,
                stdout=printed,
                stderr=printed,
            )

    @staticmethod
    def without_times(found):
        """Leave out what depends on whether and when a training was resumed."""
        kept = {name: points for name, points in found["history"].items() if not name.startswith("system/")}
        return {**found, "history": kept, "files": [], "listed": [], "config": ""}

    def killed_at_points(self, folder, chance):
        """killed before or after an entry, a file, a step or an evaluation, up to three times"""
        faults = 0
        for _ in range(chance.randint(1, 3)):
            config = replace(self.config, resume="auto")
            code, answer = forked(one, config, folder, deadly=chance.choice(self.points))
            if code == 0:
                break
            if code != -signal.SIGKILL:
                return Outcome(faults, answer)
            faults += 1
        code, answer = forked(one, replace(self.config, resume="auto"), folder)
        return Outcome(faults, answer if code else difference(folder, self.expected))

    def killed_at_any_moment(self, folder, chance):
        """killed at any moment, up to three times, with real steps"""
        words = ["tracking=none", "hydra.run.dir=out", "resume=auto"]
        faults = 0
        for _ in range(chance.randint(1, 3)):
            process = self.command(folder, *words)
            time.sleep(chance.uniform(1, 12))
            faults += process.poll() is None
            process.kill()
            process.wait()
        if self.command(folder, *words).wait() != 0:
            return Outcome(faults, (folder / "printed.log").read_text()[-2000:])
        found = self.without_times(content(folder / "out"))
        return Outcome(faults, next((key for key in self.real if found[key] != self.real[key]), None))

    def sender_lost(self, folder, chance):
        """the process that sends is killed, or stopped for ever, at any moment"""
        process = self.command(folder, "hydra.run.dir=out", "trainer.epochs=60", "tracking.wait=90")
        children = []
        while not children and process.poll() is None:
            time.sleep(0.2)
            look = ["pgrep", "-P", str(process.pid), "-f", "sending_server"]
            children = subprocess.run(look, capture_output=True, text=True).stdout.split()
        time.sleep(chance.uniform(0, 15))
        for child in children if process.poll() is None else []:
            os.kill(int(child), chance.choice([signal.SIGKILL, signal.SIGSTOP]))
        code = process.wait(600)
        if code != 0:
            return Outcome(len(children), (folder / "printed.log").read_text()[-2000:])
        with closing(sqlite3.connect(folder / "mlflow.db")) as store:
            runs = store.execute("SELECT status FROM runs").fetchall()
            steps = store.execute("SELECT step FROM metrics WHERE key = 'train/loss' ORDER BY step").fetchall()
        recorded = [(step,) for step, _ in journal.history(folder / "out" / journal.FILE)["train/loss"]]
        return Outcome(len(children), None if (runs, steps) == ([("FINISHED",)], recorded) else f"{runs}, {len(steps)}")

    def server_unreliable(self, folder, chance):
        """the server refuses, is away, or does what it is asked and loses the answer, every fourth time"""
        from fcnlab.tracking.journal_follower import JournalFollower

        run = write_run(folder / "run")
        path = run / journal.FILE
        lines = [line for line in path.read_text().splitlines(keepends=True) if '"kind":"image"' not in line]
        path.write_text("".join(lines))
        faults = []

        def before(name):
            if name != "experiments/get-by-name" and chance.random() < 0.15:
                faults.append(name)
                return chance.choice([429, 500, 502, 503, 504, 404, 401]), "away"
            return None

        def after(name):
            if chance.random() < 0.1:
                faults.append(name)
                time.sleep(1.3)  # longer than the client waits

        with FakeServer() as server:
            server.before, server.after = before, after
            follower = JournalFollower(run, server.uri, "study", interval=0.05)
            follower.start()
            problem = follower.end("FINISHED", 600.0)
            active = server.active()
        steps = sorted({point["step"] for item in active for point in item["data"]["metrics"]})
        ends = [item["info"]["status"] for item in active]
        if problem is None and (ends != ["FINISHED"] or steps != list(range(1, STEPS + 1))):
            problem = f"{ends}, steps {steps}"
        return Outcome(len(faults), problem)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"], os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1", "0"
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    folder = Path(tempfile.mkdtemp(prefix="fcnlab-faults-"))
    os.chdir(folder)
    turns = Turns(folder)
    kinds = [turns.killed_at_points, turns.killed_at_any_moment, turns.sender_lost, turns.server_unreliable]
    rows = {kind: [0, 0, 0] for kind in kinds}
    deadline = time.monotonic() + 60 * arguments.minutes
    seed = arguments.seed
    while time.monotonic() < deadline:
        for kind in kinds:
            own = folder / f"{kind.__name__}-{seed}"
            own.mkdir()
            try:
                outcome = kind(own, random.Random(seed))
            except Exception:
                outcome = Outcome(0, traceback.format_exc())
            rows[kind] = [a + b for a, b in zip(rows[kind], (1, outcome.faults, outcome.problem is None), strict=True)]
            if outcome.problem is None:
                shutil.rmtree(own)
            else:
                print(f"--seed {seed}, {kind.__name__}, {own}: {outcome.problem}", flush=True)
        seed += 1
    print("| what happens | turns | faults | as if nothing had happened |\n|---|---|---|---|")
    for kind, (tried, faults, good) in rows.items():
        print(f"| {kind.__doc__} | {tried} | {faults} | {good} |")
    whole = all(tried == good for tried, _, good in rows.values())
    if whole:
        shutil.rmtree(folder)
    sys.exit(not whole)


if __name__ == "__main__":
    main()
