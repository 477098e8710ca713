"""``python -m fcnlab.prepare``, as a user runs it."""

import json
import shutil
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import yaml
from conftest import refused
from PIL import Image

import fcnlab
from fcnlab.config import compose
from fcnlab.core.errors import FcnlabError
from fcnlab.evaluate import evaluate
from fcnlab.experiment import assembly, evaluation_data
from fcnlab.predict import predict
from fcnlab.preparation.annotated_images import Depths
from fcnlab.prepare import check, prepare


def image_of(height=40, width=48):
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def source(tmp_path):
    """Five images, one as JPEG, with binary labels; one name has letters of its own."""
    root = tmp_path / "microscope"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number, stem in enumerate(["1", "2", "10", "Zelle ä", "x"]):
        ending = ".jpg" if stem == "x" else ".png"
        image = image_of(40 + number)
        cv2.imencode(ending, image)[1].tofile(root / "images" / f"{stem}{ending}")
        label = np.zeros(image.shape[:2], np.uint8)
        label[:, 10 + number :] = 255
        cv2.imencode(".png", label)[1].tofile(root / "labels" / f"{stem}.png")
    return root


def words(*given):
    return compose(given, "prepare")


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def opened(root, *more):
    return assembly.build_data(fcnlab.compose(["dataset=folder", f"dataset.root={root}", *more]))


@pytest.mark.usefixtures("real_figures")
def test_what_is_prepared_trains_with_no_other_word(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = contents(source)
    root = prepare(words(f"source={source}", "classes=[membrane,cell]", "root=data", "val_fraction=0.4"))
    assert contents(source) == before
    data = opened(root)
    assert (len(data.train), len(data.val)) == (3, 2)
    assert set(data.train.names) | set(data.val.names) == {"1", "2", "10", "Zelle ä", "x"}
    for split in data:
        for index in range(len(split)):
            assert set(np.unique(split[index].label)) == {0, 1}
    described = yaml.safe_load((root / "dataset.yaml").read_text(encoding="utf-8"))
    pixels = np.concatenate([data.train[index].image.reshape(-1, 3) for index in range(3)]) / 255
    np.testing.assert_allclose(described["mean"], pixels.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(described["std"], pixels.std(axis=0), atol=1e-4)
    assert described["class_pixels"] == data.train.class_pixels(2).sum(axis=0).tolist()
    assert cv2.imread(str(root / "preview.png")).std() > 10
    trained = fcnlab.compose(
        [
            *("dataset=folder", f"dataset.root={root}", "dataset.crop_size=32", "arch=fcn32s", "arch.width=0.03125"),
            *("trainer.max_steps=1", "trainer.batch_size=2", "tracking=none", "trainer.mode=pynative"),
        ]
    )
    result = fcnlab.train(trained, tmp_path / "out")
    assert set(result.best.evaluation.metrics) >= {"val/iou/membrane", "val/iou/cell"}


@pytest.mark.slow  # each step of it has a test of its own in tests/data, tests/preparation and tests/inference
@pytest.mark.parametrize("ending", [".npy", ".tif"])
def test_five_channels_of_sixteen_bits_from_files_to_label_maps(tmp_path, monkeypatch, ending):
    monkeypatch.chdir(tmp_path)
    random, images = np.random.default_rng(0), []
    for folder in ("source/images", "source/labels"):
        Path(folder).mkdir(parents=True)
    for number in range(3):
        image = random.integers(0, 65536, (40, 48, 5), np.uint16) // np.array([1, 2, 4, 8, 16], np.uint16)
        path = Path(f"source/images/{number}{ending}")
        np.save(path, image) if ending == ".npy" else tifffile.imwrite(path, image, planarconfig="contig")
        cv2.imwrite(f"source/labels/{number}.png", (image[..., 0] > 30000).astype(np.uint8))
        images.append(image)
    records = f"records={str(ending == '.npy').lower()}"
    prepare(words("source=source", "root=data", "classes=[a,b]", "channels=5", "bits=16", "val_fraction=0.4", records))
    described = yaml.safe_load(Path("data/dataset.yaml").read_text(encoding="utf-8"))
    assert (described["channels"], described["bits"]) == (5, 16)
    data = opened("data")
    values = np.concatenate([images[int(name)].reshape(-1, 5) for name in data.train.names]) / 65535
    np.testing.assert_allclose(described["mean"], values.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(described["std"], values.std(axis=0), atol=1e-4)
    assert not check(words("check=true", "root=data")).problems

    trained = [
        *("dataset=folder", "dataset.root=data", "dataset.crop_size=32", "arch=fcn32s", "arch.width=0.03125"),
        *("trainer.max_steps=2", "trainer.batch_size=2", "trainer.mode=pynative", "augment=em", "augment.noise=0.05"),
    ]
    result = fcnlab.train(fcnlab.compose([*trained, "tracking=none"]), tmp_path / "out")
    checkpoint = f"checkpoint={result.best_checkpoint}"
    network = fcnlab.load(result.best_checkpoint)
    assert (network.channels, network.bits) == (5, 16)
    predict(compose([checkpoint, "input=source/images", "output=labelled"], "predict"))
    for number, image in enumerate(images):
        mask = np.asarray(Image.open(f"labelled/masks/{number}.png"))
        np.testing.assert_array_equal(mask, network.predict(image))
    # Without the description, the checkpoint says how the files are to be read.
    Path("data/dataset.yaml").unlink()
    on_data = ["dataset=folder", "dataset.root=data", "split=all", "dataset.class_names=[a,b]", "output=measured"]
    measured = evaluate(compose([checkpoint, *on_data], "evaluate"))
    assert measured.confusion.counts.sum() == 3 * 40 * 48
    labels = np.stack([image[..., 0] > 30000 for image in images])
    right = labels == np.stack([network.predict(image) for image in images])
    assert measured.metrics["pixel_accuracy"] == pytest.approx(right.mean())
    with pytest.raises(FcnlabError, match="dataset=cells: its images have 3 channels of 8 bits, and the checkpoint"):
        evaluate(compose([checkpoint, "dataset=cells", "dataset.class_names=[a,b]"], "evaluate"))


def test_channels_are_for_folders(tmp_path):
    text = refused(lambda given: prepare(words(*given)), "dataset=camvid", f"source={tmp_path}", "root=x", "channels=5")
    assert text.startswith(
        "channels, bits, value_range and tile are for dataset=folder: the images of dataset=camvid have 3"
    )


@pytest.fixture
def twelve_bits(tmp_path, monkeypatch):
    """Two files and a stack of two pages, of twelve bits in sixteen but for one pixel; returns their values by name."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for folder in ("source/images", "source/labels"):
        Path(folder).mkdir(parents=True)
    files = {name: random.integers(0, 4096, (40, 48), np.uint16) for name in "ab"}
    pages = random.integers(0, 4096, (2, 40, 48), np.uint16)
    pages[1, 0, 0] = 5000
    for name, image in files.items():
        cv2.imwrite(f"source/images/{name}.png", image)
        cv2.imwrite(f"source/labels/{name}.png", (image > 2000).astype(np.uint8))
    tifffile.imwrite("source/images/s.tif", pages, imagej=True, metadata={"axes": "ZYX"})
    tifffile.imwrite("source/labels/s.tif", (pages > 2000).astype(np.uint8), imagej=True, metadata={"axes": "ZYX"})
    return {**files, "s-0000": pages[0], "s-0001": pages[1]}


TWELVE_BITS = ("source=source", "root=data", "classes=[a,b]", "val_fraction=0.25", "value_range=[0,4095]")


def test_twelve_bits_in_sixteen_are_spread_over_all_grey_levels(twelve_bits, caplog):
    """A file is copied as it is, the pages of a stack become PNGs: the range is applied once to both."""
    prepare(words(*TWELVE_BITS))
    assert "1 of 4 images have values beyond value_range=[0, 4095] (the largest is 5,000), which" in caplog.text
    expected = {name: np.rint(image.clip(0, 4095) / 4095 * 255) for name, image in twelve_bits.items()}
    data = opened("data")
    samples = [split[index] for split in data for index in range(len(split))]
    assert {sample.name for sample in samples} == {*twelve_bits}
    for sample in samples:
        np.testing.assert_array_equal(sample.image, np.repeat(expected[sample.name][..., None], 3, axis=2))
    described = yaml.safe_load(Path("data/dataset.yaml").read_text(encoding="utf-8"))
    mean = np.mean([expected[name] for name in data.train.names]) / 255
    np.testing.assert_allclose(described["mean"], [mean] * 3, atol=1e-4)
    with pytest.raises(FcnlabError, match=r"value_range=\[4095, 0\]: give the lowest and the highest value"):
        prepare(words(*TWELVE_BITS[:-1], "value_range=[4095,0]"))
    depths = Depths(4, 5000)
    assert "leaves them 20 grey levels; value_range=[0,8191] spreads them over all 256" in depths.warning([], 8)
    assert depths.warning([], 16) is None
    assert Depths(4, 0).warning([], 8) is None  # no range is that of black images alone


@pytest.mark.slow  # the test above has the data, tests/data/test_image_files.py the reader
def test_a_network_of_twelve_bits_reads_files_as_it_was_trained(twelve_bits):
    prepare(words(*TWELVE_BITS))
    tiny = ["arch=fcn32s", "arch.width=0.03125", "dataset.crop_size=32", "trainer.mode=pynative", "trainer.max_steps=1"]
    config = fcnlab.compose(["dataset=folder", "dataset.root=data", *tiny, "tracking=none", "trainer.batch_size=1"])
    network = fcnlab.load(fcnlab.train(config, "out").best_checkpoint)
    assert network.value_range == [0, 4095]
    predict(compose(["checkpoint=out", "input=source/images/a.png", "output=labelled"], "predict"))
    mask = np.asarray(Image.open("labelled/masks/a.png"))
    scaled = np.rint(twelve_bits["a"] / 4095 * 255).astype(np.uint8)
    np.testing.assert_array_equal(mask, network.predict(scaled))
    without_range = evaluation_data.fit_to_network(replace(config.dataset, value_range=[]), network)
    assert without_range.value_range == [0, 4095]


def test_a_second_call_changes_nothing_and_a_third_mends_what_was_lost(source, tmp_path, caplog):
    config = words(f"source={source}", "classes=[a,b]", f"root={tmp_path / 'data'}")
    caplog.set_level("INFO")
    root = prepare(config)
    before = contents(root)
    prepare(config)
    assert contents(root) == before
    assert "0 of 5 were written" in caplog.text
    (root / "labels" / "10.png").write_bytes(b"damaged")
    (root / "images" / "1.png").unlink()
    prepare(config)
    assert contents(root) == before
    assert "2 of 5 were written" in caplog.text


def test_records_train_with_no_other_word_and_without_the_files(source, tmp_path, capsys):
    given = [f"source={source}", "classes=[membrane,cell]", f"root={tmp_path / 'data'}", "val_fraction=0.4"]
    root = prepare(words(*given))
    from_files = [split.fingerprint() for split in opened(root)]
    prepare(words(*given, "records=true"))
    before = contents(root)
    prepare(words(*given, "records=true"))
    assert contents(root) == before
    for folder in ("images", "labels"):
        shutil.rmtree(root / folder)
    assert [split.fingerprint() for split in opened(root)] == from_files
    assert check(words("check=true", f"root={root}")).problems == []
    tiny = ["dataset=folder", f"dataset.root={root}", "dataset.crop_size=32", "arch=fcn32s", "arch.width=0.03125"]
    tiny += ["trainer.max_steps=1", "trainer.batch_size=2", "tracking=none", "trainer.mode=pynative"]
    assert fcnlab.train(fcnlab.compose(tiny), tmp_path / "out").steps == 1
    (root / "val.mindrecord.db").unlink()
    [(_, problem)] = check(words("check=true", f"root={root}")).problems
    assert problem.startswith(f"there is no file '{root / 'val.mindrecord.db'}'")


def test_files_are_trained_from_again_once_records_are_not_asked_for(source, tmp_path):
    given = [f"source={source}", "classes=[a,b]", f"root={tmp_path / 'data'}"]
    root = prepare(words(*given, "records=true"))
    chosen = ["dataset=folder", f"dataset.root={root}"]
    assert fcnlab.compose(chosen).dataset.records is True
    assert fcnlab.compose([*chosen, "dataset.records=false"]).dataset.records is False
    prepare(words(*given))
    assert fcnlab.compose(chosen).dataset.records is None


def test_the_split_is_drawn_by_its_seed(source, tmp_path):
    lists = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        chosen = [f"split_seed={seed}", "val_fraction=0.4"]
        root = prepare(words(f"source={source}", "classes=[a,b]", f"root={tmp_path / name}", *chosen))
        lists.append((root / "val.txt").read_text(encoding="utf-8"))
    assert lists[0] == lists[1] != lists[2]


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_will_do(source, tmp_path, kind):
    path = tmp_path / f"download.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            for found in source.rglob("*.*"):
                file.write(found, found.relative_to(source.parent))
    else:
        with tarfile.open(path, "w:gz") as file:
            file.add(source, source.name)
    root = prepare(words(f"source={path}", "classes=[a,b]", f"root={tmp_path / 'data'}"))
    assert len(list((root / "images").iterdir())) == 5


def test_an_archive_does_not_get_out(source, tmp_path):
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as file:
        file.add(source / "images" / "1.png", "../escaped.png")
    with pytest.raises(FcnlabError, match="cannot be unpacked"):
        prepare(words(f"source={path}", "classes=[a,b]", f"root={tmp_path / 'data'}"))
    assert not list(tmp_path.rglob("escaped.png"))


def test_colours_labelme_and_coco_give_the_same(tmp_path):
    square = np.zeros((32, 32), np.uint8)
    square[8:25, 8:25] = 1
    expected = {}
    for kind in ("colours", "labelme", "coco"):
        folder = tmp_path / kind
        (folder / "images").mkdir(parents=True)
        (folder / "labels").mkdir()
        points = [[8, 8], [24, 8], [24, 24], [8, 24]]
        for name in ("a", "b"):
            cv2.imwrite(str(folder / "images" / f"{name}.png"), image_of(32, 32))
            if kind == "colours":
                colours = np.array([[0, 0, 0], [200, 10, 30]], np.uint8)[square]
                cv2.imwrite(str(folder / "labels" / f"{name}.png"), colours[..., ::-1])
            elif kind == "labelme":
                shapes = [{"label": "cell", "points": points}]
                (folder / "images" / f"{name}.json").write_text(json.dumps({"shapes": shapes}))
        flat = [number for point in points for number in point]
        document = {
            "images": [{"id": index, "file_name": f"{name}.png"} for index, name in enumerate("ab")],
            "categories": [{"id": 1, "name": "cell"}],
            "annotations": [
                {"id": index, "image_id": index, "category_id": 1, "segmentation": [flat]} for index in range(2)
            ],
        }
        (folder / "coco.json").write_text(json.dumps(document))
        given = {
            "colours": ["classes=[background,cell]", "colours=[[0,0,0],[200,10,30]]"],
            "labelme": ["classes=[background,cell]"],
            "coco": ["annotations=coco.json"],
        }[kind]
        root = prepare(words(f"source={folder}", f"root={tmp_path / f'{kind}-data'}", *given))
        data = opened(root)
        assert fcnlab.compose(["dataset=folder", f"dataset.root={root}"]).dataset.class_names == ["background", "cell"]
        expected[kind] = data.train[0].label
    for kind, label in expected.items():
        np.testing.assert_array_equal(label, square, err_msg=kind)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["source=nowhere"], "source=nowhere is not there"),
        (["dataset=voc2012", "source=nowhere"], "PASCAL VOC: flickr images, for research"),
        (["dataset=camvid", "source={source}"], "neither 'train.txt' nor a folder 'train'.*for research"),
        (["source={source}"], "classes: name them in order"),
        (["source={source}", "classes=[a,a]"], "classes: 'a' is the name of classes 0 and 1"),
        (["source={source}", "classes=[a,b]", "values=[1]"], "values has 1 entries, classes 2"),
        (["source={source}", "classes=[a,b]", "colours=[[0,0],[1,1]]"], "give red, green and blue"),
        (["source={source}", "classes=[a,b,c]"], "has the values 255|no class's"),
        (["source={source}/images/x.jpg", "classes=[a,b]"], "neither a folder nor an archive"),
        (["source={source}", "classes=[a,b]", "images=photos"], "there is no folder"),
        (["source={source}", "classes=[a,b]", "root={source}/out"], "lies in the source"),
    ],
)
def test_what_cannot_be_prepared_is_one_line(source, tmp_path, given, said):
    given = [word.format(source=source) for word in given]
    if not any(word.startswith("root=") for word in given):
        given.append(f"root={tmp_path / 'data'}")
    if "classes=[a,b,c]" in given:  # of three classes, 255 is no value of one but void: a fourth value is needed
        cv2.imwrite(str(source / "labels" / "1.png"), np.full((40, 48), 77, np.uint8))
        said = "has the values 77"
    with pytest.raises(FcnlabError, match=said) as caught:
        prepare(words(*given))
    assert "\n" not in str(caught.value)


def test_a_label_without_an_image_is_named(source, tmp_path):
    (source / "images" / "2.png").unlink()
    with pytest.raises(FcnlabError, match="1 images and labels have no partner, such as '2'"):
        prepare(words(f"source={source}", "classes=[a,b]", f"root={tmp_path / 'data'}"))


def test_a_check_finds_everything_that_is_wrong(source, tmp_path, capsys):
    root = prepare(words(f"source={source}", "classes=[a,b]", f"root={tmp_path / 'data'}", "val_fraction=0.4"))
    assert check(words("check=true", f"root={root}")).problems == []
    val, train = ((root / f"{split}.txt").read_text(encoding="utf-8").split("\n")[:-1] for split in ("val", "train"))
    (picture,) = [path for path in (root / "images").iterdir() if path.stem == train[0]]
    (other,) = [path for path in (root / "images").iterdir() if path.stem == val[0]]
    other.unlink()
    shutil.copy(picture, root / "images" / f"{val[0]}{picture.suffix}")
    shutil.copy(root / "labels" / f"{train[0]}.png", root / "labels" / f"{val[0]}.png")
    (root / "labels" / f"{val[1]}.png").write_bytes(b"damaged")
    cv2.imencode(".png", np.full((9, 9), 1, np.uint8))[1].tofile(root / "labels" / f"{train[1]}.png")
    found = dict(check(words("check=true", f"root={root}")).problems)
    assert found[f"val: {val[0]}"] == f"the same image as train: {train[0]}"
    assert "is damaged or truncated" in found[f"val: {val[1]}"]
    assert "a label must have its image's size" in found[f"train: {train[1]}"]
    assert len(found) == 3
    assert "the same image as" in capsys.readouterr().out


def test_a_check_says_what_a_class_lacks_and_what_cannot_be_opened(source, tmp_path):
    root = prepare(words(f"source={source}", "classes=[a,b]", f"root={tmp_path / 'data'}"))
    for path in (root / "labels").iterdir():
        height = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED).shape[0]
        cv2.imencode(".png", np.zeros((height, 48), np.uint8))[1].tofile(path)
    assert ("train", "no pixel of b") in check(words("check=true", f"root={root}")).problems
    (root / "val.txt").write_text("nobody\n")
    problems = check(words("check=true", f"root={root}")).problems
    assert any("there is no image 'nobody'" in text for _, text in problems)
    with pytest.raises(FcnlabError, match="give the folder to look at"):
        check(words("check=true", f"root={root / 'missing'}"))


def test_a_data_set_as_it_is_distributed_becomes_a_folder(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    labels = {}
    for split, count in (("train", 2), ("val", 1)):
        for folder in (split, f"{split}annot"):
            Path("SegNet", folder).mkdir(parents=True)
        for number in range(count):
            name = f"{split}_{number}"
            labels[name] = np.random.default_rng(number).integers(0, 12, (36, 48), np.uint8)
            cv2.imwrite(f"SegNet/{split}/{name}.png", image_of(36, 48))
            cv2.imwrite(f"SegNet/{split}annot/{name}.png", labels[name])
    root = prepare(words("dataset=camvid", "source=SegNet", "root=data"))
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [line.partition(";")[0] for line in told] == [
        "camvid: train has 2 images here and 367 as it is distributed",
        "camvid: val has 1 images here and 101 as it is distributed",
    ]
    data = opened(root)
    assert data.train.names == ["train_0", "train_1"]
    for split in data:
        for name, sample in zip(split.names, map(split.__getitem__, range(len(split))), strict=True):
            np.testing.assert_array_equal(sample.label, np.where(labels[name] == 11, 255, labels[name]))
