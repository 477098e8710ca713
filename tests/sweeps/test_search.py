"""What a search proposes, keeps and prunes."""

import math
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from fcnlab.core.errors import ConfigError
from fcnlab.sweeps import search, sweepers
from fcnlab.sweeps.result import TrialResult

optuna = pytest.importorskip("optuna")

RANGES = ["optimizer.lr=tag(log,interval(1e-4,1e-1))", "arch=fcn8s,fcn16s", "trainer.epochs=3"]


class Launcher:
    """Writes a made-up result in place of a training: a value, NaN for a failure, or a whole result."""

    def __init__(self, value=lambda overrides: -abs(math.log10(float(overrides["optimizer.lr"])) + 2), die_at=None):
        self.value = value
        self.die_at = die_at
        self.launched = []

    def launch(self, jobs, initial_job_idx):
        returned = []
        for number, job in enumerate(jobs, start=initial_job_idx):
            if number == self.die_at:
                raise KeyboardInterrupt
            overrides = dict(word.split("=", 1) for word in job)
            assert overrides["sweep.search_trial"] == str(number)
            self.launched.append((number, overrides))
            result = self.value(overrides)
            if not isinstance(result, TrialResult):
                failed = math.isnan(result)
                result = TrialResult(
                    number, status="failed" if failed else "finished", value=None if failed else result
                )
            result.write(self.sweep)
            returned.append(SimpleNamespace(return_value=result.value))
        return returned


@pytest.fixture
def sweep(tmp_path):
    sweepers.register()
    from hydra_plugins.fcnlab_search import Search

    def run(launcher, overrides=RANGES, monitor="val/mean_iou", **settings):
        given = {"n_trials": 6, "n_jobs": 1, "sampler": "tpe", "startup_trials": 2, "pruner": "median"}
        made = Search(**{**given, "warmup_epochs": 0, "seed": 0, "params": None, **settings})
        made.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}, "trainer": {"monitor": monitor}})
        made.launcher, launcher.sweep = launcher, tmp_path
        made.sweep(overrides)
        return search.open_study(tmp_path)

    return run


def test_it_proposes_within_the_ranges_and_keeps_what_it_learnt(sweep):
    launcher = Launcher()
    study = sweep(launcher)
    assert [number for number, _ in launcher.launched] == list(range(6))
    for _, overrides in launcher.launched:
        assert 1e-4 <= float(overrides["optimizer.lr"]) <= 1e-1
        assert overrides["arch"] in ("fcn8s", "fcn16s")
        assert overrides["trainer.epochs"] == "3"
    best = max(launcher.launched, key=lambda job: launcher.value(job[1]))
    assert study.best_trial.number == best[0]


def test_it_learns_from_the_first_trials(sweep):
    learned = Launcher()
    sweep(learned, n_trials=30, startup_trials=8)
    late = [learned.value(overrides) for _, overrides in learned.launched[-10:]]
    early = [learned.value(overrides) for _, overrides in learned.launched[:8]]
    assert sum(late) / len(late) > sum(early) / len(early)


def test_an_interrupted_search_ends_as_one_that_was_not(sweep, tmp_path):
    whole = Launcher()
    sweep(whole)
    (tmp_path / search.FILE).unlink()
    with pytest.raises(KeyboardInterrupt):
        sweep(Launcher(die_at=3))
    rest = Launcher()
    sweep(rest)
    assert rest.launched == whole.launched[3:]
    assert len(search.open_study(tmp_path).trials) == 6


def test_a_failed_trial_is_no_result(sweep):
    study = sweep(Launcher(lambda overrides: math.nan if overrides["arch"] == "fcn8s" else 0.5), n_trials=8)
    states = {trial.params["arch"]: trial.state.name for trial in study.trials}
    assert states == {"fcn8s": "FAIL", "fcn16s": "COMPLETE"}


def test_the_loss_is_minimised(sweep):
    assert sweep(Launcher(), monitor="val/loss").direction.name == "MINIMIZE"


def test_several_at_once_have_numbers_in_a_row(sweep):
    launcher = Launcher()
    sweep(launcher, n_jobs=4)
    assert [number for number, _ in launcher.launched] == list(range(6))


def evaluated(epoch, value):
    return SimpleNamespace(epoch=epoch, evaluation=SimpleNamespace(metrics={"val/mean_iou": value}))


def test_a_trial_below_the_median_is_given_up(sweep, tmp_path):
    """Two finished trials reached 0.6 and 0.8 at epoch 1; the median is 0.7."""
    values = iter([0.6, 0.8, 0.69, 0.71])
    stopped = []

    def train(overrides):
        number, value = int(overrides["sweep.search_trial"]), next(values)
        reporter = search.Reporter(tmp_path, number, "val/mean_iou")
        reporter.on_evaluation(evaluated(1, value))
        stopped.append(reporter.wants_to_stop)
        return TrialResult(number, status="pruned" if reporter.wants_to_stop else "finished", value=value)

    study = sweep(Launcher(train), n_trials=4)
    assert stopped == [False, False, True, False]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"]


def test_an_evaluation_that_is_made_again_is_reported_once(sweep, tmp_path):
    def train(overrides):
        for _ in range(2):  # before and after an interruption
            search.Reporter(tmp_path, int(overrides["sweep.search_trial"]), "val/mean_iou").on_evaluation(
                evaluated(1, 0.5)
            )
        return 0.5

    study = sweep(Launcher(train), n_trials=1)
    assert study.trials[0].intermediate_values == {1: 0.5}


@pytest.mark.parametrize(
    ("overrides", "settings", "said"),
    [
        (["seed=3"], {}, "nothing to search"),
        (RANGES, {"sampler": "best"}, r"hydra\.sweeper\.sampler=best: choose one of tpe, random"),
        (RANGES, {"n_trials": 0}, r"hydra\.sweeper\.n_trials=0: must be a whole number, at least 1"),
    ],
)
def test_what_cannot_be_searched_is_one_line(sweep, overrides, settings, said):
    with pytest.raises(ConfigError, match=said):
        sweep(Launcher(), overrides, **settings)
