"""Parts of large TIFFs equal those of the whole image, and nothing else is read of their files."""

import numpy as np
import pytest
import tifffile

from fcnlab.core.errors import DataError
from fcnlab.data import image_files, tiff_files, tiff_regions
from fcnlab.data.image_files import Page, Region
from fcnlab.data.label_files import read_raw_label
from fcnlab.data.tiff_regions import Part

PARTS = [Part(0, 0, 5, 7), Part(30, 40, 50, 30), Part(99, 69, 1, 1), Part(0, 0, 100, 70)]


def pixels(*shape, kind=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(kind).max + 1, shape, kind)


STORED = {
    "tiles": {"tile": (32, 16), "compression": "zlib"},
    "tiles with a predictor": {"tile": (32, 32), "compression": "zlib", "predictor": True},
    "strips": {"rowsperstrip": 7, "compression": "zlib"},
    "one strip": {"compression": "zlib"},
    "bare": {},
    "bare, big endian": {"byteorder": ">"},
    "bare tiles": {"tile": (32, 32)},
    "big": {"bigtiff": True, "rowsperstrip": 9},
}


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("stored", STORED)
def test_parts_are_those_of_the_array_that_was_written(tmp_path, stored, kind, planar):
    image = pixels(100, 70, 3, kind=kind)
    if planar == "separate":
        written, more = np.moveaxis(image, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}
    else:
        written, more = image, {"photometric": "rgb"}
    tifffile.imwrite(tmp_path / "a.tif", written, metadata=None, **more, **STORED[stored])
    for part in PARTS:
        found = image_files.read(Region(tmp_path / "a.tif", part), 3, 8 * kind().itemsize)
        top, left, height, width = part
        np.testing.assert_array_equal(found, image[top : top + height, left : left + width])


@pytest.mark.parametrize("axes", ["CYX", "ZYX", "ZCYX"])
def test_pages_of_an_ome_tiff_are_channels_or_images(tmp_path, axes):
    stack = pixels(*(2,) * (len(axes) - 2), 100, 70)
    tifffile.imwrite(
        tmp_path / "a.ome.tif", stack, ome=True, metadata={"axes": axes}, tile=(32, 32), compression="zlib"
    )
    part, channels = Part(20, 30, 40, 40), 2 if "C" in axes else 1
    image = stack if axes == "CYX" else stack[1]
    file = tmp_path / "a.ome.tif"
    found = image_files.read(Region(file if axes == "CYX" else Page(file, 1), part), channels)
    expected = np.moveaxis(image, 0, -1) if "C" in axes else image[..., None]
    np.testing.assert_array_equal(found, expected[20:60, 30:70])
    assert image_files.size_of(file if axes == "CYX" else Page(file, 1), channels, 8) == (100, 70)


def test_white_is_zero_is_inverted_and_transparency_left_out(tmp_path):
    image = pixels(100, 70, kind=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", 65535 - image, photometric="miniswhite", tile=(32, 32), metadata=None)
    found = image_files.read(Region(tmp_path / "a.tif", PARTS[1]), 1, 16)
    np.testing.assert_array_equal(found[..., 0], image[30:80, 40:70])
    coloured = pixels(100, 70, 4)
    tifffile.imwrite(tmp_path / "b.tif", coloured, photometric="rgb", extrasamples=["unassalpha"], metadata=None)
    np.testing.assert_array_equal(image_files.read(Region(tmp_path / "b.tif", PARTS[1])), coloured[30:80, 40:70, :3])


@pytest.mark.parametrize("tile", [None, (32, 32)])
def test_labels_keep_their_values_palettes_and_single_bits(tmp_path, tile):
    values = pixels(100, 70) % 3
    colours = np.zeros((3, 256), np.uint16)
    colours[:, :3] = np.array([[0, 255, 10], [1, 2, 3], [200, 100, 50]]).T * 257
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="palette", colormap=colours, tile=tile, metadata=None)
    found = read_raw_label(Region(tmp_path / "a.tif", PARTS[1]), white=1)
    np.testing.assert_array_equal(found.values, values[30:80, 40:70])
    assert found.palette[:3].tolist() == [[0, 255, 10], [1, 2, 3], [200, 100, 50]]
    tifffile.imwrite(tmp_path / "b.tif", values > 0, photometric="minisblack", metadata=None)
    bilevel = read_raw_label(Region(tmp_path / "b.tif", PARTS[1]), white=255)
    assert bilevel.is_bilevel
    np.testing.assert_array_equal(bilevel.values, (values > 0)[30:80, 40:70] * 255)
    whole = read_raw_label(tmp_path / "b.tif", white=255)
    np.testing.assert_array_equal(whole.values[30:80, 40:70], bilevel.values)


@pytest.mark.parametrize(("stored", "share"), [("tiles", 0.2), ("strips", 0.2), ("bare", 0.02)])
def test_only_what_a_part_touches_is_read(tmp_path, monkeypatch, stored, share):
    image = pixels(1024, 1024)
    layout = {"tiles": {"tile": (64, 64), "compression": "zlib"}, "strips": {"rowsperstrip": 64, "compression": "zlib"}}
    tifffile.imwrite(tmp_path / "a.tif", image, metadata=None, **layout.get(stored, {}))
    counts, read = [], tifffile.FileHandle.read
    monkeypatch.setattr(tifffile.FileHandle, "read", lambda file, size=-1: counts.append(size) or read(file, size))
    region = Region(tmp_path / "a.tif", Part(500, 500, 100, 100))
    np.testing.assert_array_equal(image_files.read(region, 1)[..., 0], image[500:600, 500:600])
    assert -1 not in counts
    assert sum(counts) < share * image.nbytes


def test_one_large_compressed_piece_is_refused_and_an_uncompressed_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff_regions, "LARGEST_PIECE", 2000)
    image = pixels(100, 70)
    tifffile.imwrite(tmp_path / "a.tif", image, metadata=None, compression="zlib")
    with pytest.raises(DataError, match=r"a.tif, rows.* is compressed in pieces of 0 MiB.*save it in tiles"):
        image_files.read(Region(tmp_path / "a.tif", PARTS[0]), 1)
    tifffile.imwrite(tmp_path / "b.tif", image, metadata=None)
    np.testing.assert_array_equal(image_files.read(Region(tmp_path / "b.tif", PARTS[0]), 1)[..., 0], image[:5, :7])


def test_what_cannot_be_cut_is_one_line(tmp_path):
    tifffile.imwrite(tmp_path / "turned.tif", pixels(100, 70), metadata=None, extratags=[(274, "H", 1, 6, True)])
    with pytest.raises(DataError, match="tiles are cut upright"):
        image_files.read(Region(tmp_path / "turned.tif", PARTS[0]), 1)
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((100, 70), np.float32), metadata=None)
    with pytest.raises(DataError, match="has float32 pixels"):
        image_files.read(Region(tmp_path / "float.tif", PARTS[0]), 1)
    whole = (
        tifffile.imwrite(tmp_path / "cut.tif", pixels(100, 70), metadata=None) or (tmp_path / "cut.tif").read_bytes()
    )
    (tmp_path / "cut.tif").write_bytes(whole[:-3000])
    with pytest.raises(DataError, match=r"cut.tif.* is damaged or truncated"):
        image_files.read(Region(tmp_path / "cut.tif", PARTS[1]), 1)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "_LARGE_FILE", 1000)
    monkeypatch.setattr(tiff_files, "MAX_PIXELS", 100 * 70 - 1)
    monkeypatch.setattr(image_files, "read_file", None)
    tifffile.imwrite(tmp_path / "a.tif", pixels(100, 70), metadata=None)
    with pytest.raises(DataError, match=r"a.tif' is too large: cut it into tiles, as fcnlab.prepare does"):
        image_files.read(tmp_path / "a.tif")
    found = image_files.read(Region(tmp_path / "a.tif", PARTS[1]), 1)
    assert found.shape == (50, 30, 1)
