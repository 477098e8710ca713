"""Fixtures for every room: small configurations, stores and caches that go through a user's own code."""

import copy
import functools
import gc
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from remembered_composition import remembered_composition

import fcnlab
from fcnlab import compose
from fcnlab.core.cache_folder import cache_folder
from fcnlab.core.errors import CheckpointError, ConfigError
from fcnlab.core.locks import waited_for
from fcnlab.core.processor import usable_processors

# The machine may be shared: no test fails because an example, or drawing it, took long.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

if "PYTEST_XDIST_WORKER" in os.environ:
    # MindSpore, once imported, reads this file when it stores a graph, and a worker's program is called "-c".
    sys.argv[0] = str(Path(pytest.__file__).with_name("__main__.py"))
    for variable in ("OMP_NUM_THREADS", "FCNLAB_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # each core has a worker already

MODES = pytest.mark.parametrize(
    "mode", [pytest.param(1, id="pynative"), pytest.param(0, id="graph", marks=pytest.mark.slow)]
)
"""Runs a test of a formula in PyNative mode, and among the slow tests in graph mode, whose compilation takes seconds.

The modes are MindSpore's numbers. Whole trainings, which the quick suite has, use graph mode.
"""

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


# A shell may let what it starts in the background ignore Ctrl-C, and all that the tests start would inherit it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# MindSpore, MLflow and thousands of tests are some 600,000 objects that stay. Python would look for garbage among them
# again and again, which took a quarter of the time of collecting tests, and a twentieth of running them.
gc.disable()


def pytest_collection_finish():
    """Look for garbage among what the tests make alone."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_xdist_auto_num_workers():
    """Start two workers more than there are processors, since tests wait for child processes, locks and the disk."""
    return usable_processors() + 2


def made_once(tmp_path_factory, name, make):
    """Return a folder that the first worker of the session fills and that the others only read."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder = root / f"shared-{name}"
    with waited_for(root / f"shared-{name}.lock", 600):
        if not folder.exists():
            partial = root / f"partial-{name}"
            partial.mkdir()
            make(partial)
            partial.rename(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory):
    """Keep compiled operators and graphs in a cache that the tests share, instead of the user's."""

    def make(folder):
        kernels = folder / "fcnlab" / "kernels"
        if cache_folder("kernels").is_dir():  # an operator is named by its source, so that the user's own will do
            shutil.copytree(cache_folder("kernels"), kernels)
        if "PYTEST_XDIST_WORKER" in os.environ:  # otherwise each of the workers would compile them
            from fcnlab.kernels.build import build  # which imports MindSpore

            build(kernels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(made_once(tmp_path_factory, "cache", make)))
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_composition():
    """Compose the same choices of options once, except in other processes."""
    with remembered_composition():
        yield


@pytest.fixture(autouse=True)
def synchronous_operators():
    """Run PyNative mode as a training on a CPU does, in a third of the time, in tests of a single cell, too."""
    if "mindspore" in sys.modules:  # tests that need no MindSpore do not import it
        sys.modules["mindspore"].set_context(pynative_synchronize=True)


@pytest.fixture
def own_python(monkeypatch):
    """Let a test that stops a process, or looks at what it imports, run Python itself in spite of `forked_python`."""
    from fcnlab.tracking import sending_client

    # Another test's process may be a copy, and so is the command's if the module was imported in such a test.
    monkeypatch.setattr(sending_client, "_shared", None)
    monkeypatch.setattr(sending_client, "_COMMAND", (sys.executable, *sending_client._COMMAND[1:]))


@pytest.fixture
def forked_python(request, tmp_path_factory):
    """Let ``sys.executable``, and so what is started with it, be a copy of a process that has imported MindSpore.

    A slow test runs Python itself, as users do.
    """
    if request.node.get_closest_marker("slow") or "own_python" in request.fixturenames:
        yield
    else:
        with copies_of_python(tmp_path_factory):
            yield


@contextmanager
def copies_of_python(tmp_path_factory):
    """Do for a block, as in a fixture of a whole module, what `forked_python` does for a test."""
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    owner = os.getppid() if is_worker else os.getpid()

    def make(folder):
        address = folder.with_name("forking-server")
        server = Path(__file__).with_name("forking_server.py")
        root = str(Path(fcnlab.__file__).parents[1])  # not sys.path, where MLflow puts the copies of its models
        variables = {**user_environment(), "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
        # The first line of a program cannot name a long path, or one with a space, and the environment may have
        # another Python as its own.
        program = folder / "python"
        words = shlex.join((sys.executable, str(Path(__file__).with_name("forked_python.py"))))
        program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        program.chmod(0o755)
        final = folder.with_name("shared-python") / program.name
        command = [sys.executable, str(server), str(address), str(owner), str(final)]
        process = subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL, start_new_session=True)
        while not address.exists():
            assert process.poll() is None
            time.sleep(0.05)

    folder = made_once(tmp_path_factory, "python", make)
    address, program = folder.with_name("forking-server"), str(folder / "python")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FCNLAB_TESTS_FORKING_SERVER", str(address))
        for module, name in (("fcnlab.tracking.sending_client", "_COMMAND"), ("fcnlab.sweeps.job", "COMMAND")):
            if module in sys.modules:
                patch.setattr(sys.modules[module], name, (program, *getattr(sys.modules[module], name)[1:]))
        patch.setattr(sys, "executable", program)
        yield


@pytest.fixture
def real_figures():
    """Let a test that looks at the figures of a command have them drawn, in spite of `quick_figures`."""


@pytest.fixture(autouse=True)
def quick_figures(request, monkeypatch):
    """Leave the figures of a training, an evaluation and a preparation empty, since drawing takes a second."""
    if "real_figures" in request.fixturenames:
        return
    functions = [
        "recording.run_figures.draw_learning_curves",
        "recording.run_figures.draw_confusion_matrix",
        "preparation.preview.draw",
    ]
    if "mindspore" in sys.modules:  # which an evaluation needs, and other tests do not import
        functions += [f"inference.evaluation_report.draw_{name}" for name in ("confusion_matrix", "reliability")]
    for function in functions:
        monkeypatch.setattr(f"fcnlab.{function}", leave_empty)


def leave_empty(*arguments):
    """Make the file that a function would draw, whose path is its last argument."""
    path = arguments[-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A database with MLflow's tables in it, for copies: to make one takes seconds."""

    def make(folder):
        from mlflow import MlflowClient  # as in a training, after fcnlab

        MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()

    return made_once(tmp_path_factory, "store", make) / "mlflow.db"


@pytest.fixture
def own_store(tmp_path, empty_store):
    """An empty store in the working directory, for a test that is not about how a store is made."""
    return shutil.copy(empty_store, tmp_path / "mlflow.db")


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


def refusal(function, *arguments):
    """Return the one line in which a file of weights is refused."""
    with pytest.raises(CheckpointError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def tiny_overrides():
    """The overrides for a training of two epochs, two steps each, on generated images."""
    return list(TINY)


def compose_tiny(*overrides):
    """Compose a tiny configuration with further overrides, in PyNative mode: compiling takes longer than training.

    The network is an FCN-32s unless the overrides choose another one: its operators are the fewest.
    """
    chosen = () if any(word.startswith("arch=") for word in overrides) else ("arch=fcn32s",)
    words = (*TINY, "trainer.mode=pynative", *chosen, *overrides)
    if any(word.startswith(("from_run=", "resume=", "dataset.root=")) for word in words):  # files of the test take part
        return compose(words)
    return copy.deepcopy(_compose_once(*words))


@functools.cache
def _compose_once(*overrides):
    """Compose a configuration that no file but those of ``conf/`` shapes: Hydra takes half a second."""
    return compose(overrides)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A function that composes a tiny configuration; the working directory is fresh."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return compose_tiny


@pytest.fixture
def connected():
    """Return a function that connects as many workers, all in this process."""
    import connected_workers

    made = []

    def make(count, silence=20.0):
        group = connected_workers.connect(count, silence)
        made.extend(group)
        return group

    yield make
    for worker in made:
        connected_workers.end(worker)
