from __future__ import annotations

import hashlib
import os
import shutil
import time
import unicodedata
import zlib
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fcnlab.config.schema import FolderConfig
from fcnlab.core.errors import ConfigError, DataError
from fcnlab.data import Cached, image_files
from fcnlab.data.image_folder import Folder
from fcnlab.data.label_files import read_label


def grey(value: int, height: int = 8, width: int = 6) -> np.ndarray:
    return np.full((height, width), value, np.uint8)


def save(path: Path, pixels: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def pairs(root: Path, stems, classes: int = 2) -> None:
    """Sample ``k`` in the order given has grey level k and class k modulo ``classes`` throughout."""
    for number, stem in enumerate(stems):
        save(root / "images" / f"{stem}.png", grey(number))
        save(root / "labels" / f"{stem}.png", grey(number % classes))


def config(root: Path, **changes) -> FolderConfig:
    return FolderConfig(root=str(root), **changes)


def everything(cfg: FolderConfig) -> dict:
    return {sample.name: sample for split in ("train", "val") for sample in Folder(cfg, split)}


def refused(cfg: FolderConfig, *words: str, read: bool = False, error: type = DataError) -> str:
    """Return the error that making (or reading) both splits raises, which is one line with all these words."""

    def make() -> None:
        for split in ("train", "val"):
            dataset = Folder(cfg, split)
            if read:
                dataset.check()

    with pytest.raises(error) as caught:
        make()
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"
    return text


# Pairing and names


def test_pairs_are_matched_by_stem_never_by_order(tmp_path):
    # By listing order (sorted or by extension) every image would meet another one's label.
    for number, (image, label) in enumerate([("b.png", "b.tif"), ("a.tiff", "a.png"), ("C.bmp", "C.PNG")]):
        save(tmp_path / "images" / image, grey(50 * number))
        save(tmp_path / "labels" / label, grey(number))
    samples = everything(config(tmp_path, num_classes=3))
    assert sorted(samples) == ["C", "a", "b"]
    for name, number in {"b": 0, "a": 1, "C": 2}.items():
        assert (samples[name].image == 50 * number).all()
        assert (samples[name].label == number).all()


def test_shapes_and_types(tmp_path):
    pairs(tmp_path, "ab")
    image, label, name = Folder(config(tmp_path), "train")[0]
    assert image.shape == (8, 6, 3)
    assert label.shape == (8, 6)
    assert image.dtype == label.dtype == np.uint8
    assert name in "ab"


def test_names_are_sorted_naturally(tmp_path):
    stems = ["10", "2", "1", "img12", "img3", "img03", "z", "11a", "11"]
    pairs(tmp_path, stems)
    (tmp_path / "train.txt").write_text("\n".join(stems[:-1]))
    names = Folder(config(tmp_path, train_list="train.txt"), "train").names
    assert names == ["1", "2", "10", "11a", "img03", "img3", "img12", "z"]


def test_hidden_and_foreign_files_are_ignored(tmp_path):
    pairs(tmp_path, "ab")
    for name in (".DS_Store", "._a.png", "Thumbs.db", "notes.txt"):
        (tmp_path / "images" / name).write_bytes(b"x")
        (tmp_path / "labels" / name).write_bytes(b"x")
    assert sorted(everything(config(tmp_path))) == ["a", "b"]


def test_other_folder_names_and_home(tmp_path, monkeypatch):
    pairs(tmp_path / "data", "ab")
    (tmp_path / "data" / "images").rename(tmp_path / "data" / "raw")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(everything(FolderConfig(root="~/data", images="raw"))) == 2


def test_unicode_names_and_folders(tmp_path):
    root = tmp_path / "données 数据"
    composed, decomposed = (unicodedata.normalize(form, "zellé 細胞") for form in ("NFC", "NFD"))
    save(root / "images" / f"{composed}.png", grey(9))
    save(root / "labels" / f"{decomposed}.png", grey(1))
    pairs(root, "a")
    (root / "val.txt").write_text(decomposed, encoding="utf-8")
    (sample,) = Folder(config(root, val_list="val.txt"), "val")
    assert sample.name == composed
    assert (sample.image == 9).all()
    assert (sample.label == 1).all()


# Decoding images


def one_image(tmp_path, name: str) -> np.ndarray:
    """Return the decoded image of the file called ``name``, which has been written already."""
    stem = Path(name).stem
    height, width = 8, 6
    save(tmp_path / "labels" / f"{stem}.png", grey(0, height, width))
    pairs(tmp_path, ["other"])
    return everything(config(tmp_path))[stem].image


def test_rgb_order(tmp_path):
    save(tmp_path / "images" / "c.png", np.stack([grey(10), grey(20), grey(30)], axis=-1))
    assert (one_image(tmp_path, "c.png") == [10, 20, 30]).all()


@pytest.mark.parametrize("name", ["c.png", "c.tif"])
def test_transparency_is_dropped(tmp_path, name):
    save(tmp_path / "images" / name, np.stack([grey(10), grey(20), grey(30), grey(0)], axis=-1))
    assert (one_image(tmp_path, name) == [10, 20, 30]).all()


def test_grey_with_transparency(tmp_path):
    save(tmp_path / "images" / "c.png", np.stack([grey(77), grey(0)], axis=-1))
    assert (one_image(tmp_path, "c.png") == 77).all()


def test_palette_image_shows_its_colours(tmp_path):
    picture = Image.fromarray(grey(1), mode="P")
    picture.putpalette([0, 0, 0, 10, 20, 30])
    (tmp_path / "images").mkdir()
    picture.save(tmp_path / "images" / "c.png")
    assert (one_image(tmp_path, "c.png") == [10, 20, 30]).all()


@pytest.mark.parametrize("name", ["c.png", "c.tiff"])
def test_16_bits_are_scaled_to_8(tmp_path, name):
    levels = np.linspace(0, 65535, 48).astype(np.uint16).reshape(8, 6)
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / name), levels)
    np.testing.assert_array_equal(one_image(tmp_path, name)[..., 1], np.rint(levels / 257))


@pytest.mark.parametrize("name", ["c.jpg", "c.JPEG", "c.bmp"])
def test_other_formats(tmp_path, name):
    save(tmp_path / "images" / name, grey(100))
    assert np.abs(one_image(tmp_path, name).astype(int) - 100).max() <= 1


# Decoding labels


def one_label(tmp_path, picture: Image.Image, **changes) -> np.ndarray:
    pairs(tmp_path, ["other", "l"], classes=1)
    picture.save(tmp_path / "labels" / "l.png")
    return everything(config(tmp_path, **changes))["l"].label


def test_palette_label_yields_indices_not_colours(tmp_path):
    indices = np.random.default_rng(0).integers(0, 21, (8, 6)).astype(np.uint8)
    indices[0] = 255
    picture = Image.fromarray(indices, mode="P")
    picture.putpalette(np.random.default_rng(1).integers(0, 256, 768).astype(np.uint8).tolist())
    np.testing.assert_array_equal(one_label(tmp_path, picture, num_classes=21), indices)


def test_16_bit_label(tmp_path):
    values = np.arange(48, dtype=np.uint16).reshape(8, 6) % 3
    np.testing.assert_array_equal(one_label(tmp_path, Image.fromarray(values), num_classes=3), values)


@pytest.mark.parametrize("label_values", [[], [0, 1], [0, 255]])
def test_1_bit_label(tmp_path, label_values):
    mask = np.arange(48).reshape(8, 6) % 2 == 1
    np.testing.assert_array_equal(one_label(tmp_path, Image.fromarray(mask), label_values=label_values), mask)


@pytest.mark.parametrize(
    ("label_values", "ignore_index", "raw", "classes"),
    [
        ([], 255, [0, 1, 2, 255], [0, 1, 2, 255]),
        ([0, 255], 254, [0, 255, 0, 254], [0, 1, 0, 254]),
        ([0, 255], 255, [0, 255, 0, 255], [0, 1, 0, 1]),
        ([0, 128, 7], 255, [7, 128, 0, 255], [2, 1, 0, 255]),
        ([2, 1, 0], 3, [0, 1, 2, 3], [2, 1, 0, 3]),
    ],
)
def test_label_values(tmp_path, label_values, ignore_index, raw, classes):
    pairs(tmp_path, ["other"])
    save(tmp_path / "images" / "l.png", grey(0, 1, 4))
    save(tmp_path / "labels" / "l.png", np.array([raw], np.uint8))
    (tmp_path / "val.txt").write_text("l")
    cfg = config(
        tmp_path,
        num_classes=3,
        label_values=label_values,
        ignore_index=ignore_index,
        val_list=str(tmp_path / "val.txt"),
    )
    np.testing.assert_array_equal(Folder(cfg, "val")[0].label, [classes])


# Splits


def test_seeded_split_is_disjoint_complete_and_repeatable(tmp_path):
    pairs(tmp_path, range(20))

    def names(**changes):
        return [Folder(config(tmp_path, **changes), split).names for split in ("train", "val")]

    train, val = names(val_fraction=0.25)
    assert len(val) == 5
    assert sorted(train + val, key=int) == [str(number) for number in range(20)]
    assert names(val_fraction=0.25) == [train, val]
    assert names(val_fraction=0.25, split_seed=1) != [train, val]


@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_each_seeded_split_has_a_sample(tmp_path, fraction, count):
    pairs(tmp_path, range(count))
    sizes = [len(Folder(config(tmp_path, val_fraction=fraction), split)) for split in ("train", "val")]
    assert min(sizes) >= 1
    assert sum(sizes) == count


@pytest.mark.parametrize("split", ["train", "val"])
def test_one_list_leaves_the_rest_to_the_other_split(tmp_path, split):
    pairs(tmp_path, range(5))
    (tmp_path / "list.txt").write_text("# chosen by hand\n\n  3 \r\n1\n", encoding="utf-8-sig")
    other = {"train": "val", "val": "train"}[split]
    cfg = config(tmp_path, **{f"{split}_list": "list.txt"})
    assert Folder(cfg, split).names == ["1", "3"]
    assert Folder(cfg, other).names == ["0", "2", "4"]


def test_two_lists_may_leave_samples_out(tmp_path):
    pairs(tmp_path, range(5))
    (tmp_path / "t").write_text("0\n4")
    (tmp_path / "v").write_text("2")
    cfg = config(tmp_path, train_list="t", val_list="v")
    assert [Folder(cfg, split).names for split in ("train", "val")] == [["0", "4"], ["2"]]


def test_a_list_in_the_working_directory_comes_first(tmp_path, monkeypatch):
    pairs(tmp_path / "data", range(3))
    (tmp_path / "data" / "v").write_text("0")
    (tmp_path / "v").write_text("1")
    monkeypatch.chdir(tmp_path)
    assert Folder(config(tmp_path / "data", val_list="v"), "val").names == ["1"]


# Fingerprints


@pytest.fixture
def five(tmp_path):
    """A root with samples a to e, of which d and e validate."""
    root = tmp_path / "five"
    pairs(root, "abcde")
    (root / "val.txt").write_text("d\ne")
    return root


def fingerprints(root: Path, **changes) -> list[str]:
    """Return the fingerprints of both splits."""
    cfg = config(root, **{"val_list": "val.txt", **changes})
    return [Folder(cfg, split).fingerprint() for split in ("train", "val")]


def rename(root: Path, old: str, new: str) -> None:
    for folder in ("images", "labels"):
        (root / folder / old).rename(root / folder / new)


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def test_fingerprint_is_the_one_that_earlier_runs_recorded(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for path in ("images/1.png", "labels/1.tif", "images/2.png", "labels/2.png"):
        (tmp_path / path).write_bytes(path.encode())
    (tmp_path / "val.txt").write_text("2")

    def half(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    image, label = half("images/1.png"), half("labels/1.tif")
    expected = half(f'[[[0, 1, 2], 3, 254, ["x", "y", "z"]], [["1.png", "{image}", "1.tif", "{label}"]]]')
    cfg = config(tmp_path, num_classes=3, ignore_index=254, class_names=["x", "y", "z"], val_list="val.txt")
    assert Folder(cfg, "train").fingerprint() == expected


@pytest.mark.parametrize("folder", ["images", "labels"])
def test_fingerprint_changes_with_any_byte(five, folder):
    train, val = fingerprints(five)
    path = five / folder / "b.png"
    data = path.read_bytes()
    seen = {train}
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        seen.add(Folder(config(five, val_list="val.txt"), "train").fingerprint())
    assert len(seen) == len(data) + 1
    assert fingerprints(five)[1] == val
    path.write_bytes(data + b"\0")
    assert fingerprints(five)[0] not in seen
    path.write_bytes(data)
    assert fingerprints(five) == [train, val]


@pytest.mark.parametrize(
    "change",
    [
        lambda root: pairs(root, "f"),
        lambda root: [(root / folder / "c.png").unlink() for folder in ("images", "labels")],
        lambda root: rename(root, "b.png", "bb.png"),
        lambda root: rename(root, "b.png", "b.PNG"),
        lambda root: swap(root / "images" / "a.png", root / "images" / "b.png"),
        lambda root: swap(root / "images" / "c.png", root / "labels" / "c.png"),
    ],
    ids=["added", "removed", "renamed", "other extension", "images exchanged", "image and label exchanged"],
)
def test_fingerprint_changes_with_its_own_split_alone(five, change):
    train, val = fingerprints(five)
    change(five)
    assert fingerprints(five)[0] != train
    assert fingerprints(five)[1] == val


def test_fingerprint_of_both_splits_changes_when_a_sample_moves(five):
    before = fingerprints(five)
    (five / "val.txt").write_text("c\nd\ne")
    assert len({*before, *fingerprints(five)}) == 4


def test_fingerprint_changes_with_what_labels_mean(five):
    meanings = [
        {},
        {"label_values": [1, 0]},
        {"label_values": [0, 255]},
        {"num_classes": 3},
        {"num_classes": 3, "label_values": [0, 1]},
        {"ignore_index": 254},
        {"class_names": ["membrane", "cell"]},
        {"class_names": ["cell", "membrane"]},
    ]
    for split in zip(*(fingerprints(five, **meaning) for meaning in meanings), strict=True):
        assert len(set(split)) == len(meanings)


def test_fingerprint_does_not_change_with_anything_else(five, tmp_path, monkeypatch):
    before = fingerprints(five)
    (five / "notes.txt").write_text("not a sample")
    (five / "train.txt").write_text("c\nb\na")
    for path in five.rglob("*.png"):
        os.utime(path, (0, time.time() - 10_000))
    elsewhere = tmp_path / "copy" / "of it"
    shutil.copytree(five, elsewhere)
    (elsewhere / "images").rename(elsewhere / "raw")
    assert fingerprints(elsewhere, images="raw") == before
    assert fingerprints(five, val_list=None, train_list="train.txt") == before
    assert fingerprints(five, label_values=[0, 1]) == before  # said in other words
    assert fingerprints(five, crop_size=64, crops_per_image=3, cache_mib=0, num_workers=2) == before
    assert fingerprints(five, val_fraction=0.5, split_seed=3, mean=[0, 0, 0]) == before  # there is a list
    listing = os.scandir
    backwards = lambda folder: nullcontext(sorted(listing(folder), key=lambda entry: entry.name, reverse=True))  # noqa: E731
    monkeypatch.setattr(os, "scandir", backwards)
    assert fingerprints(five) == before


def test_fingerprint_does_not_depend_on_the_form_of_letters(tmp_path):
    for form in ("NFC", "NFD"):
        pairs(tmp_path / form, [unicodedata.normalize(form, "é"), "b"])
        (tmp_path / form / "val.txt").write_text("b")
    assert fingerprints(tmp_path / "NFC") == fingerprints(tmp_path / "NFD")


def test_fingerprint_needs_no_decodable_file_but_a_readable_one(five):
    (five / "images" / "b.png").write_text("not an image")
    before = fingerprints(five)
    dataset = Folder(config(five, val_list="val.txt"), "train")
    assert dataset.fingerprint() == before[0]
    for name in "cb":
        (five / "labels" / f"{name}.png").unlink()
    with pytest.raises(DataError, match=r"cannot read label .*labels/b\.png"):
        dataset.fingerprint()


def test_cached_fingerprint_and_source_are_the_folders(five, monkeypatch):
    dataset = Folder(config(five, val_list="val.txt"), "train")
    cached = Cached(dataset, limit_mib=1)
    assert cached.fingerprint() == dataset.fingerprint() == fingerprints(five)[0]
    monkeypatch.chdir(five.parent)
    assert cached.source == Folder(FolderConfig(root="five"), "val").source == f"folder {five.resolve()}"


def test_pixels_of_classes_are_counted_without_decoding_an_image(five, monkeypatch):
    dataset = Folder(config(five, val_list="val.txt"), "train")
    expected = [np.bincount(sample.label.ravel(), minlength=2).tolist() for sample in dataset]
    monkeypatch.setattr("fcnlab.data.image_files.read", None)
    assert Cached(dataset, limit_mib=1).class_pixels(2).tolist() == expected


# Errors: one line, with the file, key or value and the way out


def test_error_root_missing_or_unset(tmp_path):
    refused(config(tmp_path / "nowhere"), "dataset.root", "nowhere")
    refused(FolderConfig(root=None), "dataset.root", "not set")


@pytest.mark.parametrize("missing", ["images", "labels"])
def test_error_folder_missing(tmp_path, missing):
    pairs(tmp_path, "ab")
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    refused(config(tmp_path), str(tmp_path / missing), f"dataset.{missing}")


@pytest.mark.parametrize("emptied", ["images", "labels"])
def test_error_folder_empty(tmp_path, emptied):
    pairs(tmp_path, "a")
    (tmp_path / emptied / "a.png").rename(tmp_path / emptied / ".a.png")
    refused(config(tmp_path), str(tmp_path / emptied), "empty", ".png")


def test_error_image_without_label(tmp_path):
    pairs(tmp_path, range(12))
    (tmp_path / "labels" / "10.png").unlink()
    (tmp_path / "labels" / "9.png").unlink()
    refused(config(tmp_path), str(tmp_path / "images" / "9.png"), "no label", str(tmp_path / "labels"), "1 more")


def test_error_label_without_image(tmp_path):
    pairs(tmp_path, "abc")
    (tmp_path / "images" / "b.png").unlink()
    refused(config(tmp_path), str(tmp_path / "labels" / "b.png"), "no image", "remove the label")


@pytest.mark.parametrize("folder", ["images", "labels"])
def test_error_two_files_of_one_stem(tmp_path, folder):
    pairs(tmp_path, "ab")
    save(tmp_path / folder / "a.bmp", grey(0))
    refused(config(tmp_path), "a.bmp", "a.png", "stem 'a'")


def test_error_label_of_another_size(tmp_path):
    pairs(tmp_path, "ab")
    save(tmp_path / "labels" / "b.png", grey(0, 6, 8))
    refused(config(tmp_path), "labels/b.png", "8 x 6", "6 x 8", "images/b.png", read=True)


def test_error_label_value_outside_the_classes(tmp_path):
    pairs(tmp_path, "ab")
    save(tmp_path / "labels" / "b.png", np.array([[0, 1, 2, 100, 255, 9]] * 8, np.uint8))
    text = refused(
        config(tmp_path), "labels/b.png", "2, 9, 100", "2 classes", "label_values", "dataset.num_classes", read=True
    )
    assert "255" not in text


def test_error_many_label_values(tmp_path):
    pairs(tmp_path, "ab")
    save(tmp_path / "labels" / "b.png", np.arange(48, dtype=np.uint8).reshape(8, 6))
    refused(config(tmp_path), "2, 3, 4, 5, 6 and 41 more", read=True)


def test_error_label_value_not_listed(tmp_path):
    pairs(tmp_path, "ab", classes=1)
    save(tmp_path / "labels" / "b.png", grey(1))
    refused(config(tmp_path, label_values=[0, 255]), "labels/b.png", " 1 outside", read=True)


def test_error_16_bit_label_value(tmp_path):
    pairs(tmp_path, "ab")
    # 256 would become class 0 if it were cut to 8 bits.
    save(tmp_path / "labels" / "b.png", np.full((8, 6), 256, np.uint16))
    refused(config(tmp_path), "labels/b.png", "256", read=True)


@pytest.mark.parametrize("channels", [3, 4])
def test_error_colour_label(tmp_path, channels):
    pairs(tmp_path, "ab")
    save(tmp_path / "labels" / "b.png", np.zeros((8, 6, channels), np.uint8))
    refused(config(tmp_path), "labels/b.png", "colour", "single-channel", read=True)


@pytest.mark.parametrize("name", ["b.png", "b.jpg", "b.bmp", "b.tif"])
@pytest.mark.parametrize("kept", [0.0, 0.05, 0.5, 0.9])
@pytest.mark.parametrize("folder", ["images", "labels"])
def test_error_damaged_file(tmp_path, folder, name, kept):
    pairs(tmp_path, "ab")
    for each in ("images", "labels"):
        (tmp_path / each / "b.png").unlink()
        save(tmp_path / each / name, np.zeros((64, 64), np.uint8))
    damaged = tmp_path / folder / name
    if folder == "images":
        save(damaged, np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))
    data = damaged.read_bytes()
    damaged.write_bytes(data[: int(len(data) * kept)])
    refused(config(tmp_path), f"{folder}/{name}", "damaged or truncated", read=True)


def test_error_truncated_jpeg_with_thumbnail(tmp_path):
    pairs(tmp_path, "ab")
    (tmp_path / "images" / "b.png").unlink()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    path = tmp_path / "images" / "b.jpg"
    save(path, noise[:8, :6])
    thumbnail = path.read_bytes()
    save(path, noise)
    data = path.read_bytes()
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path.write_bytes((data[:2] + segment + data[2:])[:-200])
    refused(config(tmp_path), "images/b.jpg", "damaged or truncated", read=True)


def test_error_file_gone_after_listing(tmp_path):
    pairs(tmp_path, "ab")
    dataset = Folder(config(tmp_path), "train")
    name = dataset.names[0]
    (tmp_path / "labels" / f"{name}.png").unlink()
    with pytest.raises(DataError, match=f"labels/{name}.png"):
        dataset[0]
    (tmp_path / "images" / f"{name}.png").unlink()
    with pytest.raises(DataError, match=f"images/{name}.png"):
        dataset[0]


def test_error_not_an_image_at_all(tmp_path):
    pairs(tmp_path, "ab")
    (tmp_path / "images" / "a.png").write_text("not an image")
    refused(config(tmp_path), "images/a.png", "damaged", read=True)


def test_error_float_image(tmp_path):
    pairs(tmp_path, "ab")
    (tmp_path / "images" / "a.png").unlink()
    save(tmp_path / "images" / "a.tif", np.zeros((8, 6), np.float32))
    refused(config(tmp_path), "images/a.tif", "float32", read=True)


@pytest.mark.parametrize("key", ["train_list", "val_list"])
def test_error_list_missing_or_unreadable(tmp_path, key):
    pairs(tmp_path, "ab")
    refused(config(tmp_path, **{key: "gone.txt"}), f"dataset.{key}", "gone.txt")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    refused(config(tmp_path, **{key: "bad.txt"}), f"dataset.{key}", "bad.txt", "UTF-8")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a\nnope\n", ["line 2", "'nope'"]),
        ("a.png\n", ["'a.png'", "write 'a'"]),
        ("../a\n", ["'../a'", "stem alone"]),
        ("..\n", ["'..'", "stem alone"]),
        ("images/a\n", ["'images/a'", "stem alone"]),
        ("images\\a\n", ["images\\a", "stem alone"]),
        ("a\nb\na\n", ["line 3", "'a'", "twice"]),
        ("# nothing\n", ["names no image"]),
    ],
)
def test_error_list_content(tmp_path, content, words):
    pairs(tmp_path, "abc")
    (tmp_path / "list.txt").write_text(content)
    refused(config(tmp_path, val_list="list.txt"), "dataset.val_list", "list.txt", *words)


def test_error_lists_overlap(tmp_path):
    pairs(tmp_path, "abc")
    (tmp_path / "t").write_text("a\nb")
    (tmp_path / "v").write_text("b\nc")
    refused(config(tmp_path, train_list="t", val_list="v"), "dataset.train_list", "dataset.val_list", "name b:")


def test_error_empty_split(tmp_path):
    pairs(tmp_path, "ab")
    (tmp_path / "v").write_text("a\nb")
    refused(config(tmp_path, val_list="v"), "train split", "empty", "dataset.val_list")


def test_error_a_single_image_cannot_be_split(tmp_path):
    pairs(tmp_path, "a")
    refused(config(tmp_path), str(tmp_path), "'a'", "at least 2")


def test_error_unknown_split(tmp_path):
    with pytest.raises(DataError, match=r"'spare'.*train, val, test"):
        Folder(config(tmp_path), "spare")


def test_error_label_values_do_not_fit(tmp_path):
    pairs(tmp_path, "ab")
    refused(config(tmp_path, label_values=[0, 1, 2]), "dataset.label_values", "dataset.num_classes", error=ConfigError)
    refused(config(tmp_path, label_values=[7, 7]), "dataset.label_values", "twice", error=ConfigError)


# Out of the root


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_a_link_out_of_the_root_is_refused_and_one_within_it_is_not(tmp_path, kind):
    root, secret = tmp_path / "root", tmp_path / "secret.png"
    pairs(root, "ab")
    save(secret, grey(1))
    within = root / "more" / "a.png"
    save(within, grey(1))
    (root / kind / "a.png").unlink()
    (root / kind / "a.png").symlink_to(within)
    assert len(everything(config(root))) == 2
    (root / kind / "a.png").unlink()
    (root / kind / "a.png").symlink_to(secret)
    refused(config(root), "a.png", str(secret), "link")


def test_a_folder_that_is_a_link_out_of_the_root_is_refused_but_one_named_beyond_it_is_not(tmp_path):
    pairs(tmp_path / "elsewhere", "ab")
    root = tmp_path / "root"
    pairs(root, "ab")
    shutil.rmtree(root / "images")
    (root / "images").symlink_to(tmp_path / "elsewhere" / "images")
    refused(config(root), str(root / "images"), "link")
    assert len(everything(config(root, images="../elsewhere/images"))) == 2


@pytest.mark.parametrize("line", ["../a", "/etc/passwd", "..", "images/a", "..\\a"])
def test_a_list_cannot_name_a_path(tmp_path, line):
    pairs(tmp_path, "ab")
    (tmp_path / "val.txt").write_text(f"{line}\n")
    refused(config(tmp_path, val_list=str(tmp_path / "val.txt")), "val_list", "path")


@pytest.mark.parametrize("side", [12000, 30000])
def test_a_small_file_that_claims_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, side):
    data = bytearray(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + side.to_bytes(4, "big") * 2 + b"\x08\0\0\0\0")
    data += zlib.crc32(data[12:]).to_bytes(4, "big")
    data += b"\0\0\0\0IEND\xaeB`\x82"
    huge = data + bytes(2**17)
    for kind, read in (("image", image_files.read), ("label", partial(read_label, white=1))):
        path = tmp_path / f"{kind}.png"
        path.write_bytes(huge)
        with pytest.raises(DataError, match=rf"{kind} '.*' has .* pixels, and at most 134,217,728 are read"):
            read(path)
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"cannot hold|at most"):
            read(path)


@pytest.mark.parametrize(("values", "said"), [((0, 255), 1), ((0, 1, 255), 0), ((0,), 0), ((0, 1), 0)])
def test_labels_whose_second_class_may_be_called_void_are_spoken_of(tmp_path, caplog, values, said):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            label = np.array(values if number == 2 else [0], np.uint8).repeat(8)[None].repeat(8, axis=0)
            cv2.imwrite(str(tmp_path / folder / f"{number}.png"), label)
    for split in ("train", "val"):
        Folder(FolderConfig(root=str(tmp_path)), split).fingerprint()
    assert sum("dataset.label_values=[0,255]" in record.getMessage() for record in caplog.records) == said
    Folder(FolderConfig(root=str(tmp_path), label_values=list(values)[:2]), "train").fingerprint()
    assert len(caplog.records) == said


def quantised(root, palettes, values=(0, 1, 2)):
    """Make labels of one row of indices each, with a palette for each file."""
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    for number, palette in enumerate(palettes):
        picture = Image.fromarray(np.array([values] * 4, np.uint8), "P")
        picture.putpalette(np.ravel(palette).tolist())
        picture.save(root / "labels" / f"{number}.png")
        cv2.imwrite(str(root / "images" / f"{number}.png"), np.zeros((4, len(values)), np.uint8))
    return root


def test_palettes_that_contradict_each_other_are_refused(tmp_path):
    black, red, green = [0, 0, 0], [255, 0, 0], [0, 255, 0]
    root = quantised(tmp_path, [[black, red, green]] * 3 + [[black, green, red]])
    cfg = FolderConfig(root=str(root), num_classes=3)
    refused(cfg, "1 is [255,0,0] in", "0.png' and [0,255,0] in", "3.png'", read=True)
    for split in ("train", "val"):
        Folder(FolderConfig(root=str(root), num_classes=3, label_values=[0, 1, 2]), split).check()


@pytest.mark.parametrize("greys", [0, 2])
def test_palettes_of_two_splits_that_contradict_each_other_are_refused(tmp_path, greys):
    """Within each split the palettes agree; labels without a palette may lie between them."""
    black, red, green = [0, 0, 0], [255, 0, 0], [0, 255, 0]
    root = quantised(tmp_path, [[black, red, green]] * (3 + greys) + [[black, green, red]] * (2 + greys))
    for number in (*range(greys), *range(3 + greys, 3 + 2 * greys)):
        Image.fromarray(np.array([[0, 1, 2]] * 4, np.uint8)).save(root / "labels" / f"{number}.png")
    val = range(3 + greys, 5 + 2 * greys)
    (root / "val.txt").write_text("\n".join(map(str, val)))
    for split in ("train", "val"):
        dataset = Folder(FolderConfig(root=str(root), num_classes=3, val_list="val.txt"), split)
        with pytest.raises(DataError, match=r"the palettes of labels differ: 1 is \[255,0,0\] in .* and \[0,255,0\]"):
            dataset.check()
        Folder(FolderConfig(root=str(root), num_classes=3, val_list="val.txt", label_values=[0, 1, 2]), split).check()


def test_palettes_are_compared_by_reading_one_label_of_the_other_split(tmp_path, monkeypatch):
    root = quantised(tmp_path, [[[0, 0, 0], [255, 0, 0], [0, 255, 0]]] * 8)
    (root / "val.txt").write_text("\n".join("01234"))
    dataset, read = Folder(FolderConfig(root=str(root), num_classes=3, val_list="val.txt"), "train"), []
    one = dataset._read_raw
    monkeypatch.setattr(dataset, "_read_raw", lambda path: read.append(path.stem) or one(path))
    for index in range(3):
        dataset.label(index)
    assert sorted(read) == ["0", "5", "6", "7"]
    (root / "labels" / "0.png").write_bytes(b"damaged")
    Folder(FolderConfig(root=str(root), num_classes=3, val_list="val.txt"), "train").check()


def test_palettes_that_differ_in_colours_that_no_pixel_has_are_taken(tmp_path):
    black, red, green = [0, 0, 0], [255, 0, 0], [0, 255, 0]
    root = quantised(tmp_path, [[black, red, green], [black, red, red], [black, red]], values=(0, 1, 1))
    for split in ("train", "val"):
        Folder(FolderConfig(root=str(root), num_classes=3), split).check()


def test_what_is_no_file_is_named_before_anything_waits_for_it(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for stem in ("a", "b"):
            cv2.imwrite(str(tmp_path / folder / f"{stem}.png"), np.zeros((8, 8), np.uint8))
    os.mkfifo(tmp_path / "images" / "c.png")
    with pytest.raises(DataError, match=r"c\.png' is a named pipe, not a file: remove it"):
        Folder(FolderConfig(root=str(tmp_path)), "train")
    (tmp_path / "images" / "c.png").unlink()
    os.mkfifo(tmp_path / "pipe.txt")
    for place, said in (("pipe.txt", "a named pipe"), ("/dev/zero", "a device"), ("images", "a folder")):
        with pytest.raises(DataError, match=f"it is {said}, not a file"):
            Folder(FolderConfig(root=str(tmp_path), val_list=place), "train")
