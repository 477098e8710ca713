"""Every option of conf/ composes, and mistakes are refused in one line."""

import copy
from functools import cache, partial

import pytest
from conftest import refused
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

import fcnlab
from fcnlab import config as configuration
from fcnlab.config import Config, compose, composition, folder
from fcnlab.core.errors import ConfigError

CONF = configuration.config_folder()


refusal = partial(refused, compose)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["arch=fcn9s"], ["arch=fcn9s", "did you mean arch=fcn", "fcn32s"]),
        (["experiment=smok"], ["experiment=smok", "did you mean experiment=smoke"]),
        (["arch.wdth=1"], ["arch.wdth", "no such key", "arch.width"]),
        (["+trainer.foo=1"], ["trainer.foo", "no such key"]),
        (["+arch.foo=1"], ["arch.foo", "no such key"]),
        (["+arch.vgg16.kernel=3"], ["arch.vgg16", "no such key"]),
        (["+augment.foo=1"], ["augment.foo", "no such key"]),
        (["foo=1"], ["foo", "no such key"]),
        (["augment.scale=1"], ["augment.scale: give a list, as in augment.scale=[...]"]),
        (["optimizer=sgd", "optimizer.beta1=0.5"], ["optimizer.beta1", "no such key"]),
        (["arch.width=abc"], ["arch.width", "abc", "Float"]),
        (["trainer.epochs=1.5"], ["trainer.epochs", "1.5", "Integer"]),
        (["dataset.mean=[a,b,c]"], ["dataset.mean", "'a'"]),
        (["trainer.workers=2"], ["trainer.workers=2: workers train one network with trainer.parallel=data"]),
        (["trainer.parallel=data", "trainer.workers=0"], ["trainer.workers=0: must be at least 1"]),
        (
            ["trainer.parallel=data", "trainer.recompute=blocks", "arch.norm=sync_batch"],
            ["trainer.recompute=blocks", "arch.norm=sync_batch twice"],
        ),
        (["arch.width=0"], ["arch.width=0", "above 0"]),
        (["arch.width=nan"], ["arch.width=nan", "finite"]),
        (["trainer.epochs=0"], ["trainer.epochs=0", "at least 1"]),
        (["arch.dropout=1"], ["arch.dropout=1", "below 1"]),
        (["augment.brightness=2"], ["augment.brightness=2", "at most 1"]),
        (["dataset.std=[0.1,0,0.1]"], ["dataset.std", "above 0"]),
        (["trainer.device=gpu"], ["trainer.device=gpu", "auto, cpu, ascend"]),
        (["arch.name=resnet"], ["'resnet'", "fcn8s"]),
        (["arch.stride=16"], ["arch.stride=16", "use arch=fcn16s"]),
        (["dataset.ignore_index=1"], ["dataset.ignore_index=1", "255"]),
        (["dataset.class_names=[a]"], ["dataset.class_names", "dataset.num_classes=2"]),
        (["dataset.class_names=[cell,cell]"], ["dataset.class_names", "'cell' is the name of classes 0 and 1"]),
        (["dataset.class_names=[cell,'']"], ["dataset.class_names", "class 1 has no name"]),
        ([f"dataset.class_names=[{'x' * 300},b]"], ["dataset.class_names", "class 0", "too long"]),
        (["dataset.mean=[0.5]"], ["dataset.mean", "three"]),
        (["augment.scale=[2,1]"], ["augment.scale", "smallest"]),
        (["augment.scale=[1]"], ["augment.scale", "smallest"]),
        (["augment.scale=[]"], ["augment.scale", "smallest"]),
        (["augment.scale=[1,1.1,1.2]"], ["augment.scale", "smallest"]),
        (["augment.scale=[0,1]"], ["augment.scale", "at least 0.1"]),
        (["loss.class_weights=[1,2,3]"], ["loss.class_weights", "dataset.num_classes=2"]),
        (["dataset=folder"], ["dataset.root", "give a value"]),
        (["arch.width"], ["arch.width"]),
        (["tracking.run_name=a=b"], ["tracking.run_name=a=b", "quote the value twice, as in 'tracking.run_name="]),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(overrides, words):
    text = refusal(*overrides)
    assert all(word in text for word in words), text


def test_defaults_are_those_of_the_design():
    config = compose()
    assert (config.arch.name, config.arch.stride, config.dataset.name) == ("fcn8s", 8, "cells")
    assert isinstance(config, Config)


@cache
def with_option(file):
    """The configuration with the option that a file of conf/ is."""
    overrides = [f"{file.parent.name}={file.stem}"]
    if file.parent.name == "dataset" or file.stem in ("isbi2012", "transfer"):
        overrides.append("dataset.root=somewhere")
    return compose(overrides)


@pytest.mark.parametrize("file", sorted(CONF.glob("*/*.yaml")), ids=lambda file: f"{file.parent.name}={file.stem}")
def test_every_option_composes(file):
    config = with_option(file)
    if file.parent.name not in ("experiment", "trainer", "augment"):
        assert getattr(config, file.parent.name).name == file.stem


def with_bases(file):
    """A file of conf/ and the files of conf/ that its defaults list starts from."""
    entries = [entry for entry in OmegaConf.load(file).get("defaults", []) if isinstance(entry, str)]
    names = [entry.removesuffix("@_here_") for entry in entries]
    paths = [CONF / name[1:] if name.startswith("/") else file.parent / name for name in names]
    bases = [path.with_suffix(".yaml") for path in paths if path.with_suffix(".yaml").is_file()]
    return [*(found for base in bases for found in with_bases(base)), file]


def commented_keys(file):
    """The outermost keys of a file that have a comment on their own line or on the line above."""
    lines = file.read_text().splitlines()
    pairs = zip(["", *lines], lines, strict=False)
    keys = [(above, line) for above, line in pairs if ":" in line and not line.startswith(("#", " "))]
    return [line.partition(":")[0] for above, line in keys if above.startswith("#") or "#" in line]


@pytest.mark.parametrize("file", sorted(CONF.rglob("*.yaml")), ids=lambda file: str(file.relative_to(CONF)))
def test_every_key_has_a_comment_in_its_file_or_in_a_base(file):
    """A recipe's keys are explained where they are declared."""
    if file.parent.name in ("experiment", "job_logging"):
        return
    keys = {*OmegaConf.load(file)} - {"defaults", "hydra", "name"}
    assert keys <= {key for found in with_bases(file) for key in commented_keys(found)}


@pytest.mark.parametrize("group", sorted({file.parent for file in CONF.glob("*/*.yaml")}), ids=lambda group: group.name)
def test_the_keys_of_a_group_are_explained_once(group):
    files = {found for file in group.glob("*.yaml") for found in with_bases(file)}
    lines = [line.strip() for file in files for line in file.read_text().splitlines()]
    comments = [line for line in lines if line.startswith("#") and not line.startswith("# @package")]
    assert len(comments) == len({*comments})


@pytest.mark.parametrize("file", sorted(CONF.glob("*/*.yaml")), ids=lambda file: f"{file.parent.name}={file.stem}")
def test_a_file_and_its_bases_state_every_key_of_its_class(file):
    """The YAML of an option shows all its keys; ``tracking=none`` has none."""
    if file.parent.name == "experiment" or (file.stem == "none" and file.parent.name == "tracking"):
        return
    section = getattr(with_option(file), file.parent.name)
    assert {*vars(section)} == {key for found in with_bases(file) for key in OmegaConf.load(found)} - {"defaults"}


def test_flatten_and_options_name_every_leaf():
    config = compose(["arch=fcn16s"])
    flat = configuration.flatten(config)
    assert flat["arch.name"] == "fcn16s"
    assert flat["seed"] == 0
    assert not any(isinstance(value, dict) for value in flat.values())
    assert configuration.options(config.optimizer, "lr", "freeze", "groups").keys() == {
        "weight_decay",
        "beta1",
        "beta2",
        "epsilon",
    }


def test_yaml_says_everything_and_composes_to_the_same():
    config = compose(["arch=fcn4s", "optimizer=sgd", "loss.class_weights=[1,2]"])
    parsed = OmegaConf.create(configuration.to_yaml(config))
    assert OmegaConf.to_container(parsed)["optimizer"]["momentum"] == 0.9
    assert OmegaConf.to_container(parsed)["loss"]["class_weights"] == [1.0, 2.0]
    with configuration.recorded_base(parsed) as name:
        assert compose(config_name=name) == config
        assert compose(["optimizer=adamw"], name).optimizer == compose(["optimizer=adamw"]).optimizer


def test_yaml_begins_with_the_version_that_wrote_it():
    assert configuration.to_yaml(compose()).splitlines()[0] == f"# fcnlab {fcnlab.__version__}"


@pytest.mark.parametrize(("section", "words"), [({"lr": "fast"}, "optimizer.lr"), ({"speed": 1}, "optimizer.speed")])
def test_a_recorded_configuration_is_typed(section, words):
    recorded = OmegaConf.create({"optimizer": {"name": "sgd", **section}})
    with pytest.raises(ConfigError, match=words), configuration.recorded_base(recorded):
        pass


def test_the_conf_tree_is_found_inside_an_installed_package(tmp_path, monkeypatch):
    (tmp_path / "conf").mkdir()
    monkeypatch.setattr(folder, "PACKAGE", tmp_path)
    assert configuration.config_folder() == tmp_path / "conf"
    assert CONF.name == "conf"


def test_composing_copies_no_node_that_it_does_not_use():
    """A copy of all nodes for each of a hundred groups would make ``--help`` take seconds."""
    composition.register_schemas()
    store = ConfigStore.instance()
    assert copy.deepcopy(store).repo is store.repo
    store.load("config_schema.yaml").node.trainer.epochs = 77
    assert store.load("config_schema.yaml").node.trainer.epochs != 77


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("init_from=~/a.pth", "init_from='/home/me/a.pth'"),
        ('init_from="~/a b.pth"', "init_from='/home/me/a b.pth'"),
        ("hydra.run.dir='~/out'", "hydra.run.dir='/home/me/out'"),
        ("+dataset.root=~", "+dataset.root='/home/me'"),
        ("init_from=a~/b", "init_from=a~/b"),
        ("init_from=~other/b", "init_from=~other/b"),
        ("~augment.noise", "~augment.noise"),  # how Hydra deletes a key
        ("dataset.class_names=[~]", "dataset.class_names=[~]"),
    ],
)
def test_a_value_that_begins_with_a_tilde_is_in_the_home_folder(monkeypatch, given, expected):
    monkeypatch.setenv("HOME", "/home/me")
    assert configuration.with_home([given]) == [expected]


def test_the_home_folder_is_the_same_in_every_key(monkeypatch):
    monkeypatch.setenv("HOME", "/home/o'brien")
    composed = configuration.compose(["init_from=~/a.pth", "resume='~/b'"])
    assert (composed.init_from, composed.resume) == ("/home/o'brien/a.pth", "/home/o'brien/b")
