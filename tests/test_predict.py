"""The command labels images; most tests run it in this process, since MindSpore takes seconds to load."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import user_environment
from PIL import Image
from tiny_network import METADATA, compile_once, save_checkpoint, some_image

import fcnlab
from fcnlab import config as configuration
from fcnlab.core.errors import ConfigError, DataError
from fcnlab.drawing.lettering import ROW
from fcnlab.predict import predict


@pytest.fixture(scope="module", autouse=True)
def shared_networks():
    with pytest.MonkeyPatch.context() as patch:
        compile_once(patch)
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.safetensors")


@pytest.fixture(scope="module")
def network(checkpoint):
    return fcnlab.load(checkpoint)


@pytest.fixture
def folder(tmp_path):
    """A folder with images of two sizes, which one graph for 64 x 64 computes; one image is in a subfolder."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name, size in (("a", (64, 64)), ("b", (64, 64)), ("sub/c", (40, 60))):
        Image.fromarray(some_image(*size, seed=ord(name[-1]))).save(tmp_path / "in" / f"{name}.png")
    return tmp_path


def run(checkpoint, folder, *overrides):
    given = [f"checkpoint={checkpoint}", f"input={folder / 'in'}", f"output={folder / 'out'}"]
    return predict(configuration.compose([*given, *overrides], "predict"))


def mask(folder, name):
    return np.asarray(Image.open(folder / "out" / "masks" / f"{name}.png"))


def test_masks_are_indexed_with_the_data_sets_palette(checkpoint, folder, network):
    outcome = run(checkpoint, folder)
    assert sorted(outcome.written) == ["a", "b", "sub/c"]
    for name in outcome.written:
        image = np.asarray(Image.open(folder / "in" / f"{name}.png"))
        labels = network.predict(image)
        assert (mask(folder, name) == labels).mean() > 0.999
        stored = Image.open(folder / "out" / "masks" / f"{name}.png")
        assert stored.mode == "P"
        assert stored.getpalette()[:9] == np.ravel(METADATA["palette"]).tolist()
        shown = np.asarray(stored.convert("RGB"))
        np.testing.assert_array_equal(shown, np.array(METADATA["palette"])[mask(folder, name)])
        overlay = np.asarray(Image.open(folder / "out" / "overlays" / f"{name}.png"))
        height, width = labels.shape
        factor = -(-80 // width)  # an image that is narrower than a title is enlarged
        large = image.repeat(factor, axis=0).repeat(factor, axis=1)
        np.testing.assert_array_equal(overlay[ROW : ROW + factor * height, : factor * width], large)
        assert overlay.shape[1] > 2 * width
        for colour in METADATA["palette"]:  # the legend has a patch of each colour
            assert (overlay[:, 2 * width :] == colour).all(axis=-1).any()
    assert not (folder / "out" / "probabilities").exists()


def test_probabilities_are_kept_as_float16(checkpoint, folder, network):
    run(checkpoint, folder, "probabilities=true", "overlays=false")
    with np.load(folder / "out" / "probabilities" / "sub" / "c.npz", allow_pickle=False) as stored:
        probabilities, names = stored["probabilities"], stored["class_names"]
    assert (probabilities.dtype, probabilities.shape) == (np.float16, (3, 40, 60))
    assert names.tolist() == METADATA["class_names"]
    image = np.asarray(Image.open(folder / "in" / "sub" / "c.png"))
    np.testing.assert_allclose(probabilities, network.probabilities(image), atol=1e-3)
    assert (probabilities.argmax(axis=0) == mask(folder, "sub/c")).mean() > 0.99
    assert not (folder / "out" / "overlays").exists()


def test_what_is_there_is_skipped_and_what_is_missing_made(checkpoint, folder):
    run(checkpoint, folder)
    first, second = (folder / "out" / "masks" / f"{name}.png" for name in "ab")
    second.unlink()
    before = first.stat().st_mtime_ns
    outcome = run(checkpoint, folder)
    assert (outcome.written, outcome.skipped) == (["b"], 2)
    assert first.stat().st_mtime_ns == before
    assert second.exists()
    assert len(run(checkpoint, folder, "overwrite=true").written) == 3


def test_predictions_of_two_checkpoints_are_not_mixed(checkpoint, folder):
    run(checkpoint, folder)
    other = save_checkpoint(folder / "other.safetensors", {**METADATA["arch"], "name": "fcn16s"})
    with pytest.raises(ConfigError, match=r"holds predictions with another checkpoint; .*overwrite=true"):
        run(other, folder)
    with pytest.raises(ConfigError, match="another flip"):
        run(checkpoint, folder, "flip=true")
    assert len(run(other, folder, "overwrite=true").written) == 3


def test_a_bad_file_costs_only_itself(checkpoint, folder):
    (folder / "in" / "a.png").write_bytes(b"nonsense")
    (folder / "in" / "clip.avi").write_bytes(b"nonsense")
    outcome = run(checkpoint, folder)
    assert sorted(outcome.written) == ["b", "sub/c"]
    [problem] = outcome.failed
    assert "a.png' is damaged" in problem


def test_options_reach_the_network(checkpoint, folder, network):
    run(checkpoint, folder, "flip=true", "scales=[0.75,1.0]")
    image = np.asarray(Image.open(folder / "in" / "a.png"))
    expected = network.predict(image, flip=True, scales=[0.75, 1.0])
    assert (mask(folder, "a") == expected).mean() > 0.999
    assert (network.predict(image) != expected).any()
    assert json.loads((folder / "out" / "predict.json").read_text())["scales"] == [0.75, 1.0]


def test_a_disk_that_takes_nothing_is_one_line(checkpoint, folder):
    (folder / "out").write_text("a file")
    with pytest.raises(DataError, match="cannot write") as caught:
        run(checkpoint, folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["chekpoint=a"], "chekpoint: no such key; did you mean checkpoint?"),
        (["output=a"], "checkpoint: give a value"),
        (["checkpoint=a", "input=a", "output=a", "tile=100"], "tile=100: must be at least 480"),
        (["checkpoint=a", "input=a", "output=a", "scales=[0]"], "scales=[0.0]: must be at least 0.1"),
        (["checkpoint=a", "input=a", "output=a", "device=tpu"], "device=tpu: choose one of auto, cpu, ascend"),
        (["+foo=1"], "foo: no such key"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_loaded(overrides, text):
    with pytest.raises(ConfigError) as caught:
        configuration.compose(overrides, "predict")
    assert str(caught.value).startswith(text)


@pytest.mark.usefixtures("forked_python")
def test_the_command_reports_by_its_exit_code(checkpoint, folder):
    (folder / "in" / "a.png").write_bytes(b"nonsense")
    overrides = [f"checkpoint={checkpoint}", "input=in", "output=out"]
    done = subprocess.run(
        [sys.executable, "-m", "fcnlab.predict", *overrides],
        cwd=folder,
        env=user_environment(),
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "fcnlab: image 'in/a.png' is damaged or truncated: replace it, or remove it; the rest is labelled"
    )
    assert "2 labelled, 0 skipped, 1 failed" in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["in", "out"]  # no log, no .hydra


@pytest.mark.parametrize(
    "name", ["evaluate", *(pytest.param(name, marks=pytest.mark.slow) for name in ("predict", "export"))]
)
def test_help_comes_at_once_and_names_the_keys(tmp_path, name):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", f"fcnlab.{name}", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    assert "checkpoint: null" in done.stdout
    assert "python -m fcnlab." in done.stdout
    for slow in ("mindspore", "mlflow", "cv2", "torch"):
        assert f" {slow}\n" not in done.stderr  # the lines of the imports
    assert not list(tmp_path.iterdir())


def test_no_two_images_are_written_to_one_file(checkpoint, folder):
    for path in (folder / "in").rglob("*.png"):
        path.unlink()
    images = {name: some_image(64, 64, seed=seed) for seed, name in enumerate(("a.png", "a.bmp", "a.png.png"))}
    for name, image in images.items():
        Image.fromarray(image).save(folder / "in" / name)
    pages = [some_image(64, 64, seed=number) for number in (7, 8)]
    Image.fromarray(pages[0]).save(folder / "in" / "s.tif", save_all=True, append_images=[Image.fromarray(pages[1])])
    Image.fromarray(some_image(40, 60, seed=9)).save(folder / "in" / "s-0000.png")
    outcome = run(checkpoint, folder)
    expected = ["a.bmp", "a.png", "a.png.png", "s-0000", "s.tif-0000", "s.tif-0001"]
    assert sorted(outcome.written) == expected
    assert sorted(path.name for path in (folder / "out" / "masks").iterdir()) == [f"{name}.png" for name in expected]
    assert mask(folder, "s-0000").shape == (40, 60)
    assert run(checkpoint, folder).skipped == len(expected)


def test_a_prediction_is_not_taken_for_that_of_another_file(checkpoint, folder, tmp_path):
    run(checkpoint, folder, "overlays=false")
    (folder / "other").mkdir()
    Image.fromarray(some_image(64, 64, seed=5)).save(folder / "other" / "a.png")
    again = [f"input={folder / 'other'}", "overlays=false"]
    with pytest.raises(
        ConfigError, match=r"'a' is there already, made from '.*in/a\.png' and not from '.*other/a\.png'"
    ):
        run(checkpoint, folder, *again)
    assert run(checkpoint, folder, *again, "overwrite=true").written == ["a"]
