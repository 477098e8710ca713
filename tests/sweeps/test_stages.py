"""A sweep in stages: which trials there are, what each starts from, and what is left after one has failed."""

from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from fcnlab.comparison.groups import group_trials
from fcnlab.comparison.trials import Trial
from fcnlab.core.errors import ConfigError
from fcnlab.sweeps import result, stages, sweepers
from fcnlab.sweeps.result import TrialResult

THREE = [{"arch": "fcn32s", "optimizer.lr": 1e-10}, {"arch": "fcn16s"}, {"arch": "fcn8s", "dataset.mean": [0.5, 0, 1]}]


def read(*overrides, start_from="best", given=THREE):
    sweeper = {"stages": OmegaConf.create(given), "start_from": start_from, "params": {}}
    return stages.read(sweeper, overrides)


def test_each_stage_has_a_trial_for_each_chain():
    plan = read("seed=1,2", "trainer.epochs=3")
    assert plan.planned() == [
        ["arch=fcn32s", "optimizer.lr=1e-10", "seed=1"],
        ["arch=fcn32s", "optimizer.lr=1e-10", "seed=2"],
        ["arch=fcn16s", "seed=1"],
        ["arch=fcn16s", "seed=2"],
        ["arch=fcn8s", "dataset.mean=[0.5, 0, 1]", "seed=1"],
        ["arch=fcn8s", "dataset.mean=[0.5, 0, 1]", "seed=2"],
    ]
    assert plan.overrides(1, 1) == ["arch=fcn16s", "seed=2", "trainer.epochs=3"]
    assert list(plan.axes) == ["arch", "optimizer.lr", "dataset.mean", "seed"]
    assert plan.axes["arch"] == ["fcn32s", "fcn16s", "fcn8s"]


def test_the_command_line_takes_precedence_and_starts_the_first_stage_alone():
    plan = read("optimizer.lr=1,2", "init_from=vgg16.pth")
    assert plan.overrides(0, 1) == ["arch=fcn32s", "optimizer.lr=2", "init_from=vgg16.pth"]
    assert plan.overrides(2, 0) == ["arch=fcn8s", "dataset.mean=[0.5, 0, 1]", "optimizer.lr=1"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "hydra.sweeper.stages=[]: give at least two stages, as in [{arch: fcn32s}, {arch: fcn16s}]"),
        ([{"arch": "fcn32s"}, "arch=fcn16s"], "hydra.sweeper.stages[1]=arch=fcn16s: give the keys and values"),
        ([{}, {"init_from": "x"}], "hydra.sweeper.stages[1].init_from: a stage starts from the one before"),
        ([{}, {"hydra.launcher.n_jobs": 2}], "hydra.sweeper.stages[1].hydra.launcher.n_jobs: is the same for all"),
    ],
)
def test_stages_that_say_something_else_are_refused(given, message):
    with pytest.raises(ConfigError) as caught:
        read(given=given)
    assert str(caught.value).startswith(message)


def test_other_weights_and_ranges_are_refused():
    with pytest.raises(ConfigError, match=r"^hydra.sweeper.start_from=first: choose one of best, last$"):
        read(start_from="first")
    with pytest.raises(ConfigError, match=r"interval.*takes values, and no range"):
        read("optimizer.lr=interval(0.1,1)")


class Launcher:
    """Writes results and weights in place of trainings; those of some trials fail."""

    def __init__(self, failing):
        self.failing = failing
        self.launched = []

    def launch(self, jobs, initial_job_idx):
        self.launched.append(list(range(initial_job_idx, initial_job_idx + len(jobs))))
        for number, job in enumerate(jobs, start=initial_job_idx):
            self.jobs[number] = job
            folder = self.sweep / f"of{number}"
            (folder / "checkpoints").mkdir(parents=True)
            if number not in self.failing:
                (folder / "checkpoints" / "best.safetensors").touch()
            status = "failed" if number in self.failing else "finished"
            TrialResult(number, folder=str(folder), status=status).write(self.sweep)
        return [SimpleNamespace(return_value=0.5) for _ in jobs]


def staged(tmp_path, failing=()):
    """Run three stages of three seeds whose trainings are made up."""
    sweepers.register()
    from hydra_plugins.fcnlab_stages import Stages

    made = Stages(OmegaConf.create(THREE), "best")
    made.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    made._check = lambda overrides: None
    made.launcher = launcher = Launcher(failing)
    launcher.sweep, launcher.jobs = tmp_path, {}
    made.sweep(["seed=1,2,3", "init_from=vgg16.pth"])
    return launcher


def test_a_stage_starts_from_the_weights_of_the_one_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    launcher = staged(tmp_path)
    assert launcher.launched == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]  # so that no trial begins before the stage before
    assert launcher.jobs[0] == ["arch=fcn32s", "optimizer.lr=1e-10", "seed=1", "init_from=vgg16.pth"]
    weights = "init_from='of1/checkpoints/best.safetensors'"  # where it lies below the working directory
    assert launcher.jobs[4] == ["arch=fcn16s", "seed=2", weights, "sweep.starts_from=1"]


def test_a_trial_that_failed_breaks_off_its_chain_alone(tmp_path):
    launcher = staged(tmp_path, failing=(1,))
    assert launcher.launched == [[0, 1, 2], [3], [5], [6], [8]]
    missing = result.read(tmp_path, 4), result.read(tmp_path, 7)
    assert [trial.status for trial in missing] == ["missing", "missing"]
    assert missing[0].reason == "it starts from trial 1, which is failed"
    assert missing[1].reason == "it starts from trial 4, which is missing"


def test_seeds_of_a_stage_are_one_group_in_a_comparison():
    def trial(stage, seed, **tags):
        init_from = f"multirun/{seed}/checkpoints/best.safetensors" if stage else "None"
        params = {"arch.name": ("fcn32s", "fcn16s")[stage], "seed": str(seed), "init_from": init_from}
        return Trial(
            "", "", "FINISHED", params, {"val/mean_iou": 0.5}, tags={"hydra.overrides": "arch=x init_from=y", **tags}
        )

    trials = [trial(0, 1), trial(0, 2)] + [trial(1, seed, **{"fcnlab.starts_from": str(seed)}) for seed in (1, 2)]
    _, groups = group_trials(trials, "val/mean_iou")
    assert [len(group.trials) for group in groups] == [2, 2]
