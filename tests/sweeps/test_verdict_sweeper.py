"""``hydra/sweeper=verdict``: which pairs are trained, when it stops, and what it leaves behind."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf

from fcnlab.core.errors import ConfigError
from fcnlab.sweeps import sweepers, verdict
from fcnlab.sweeps.result import TrialResult

SETTINGS = {"margin": None, "max_pairs": 12, "min_pairs": 3, "spending": 1.5, "least_hope": 0.1, "params": {}}


class Launcher:
    """Writes results in place of trainings, whose values a function of the side and the seed gives."""

    def __init__(self, folder, value):
        self.folder, self.value, self.launched = folder, value, []

    def launch(self, jobs, initial_job_idx):
        self.launched.append(jobs)
        for number, job in enumerate(jobs, start=initial_job_idx):
            seed = int(job[-1].removeprefix("seed="))
            value = self.value(number % 2, seed)
            status = "failed" if value is None else "finished"
            TrialResult(number, job, str(self.folder / str(number)), status=status, value=value).write(self.folder)
        return [SimpleNamespace(return_value=0.5) for _ in jobs]


def study(folder, value, *words, seed=5, monitor="val/mean_iou", **settings):
    """Let the sweeper run in a folder, and return its launcher and what it found."""
    sweepers.register()
    from hydra_plugins.fcnlab_verdict import Verdict

    made = Verdict(**{**SETTINGS, **settings})
    trainer = {"monitor": monitor}
    made.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}, "seed": seed, "trainer": trainer})
    made._check = lambda overrides: None
    made.launcher = Launcher(folder, value)
    made.sweep(list(words) or ["arch=fcn16s,fcn8s", "trainer.epochs=3"])
    return made.launcher, verdict.read_study(folder)


def clear(side, seed):
    return (0.60, 0.70)[side] + (seed * 7 % 5) / 1000 + (seed * side % 3) / 1000


def noisy(side, seed):
    return 0.7 + np.random.default_rng(2 * seed + side).normal(0, 0.02)


def test_it_stops_after_the_first_look_that_decides(tmp_path):
    launcher, found = study(tmp_path, clear)
    assert launcher.launched[0] == [
        ["trainer.epochs=3", f"arch={arch}", f"seed={seed}"] for seed in (5, 6, 7) for arch in ("fcn16s", "fcn8s")
    ]
    assert (found.word, found.seeds, len(launcher.launched)) == ("better", [5, 6, 7], 1)
    assert found.sentence.startswith("fcn8s is better than fcn16s by 0.1")
    assert "after 3 of at most 12 pairs of seeds, on these validation images" in found.sentence
    assert found.looks[-1].high < 0


def test_it_goes_on_pair_by_pair_and_gives_up_where_there_is_no_hope(tmp_path):
    launcher, found = study(tmp_path, noisy)
    assert found.word == "futile"
    assert all(len(jobs) == 2 for jobs in launcher.launched[1:])
    assert len(launcher.launched) == len(found.seeds) - 2 < 10
    assert [look.decision for look in found.looks[:-1]] == ["continue"] * (len(found.looks) - 1)
    assert "It is undecided whether" in found.sentence


def test_a_low_loss_is_better_and_a_margin_makes_equivalent(tmp_path):
    _, found = study(tmp_path / "loss", clear, monitor="val/loss")
    assert found.sentence.startswith("fcn16s is better than fcn8s by 0.1")
    _, found = study(tmp_path / "near", lambda side, seed: 0.7 + (seed * (3 + side) % 5) / 10_000, margin=0.01)
    assert found.word == "equivalent"
    assert "are equivalent" in found.sentence
    assert "within the margin of 0.01" in found.sentence


def test_resumed_it_comes_to_the_same_decision(tmp_path):
    _, whole = study(tmp_path / "whole", noisy)
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "cut", lambda side, seed: noisy(side, seed) if seed < 8 else interrupt())
    assert verdict.read_study(tmp_path / "cut").word == "running"
    _, again = study(tmp_path / "cut", noisy)
    assert again == whole


def interrupt():
    raise KeyboardInterrupt


def test_a_pair_that_failed_is_not_left_out(tmp_path):
    _, found = study(tmp_path, lambda side, seed: None if (side, seed) == (1, 6) else clear(side, seed))
    assert (found.word, found.seeds) == ("undecided", [5])
    assert "trial 3 is failed and has no finite value, and a pair cannot be left out" in found.sentence
    document = json.loads((tmp_path / verdict.FILE).read_text())
    assert document["decision"] == "undecided"
    assert document["looks"][0]["p"] is None
    _, found = study(tmp_path / "first", lambda side, seed: None)
    assert found.sentence == (
        "It is undecided which of fcn16s and fcn8s is better: trial 0 is failed and has no finite value, and a pair "
        "cannot be left out."
    )


def test_a_recipe_may_state_the_first_seed(tmp_path):
    assert study(tmp_path / "recipe", clear, params={"seed": 30})[1].seeds == [30, 31, 32]
    _, found = study(tmp_path / "line", clear, "arch=fcn16s,fcn8s", "seed=40", seed=40, params={"seed": 30})
    assert found.seeds == [40, 41, 42]


@pytest.mark.parametrize(
    ("words", "settings", "said"),
    [
        (["arch=fcn8s"], {}, "compares two: give two values of one key"),
        (["arch=fcn32s,fcn16s,fcn8s"], {}, "compares two: give two values of one key"),
        (["arch=fcn16s,fcn8s", "optimizer.lr=0.1,0.2"], {}, "compares two"),
        (["arch=fcn8s,fcn8s"], {}, "arch=fcn8s,fcn8s: are the same"),
        (["arch=fcn16s,fcn8s"], {"params": {"seed": "first"}}, "seed=first: must be a whole number"),
        (["arch=fcn16s,fcn8s", "seed=1,2"], {}, "seed: hydra/sweeper=verdict chooses the seeds by itself"),
        (["optimizer.lr=interval(0.1,1)"], {}, "takes two values, and no range"),
        (["arch=fcn16s,fcn8s"], {"margin": 0}, "margin=0: must be a number above 0"),
        (["arch=fcn16s,fcn8s"], {"min_pairs": 13}, r"^max_pairs=12: is below hydra\.sweeper\.min_pairs=13, "),
        (["arch=fcn16s,fcn8s"], {"max_pairs": 1}, "max_pairs=1: must be a whole number from 2 to 100"),
        (["arch=fcn16s,fcn8s"], {"least_hope": 1.0}, "least_hope=1.0: must be a number from 0 to below 1"),
    ],
)
def test_what_is_no_pair_is_refused_in_one_line(tmp_path, words, settings, said):
    with pytest.raises(ConfigError, match=said) as caught:
        study(tmp_path, clear, *words, **settings)
    assert "\n" not in str(caught.value)


def test_the_margin_may_stand_alone_on_the_command_line():
    words = ["-m", "hydra/sweeper=verdict", "arch=fcn16s,fcn8s", "margin=0.01", "max_pairs=9"]
    assert verdict.lifted(words)[3:] == ["hydra.sweeper.margin=0.01", "hydra.sweeper.max_pairs=9"]
    assert verdict.lifted(["-m", "margin=0.01"]) == ["-m", "margin=0.01"]
