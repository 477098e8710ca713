"""Malformed files, overrides and requests give one line or a result, never a crash, a stray file or code that runs."""

import io
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import mindspore as ms
import numpy as np
import pytest
import tifffile
import weight_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from PIL import Image
from safetensors.numpy import save_file

import fcnlab
from fcnlab import config as configuration
from fcnlab.config.schema import FolderConfig
from fcnlab.core.checkpoint_header import read_metadata
from fcnlab.core.errors import CheckpointError, ConfigError, DataError, FcnlabError
from fcnlab.data import image_files
from fcnlab.data.image_folder import Folder
from fcnlab.data.label_files import read_label
from fcnlab.experiment import recorded
from fcnlab.models import build_model, foreign
from fcnlab.models.checkpoint import read_weights, save_weights
from fcnlab.models.finite import first_nonfinite
from fcnlab.training.state import Progress, StateFolder, read_state

MANY = {
    "images": 2000,
    "channels": 1000,
    "labels": 2000,
    "lists": 1500,
    "words": 500,
    "records": 500,
    "checkpoints": 2500,
    "weights": 2500,
    "layouts": 1000,
    "requests": 1000,
}
"""The number of inputs of each kind in the slow tests, 12,500 in all."""

FEW = {
    "images": 40,
    "channels": 150,
    "labels": 150,
    "lists": 150,
    "words": 12,
    "records": 12,
    "checkpoints": 150,
    "weights": 400,
    "layouts": 40,
    "requests": 50,
}


def hostile(kind):
    """Parametrise a test with a few inputs, and with many behind the marker."""

    def decorate(test):
        return pytest.mark.parametrize(
            "inputs", [FEW[kind], pytest.param(MANY[kind], marks=pytest.mark.slow)], ids=["few", "many"]
        )(test)

    return decorate


def run(strategy, check, inputs):
    """Check a number of inputs that a strategy draws."""
    healthy = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]

    @settings(max_examples=inputs, deadline=None, database=None, suppress_health_check=healthy, print_blob=False)
    @given(strategy)
    def one(value):
        check(value)

    one()


@st.composite
def damaged(draw, originals):
    """Draw a valid file and flip, remove, repeat, replace or insert some of its bytes."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 4))):
        position = draw(st.one_of(st.integers(0, len(data)), st.integers(0, min(len(data), 64))))
        length = draw(st.integers(1, 64))
        kind = draw(st.sampled_from(["flip", "cut", "remove", "repeat", "insert", "extreme"]))
        if kind == "flip" and position < len(data):
            data[position] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[position:]
        elif kind == "remove":
            del data[position : position + length]
        elif kind == "repeat":
            data[position:position] = data[position : position + length]
        elif kind == "insert":
            data[position:position] = draw(st.binary(max_size=16))
        elif kind == "extreme":
            data[position : position + 4] = draw(
                st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x80"])
            )
    return bytes(data)


def save_checkpoint(path):
    """Save the checkpoint of a tiny network."""
    arch = {"name": "fcn32s", "num_classes": 2, "width": 1 / 64, "norm": "none"}
    pixels = {"mean": [0.5] * 3, "std": [0.25] * 3}
    save_weights(path, build_model(**arch), {"arch": arch, "class_names": ["a", "b"], "normalisation": pixels})
    return path


@contextmanager
def one_line(*errors):
    """Let the block raise only these errors, each of one line."""
    try:
        yield
    except errors as error:
        lines = str(error).splitlines()
    else:
        return
    assert len(lines) == 1, lines


@pytest.fixture
def fenced(tmp_path, monkeypatch):
    """A working directory in which nothing may appear outside ``input``."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "input"
    folder.mkdir()
    yield folder
    assert [path.name for path in tmp_path.iterdir()] == ["input"]


# Images, labels and lists


def encoded(array, extension, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format=extension, **options)
    return buffer.getvalue()


def pictures():
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (40, 36, 3)).astype(np.uint8)
    files = [encoded(colour, kind) for kind in ("PNG", "JPEG", "BMP", "TIFF")]
    files += [encoded(colour[..., 0], kind) for kind in ("PNG", "JPEG", "TIFF")]
    files.append(encoded(np.dstack([colour, colour[..., 0]]), "TIFF"))
    turned = Image.Exif()
    turned[0x0112] = 6
    files += [encoded(colour, kind, exif=turned) for kind in ("PNG", "JPEG")]
    files.append(encoded((colour[..., 0] > 127), "PNG"))
    files.append(encoded(colour[..., 0].astype(np.uint16) * 256, "PNG"))
    files.append(cv2.imencode(".png", colour.astype(np.uint16) * 200)[1].tobytes())
    palette = Image.fromarray(colour[..., 0] % 3, "P")
    palette.putpalette(list(range(256)) * 3)
    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    return [*files, buffer.getvalue(), b""]


@hostile("images")
def test_image_files(fenced, inputs):
    path = fenced / "a.png"

    def check(data):
        path.write_bytes(data)
        with one_line(DataError):
            image = image_files.read(path)
            assert image.dtype == np.uint8
            assert image.shape[2:] == (3,)

    run(damaged(pictures()), check, inputs)


@pytest.mark.parametrize("read", [image_files.read, lambda path: read_label(path, white=255)], ids=["image", "label"])
@pytest.mark.parametrize("place", [8, 33], ids=["first part", "second part"])
def test_a_part_of_a_png_that_claims_4_gib_does_not_take_them(tmp_path, read, place):
    data = bytearray(pictures()[0])
    data[place : place + 4] = b"\xff\xff\xff\xf0"
    (tmp_path / "a.png").write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="is damaged or truncated"):
        read(tmp_path / "a.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB


@pytest.mark.slow
@pytest.mark.parametrize(("target", "runs"), [("images", 20_000), ("checkpoints", 10_000), ("weights", 20_000)])
def test_fuzzing_that_follows_the_branches(tmp_path, checkpoints, weights, target, runs):
    pytest.importorskip("atheris")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    small = [data for data in checkpoints.values() if len(data) < 10_000]
    seeds = {"images": pictures(), "checkpoints": small, "weights": weights}
    for number, data in enumerate(seeds[target]):
        (corpus / str(number)).write_bytes(data)
    script = Path(__file__).with_name("fuzzing.py")
    words = [sys.executable, str(script), target, f"-runs={runs}", "-seed=1", "-timeout=10", str(corpus)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).partition("Uncaught")[2][:3000] or done.stderr[-3000:]
    assert f"Done {runs} runs" in done.stderr


def many_channels():
    """Return files that OpenCV does not read, each with its extension."""
    pixels = np.random.default_rng(0).integers(0, 65536, (20, 24, 5), np.uint16)
    files = []
    for options in ({"planarconfig": "contig"}, {"planarconfig": "contig", "compression": "zlib"}, {"bigtiff": True}):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, pixels, photometric="minisblack", **{"planarconfig": "contig", **options})
        files.append((".tif", buffer.getvalue()))
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels.transpose(2, 0, 1), photometric="minisblack")
    files.append((".tif", buffer.getvalue()))
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    return [*files, (".npy", buffer.getvalue()), (".npy", b"")]


@hostile("channels")
def test_files_of_many_channels(fenced, inputs):
    def check(case):
        ending, data = case
        (fenced / f"a{ending}").write_bytes(data)
        with one_line(DataError):
            image = image_files.read(fenced / f"a{ending}", 5, 16)
            assert image.dtype == np.uint16
            assert image.shape[2] == 5

    run(
        st.sampled_from(many_channels()).flatmap(lambda file: st.tuples(st.just(file[0]), damaged([file[1]]))),
        check,
        inputs,
    )


@hostile("labels")
def test_label_files(fenced, inputs):
    path = fenced / "a.png"

    def check(data):
        path.write_bytes(data)
        with one_line(DataError):
            label = read_label(path, white=255)
            assert label.ndim == 2
            assert np.issubdtype(label.dtype, np.integer)

    run(damaged(pictures()), check, inputs)


@hostile("lists")
def test_list_files(fenced, inputs):
    for folder in ("images", "labels"):
        (fenced / folder).mkdir()
        for name in ("a", "b", "c 1", "ü"):
            cv2.imwrite(str(fenced / folder / f"{name}.png"), np.zeros((8, 8), np.uint8))
    (fenced / "images" / "out.txt").write_text("")
    path = fenced / "val.txt"
    config = FolderConfig(root=str(fenced), val_list=str(path))
    names = st.sampled_from(
        ["a", "b", "c 1", "ü", "a.png", "../a", "/etc/passwd", "..", "images/a", "# a", "\\a", "~", "a\0"]
    )
    texts = st.lists(st.one_of(names, st.text(max_size=12)), max_size=6).map(lambda lines: "\n".join(lines).encode())

    def check(data):
        path.write_bytes(data)
        with one_line(DataError, ConfigError):
            val = Folder(config, "val")
            assert {*val.names} < {"a", "b", "c 1", "ü"}
            assert {path.parent for path in (val._images[name] for name in val.names)} == {fenced / "images"}

    run(st.one_of(texts, st.binary(max_size=60), damaged([b"a\nb\n", b"\xef\xbb\xbfa\r\n"])), check, inputs)


# Overrides and recorded configurations


KEYS = [
    "arch",
    "arch.width",
    "arch.encoder",
    "trainer.epochs",
    "optimizer",
    "dataset.mean",
    "dataset.class_names",
    "dataset.root",
    "seed",
    "resume",
    "tracking.uri",
    "augment.scale",
    "loss.class_weights",
    "init_from",
    "hydra.run.dir",
]
VALUES = [
    "1",
    "-1",
    "nan",
    "1e999",
    "null",
    "[]",
    "{}",
    "[1,2",
    "{a:1}",
    "${seed}",
    "${oc.env:HOME}",
    "${oc.decode:x}",
    "'",
    '"',
    "../../etc",
    "fcn9s",
    "true",
    "0x10",
    "1_0",
    "${now:%Y}",
    "range(1,5)",
    "choice(1,2)",
    "ü",
    "_target_",
]


@hostile("words")
def test_words_of_the_command_line(fenced, inputs):
    key = st.one_of(st.sampled_from(KEYS), st.text("abc._@~+/=", max_size=8))
    value = st.one_of(st.sampled_from(VALUES), st.text(max_size=8), st.floats().map(str), st.integers().map(str))
    prefix = st.sampled_from(["", "", "", "+", "++", "~"])
    word = st.builds(lambda prefix, key, value: f"{prefix}{key}={value}", prefix, key, value)

    def check(words):
        with one_line(ConfigError):
            fcnlab.compose(words)

    run(st.lists(st.one_of(word, st.text(max_size=10)), min_size=1, max_size=3), check, inputs)


@hostile("records")
def test_recorded_configurations(fenced, inputs):
    text = configuration.to_yaml(fcnlab.compose())
    originals = [
        text.encode(),
        b"a: &a [*a]\n",
        b"x: !!python/object/apply:os.system ['touch stray']\n",
        b"- 1\n",
        b"\0",
    ]
    (fenced / "journal.jsonl").write_text("")

    def check(data):
        (fenced / "config.yaml").write_bytes(data)
        with one_line(ConfigError):
            fcnlab.compose([f"from_run={fenced}"])
        with one_line(ConfigError):
            fcnlab.compose([f"resume={fenced}"])

    run(damaged(originals), check, inputs)


# Checkpoints


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A valid file of each kind: weights, state, and MindSpore's own format."""
    folder = tmp_path_factory.mktemp("valid")
    save_checkpoint(folder / "best.safetensors")
    parameters = {"a": ms.Parameter(ms.Tensor(np.ones((3, 4), np.float32)), name="a")}
    document = {"ignore_index": 255, "class_names": ["a", "b"]}
    state = StateFolder(folder).save(Progress(steps=1, losses=[0.5]), parameters, document)
    ms.save_checkpoint([{"name": "a", "data": ms.Tensor(np.ones((3, 4), np.float32))}], str(folder / "net.ckpt"))
    return {
        "best.safetensors": (folder / "best.safetensors").read_bytes(),
        "state_00000001.safetensors": state.read_bytes(),
        "net.ckpt": (folder / "net.ckpt").read_bytes(),
    }


class Bomb:
    def __reduce__(self):
        return os.system, ("touch stray",)


@hostile("checkpoints")
def test_checkpoints(fenced, inputs, checkpoints):
    small = {name: data for name, data in checkpoints.items() if len(data) < 10_000}
    header = checkpoints["best.safetensors"][:20_000]
    originals = [
        *small.values(),
        header,
        pickle.dumps(Bomb()),
        b"",
        b"\xff" * 16,
        (2**60).to_bytes(8, "little") + b"{}",
    ]

    def check(data):
        for name in checkpoints:
            path = fenced / name
            path.write_bytes(data)
            for read in (read_weights, read_metadata, read_state, fcnlab.load):
                with one_line(CheckpointError):
                    read(path)
            path.unlink()

    run(damaged(originals), check, inputs)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A valid file of each format of other packages, and a pickle that would run something."""
    folder = tmp_path_factory.mktemp("weights")
    arrays = {"conv1_1.weight": np.ones((2, 3, 3, 3), np.float32), "conv1_1.bias": np.zeros(2, np.float32)}
    tensors = [weight_files.onnx_tensor(name, array) for name, array in arrays.items()]
    nodes = [weight_files.onnx_node("Conv", ["x", *arrays], ["y"])]
    np.savez(folder / "a.npz", **arrays)
    np.savez_compressed(folder / "b.npz", **arrays)
    save_file(arrays, folder / "a.safetensors")
    weight_files.torch_file(folder / "a.pth", arrays)
    weight_files.torch_file(folder / "b.pth", arrays, pickle.dumps(Bomb(), 2)[2:-1])
    elements = [{"name": name, "data": ms.Tensor(array)} for name, array in arrays.items()]
    ms.save_checkpoint(elements, str(folder / "a.ckpt"))
    with suppress(ModuleNotFoundError):
        import h5py

        with h5py.File(folder / "a.h5", "w") as file:
            for name, array in arrays.items():
                file[f"layers/{name}"] = array
    files = [path.read_bytes() for path in sorted(folder.iterdir())]
    files += [weight_files.caffe_file({"conv1_1": [*arrays.values()]}, version) for version in (1, 2)]
    return [*files, weight_files.onnx_file(tensors, nodes, {"fcnlab": "{}"})]


@hostile("weights")
def test_weights_of_other_packages(fenced, inputs, weights):
    path = fenced / "weights"

    def check(data):
        path.write_bytes(data)
        with one_line(CheckpointError):
            file = foreign.read(path)
            assert {array.dtype for array in file.arrays.values()} == {np.dtype(np.float32)}
            foreign.recognise(file, "weights")

    run(damaged(weights), check, inputs)


def published_layouts():
    """Arrays under the names of torchvision, of FCN's authors, of Caffe's AlexNet and of this package."""
    vgg = weight_files.vgg_convolutions(width=1 / 64)
    caffe = {f"conv{block}_{index}": layer for (block, index), layer in vgg.items()} | weight_files.vgg_dense(1 / 64)
    alexnet = {f"conv{number}": (np.zeros((4, 2, 3, 3)), np.zeros(4)) for number in range(1, 6)}
    heads = {
        **{"score_fr": (np.zeros((2, 64, 1, 1)), np.zeros(2)), "upscore2": (np.zeros((2, 2, 4, 4)), np.zeros(2))},
        **{"score_pool4": (np.zeros((2, 8, 1, 1)), np.zeros(2)), "scale_pool4": (np.zeros(8), np.zeros(1))},
    }
    own = build_model("fcn16s", 2, width=1 / 64, norm="batch").parameters_dict()
    layered = [
        {f"{name}.{part}": array for name, layer in layers.items() for part, array in zip(("weight", "bias"), layer)}  # noqa: B905
        for layers in (caffe | heads, alexnet | heads)
    ]
    torchvision = [weight_files.torchvision_vgg(norm=norm, width=1 / 64) for norm in (False, True)]
    return [*layered, *torchvision, {name: parameter.asnumpy() for name, parameter in own.items()}]


@st.composite
def misshapen(draw, originals):
    """Draw arrays of a known layout, of which some are absent, of another shape or not finite."""
    arrays = dict(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from(sorted(arrays)))
        kind = draw(st.sampled_from(["absent", "shape", "nan", "turned"]))
        if kind == "absent":
            del arrays[name]
        elif kind == "nan":
            arrays[name] = np.full(arrays[name].shape, draw(st.sampled_from([np.nan, np.inf, 3e38])), np.float32)
        elif kind == "turned":
            arrays[name] = arrays[name].T
        else:
            arrays[name] = np.zeros(draw(st.lists(st.sampled_from([0, 1, 2, 3, 8]), max_size=5)), np.float32)
    return arrays


@hostile("layouts")
def test_arrays_of_known_names_and_other_shapes(fenced, inputs):
    names = ("fcn16s", "fcn8s", "paper/fcn16s", "paper/fcn_alexnet")
    networks = [build_model(name, 2, width=1 / 64, **({} if "/" in name else {"norm": "none"})) for name in names]
    networks.append(build_model("fcn16s", 2, width=1 / 64, norm="batch"))

    def check(arrays):
        np.savez(fenced / "a.npz", **arrays)
        for network, partial in zip(networks, (True, False, True, True, True), strict=True):
            with one_line(CheckpointError):
                foreign.initialise(network, fenced / "a.npz", "weights", mean=[0.5] * 3, std=[0.2] * 3, partial=partial)
            assert first_nonfinite(network.parameters_dict()) is None

    run(misshapen(published_layouts()), check, inputs)


@pytest.mark.parametrize("name", ["best.safetensors", "state_00000001.safetensors"])
def test_a_flipped_bit_anywhere_is_found(tmp_path, checkpoints, name):
    data, rng = checkpoints[name], np.random.default_rng(0)
    for position in [*range(8), *rng.integers(8, len(data), 60)]:
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(rng.integers(8))
        (tmp_path / name).write_bytes(flipped)
        with pytest.raises(CheckpointError, match="not a readable checkpoint"):
            read_weights(tmp_path / name)


@pytest.mark.parametrize(
    "arch",
    [None, [], {}, "fcn8s", {"name": "fcn8s"}, {"name": "os.system", "num_classes": 2, "width": 1},
     {"name": "fcn8s", "num_classes": 2, "width": 1e9}, {"name": "fcn8s", "num_classes": 10**9, "width": 0.1},
     {"name": "fcn8s", "num_classes": 2, "width": float("nan")}, {"name": "fcn8s", "num_classes": 2, "width": "1"},
     {"name": "fcn8s", "num_classes": 2, "width": 0.1, "command": "x"}],
)  # fmt: skip
def test_a_checkpoint_of_no_network_that_can_be_built_is_one_line(tmp_path, arch):
    from fcnlab.models.checkpoint import save_parameters

    save_parameters(tmp_path / "a.safetensors", {}, {"arch": arch}, {"x": np.zeros(2, np.float32)})
    with pytest.raises(CheckpointError, match="describes no network") as caught:
        fcnlab.load(tmp_path / "a.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.ckpt", "a.safetensors"])
def test_a_pickle_is_not_executed(fenced, name):
    (fenced / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError):
        fcnlab.load(fenced / name)
    with pytest.raises(FcnlabError):
        recorded.resumed_folder(str(fenced / name))


@pytest.mark.parametrize(
    "text", ["x: !!python/object/apply:os.system ['touch stray']", "seed: ${oc.env:HOME}", "hydra: {run: {dir: /tmp}}",
             "arch: {_target_: os.system, width: 1}", "dataset: {name: cells, root: '${oc.decode:1}'}"],
)  # fmt: skip
def test_a_recorded_configuration_cannot_run_or_read_anything(fenced, text):
    (fenced / "config.yaml").write_text(text)
    with pytest.raises(ConfigError):
        fcnlab.compose([f"from_run={fenced}"])


# Requests to a served model


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    import mlflow

    from fcnlab.tracking.packaging import package

    folder = tmp_path_factory.mktemp("served")
    package(save_checkpoint(folder / "best.safetensors"), folder / "model")
    yield mlflow.pyfunc.load_model(str(folder / "model"))
    shutil.rmtree(folder)


@hostile("requests")
def test_requests(tmp_path, monkeypatch, served, inputs):
    from mlflow.pyfunc.scoring_server import invocations

    monkeypatch.chdir(tmp_path)
    schema = served.metadata.get_input_schema()
    image = np.zeros((1, 32, 32, 3), int).tolist()
    leaf = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
    nested = st.recursive(
        leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    )
    shapes = st.tuples(*[st.integers(0, 34)] * 3, st.integers(0, 4)).map(lambda shape: np.zeros(shape, int).tolist())
    bodies = st.one_of(nested, st.fixed_dictionaries({"inputs": st.one_of(nested, shapes, st.just(image))}),
                       st.dictionaries(st.sampled_from(["instances", "dataframe_split"]), nested))  # fmt: skip
    texts = bodies.map(lambda body: json.dumps(body).encode())
    answered = []

    def check(data):
        try:
            status = invocations(data, "application/json", served, schema).status
        except MlflowException as error:  # which the server answers with its status
            status = error.get_http_status_code()
        assert 200 <= status < 500
        answered.append(status)

    run(st.one_of(texts, damaged([json.dumps({"inputs": image}).encode()])), check, inputs)
    assert {200, 400} <= {*answered}
    assert not list(tmp_path.iterdir())
