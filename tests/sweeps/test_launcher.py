"""How the trials of a launcher share a machine."""

import pytest
from omegaconf import OmegaConf

from fcnlab import compose
from fcnlab.sweeps import launcher as module


@pytest.mark.parametrize(
    ("launcher", "words", "expected"),
    [
        ({"_target_": "BasicLauncher"}, [], None),
        ({"n_jobs": 2}, [], 4),
        ({"n_jobs": -1}, [], 1),
        ({"n_jobs": 100}, [], 1),
        ({"cpus_per_task": 6}, [], 6),
        ({"ray": {"remote": {"num_cpus": 2}}}, [], 2),
        ({"n_jobs": 2}, ["sweep.threads=3"], 3),
        ({"n_jobs": 2}, ["trainer.parallel=data", "trainer.workers=2"], 2),
        ({"cpus_per_task": 6}, ["trainer.parallel=data", "trainer.workers=4"], 1),
        ({"cpus_per_task": 2}, ["trainer.parallel=data", "trainer.workers=3"], 1),
        ({"n_jobs": 2}, ["trainer.parallel=data", "trainer.workers=3", "sweep.threads=6"], 2),
        (
            {"_target_": "BasicLauncher"},
            ["trainer.parallel=data", "trainer.workers=2"],
            None,
        ),
    ],
)
def test_trials_that_run_at_once_share_the_cores(monkeypatch, launcher, words, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(module, "usable_processors", lambda: 8)
    assert module.threads(compose(words), OmegaConf.create({"launcher": launcher})) == expected
