"""What `prepare` accepts, `train` accepts, and every label lies on the image that it was made for."""

import shlex

import numpy as np
import pytest
import tifffile
from generated_sources import COLOURS, ENCODINGS, LAYOUTS, NAMES, OTHERS, make
from PIL import Image
from prepare_words import prepare_config

import fcnlab
from fcnlab.config import compose
from fcnlab.config.schema import CamvidConfig, PrepareConfig
from fcnlab.data.folder import folder
from fcnlab.evaluate import evaluate
from fcnlab.predict import predict
from fcnlab.prepare import check, prepare

LOSSLESS = (".png", ".bmp", ".tif", ".ppm")


def prepared(tmp_path, words, *more):
    given = [f"source={tmp_path / 'source'}", f"root={tmp_path / 'data'}", *words, *more]
    return prepare(prepare_config(*given))


def samples(root, *more):
    return samples_of(fcnlab.compose(["dataset=folder", f"dataset.root={root}", *more]).dataset)


def samples_of(config):
    splits = [folder(config, split) for split in ("train", "val")]
    return [{sample.name: sample for sample in (split[index] for index in range(len(split)))} for split in splits]


def require_truth(config, truth):
    train, val = samples_of(config)
    assert not train.keys() & val.keys()
    assert {*train, *val} == {*truth}
    for name, sample in {**train, **val}.items():
        image, label = truth[name]
        np.testing.assert_array_equal(sample.image, image, err_msg=name)
        np.testing.assert_array_equal(sample.label, label, err_msg=name)


CASES = [
    *((kind, LAYOUTS[number % len(LAYOUTS)]) for number, kind in enumerate(ENCODINGS)),
    *(("indices", layout) for layout in LAYOUTS[1:]),
    *((kind, "plain") for kind in OTHERS),
]


@pytest.mark.parametrize(("kind", "layout"), CASES)
def test_every_layout_and_encoding(tmp_path, kind, layout):
    seed = CASES.index((kind, layout))
    names = [NAMES[(seed * 3 + number) % len(NAMES)] for number in range(4)]
    words, truth = make(tmp_path / "source", seed, kind, names, LOSSLESS[seed % 4], layout)
    root = prepared(tmp_path, words)
    checked = compose(["check=true", f"root={root}"], "prepare")
    require_truth(checked.dataset, truth)
    assert check(checked).problems == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_many_more(tmp_path, seed):
    random = np.random.default_rng(1000 + seed)
    kind = random.choice([*ENCODINGS, *OTHERS])
    layout = random.choice(LAYOUTS) if kind in ENCODINGS else "plain"
    names = random.choice(NAMES, 6, replace=False).tolist()
    words, truth = make(tmp_path / "source", seed, kind, names, random.choice(LOSSLESS), layout)
    root = prepared(tmp_path, words, f"split_seed={seed}")
    require_truth(fcnlab.compose(["dataset=folder", f"dataset.root={root}"]).dataset, truth)


def test_a_folder_whose_name_has_every_mark_trains_predicts_and_evaluates_to_what_is_counted_by_hand(
    tmp_path, monkeypatch, caplog
):
    place = tmp_path / "a?b%20c=d, e'f"
    place.mkdir()
    monkeypatch.chdir(place)
    words, truth = make(place / "source", 5, "composite stack", [])
    caplog.set_level("INFO")
    prepare(compose(["source=source", "root=data", *words], "prepare"))
    said = next(record.getMessage() for record in caplog.records if record.getMessage().startswith("to train:"))
    command = shlex.split(said.removeprefix("to train: "))
    assert command[:3] == ["python", "-m", "fcnlab.train"]
    tiny = ["dataset.crop_size=32", "arch=fcn32s", "arch.width=0.03125", "trainer.max_steps=1", "trainer.batch_size=2"]
    result = fcnlab.train(
        fcnlab.compose([*command[3:], *tiny, "tracking=none", "trainer.mode=pynative"]), place / "out"
    )
    checkpoint = f"checkpoint='{result.best_checkpoint}'".replace("e'f", "e\\'f")
    predict(compose([checkpoint, "input=source/images", "output=labelled"], "predict"))
    counts = np.zeros((2, 2), np.int64)
    for name, (_, label) in truth.items():
        mask = np.asarray(Image.open(place / "labelled" / "masks" / f"{name}.png"))
        np.add.at(counts, (label.ravel(), mask.ravel()), 1)
    measured = evaluate(compose([checkpoint, *command[3:], "split=all", "output=measured"], "evaluate"))
    np.testing.assert_array_equal(measured.confusion.counts, counts)


def photo(path, shown, orientation):
    """Save a photo whose stored pixels are to be turned about, by its metadata, to be as shown."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(shown).save(path, exif=exif)


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("factor", [1, 2])
def test_photos_are_trained_on_as_they_were_prepared(tmp_path, turned, factor):
    """The labels of half the size tell nothing, so that what was declared has to reach the training."""
    random = np.random.default_rng(0)
    for name in "ab":
        label = (random.random((16, 20)) > 0.5).astype(np.uint8)
        bright = np.kron(label, np.full((factor, factor), 200, np.uint8))
        photo(tmp_path / "source" / "images" / f"{name}.png", bright[::-1, ::-1] if turned else bright, 3)
        (tmp_path / "source" / "labels").mkdir(exist_ok=True)
        Image.fromarray(label).save(tmp_path / "source" / "labels" / f"{name}.png")
    words = ["classes=[background,cell]", "annotation_scale=true", f"turned={str(turned).lower()}"]
    for split in samples(prepared(tmp_path, words)):
        for sample in split.values():
            np.testing.assert_array_equal(sample.image[..., 0] == 200, sample.label == 1)


def test_a_published_data_set_is_trained_on_as_it_is_stored(tmp_path):
    shown = np.zeros((16, 20), np.uint8)
    shown[2:5, 3:9] = 1
    for split in ("train", "val"):
        photo(tmp_path / "source" / split / f"{split}.png", shown * 200, 3)
        (tmp_path / "source" / f"{split}annot").mkdir()
        Image.fromarray(shown).save(tmp_path / "source" / f"{split}annot" / f"{split}.png")
    config = PrepareConfig(CamvidConfig(), source=str(tmp_path / "source"), root=str(tmp_path / "data"))
    for split in samples(prepare(config)):
        for sample in split.values():
            np.testing.assert_array_equal(sample.image[..., 0] == 200, sample.label == 1)


def tiffs(root, images, labels):
    """Save TIFFs whose pages are grey and say nothing of their dimensions."""
    for place, files in (("images", images), ("labels", labels)):
        (root / place).mkdir(parents=True)
        for name, pixels in files.items():
            tifffile.imwrite(root / place / f"{name}.tif", pixels, photometric="minisblack", metadata=None)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_each_page_without_metadata_is_an_image(tmp_path, kind):
    """There are as many pages as an image has channels."""
    random, count = np.random.default_rng(0), 3
    images = random.integers(0, 256, (count, 16, 20)).astype(kind) * (257 if kind == np.uint16 else 1)
    labels = random.integers(0, 2, (count, 16, 20)).astype(np.uint8)
    tiffs(tmp_path / "source", {"s": images}, {"s": labels})
    root = prepared(tmp_path, ["classes=[background,cell]"])
    truth = {
        f"s-{number:04d}": (np.repeat((image & 255)[..., None], 3, axis=2), labels[number])
        for number, image in enumerate(images)
    }
    require_truth(fcnlab.compose(["dataset=folder", f"dataset.root={root}"]).dataset, truth)


@pytest.mark.parametrize("bits", [8, 16])
def test_records_are_made_of_the_samples_that_a_training_reads(tmp_path, monkeypatch, bits):
    random, kind = np.random.default_rng(0), {8: np.uint8, 16: np.uint16}[bits]
    images = {name: random.integers(0, 2**bits, (5, 16, 20)).astype(kind) for name in "ab"}
    labels = {name: random.integers(0, 2, (16, 20)).astype(np.uint8) for name in "ab"}
    tiffs(tmp_path / "source", images, labels)
    found = {}

    def write_split(root, split, samples):
        found[split] = {sample.name: sample for sample in samples}
        return True

    monkeypatch.setattr("fcnlab.preparation.mindrecord_shards.write_split", write_split)
    prepared(tmp_path, ["classes=[background,cell]"], "channels=5", f"bits={bits}", "records=true")
    assert sorted([*found["train"], *found["val"]]) == ["a", "b"]
    for name, sample in {**found["train"], **found["val"]}.items():
        np.testing.assert_array_equal(sample.image, images[name].transpose(1, 2, 0))
        np.testing.assert_array_equal(sample.label, labels[name])


def test_a_source_whose_images_changed_their_extension_leaves_no_twin(tmp_path):
    words, truth = make(tmp_path / "source", 0, "indices", ["a", "b"], ".png")
    root = prepared(tmp_path, words)
    for name, (image, _) in truth.items():
        (tmp_path / "source" / "images" / f"{name}.png").unlink()
        Image.fromarray(image).save(tmp_path / "source" / "images" / f"{name}.bmp")
    prepared(tmp_path, words)
    require_truth(fcnlab.compose(["dataset=folder", f"dataset.root={root}"]).dataset, truth)
    assert sorted(path.name for path in (root / "images").iterdir()) == ["a.bmp", "b.bmp"]


def test_labels_are_written_again_in_the_colours_of_a_later_call(tmp_path):
    """Old and new labels of one folder have one palette, as a training demands."""
    place, green = tmp_path / "source", [0, 160, 0]
    words, truth = make(place, 0, "colours", ["a", "b"])
    root = prepared(tmp_path, words)
    before = {path.name: path.stat().st_mtime_ns for path in (root / "labels").iterdir()}
    prepared(tmp_path, words)
    assert {path.name: path.stat().st_mtime_ns for path in (root / "labels").iterdir()} == before
    more, added = make(tmp_path / "more", 1, "colours", ["c", "d"])
    for part in ("images", "labels"):
        for path in (tmp_path / "more" / part).iterdir():
            path.rename(place / part / path.name)
    for path in (place / "labels").iterdir():
        pixels = np.array(Image.open(path))
        pixels[(pixels == COLOURS[1]).all(axis=2)] = green
        Image.fromarray(pixels).save(path)
    recoloured = f"colours={[COLOURS[0], green]}".replace(" ", "")
    prepared(tmp_path, [recoloured if word.startswith("colours=") else word for word in more])
    assert [Image.open(path).getpalette()[3:6] for path in (root / "labels").iterdir()] == [green] * 4
    require_truth(fcnlab.compose(["dataset=folder", f"dataset.root={root}"]).dataset, {**truth, **added})


def test_files_of_others_are_not_written_over(tmp_path):
    words, _ = make(tmp_path / "source", 0, "indices", ["a", "b"])
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "images" / "a.png").write_bytes(b"mine")
    with pytest.raises(fcnlab.FcnlabError, match="is there already with other content"):
        prepared(tmp_path, words)
    assert (tmp_path / "data" / "images" / "a.png").read_bytes() == b"mine"


def test_folds_and_test_images_of_a_prepared_folder(tmp_path):
    words, truth = make(tmp_path / "source", 1, "indices", [f"p{number // 2}-{number % 2}" for number in range(12)])
    root = prepared(tmp_path, words, "folds=4", "fold=1", "test_fraction=0.3", "group_by='p[0-9]+'")
    test = (root / "test.txt").read_text().split()
    assert len(test) == 4
    train, val = samples(root)
    folds = [samples(root, f"dataset.fold={fold}") for fold in range(4)]
    assert [*folds[1][1]] == [*val]
    assert [*folds[1][0]] == [*train]
    held = [name for _, members in folds for name in members]
    assert sorted([*held, *test]) == sorted(truth)
    validation = folder(fcnlab.compose(["dataset=folder", f"dataset.root={root}"]).dataset, "val")
    assert validation.groups == [name[:2] for name in validation.names]
    for others, members in folds:
        assert {*others, *members} == {*held}
        assert not {name[:2] for name in others} & {name[:2] for name in members}
    with pytest.raises(fcnlab.FcnlabError, match=r"dataset\.fold=4: .*has the folds 0 to 3"):
        samples(root, "dataset.fold=4")
