"""Which pages of a TIFF are images and which are channels, and that every kind of page is read as it was written."""

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from fcnlab.config.schema import FolderConfig
from fcnlab.core.errors import DataError
from fcnlab.data import image_files, tiff_files
from fcnlab.data.image_files import Page
from fcnlab.data.image_folder import Folder
from fcnlab.data.label_files import read_label

BITS = {np.uint8: 8, np.uint16: 16}


def some(*shape, kind=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(kind).max + 1, shape, dtype=kind)


@pytest.mark.parametrize("kind", BITS)
@pytest.mark.parametrize("channels", [2, 3, 5])
@pytest.mark.parametrize("how", ["imagej", "ome", "axes"])
def test_channels_that_the_metadata_name_are_channels(tmp_path, how, channels, kind):
    image = some(20, 24, channels, kind=kind)
    options = {"imagej": {"imagej": True}, "ome": {"ome": True}, "axes": {}}[how]
    metadata = {"axes": "CYX", **({"mode": "composite"} if how == "imagej" else {})}
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image.transpose(2, 0, 1), photometric="minisblack", metadata=metadata, **options)
    assert image_files.count_images(path, channels, BITS[kind]) == 1
    np.testing.assert_array_equal(image_files.read(path, channels, BITS[kind]), image)


@pytest.mark.parametrize("axes", ["TCZYX", "CZTYX", "ZCYX"])
def test_each_slice_and_time_is_an_image_of_all_channels(tmp_path, axes):
    lengths = {"T": 2, "C": 3, "Z": 4, "Y": 8, "X": 10}
    stack = some(*(lengths[axis] for axis in axes))
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, photometric="minisblack", ome=True, metadata={"axes": axes})
    order = [axes.index(axis) for axis in axes if axis not in "CYX"] + [axes.index(axis) for axis in "YXC"]
    expected = stack.transpose(order).reshape(-1, 8, 10, 3)
    assert image_files.count_images(tmp_path / "a.ome.tif", 3, 8) == len(expected)
    for number, image in enumerate(expected):
        np.testing.assert_array_equal(image_files.read(Page(tmp_path / "a.ome.tif", number), 3, 8), image)


def test_colours_on_every_slice(tmp_path):
    stack = some(4, 8, 10, 3)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "ZYXS"})
    assert image_files.count_images(tmp_path / "a.tif", 3, 8) == 4
    np.testing.assert_array_equal(image_files.read(Page(tmp_path / "a.tif", 2)), stack[2])


def test_pages_without_metadata_are_images_unless_as_many_channels_are_declared(tmp_path):
    path, stack = tmp_path / "a.tif", some(3, 8, 10)
    tifffile.imwrite(path, stack, photometric="minisblack", metadata=None)
    assert [image_files.count_images(path, *declared) for declared in ((3, 8), (1, 8), (3, 16))] == [3, 3, 1]
    np.testing.assert_array_equal(image_files.read(Page(path, 1), 1, 8)[..., 0], stack[1])
    np.testing.assert_array_equal(image_files.read(path, 3, 16), stack.transpose(1, 2, 0).astype(np.uint16) * 257)
    with pytest.raises(DataError, match="is a stack of 3 images"):
        image_files.read(path, 3, 8)
    with pytest.raises(DataError, match="none of number 3"):
        image_files.read(Page(path, 3), 3, 8)


def test_smaller_copies_of_an_image_are_no_images(tmp_path):
    image = some(64, 48, 3)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(image, photometric="rgb", metadata=None)
        for level in (2, 4):
            writer.write(image[::level, ::level], photometric="rgb", subfiletype=1, metadata=None)
    assert image_files.count_images(tmp_path / "a.tif", 3, 8) == 1
    np.testing.assert_array_equal(image_files.read(tmp_path / "a.tif"), image)


@pytest.mark.parametrize("kind", BITS)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_white_is_zero_is_inverted(tmp_path, kind, compression):
    image = some(8, 10, kind=kind)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="miniswhite", compression=compression)
    found = image_files.read(tmp_path / "a.tif", 1, BITS[kind])[..., 0]
    np.testing.assert_array_equal(found, np.iinfo(kind).max - image)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_compressions(tmp_path, compression, mode):
    image = some(20, 24, 3) if mode == "RGB" else some(20, 24)
    try:
        Image.fromarray(image).save(tmp_path / "a.tif", compression=compression)
    except OSError:
        pytest.skip(f"this Pillow cannot write {compression}")
    np.testing.assert_array_equal(
        image_files.read(tmp_path / "a.tif"), image.reshape(20, 24, -1) * np.ones(3, np.uint8)
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", BITS)
def test_every_orientation(tmp_path, orientation, kind):
    image = some(8, 10, kind=kind)
    tags = [(tiff_files.ORIENTATION, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", metadata=None, extratags=tags)
    turned = {
        1: image, 2: image[:, ::-1], 3: image[::-1, ::-1], 4: image[::-1],
        5: image.T, 6: np.rot90(image, -1), 7: np.rot90(image, 2).T, 8: np.rot90(image),
    }[orientation]  # fmt: skip
    np.testing.assert_array_equal(image_files.read(tmp_path / "a.tif", 1, BITS[kind])[..., 0], turned)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.zeros((8, 8), np.uint32), "has uint32 pixels: convert it"),
        (np.zeros((8, 8), np.float32), "has float32 pixels: convert it"),
        (np.zeros((8, 8, 5), np.uint8), "has 5 channels where 3 are expected"),
        (np.zeros((8, 8, 2), np.uint8), "has 2 channels where 3 are expected"),
    ],
)
def test_what_is_not_read_says_why(tmp_path, pixels, said):
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig")
    with pytest.raises(DataError, match=said):
        image_files.read(tmp_path / "a.tif")


def folder_of_stacks(root, pages=4, label_pages=None):
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    images = some(pages, 16, 20, seed=1)
    labels = some(label_pages or pages, 16, 20, seed=2) % 2
    tifffile.imwrite(root / "images" / "s.tif", images, imagej=True, metadata={"axes": "ZYX"})
    tifffile.imwrite(root / "labels" / "s.tif", labels, imagej=True, metadata={"axes": "ZYX"})
    for folder in ("images", "labels"):
        cv2.imwrite(str(root / folder / "single.png"), np.zeros((16, 20), np.uint8))
    return images, labels


def test_a_folder_has_a_sample_for_each_page_of_a_stack(tmp_path):
    images, labels = folder_of_stacks(tmp_path)
    splits = [Folder(FolderConfig(root=str(tmp_path)), split) for split in ("train", "val")]
    found = {sample.name: sample for split in splits for sample in (split[index] for index in range(len(split)))}
    assert sorted(found) == ["s-0000", "s-0001", "s-0002", "s-0003", "single"]
    for number in range(4):
        sample = found[f"s-{number:04d}"]
        np.testing.assert_array_equal(sample.image, np.repeat(images[number][..., None], 3, axis=2))
        np.testing.assert_array_equal(sample.label, labels[number])
    for split in splits:
        split.check()
    before = [split.fingerprint() for split in splits]
    tifffile.imwrite(tmp_path / "images" / "s.tif", images[::-1], imagej=True, metadata={"axes": "ZYX"})
    after = [Folder(FolderConfig(root=str(tmp_path)), split).fingerprint() for split in ("train", "val")]
    assert before[0] != after[0]


def test_a_stack_against_another_number_of_labels_is_refused(tmp_path):
    folder_of_stacks(tmp_path, label_pages=3)
    with pytest.raises(DataError, match=r"holds 4 images and its label '.*' 3: a stack needs a label stack"):
        Folder(FolderConfig(root=str(tmp_path)), "train")
    cv2.imwrite(str(tmp_path / "labels" / "s.png"), np.zeros((16, 20), np.uint8))
    (tmp_path / "labels" / "s.tif").unlink()
    with pytest.raises(DataError, match=r"holds 4 images and its label '.*' 1"):
        Folder(FolderConfig(root=str(tmp_path)), "train")


def test_a_stack_of_labels_for_a_single_image_is_refused(tmp_path):
    folder_of_stacks(tmp_path)
    cv2.imwrite(str(tmp_path / "images" / "s.png"), np.zeros((16, 20), np.uint8))
    (tmp_path / "images" / "s.tif").unlink()
    with pytest.raises(DataError, match=r"holds 1 images and its label '.*' 4"):
        Folder(FolderConfig(root=str(tmp_path)), "train")
    with pytest.raises(DataError, match="is a stack of 4 pages"):
        read_label(tmp_path / "labels" / "s.tif", white=1)


def folder_of_labels(root, labels, slices=None, **options):
    """Make a folder of an image, or of a stack of some slices, whose label is a TIFF that is written with options."""
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    tifffile.imwrite(root / "labels" / "s.tif", labels, photometric="minisblack", **options)
    shape = (*([slices] if slices else []), *labels.shape[-2:])
    more = {"imagej": True, "metadata": {"axes": "ZYX"}} if slices else {}
    tifffile.imwrite(root / "images" / "s.tif", some(*shape), photometric="minisblack", **more)
    return root


CHANNELS = [
    {"imagej": True, "metadata": {"axes": "ZCYX"}},
    {"ome": True, "metadata": {"axes": "ZCYX"}},
    {"ome": True, "metadata": {"axes": "CZYX"}},
    {"metadata": {"axes": "ZCYX"}},
]


@pytest.mark.parametrize("options", CHANNELS)
@pytest.mark.parametrize("count", [1, 2])
def test_a_label_is_never_a_page_of_another_image(tmp_path, options, count):
    labels = np.arange(3 * count, dtype=np.uint8).reshape(3, count, 1, 1).repeat(8, 2).repeat(10, 3)
    by_axes = labels if options["metadata"]["axes"] == "ZCYX" else labels.swapaxes(0, 1)
    root = folder_of_labels(tmp_path, np.ascontiguousarray(by_axes), 3, **options)
    dataset = Folder(FolderConfig(root=str(root), num_classes=6), "train")
    for number in range(3):
        page = dataset.label_path(f"s-{number:04d}")
        if count == 2:
            with pytest.raises(DataError, match=rf"s\.tif, page {number}' has 2 channels, each on a page of its own"):
                read_label(page, white=1)
        else:
            np.testing.assert_array_equal(read_label(page, white=1), labels[number, 0])


@pytest.mark.parametrize("options", [{"imagej": True}, {"ome": True}, {}])
def test_the_label_of_a_single_image_has_no_channels(tmp_path, options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, some(2, 8, 10), photometric="minisblack", metadata={"axes": "CYX"}, **options)
    with pytest.raises(DataError, match=r"a\.tif' has 2 channels, .*save that channel alone"):
        read_label(path, white=1)


def test_a_smaller_copy_before_a_label_is_no_label(tmp_path):
    labels = some(2, 8, 10) % 2
    for name, chosen in (("one", labels[:1]), ("two", labels)):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as writer:
            for label in chosen:
                writer.write(label[::2, ::2], photometric="minisblack", metadata=None, subfiletype=1)
                writer.write(label, photometric="minisblack", metadata=None)
    np.testing.assert_array_equal(read_label(tmp_path / "one.tif", white=1), labels[0])
    for number in range(2):
        np.testing.assert_array_equal(read_label(Page(tmp_path / "two.tif", number), white=1), labels[number])


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, b"\x01\xff"), (2, b"\x02\x00"), (2, b"\x0c\x00"), (4, b"\x01\x01"), (8, b"\xff\xff\xff\xff")],
)
def test_a_label_with_a_damaged_tag_is_read_or_refused_in_a_line(tmp_path, place, value):
    path = tmp_path / "label.tif"
    Image.fromarray(np.eye(40, dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    start = int.from_bytes(whole[4:8], "little")
    tags, refused = int.from_bytes(whole[start : start + 2], "little"), 0
    for at in range(start + 2, start + 2 + 12 * tags, 12):
        path.write_bytes(whole[: at + place] + value + whole[at + place + len(value) :])
        try:
            read_label(path, white=255)
        except DataError as error:
            refused += "\n" not in str(error)
    assert refused > 0
