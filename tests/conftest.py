"""Fixtures for every room: small configurations, stores and caches that go through a user's own code."""

import os
import shutil
import sys

import pytest

if not os.path.isfile(sys.argv[0]):  # pytest-xdist starts its workers with `python -c`, whose graphs are not cached
    sys.argv[0] = __file__

from fcnlab import compose
from fcnlab.core.errors import ConfigError

TINY = [
    "arch.width=0.03125",
    "dataset.num_train=4",
    "dataset.num_val=2",
    "dataset.image_size=64",
    "dataset.crop_size=32",
    "dataset.crops_per_image=2",
    "trainer.epochs=2",
    "trainer.batch_size=4",
    "trainer.eval_every=1",
]


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory):
    """Keep compiled graphs in a cache that the tests share, instead of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A database with MLflow's tables in it, for copies: to make one takes seconds."""
    from mlflow import MlflowClient  # as in a training, after fcnlab

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(tmp_path, monkeypatch, empty_store):
    """The address of a fresh tracking store; the working directory is fresh, too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, tmp_path / "store.db")
    return f"sqlite:///{tmp_path / 'store.db'}"


def user_environment():
    """Return the variables of a shell in which no store is chosen."""
    return {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}


def refused(compose, *words):
    """Return the one line in which a configuration is refused."""
    with pytest.raises(ConfigError) as caught:
        compose(words)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
def tiny_overrides():
    """The overrides for a training of two epochs, two steps each, on generated images."""
    return list(TINY)


def compose_tiny(*overrides):
    """Compose a tiny configuration with further overrides."""
    return compose([*TINY, *overrides])


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A function that composes a tiny configuration; the working directory is fresh."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return compose_tiny
