"""Plug-ins of another package work like built-in parts: the example has one of every kind, with keys of its own."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import copies_of_python, refused, user_environment
from mindspore import Tensor
from own_package import SOURCE, import_path

import fcnlab
from fcnlab import compose
from fcnlab import config as configuration
from fcnlab.config.roles import Role
from fcnlab.core.errors import ConfigError, ExportError
from fcnlab.experiment import assembly
from fcnlab.recording import journal
from fcnlab.registry import ENCODERS, LOSSES, REGISTRIES

pytestmark = pytest.mark.usefixtures("forked_python")

KEYS = {
    "arch.depth": "3",
    "dataset.wide": "4",
    "loss.alpha": "0.3",
    "optimizer.damping": "2.0",
    "schedule.factor": "0.1",
    "augment.shade.strength": "0.25",
}
WORDS = [
    *("arch=stack", "dataset=stripes", "loss=tversky", "optimizer=sign_sgd", "schedule=steps", "augment.extra=[shade]"),
    *(f"{key}={value}" for key, value in KEYS.items()),
]
SHORT = ["trainer.epochs=2", "trainer.batch_size=2", "dataset.crop_size=32", "trainer.eval_every=1"]


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """Install the example package in this process."""
    for folder in import_path():
        monkeypatch.syspath_prepend(folder)


def run(*command, folder=None, **variables):
    """Run a command in a process in which the example package is installed."""
    path = os.pathsep.join([*import_path(), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**user_environment(), "PYTHONPATH": path, **variables}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=folder, env=environment, timeout=300
    )


def in_another_process(folder, config, values):
    """Print values of a configuration in a process that it was sent to."""
    (folder / "config.pickle").write_bytes(pickle.dumps(config))
    code = f"import pickle, sys; config = pickle.load(open(sys.argv[1], 'rb')); print({values})"
    return run("-c", code, str(folder / "config.pickle"))


def test_void_pixels_do_not_count_in_the_loss_of_the_example():
    loss = LOSSES.get("tversky")(ignore_index=255, num_classes=2, alpha=0.3)
    logits = np.random.default_rng(0).normal(size=(1, 2, 4, 4)).astype(np.float32)
    labels = np.array([[[0, 1, 0, 1], [1, 1, 0, 0], [255] * 4, [255] * 4]], np.int32)
    values = [float(loss(Tensor(logits[:, :, :rows]), Tensor(labels[:, :rows])).asnumpy()) for rows in (2, 4)]
    assert values[0] == pytest.approx(values[1], abs=1e-6)
    assert 0 < values[0] < 1


@pytest.mark.usefixtures("own_python")  # what it imports is looked at
def test_help_lists_the_names_and_imports_no_plug_in():
    code = (
        "import atexit, runpy, sys\n"
        "atexit.register(lambda: print([name for name in ('mindspore', 'fcnlab_example') if name in sys.modules]))\n"
        "sys.argv = ['fcnlab.train', '--help']\n"
        "runpy.run_module('fcnlab.train', run_name='__main__')\n"
    )
    done = run("-c", code)
    assert done.stdout.strip().endswith("[]"), done.stderr
    assert "sign_sgd" in done.stdout
    assert "stripes" in done.stdout


@pytest.mark.usefixtures("own_python")  # what it imports is looked at
def test_only_what_is_chosen_is_imported():
    code = (
        "import sys, fcnlab\n"
        "config = fcnlab.compose(['schedule=steps', 'schedule.factor=0.2'])\n"
        "found = [name for name in sys.modules if name.startswith(('fcnlab_example.', 'mindspore'))]\n"
        "print(config.schedule.factor, found)"
    )
    assert run("-c", code).stdout.strip() == "0.2 ['fcnlab_example.schedules']"


def test_the_keys_of_every_kind_are_typed_and_flat():
    config = compose(WORDS)
    flat = configuration.flatten(config)
    assert {key: str(flat[key]) for key in KEYS} == KEYS
    assert not hasattr(config.arch, "width")
    assert not hasattr(config.optimizer, "weight_decay")
    assert not hasattr(config.schedule, "warmup_steps")
    assert config.dataset.images == 4  # its class derives from ours
    assert config.dataset.num_classes == 2


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("arch.width=0.5", ["arch.width", "no such key with the arch"]),
        ("arch.dept=1", ["arch.dept", "did you mean arch.depth"]),
        ("loss.alpha=much", ["loss.alpha", "much"]),
        ("dataset.wide=64", ["dataset.wide=64", "at most 32"]),
        ("augment.shade.strength=2", ["augment.shade.strength=2.0", "at most 1"]),
        ("augment.shade.strength=much", ["augment.shade.strength", "much"]),
        ("augment.shade.strenght=1", ["augment.shade.strenght", "no such key", "strength"]),
        ("augment.shad.strength=1", ["augment.shad.strength", "no such key"]),
        ("augment.extra=[]", ["augment.shade.strength", "augment.extra=[shade]"]),
    ],
)
def test_a_mistake_in_a_key_is_one_line(word, words):
    text = refused(compose, *WORDS, word)
    assert all(part in text for part in words), text


def test_a_transform_that_is_not_used_leaves_no_trace():
    assert "shade" not in configuration.to_yaml(compose(["schedule=steps"]))


def test_a_configuration_goes_to_another_process_and_back(tmp_path):
    """The process of a trial gets its configuration so, and makes the classes again."""
    done = in_another_process(
        *(tmp_path, compose(WORDS)), "config.loss.alpha, config.augment.shade.strength, type(config.arch).__name__"
    )
    assert done.stdout.strip() == "0.3 0.25 arch:stack", done.stderr


def test_the_example_says_which_keys_it_has():
    """Its page lists what its code declares, and the commands there compose."""
    text = (SOURCE / "README.md").read_text()
    config, encoder = compose(WORDS), compose([*ENCODER, "augment.extra=[shade]"])
    flat = {**configuration.flatten(config), **configuration.flatten(encoder)}
    listed = [f"{kind}.{name}" for kind, name in re.findall(r"`(\w+)\.([\w.]+)`", text) if kind != "pyproject"]
    assert set(KEYS) <= set(listed) <= flat.keys() | {"arch.encoder"}
    commands = re.findall(r"^fcnlab train (.+)$", text, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        compose(command.split())


ENCODER = ["arch.encoder=pyramid", "arch.pyramid.kernel=5", "arch.width=0.1"]


def test_the_keys_of_an_encoder_stand_below_its_name():
    config = compose(ENCODER)
    flat = configuration.flatten(config)
    assert (flat["arch.encoder"], flat["arch.pyramid.kernel"]) == ("pyramid", 5)
    assert configuration.flatten(compose(["arch.encoder=pyramid"]))["arch.pyramid.kernel"] == 3
    assert "pyramid" not in configuration.to_yaml(compose([]))
    roles = configuration.recorded_roles({key: str(value) for key, value in flat.items()})
    assert roles["arch.pyramid.kernel"] == Role.SHAPES_GRAPH | Role.FIXED
    assert configuration.keys_with(Role.SHAPES_GRAPH, config)["arch.pyramid.kernel"] == 5


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["arch.pyramid.kernel=5"], ["arch.pyramid.kernel: pyramid needs arch.encoder=pyramid"]),
        (["arch.encoder=pyramid", "arch.pyramid.kernle=5"], ["arch.pyramid.kernle", "those of pyramid are kernel"]),
        (["arch.encoder=pyramid", "arch.pyramid.kernel=much"], ["arch.pyramid.kernel", "much"]),
        (["arch.encoder=pyramid", "arch.pyramid.kernel=9"], ["arch.pyramid.kernel=9", "at most 7"]),
        (["arch.encoder=pyramids"], ["unknown encoder 'pyramids'", "did you mean 'pyramid'"]),
        (["arch=stack", "arch.encoder=pyramid"], ["arch.encoder", "no such key with the arch"]),
        (["arch=paper/fcn8s", "arch.pyramid.kernel=5"], ["arch.pyramid.kernel", "no such key"]),
    ],
)
def test_a_mistake_about_an_encoder_is_one_line(words, parts):
    text = refused(compose, *words)
    assert all(part in text for part in parts), text


def test_an_encoder_goes_to_another_process_and_back(tmp_path):
    done = in_another_process(tmp_path, compose(ENCODER), "config.arch.pyramid.kernel, type(config.arch).__name__")
    assert done.stdout.strip() == "5 encoder:pyramid", done.stderr


def test_the_source_of_an_encoder_is_in_the_name_of_a_graph():
    config = compose(ENCODER)
    parts = assembly.compiled_parts(config)
    assert (ENCODERS, "pyramid") in parts
    (origin,) = [registry.origin(name) for registry, name in parts if not registry.is_builtin(name)]
    assert (origin.distribution, origin.version, origin.module) == ("fcnlab-example", "1.0", "fcnlab_example.encoders")
    assert assembly.compiled_parts(compose(["arch=stack"]))[0] == (REGISTRIES["arch"], "stack")


@pytest.mark.slow  # a network of another package goes the same way below
def test_an_encoder_trains_is_loaded_reproduced_exported_and_packaged(tiny, monkeypatch):
    """Everything goes by what the checkpoint says of the encoder."""
    from fcnlab.export import export
    from fcnlab.tracking.packaging import requirements

    config = tiny("arch=fcn8s", *ENCODER, "tracking=none", "trainer.epochs=1")
    result = fcnlab.train(config, Path("first"))
    network = fcnlab.load("first")
    arch = network.metadata["arch"]
    assert (arch["encoder"], arch["encoder_options"]) == ("pyramid", {"kernel": 5})
    assert network.predict(np.zeros((40, 50, 3), np.uint8)).shape == (40, 50)
    again = fcnlab.train(fcnlab.compose(["from_run=first", "tracking=none"]), Path("again"))
    assert again.losses == result.losses
    assert configuration.flatten(fcnlab.compose(["from_run=first"]))["arch.pyramid.kernel"] == 5
    with pytest.raises(ExportError, match="knows the encoders of this package, not pyramid"):
        export(configuration.compose(["checkpoint=first", "format=onnx", "output=x.onnx"], "export"))
    assert "fcnlab-example==1.0" in requirements(arch["name"], arch["encoder"])
    assert "fcnlab-example==1.0" not in requirements("fcn8s", "vgg16")


@dataclass
class PlainConfig:
    strength: float = 0.5


class Plain:
    Config = PlainConfig


def test_what_a_notebook_registers_is_selectable_with_its_keys():
    LOSSES.register("plain", Plain)
    try:
        config = compose(["loss=plain", "loss.strength=0.7"])
        assert (config.loss.name, config.loss.strength) == ("plain", 0.7)
        assert "loss.strenght" in refused(compose, "loss=plain", "loss.strenght=1")
    finally:
        LOSSES.unregister("plain")
    with pytest.raises(ConfigError, match="not registered"):
        LOSSES.unregister("plain")


def test_a_notebook_s_cell_can_be_run_again_with_other_keys():
    class Other:
        @dataclass
        class Config:
            size: int = 3

    for factory, key in ((Plain, "strength"), (Other, "size")):
        LOSSES.register("plain", factory)
        try:
            assert hasattr(compose(["loss=plain", f"loss.{key}=1"]).loss, key)
        finally:
            LOSSES.unregister("plain")


def install(folder, group, name, source):
    """Install another package, with one plug-in."""
    (folder / "other-2.0.dist-info").mkdir()
    (folder / "other-2.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 2.0\n")
    (folder / "other-2.0.dist-info" / "entry_points.txt").write_text(
        f"[fcnlab.{group}]\n{name} = other_package:Plugin\n"
    )
    (folder / "other_package.py").write_text(source)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import not_installed", ["loss 'mine'", "other_package:Plugin", "other 2.0", "not_installed"]),
        ("", ["loss 'mine'", "other_package:Plugin"]),
        ("raise RuntimeError('no licence')", ["loss 'mine'", "RuntimeError: no licence"]),
        ("class Plugin", ["loss 'mine'", "SyntaxError"]),
        ("import sys; sys.exit(7)", ["loss 'mine'", "SystemExit: 7"]),
        ("Plugin = 3", ["loss 'mine'", "no class or function but int"]),
        (
            "from dataclasses import dataclass as d\n@d\nclass C:\n    num_classes: int = 1\nclass Plugin: Config = C",
            ["loss=mine", "num_classes", "another name"],
        ),
        ("class Plugin:\n    Config = 1", ["loss", "mine", "no dataclass"]),
        ("class Plugin:\n    class Config: pass", ["loss", "mine", "no dataclass"]),
        (
            "from dataclasses import dataclass\n@dataclass\nclass C:\n    x: int\nclass Plugin:\n    Config = C",
            ["mine", "cannot be used", "default"],
        ),
        (
            "from dataclasses import dataclass\n@dataclass\nclass C:\n    x: object = open\nclass Plugin: Config = C",
            ["mine", "cannot be used"],
        ),
    ],
)
def test_a_plug_in_that_cannot_be_used_is_one_line(tmp_path, monkeypatch, source, words):
    install(tmp_path, "losses", "mine", source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "other_package", raising=False)
    text = refused(compose, "loss=mine")
    assert all(part in text for part in words), text
    monkeypatch.delitem(sys.modules, "other_package", raising=False)


def test_a_required_key_is_asked_for(tmp_path, monkeypatch):
    source = "from dataclasses import dataclass\n@dataclass\nclass C:\n    size: int = '???'\nclass Plugin: Config = C"
    install(tmp_path, "losses", "mine", source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "other_package", raising=False)
    assert refused(compose, "loss=mine") == "loss.size: give a value, as in loss.size=..."
    assert compose(["loss=mine", "loss.size=3"]).loss.size == 3
    monkeypatch.delitem(sys.modules, "other_package", raising=False)


@pytest.mark.parametrize(
    ("group", "kept"),
    [
        ("schedule", set()),
        ("optimizer", {"lr", "freeze"}),
        ("loss", set()),
        ("arch", {"width", "stride", "norm", "dropout"}),
    ],
)
def test_what_declares_no_keys_is_given_none_of_ours(group, kept):
    registry = REGISTRIES[group]
    registry.register("keyless", lambda *args, **keys: None)
    try:
        assert set(configuration.options(getattr(compose([f"{group}=keyless"]), group))) == kept
    finally:
        registry.unregister("keyless")


@pytest.mark.parametrize("name", ["adam", "sign_sgd"])
def test_a_name_that_two_packages_have_is_refused(tmp_path, monkeypatch, name):
    install(tmp_path, "optimizers", name, "")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = refused(compose, f"optimizer={name}")
    assert "declared more than once" in text
    assert "other 2.0" in text


@pytest.fixture(scope="module")
def training(tmp_path_factory, empty_store):
    """The folder of a training by the command, with a plug-in of every kind, that is recorded in MLflow."""
    folder = tmp_path_factory.mktemp("training")
    shutil.copy(empty_store, folder / "mlflow.db")
    with copies_of_python(tmp_path_factory):
        done = run("-m", "fcnlab.train", *WORDS, *SHORT, "hydra.run.dir=first", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


def losses(folder):
    return journal.history(folder / journal.FILE)["train/loss"]


def test_a_training_records_the_keys(training):
    run_entry = next(entry for entry in journal.read(training / "first" / journal.FILE) if entry.kind == "run")
    assert {key: run_entry.fields["params"][key] for key in KEYS} == KEYS
    assert journal.is_finished(training / "first")


@pytest.mark.slow  # a configuration goes to another process below, and the name of a graph says its plug-ins
def test_it_is_reproduced_by_another_process_with_the_same_graphs(tmp_path):
    for words in ([*WORDS, *SHORT, "hydra.run.dir=first"], ["from_run=first", "hydra.run.dir=again"]):
        done = run("-m", "fcnlab.train", *words, "tracking=none", folder=tmp_path)
        assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "again") == losses(tmp_path / "first")
    assert done.stdout.count("compiled by an earlier process") == 2, done.stdout


def test_it_is_loaded_and_evaluated(training, monkeypatch, tmp_path):
    from fcnlab.evaluate import evaluate

    monkeypatch.chdir(training)
    network = fcnlab.load("first")
    assert network.metadata["arch"]["depth"] == 3
    assert network.predict(np.zeros((40, 50, 3), np.uint8)).shape == (40, 50)
    overrides = ["checkpoint=first", "dataset=stripes", "dataset.wide=4", f"output={tmp_path}"]
    measured = evaluate(configuration.compose(overrides, "evaluate"))
    assert measured.confusion.counts.sum() == 4 * 64 * 64
    assert (tmp_path / "metrics.json").is_file()


@pytest.mark.slow  # the test below has ONNX, which knows the layers
def test_it_is_exported_as_the_graph_that_mindspore_makes_of_it(training, monkeypatch, tmp_path):
    from fcnlab.export import export

    monkeypatch.chdir(training)
    path = export(configuration.compose(["checkpoint=first", "format=mindir", f"output={tmp_path}/x.mindir"], "export"))
    assert path.is_file()


def test_a_format_that_does_not_know_its_layers_is_refused(training, monkeypatch, tmp_path):
    from fcnlab.export import export

    monkeypatch.chdir(training)
    with pytest.raises(ExportError, match="stack"):
        export(configuration.compose(["checkpoint=first", "format=onnx", f"output={tmp_path}/x.onnx"], "export"))


def test_it_is_served_by_mlflow(training):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{training / 'mlflow.db'}")
    (found,) = client.search_runs([item.experiment_id for item in client.search_experiments()])
    (model,) = found.outputs.model_outputs
    (model,) = [client.get_logged_model(model.model_id)]
    served = mlflow.pyfunc.load_model(model.artifact_location)
    assert served.predict(np.zeros((1, 64, 64, 3), np.uint8)).shape == (1, 64, 64)
    assert "fcnlab-example==1.0" in (Path(model.artifact_location) / "requirements.txt").read_text()


@pytest.mark.slow
def test_it_resumes_and_refuses_what_cannot_change(training, tmp_path):
    folder = shutil.copytree(training, tmp_path / "training")
    done = run("-m", "fcnlab.train", "resume=first", "trainer.epochs=3", "schedule.factor=0.2", folder=folder)
    assert done.returncode == 1
    assert "schedule.factor=0.2" in done.stderr
    done = run("-m", "fcnlab.train", "resume=first", "trainer.epochs=3", folder=folder)
    assert done.returncode == 0, done.stderr
    assert len(losses(folder / "first")) == 6


@pytest.mark.slow
def test_its_keys_are_swept_and_compared(training):
    overrides = [
        "loss.alpha=0.2,0.8",
        "augment.shade.strength=0.1,0.9",
        "dataset.scratch=/var/tmp",
        "hydra.sweep.dir=sweep",
    ]
    done = run("-m", "fcnlab.train", "-m", *WORDS, *SHORT, *overrides, folder=training)
    assert done.returncode == 0, done.stderr
    done = run("-m", "fcnlab.compare", "sweep=sweep", "output=table", folder=training, COLUMNS="200")
    assert done.returncode == 0, done.stderr
    table = (training / "table" / "comparison.md").read_text()
    assert (
        "loss.alpha=0.2, augment.shade.strength=0.1" in table or "augment.shade.strength=0.1, loss.alpha=0.2" in table
    )
    assert "scratch" not in table
    trial = json.loads((training / "sweep" / "trials" / "0.json").read_text())
    assert trial["status"] == "finished"


def test_the_source_and_the_version_of_a_plug_in_are_in_the_name_of_a_graph(tmp_path):
    """Its whole package, since what it imports from there takes part.

    A process of its own describes it, since the modules of other tests are loaded here and would be described as well.
    """
    package = tmp_path / "edited_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text("factor = 2\n")
    script = tmp_path / "describe.py"
    script.write_text(_DESCRIBES_AN_EDITED_PACKAGE)
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    described = json.loads(done.stdout)
    assert described[0] == described[1]
    assert all(described.count(item) == 1 for item in described[2:])
    assert len(described) == 6


_DESCRIBES_AN_EDITED_PACKAGE = """
import json
from pathlib import Path

import edited_package
from fcnlab.experiment.graph_key import describe_code
from fcnlab.registry import Origin

first, second = (Origin("edited", version, "edited_package.parts") for version in ("1.0", "1.1"))
described = [describe_code([first]), describe_code([first])]
Path("edited_package/parts.py").write_text("factor = 3\\n")  # of the same size
described += [describe_code([first]), describe_code([second])]
Path("needed-3.0.dist-info").mkdir()
described.append(describe_code([second]))
from edited_package import parts

parts.factor = 4  # as a variable of the environment may set it
described.append(describe_code([second]))
print(json.dumps(described))
"""
