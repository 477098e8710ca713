"""Large images are cut into tiles that together are the image, with their labels, and stay in one split."""

import sys

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from prepare_words import prepare_config

from fcnlab.core.errors import ConfigError, DataError
from fcnlab.data import zarr_images
from fcnlab.preparation import originals
from fcnlab.preparation.splitting import assign
from fcnlab.preparation.tiles import tiles_of

WORDS = ("root=out", "classes=[background,cell]")


def source(tmp_path, ending=".ome.tif"):
    """Write a large image beside two small ones, with labels, and return them by name."""
    random, found = np.random.default_rng(0), {}
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name, shape in {"large": (250, 130), "b": (60, 64), "c": (64, 64)}.items():
        image, label = random.integers(0, 256, (*shape, 3), np.uint8), random.integers(0, 2, shape, np.uint8)
        if name == "large" and ending != ".png":
            tiled = {"tile": (32, 32), "compression": "zlib", "photometric": "rgb"}
            tifffile.imwrite(tmp_path / "images" / f"large{ending}", image, ome=True, **tiled)
            tifffile.imwrite(tmp_path / "labels" / f"large{ending}", label, tile=(32, 32), compression="zlib")
        else:
            Image.fromarray(image).save(tmp_path / "images" / f"{name}.png")
            Image.fromarray(label).save(tmp_path / "labels" / f"{name}.png")
        found[name if name != "large" or ending == ".png" else "large.ome"] = (image, label)
    return found


def find(tmp_path, *words):
    return originals.find(prepare_config(f"source={tmp_path}", *WORDS, *words), tmp_path)


@pytest.mark.parametrize("ending", [".ome.tif", ".png"])
def test_tiles_are_the_image_and_its_label(tmp_path, ending):
    expected = source(tmp_path, ending)
    found = find(tmp_path, "tile=64")
    large = next(name for name in expected if name.startswith("large"))
    assert "1 images are larger than tile=64 and are cut into 12 tiles, with their labels" in found.notes
    image, label = (np.full_like(part, 99) for part in expected[large])
    for one in found.images:
        pixels, classes = one.read()
        if one.name in expected:
            np.testing.assert_array_equal(pixels, expected[one.name][0])
            continue
        assert max(classes.shape) <= 64
        assert one.path is None
        left, top = (int(part[1:]) for part in one.name.removeprefix(f"{large}_").split("_"))
        image[top : top + len(classes), left : left + classes.shape[1]] = pixels
        label[top : top + len(classes), left : left + classes.shape[1]] = classes
    np.testing.assert_array_equal(image, expected[large][0])
    np.testing.assert_array_equal(label, expected[large][1])
    drawn = assign(prepare_config(f"source={tmp_path}", *WORDS, "val_fraction=0.3"), found.images)
    assert len({split for split, names in drawn.splits.items() if any("large" in name for name in names)}) == 1


def test_the_tiles_of_a_single_image_are_divided_into_blocks(tmp_path):
    source(tmp_path)
    for name in "bc":
        for folder in ("images", "labels"):
            (tmp_path / folder / f"{name}.png").unlink()
    drawn = assign(prepare_config(f"source={tmp_path}", *WORDS), find(tmp_path, "tile=64").images)
    assert drawn.splits["val"] == ["large.ome_x43_y187", "large.ome_x86_y187"]
    assert "all images are of one file" in drawn.notes[0]


def test_masks_of_classes_are_cut_alike(tmp_path):
    random = np.random.default_rng(0)
    mask = random.integers(0, 2, (90, 40), np.uint8)
    for path, pixels in {"images/a.png": mask * 9, "labels/cell/a.png": mask * 255}.items():
        (tmp_path / path).parent.mkdir(parents=True)
        cv2.imwrite(str(tmp_path / path), pixels)
    found = find(tmp_path, "tile=50")
    assert [image.name for image in found.images] == ["a_x0_y0", "a_x0_y45"]
    np.testing.assert_array_equal(np.concatenate([image.read()[1] for image in found.images]), mask)


def test_what_is_not_larger_stays_a_file(tmp_path):
    source(tmp_path)
    assert [image.path.name for image in find(tmp_path, "tile=250").images] == ["b.png", "c.png", "large.ome.tif"]


def test_a_label_of_another_size_is_refused(tmp_path):
    source(tmp_path)
    tifffile.imwrite(tmp_path / "labels" / "large.ome.tif", np.zeros((250, 129), np.uint8))
    with pytest.raises(DataError, match=r"is 130 x 250 pixels and its label '.*' 129 x 250: one that is cut"):
        find(tmp_path, "tile=64")


def test_labels_that_are_drawn_on_whole_images_are_not_cut(tmp_path):
    (tmp_path / "coco.json").write_text("{}")
    with pytest.raises(ConfigError, match="tile: the labels of LabelMe and COCO files"):
        find(tmp_path, "annotations=coco.json", "tile=64")


def test_an_ome_zarr_names_its_extra_where_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    for folder in ("images", "labels"):
        (tmp_path / folder / "a.ome.zarr").mkdir(parents=True)
    with pytest.raises(DataError, match=r"^image '.*a.ome.zarr' is an OME-Zarr, .*: pip install 'fcnlab\[zarr\]'$"):
        find(tmp_path)


def test_an_ome_zarr_that_is_too_large_to_be_prepared_whole_is_refused_before_it_is_read(tmp_path, monkeypatch):
    image, label = tmp_path / "a.zarr", tmp_path / "b.zarr"
    monkeypatch.setattr(zarr_images, "size_of", lambda path: (2**14, 2**14))
    with pytest.raises(DataError, match=r"^image '.*a.zarr' has 16384 x 16384 pixels, .*as with tile=2048$"):
        tiles_of("a", image, [label], None, 3, 8)
    assert len(tiles_of("a", image, [label], 8192, 3, 8)) == 4


@pytest.mark.parametrize("version", [2, 3])
def test_an_ome_zarr_is_cut(tmp_path, version):
    zarr = pytest.importorskip("zarr")
    random = np.random.default_rng(0)
    image, label = random.integers(0, 256, (3, 100, 70), np.uint8), random.integers(0, 2, (100, 70), np.uint8)
    for name, pixels, axes in (("images", image[None], "tcyx"), ("labels", label, "yx")):
        group = zarr.open_group(str(tmp_path / name / "a.zarr"), mode="w", zarr_format=version)
        array = group.create_array("0", shape=pixels.shape, chunks=(*(1,) * (pixels.ndim - 2), 32, 32), dtype="uint8")
        array[...] = pixels
        scales = [{"axes": [{"name": axis} for axis in axes], "datasets": [{"path": "0"}]}]
        group.attrs.update({"multiscales": scales} if version == 2 else {"ome": {"multiscales": scales}})
    tiles = tiles_of("a", tmp_path / "images" / "a.zarr", [tmp_path / "labels" / "a.zarr"], 64, 3, 8)
    assert [tile.name for tile in tiles] == ["a_x0_y0", "a_x35_y0", "a_x0_y50", "a_x35_y50"]
    found = find(tmp_path, "tile=64")
    pixels, classes = found.images[3].read()
    np.testing.assert_array_equal(pixels, np.moveaxis(image, 0, -1)[50:, 35:])
    np.testing.assert_array_equal(classes, label[50:, 35:])
    [whole] = find(tmp_path).images
    np.testing.assert_array_equal(whole.read()[1], label)
