"""Factories are found by their names, and the nearest name is suggested."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from fcnlab.config import compose
from fcnlab.config.schema import DatasetConfig
from fcnlab.core.errors import ConfigError
from fcnlab.registry import REGISTRIES, Registry, factories


@dataclass
class ToyConfig(DatasetConfig):
    name: str = "toy"
    difficulty: int = 3


class Toy:
    Config = ToyConfig


@pytest.fixture
def registry():
    return Registry("optimizer", "fcnlab.tests", {"adam": "math:sqrt", "sgd": "math:floor"})


@pytest.fixture
def plugin(monkeypatch):
    """The entry point of another package's data set."""

    mine = EntryPoints([EntryPoint("toy", f"{__name__}:Toy", "fcnlab.datasets")])
    monkeypatch.setattr(factories, "entry_points", lambda: mine)


def test_a_builtin_is_imported_on_first_use(registry):
    assert registry.get("adam")(9) == 3


def test_an_unknown_name_lists_the_known_and_the_nearest(registry):
    with pytest.raises(ConfigError, match=r"unknown optimizer 'adm': did you mean 'adam'\? known are adam, sgd"):
        registry.get("adm")


def test_a_name_cannot_be_taken_twice(registry):
    registry.register("lamb", abs)
    assert registry.get("lamb") is abs
    with pytest.raises(ConfigError, match="'lamb' is registered already"):
        registry.register("lamb", abs)


def test_every_builtin_can_be_imported():
    for registry in REGISTRIES.values():
        assert all(callable(registry.get(name)) for name in registry.names())


@pytest.mark.usefixtures("plugin")
def test_a_plugin_is_found_and_its_keys_are_typed():
    assert REGISTRIES["dataset"].get("toy") is Toy
    config = compose(["dataset=toy", "dataset.difficulty=5"])
    assert config.dataset.difficulty == 5
    with pytest.raises(ConfigError, match="difficulty"):
        compose(["dataset=toy", "dataset.difficulty=hard"])
