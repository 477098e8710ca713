"""Every key states its role, and all code that keeps something for later goes by it."""

import dataclasses

import pytest

from fcnlab.config import compose, recorded_roles
from fcnlab.config.roles import UNCLASSIFIED, Role
from fcnlab.config.schema import SCHEMAS, Config, flatten, key, keys_with, leaves, options, role_of
from fcnlab.core.errors import DataError
from fcnlab.data import Dataset
from fcnlab.data.cached_checks import CachedChecks
from fcnlab.data.description import INFORMATION
from fcnlab.experiment import resume

SECTIONS = [("", Config())]
SECTIONS += [(f"{group}.", option()) for group, options_ in SCHEMAS.items() for option in options_.values()]
ROLES = {
    (prefix, type(section).__name__, name): role_of(metadata)
    for prefix, section in SECTIONS
    for name, _, metadata in leaves(section, prefix)
}


def roles_of(name):
    """Return the roles that the classes with a key state for it."""
    return {role for (_, _, found), role in ROLES.items() if found == name}


def test_every_key_of_a_training_states_its_role():
    assert [where for where, role in ROLES.items() if role == UNCLASSIFIED] == []


def test_a_key_that_is_declared_again_keeps_its_role():
    """A data set's class that gives another default must repeat the role."""
    assert {name: roles for _, _, name in ROLES if len(roles := roles_of(name)) > 1} == {}


def test_a_key_that_says_nothing_shapes_everything():
    @dataclasses.dataclass
    class Unsaid:
        plain: int = 1
        ranged: int = key(1, minimum=0)

    assert {role_of(metadata) for *_, metadata in leaves(Unsaid())} == {UNCLASSIFIED}
    assert set(keys_with(Role.SHAPES_GRAPH, Unsaid())) == {"plain", "ranged"}
    assert set(keys_with(Role.MACHINE, Unsaid())) == set()


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("arch.width", Role.SHAPES_GRAPH | Role.FIXED),
        ("dataset.crop_size", Role.SHAPES_GRAPH | Role.FIXED),
        ("dataset.ignore_index", Role.SHAPES_GRAPH | Role.FIXED | Role.READS | Role.DESCRIBED),
        ("dataset.root", Role.MACHINE),
        ("dataset.sbd_root", Role.MACHINE | Role.READS),
        ("optimizer.lr", Role.FREE),
        ("optimizer.beta1", Role.SHAPES_GRAPH),
        ("optimizer.groups", Role.SHAPES_GRAPH),
        ("optimizer.freeze", Role.SHAPES_GRAPH | Role.FIXED),
        ("loss.gamma", Role.SHAPES_GRAPH),
        ("loss.reduction", Role.SHAPES_GRAPH),
        ("trainer.accumulate", Role.SHAPES_GRAPH | Role.FIXED),
        ("trainer.parallel", Role.MACHINE | Role.SHAPES_GRAPH),
        ("trainer.worker_timeout", Role.MACHINE),
        ("loss.class_weights", Role.FREE),
        ("trainer.skip_nonfinite", Role.MACHINE | Role.SHAPES_GRAPH),
        ("tracking.uri", Role.MACHINE | Role.ANEW | Role.BESIDE_SWEEP),
        ("augment.noise", Role.FREE),
        ("seed", Role.FIXED),
    ],
)
def test_the_role_of_some_keys(name, role):
    assert roles_of(name) == {role}


def test_what_belongs_to_a_process_alone_is_said_anew_for_each():
    anew = {name for _, _, name in ROLES if any(Role.ANEW in role for role in roles_of(name))}
    sweep = {f"sweep.{name}" for name in options(Config().sweep)}
    assert anew == {"tracking.uri", "from_run", "resume", *sweep}


def test_hydra_names_no_folder_by_what_is_said_anew():
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    from fcnlab.config import config_folder, register_schemas

    register_schemas()
    overrides = ["sweep.threads=2", "tracking.uri=sqlite:///x.db", "resume=auto", "seed=3"]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        node = hydra_compose("train", overrides=overrides, return_hydra_config=True)
    assert node.hydra.job.override_dirname == "seed=3"


@pytest.mark.parametrize(("name", "described"), [("num_classes", True), ("crop_size", False)])
def test_a_folder_may_describe_what_says_so(tmp_path, name, described):
    (tmp_path / "dataset.yaml").write_text(f"{name}: 64\n")
    words = ["dataset=folder", f"dataset.root={tmp_path}"]
    if described:
        assert getattr(compose(words).dataset, name) == 64
    else:
        with pytest.raises(DataError) as caught:
            compose(words)
        known = str(caught.value).partition("known are ")[2].split(", ")
        assert {*known} - {*INFORMATION} == {*keys_with(Role.DESCRIBED, SCHEMAS["dataset"]["folder"]())}


@pytest.mark.parametrize("name", sorted({name for _, _, name in ROLES if name.startswith("dataset.")}))
def test_checked_files_are_read_again_after_a_change_of_what_is_read(name, tmp_path):
    """Whatever the key, the cache of checks goes by its role."""
    short = name.removeprefix("dataset.")
    datasets = [section for prefix, section in SECTIONS if prefix == "dataset."]
    section = next(section for section in datasets if short in {item.name for item in dataclasses.fields(section)})
    changed = dataclasses.replace(section, **{short: "changed"})
    files = UnchangedFiles()
    for config in (section, section, changed):
        before = files.checks
        dataset = CachedChecks(files, keys_with(Role.READS, config), tmp_path)
        dataset.check()
        dataset.fingerprint()
    assert before == 1
    assert (files.checks > before) == any(Role.READS in role for role in roles_of(name))


class UnchangedFiles(Dataset):
    """A data set whose files never change, and which counts how often it is checked."""

    names = ["a"]
    checks = 0

    def __getitem__(self, index):
        raise NotImplementedError

    def stamp(self):
        return "unchanged"

    def check(self):
        self.checks += 1

    def fingerprint(self):
        return "0" * 32


@pytest.fixture(scope="module")
def cells():
    return compose(["dataset=cells"])


@pytest.mark.parametrize("name", sorted(flatten(compose(["dataset=cells"]))))
def test_resuming_goes_by_the_role(name, cells):
    found = resume._differences({**flatten(cells), name: "something else"}, cells)
    (role,) = roles_of(name)
    assert set(found) == (set() if Role.MACHINE in role else {name})
    if found:
        assert (Role.FIXED in found[name][0]) == (Role.FIXED in role)


@dataclasses.dataclass
class WeighingConfig:
    name: str = "weighing"
    weights: dict[str, float] = dataclasses.field(default_factory=lambda: {"a": 1.0, "b": 2.0})


@pytest.mark.parametrize("weights", [{"a": 1.0, "b": 3.0}, {"a": 1.0}, {"a": 1.0, "b": 2.0, "c": 3.0}, {}])
def test_a_dictionary_of_a_plug_in_differs_where_one_of_its_parts_does(cells, weights):
    """A file holds its parts, as in YAML; the configuration holds it whole."""
    config = dataclasses.replace(cells, loss=WeighingConfig())
    recorded = flatten(dataclasses.asdict(config))
    assert recorded["loss.weights.b"] == 2.0
    assert resume._differences(recorded, config) == {}
    changed = dataclasses.replace(cells, loss=WeighingConfig(weights=weights))
    assert set(resume._differences(recorded, changed)) == {"loss.weights"}
    assert set(resume._differences(flatten(dataclasses.asdict(changed)), config)) == {"loss.weights"}


def test_a_recorded_training_has_the_roles_of_its_own_options():
    roles = recorded_roles({"optimizer.name": "adam", "dataset.name": "folder", "arch.name": "fcn8s"})
    assert roles["dataset.channels"] == Role.SHAPES_GRAPH | Role.FIXED | Role.READS | Role.DESCRIBED
    assert roles["optimizer.beta1"] == Role.SHAPES_GRAPH
    assert Role.MACHINE in roles["tracking.experiment"]
    assert "optimizer.momentum" not in roles
