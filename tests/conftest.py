"""Small but real: every fixture goes through the code that a user's run goes through."""

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
    """Compiled graphs of the tests' own commands, shared among them and kept out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A database with MLflow's tables in it, to be copied: making one takes seconds."""
    from mlflow import MlflowClient  # as in a training, after fcnlab

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(tmp_path, monkeypatch, empty_store):
    """Of a fresh tracking store; the working directory is a fresh one, too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, tmp_path / "store.db")
    return f"sqlite:///{tmp_path / 'store.db'}"


def user_environment():
    """The variables of a user's shell, in which nobody has chosen a store."""
    return {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}


def refused(compose, *words):
    """The one line in which a configuration is refused."""
    with pytest.raises(ConfigError) as caught:
        compose(words)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
def tiny_overrides():
    """Command-line words for a training of two epochs, two steps each, on generated images."""
    return list(TINY)


def compose_tiny(*overrides):
    """A tiny configuration with overrides of its own."""
    return compose([*TINY, *overrides])


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Composes a tiny configuration; the working directory is a fresh one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return compose_tiny
