"""Every recipe composes, and the studies sweep over their axes."""

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from fcnlab import compose
from fcnlab.config import config_folder, register_schemas
from fcnlab.registry import OPTIMIZERS
from fcnlab.sweeps import stages
from fcnlab.sweeps.axes import axes_of

RECIPES = sorted(path.stem for path in (config_folder() / "experiment").glob("*.yaml"))


def hydra_part(*overrides):
    """Compose Hydra's own configuration."""
    register_schemas()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return hydra_compose("train", overrides=list(overrides), return_hydra_config=True).hydra


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_composes(recipe):
    overrides = ["dataset.root=somewhere"] if recipe in ("isbi2012", "transfer") else []
    assert compose([f"experiment={recipe}", *overrides]).trainer.epochs >= 1


def test_the_studies_sweep_what_they_say():
    strides = axes_of([], hydra_part("experiment=stride_study").sweeper.params)
    assert strides == {"arch": ["fcn32s", "fcn16s", "fcn8s", "fcn4s", "fcn2s"], "seed": ["1", "2", "3"]}
    assert list(strides) == ["seed", "arch"]  # the last one varies fastest, so that each seed has whole tables
    shares = axes_of(["dataset.train_share=0.5,1"], hydra_part("experiment=learning_curve").sweeper.params)
    assert shares == {"dataset.train_share": ["0.5", "1"], "seed": ["1", "2", "3"]}
    optimizers = axes_of(["seed=5"], hydra_part("experiment=optimizer_study").sweeper.params)
    assert set(optimizers) == {"optimizer", "optimizer.lr"}  # a single seed is no axis
    assert set(optimizers["optimizer"]) == set(OPTIMIZERS.names())
    search = hydra_part("experiment=lr_search").sweeper
    assert search._target_.endswith("fcnlab_search.Search")
    assert set(axes_of([], search.params)) == {"optimizer.lr", "optimizer.weight_decay", "arch.width"}


def test_the_authors_recipes_are_theirs_whether_trained_alone_or_in_stages():
    """The numbers are those of solver.prototxt in voc-fcn32s, voc-fcn16s and voc-fcn8s of fcn.berkeleyvision.org."""
    plan = stages.read(hydra_part("experiment=paper_stages").sweeper, ["experiment=paper_stages"])
    for stage, (name, rate) in enumerate((("32", 1e-10), ("16", 1e-12), ("8", 1e-14))):
        alone, staged = compose([f"experiment=paper_fcn{name}s"]), compose(plan.overrides(stage, 0))
        assert alone == staged
        assert (alone.arch.name, alone.optimizer.lr) == (f"paper/fcn{name}s", rate)
        assert (alone.optimizer.momentum, alone.optimizer.weight_decay) == (0.99, 0.0005)
        assert (alone.trainer.batch_size, alone.loss.reduction, alone.schedule.name) == (1, "sum", "constant")
    assert plan.start_from == "last"


@pytest.mark.parametrize(
    ("launcher", "module", "key", "value"),
    [
        ("parallel", "joblib", "n_jobs", 2),
        ("slurm", "submitit", "signal_delay_s", 60),
        ("slurm_here", "submitit", "cpus_per_task", 1),
        ("cluster", "ray", "ray.remote.num_cpus", 1),
    ],
)
def test_a_launcher_composes_where_its_plugin_is_installed(launcher, module, key, value):
    pytest.importorskip(f"hydra_plugins.hydra_{module}_launcher")
    found = hydra_part(f"hydra/launcher={launcher}").launcher
    assert OmegaConf.select(found, key) == value
    assert found._target_.startswith(f"hydra_plugins.hydra_{module}_launcher.")
