"""The folder of an MLflow model holds all that is needed to use the model."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import importlib_metadata
import numpy as np
import pytest
import yaml
from tiny_network import ARCH, METADATA, expected_labels, save_checkpoint, some_images

import fcnlab
from fcnlab.core.errors import CheckpointError, TrackingError
from fcnlab.drawing.palette import default_palette
from fcnlab.models.checkpoint import save_weights
from fcnlab.tracking import packaging
from fcnlab.tracking.packaging import package
from fcnlab.tracking.served_model import ServedModel


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("checkpoints") / "best.safetensors")


@pytest.fixture(scope="module")
def model(checkpoint):
    package(checkpoint, checkpoint.parent / "model")
    return checkpoint.parent / "model"


ELSEWHERE = """
import sys
from importlib.machinery import PathFinder

model = sys.argv[1]

class NotInstalled:
    def find_spec(name, path=None, target=None):
        if name == "fcnlab":
            spec = PathFinder.find_spec(name, [entry for entry in sys.path if entry.startswith(model)])
            if spec is None:
                raise ModuleNotFoundError(name)
            return spec

sys.meta_path.insert(0, NotInstalled)
try:
    import fcnlab
    raise AssertionError("fcnlab is still installed")
except ModuleNotFoundError:
    pass

import importlib_metadata
import mlflow
import importlib_metadata
import numpy as np

loaded = mlflow.pyfunc.load_model(model)
for name in ("small", "large"):
    np.save(f"{name}-labels.npy", loaded.predict(np.load(f"{name}.npy")))
np.save("example-labels.npy", loaded.predict(loaded.input_example))
for shape, kind in (((1, 31, 64, 3), np.uint8), ((1, 64, 64, 3), np.float32), ((64, 64, 3), np.uint8)):
    try:
        loaded.predict(np.zeros(shape, kind))
        raise AssertionError(f"{shape} {kind} was taken")
    except mlflow.exceptions.MlflowException:
        pass
for module in list(sys.modules.values()):
    if module.__name__.startswith(("fcnlab", "code_model")):
        print(module.__file__)
"""


@pytest.fixture(scope="module")
def elsewhere(model, tmp_path_factory):
    """A process without fcnlab predicts with the model; its folder, and the files of the code that it ran."""
    folder = tmp_path_factory.mktemp("elsewhere")
    np.save(folder / "small.npy", some_images(2, 40, 32))
    np.save(folder / "large.npy", some_images(1, 97, 130))
    # That process imports MLflow first, without the variables that this one sets for MindSpore, and loads no pickle.
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PROTOCOL_BUFFERS")}
    variables["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(model)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=variables,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder, [Path(line) for line in done.stdout.splitlines()]


@pytest.mark.slow  # a process that imports MLflow and MindSpore; the test after the next follows the imports instead
def test_a_model_labels_images_of_any_size_where_the_package_is_not_installed(elsewhere, checkpoint):
    folder, _ = elsewhere
    for name in ("small", "large"):
        images, labels = np.load(folder / f"{name}.npy"), np.load(folder / f"{name}-labels.npy")
        assert (labels.shape, labels.dtype) == (images.shape[:3], np.int32)
        assert (labels == expected_labels(checkpoint, images)).mean() > 0.999  # compiled code rounds differently
    assert np.load(folder / "example-labels.npy").shape == (1, 32, 32)


@pytest.mark.slow
def test_the_requirements_are_what_the_code_that_runs_imports(elsewhere, model):
    _, files = elsewhere
    assert files
    assert all(file.is_relative_to(model) for file in files)
    imported = {name.partition(".")[0] for file in files for name in imports(file)} - sys.stdlib_module_names
    owners = importlib_metadata.packages_distributions()  # the standard library's of Python 3.10 misses numpy
    expected = {
        f"{distribution}=={importlib.metadata.version(distribution)}"
        for name in imported - {"fcnlab"}
        for distribution in owners[name]
        if not distribution.startswith("mlflow-")  # parts of mlflow that share its folder
    }
    assert set((model / "requirements.txt").read_text().split()) == expected


STARTS = ("fcnlab.tracking.served_model", "fcnlab.experiment.loading")
"""The modules that MLflow executes and that `fcnlab.load` is in; what the first imports later counts, too."""


def test_what_the_code_imports_is_in_the_model_or_in_its_requirements(model):
    root = model / "code"
    waiting, seen, others = [*STARTS], set(), set()
    while waiting:
        name = waiting.pop()
        place = root.joinpath(*name.split("."))
        file = next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)
        if not name.startswith("fcnlab"):
            others.add(name.partition(".")[0])
        elif name not in seen and file is not None:  # otherwise it is a name that a module defines
            seen.add(name)
            tree = ast.parse(file.read_text())
            nodes = ast.walk(tree) if name == STARTS[0] else tree.body
            for node in nodes:
                if isinstance(node, ast.Import):
                    waiting += [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    assert {"fcnlab.core", "fcnlab.models"} <= {name.rpartition(".")[0] for name in seen}
    required = {line.partition("==")[0] for line in (model / "requirements.txt").read_text().split()}
    owners = importlib_metadata.packages_distributions()
    for name in others - sys.stdlib_module_names:
        assert required & {*owners[name]}, name


def imports(file):
    """Yield the modules that a file imports anywhere."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_nothing_is_pickled(model):
    flavour = yaml.safe_load((model / "MLmodel").read_text())["flavors"]["python_function"]
    assert "python_model" not in flavour
    assert flavour["model_code_path"].endswith("served_model.py")
    for file in (path for path in model.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        text = {".py", ".cpp", ".h", ".yaml", ".json", ".txt"}
        assert file.name == "MLmodel" or file.suffix in text | {".safetensors"}
        assert not file.read_bytes().startswith((b"\x80", b"PK"))  # a pickle, or an archive of them


def test_a_model_says_what_it_takes_and_what_its_classes_are(model):
    description = yaml.safe_load((model / "MLmodel").read_text())
    assert description["metadata"] == {"class_names": METADATA["class_names"], "palette": METADATA["palette"]}
    for side, kind, shape in (("inputs", "uint8", "[-1, -1, -1, 3]"), ("outputs", "int32", "[-1, -1, -1]")):
        assert kind in description["signature"][side]
        assert shape in description["signature"][side]


def test_a_model_of_other_channels_says_so(tmp_path):
    arch = {**ARCH, "in_channels": 5}
    pixels = {"normalisation": {"mean": [0.5] * 5, "std": [0.25] * 5}, "bits": 16, "palette": None}
    checkpoint = tmp_path / "best.safetensors"
    save_weights(checkpoint, fcnlab.build_model(**arch), {**METADATA, "arch": arch, **pixels})
    package(checkpoint, tmp_path / "model")
    description = yaml.safe_load((tmp_path / "model" / "MLmodel").read_text())
    assert "uint16" in description["signature"]["inputs"]
    assert "[-1, -1, -1, 5]" in description["signature"]["inputs"]
    assert description["metadata"]["palette"] == default_palette(3).tolist()  # the default
    # MLflow makes these calls in its server.
    served = ServedModel()
    served.load_context(SimpleNamespace(artifacts={"checkpoint": str(checkpoint)}))
    images = np.random.default_rng(0).integers(0, 65536, (2, 40, 32, 5), dtype=np.uint16)
    assert served.predict(images).shape == (2, 40, 32)


def test_packaging_is_silent_and_needs_no_store(checkpoint, tmp_path, monkeypatch, capfd, recwarn):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (tmp_path / "uv.lock").write_text("of another project")
    (tmp_path / "pyproject.toml").write_text("")
    package(checkpoint, tmp_path / "out" / "model")
    assert not [warning for warning in recwarn if issubclass(warning.category, UserWarning)]
    assert capfd.readouterr() == ("", "")
    assert {path.name for path in tmp_path.iterdir()} == {"uv.lock", "pyproject.toml", "out"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model"]
    assert not (tmp_path / "out" / "model" / "uv.lock").exists()
    assert not (tmp_path / "out" / "model" / "pyproject.toml").exists()
    assert not list((tmp_path / "out" / "model").rglob("__pycache__"))


def test_the_checkpoint_is_shared_where_that_is_possible(checkpoint, tmp_path, monkeypatch):
    original = save_checkpoint(tmp_path / "checkpoints" / "best.safetensors")
    package(original, tmp_path / "linked")
    [linked] = (tmp_path / "linked" / "artifacts").iterdir()
    assert linked.samefile(original)

    def refuse(*arguments):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    package(original, tmp_path / "copied")
    [copied] = (tmp_path / "copied" / "artifacts").iterdir()
    assert not copied.samefile(original)
    assert copied.read_bytes() == original.read_bytes()

    before = linked.read_bytes()
    save_weights(original, fcnlab.build_model(**ARCH), METADATA)  # a better one takes the place of the best
    assert linked.read_bytes() == before != original.read_bytes()


def test_a_torn_folder_is_never_taken_for_a_model(checkpoint, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    (tmp_path / ".model.partial" / "code").mkdir(parents=True)  # of a process that was killed
    with monkeypatch.context() as patch:
        patch.setattr(packaging, "_share", fail)
        with pytest.raises(TrackingError, match=re.escape(str(tmp_path / "model")) + ".*No space left"):
            package(checkpoint, tmp_path / "model")
    assert not list(tmp_path.iterdir())
    (tmp_path / ".model.partial" / "code").mkdir(parents=True)
    package(checkpoint, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_of_any_name(checkpoint, tmp_path):
    """MLflow reads a plain path as an address, which ends at a ? and in which %20 is a space."""
    place = tmp_path / "a?b%20c#d"
    place.mkdir()
    shutil.copy(checkpoint, place / "best.safetensors")
    package(place / "best.safetensors", place / "model")
    assert (place / "model/artifacts/best.safetensors").read_bytes() == checkpoint.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [place.name]


def test_a_folder_that_cannot_be_written_is_one_line(checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackingError, match="cannot write the MLflow model") as caught:
        package(checkpoint, tmp_path / "file" / "model")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    save_weights(tmp_path / "weights.safetensors", fcnlab.build_model(**ARCH), {"arch": ARCH})
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: does not say its class_names, normalisation"):
        package(tmp_path / "weights.safetensors", tmp_path / "model")


def test_a_network_of_another_package_requires_that_package(tmp_path, monkeypatch):
    installed = tmp_path / "their_networks-1.2.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: their-networks\nVersion: 1.2\n")
    (installed / "entry_points.txt").write_text("[fcnlab.architectures]\nunet = their_networks:UNet\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "their-networks==1.2" in packaging.requirements("unet")
    assert "their-networks==1.2" not in packaging.requirements("fcn8s")


def test_models_of_earlier_versions_find_what_they_import():
    """Their code takes these names from this version if that was imported before."""
    from fcnlab.environment import MAX_PIXELS  # in served_model.py of 0.2.0

    from fcnlab.models.fcn import MINIMUM_SIZE  # likewise

    assert MAX_PIXELS == 2**27
    assert MINIMUM_SIZE > 0
    assert callable(fcnlab.load)
