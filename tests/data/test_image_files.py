"""Files of any number of channels, of 8 or 16 bits, are read as the arrays that were written."""

import pickle

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fcnlab.core.errors import DataError
from fcnlab.data import image_files

BITS = {np.uint8: 8, np.uint16: 16}


def some(count, kind=np.uint8, height=24, width=37, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(kind).max + 1, (height, width, count), dtype=kind)


def refusal(path, count, bits=8):
    with pytest.raises(DataError) as caught:
        image_files.read(path, count, bits)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


WRITERS = {
    "array.npy": lambda path, image: np.save(path, image),
    "interleaved.tif": lambda path, image: tifffile.imwrite(
        path, image, photometric="minisblack", planarconfig="contig", compression="zlib"
    ),
    "planes.tif": lambda path, image: tifffile.imwrite(
        path, image.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate"
    ),
    "pages.tif": lambda path, image: tifffile.imwrite(
        path, image.transpose(2, 0, 1), photometric="minisblack", metadata=None
    ),
    "big.tiff": lambda path, image: tifffile.imwrite(
        path, image, photometric="minisblack", planarconfig="contig", bigtiff=True
    ),
}


@pytest.mark.parametrize("name", WRITERS)
@given(count=st.sampled_from([2, 4, 5, 12]), kind=st.sampled_from([np.uint8, np.uint16]), seed=st.integers(0, 9))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_is_the_array_that_was_written(tmp_path, name, count, kind, seed):
    image = some(count, kind, seed=seed)
    WRITERS[name](tmp_path / name, image)
    found = image_files.read(tmp_path / name, count, BITS[kind])
    assert found.dtype == kind
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
def test_planes_of_sixteen_bits_are_the_array_that_was_written_each_time(tmp_path, count, photometric):
    """OpenCV gives other pixels each time."""
    path, image = tmp_path / "planes.tif", some(count, np.uint16)
    extra = {"extrasamples": ["unassalpha"]} if photometric == "rgb" and count == 4 else {}
    planes = image.transpose(2, 0, 1)
    tifffile.imwrite(path, planes, photometric=photometric, planarconfig="separate", metadata=None, **extra)
    np.testing.assert_array_equal(image_files.read(path, count, 16), image)
    np.testing.assert_array_equal(image_files.read(image_files.Page(path, 0), count, 16), image)
    eight = image_files.read(path, 3, 8)
    np.testing.assert_allclose(eight, image[..., :3] / 257, atol=0.51)


@pytest.mark.parametrize(("count", "bits"), [(3, 8), (3, 16), (4, 16)])
def test_planes_that_cannot_be_decompressed_are_refused_and_not_left_to_opencv(tmp_path, monkeypatch, count, bits):
    def compressed(page):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    path = tmp_path / "planes.tif"
    tifffile.imwrite(path, some(count, np.uint16).transpose(2, 0, 1), planarconfig="separate", photometric="minisblack")
    monkeypatch.setattr(tifffile.TiffPage, "asarray", compressed)
    assert "pip install imagecodecs" in refusal(path, count, bits)
    with pytest.raises(DataError, match="pip install imagecodecs"):
        image_files.read(image_files.Page(path, 0), count, bits)


@pytest.mark.parametrize("planarconfig", ["separate", "contig"])
def test_a_tiff_of_many_channels_is_turned_as_it_says(tmp_path, planarconfig):
    path, image = tmp_path / "turned.tif", some(5)
    written = image.transpose(2, 0, 1) if planarconfig == "separate" else image
    turned = [(274, "H", 1, 6, True)]  # the stored image is to be turned to the right
    tifffile.imwrite(
        path, written, photometric="minisblack", planarconfig=planarconfig, metadata=None, extratags=turned
    )
    np.testing.assert_array_equal(image_files.read(path, 5, 8), np.rot90(image, -1))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("count", [1, 3])
def test_grey_and_rgb_of_everyday_files(tmp_path, ending, kind, count):
    image = some(count, kind)
    cv2.imwrite(str(tmp_path / f"a{ending}"), image[..., ::-1])
    np.testing.assert_array_equal(image_files.read(tmp_path / f"a{ending}", count, BITS[kind]), image)


def test_transparency_is_a_channel_where_four_are_asked_for(tmp_path):
    image = some(4)
    cv2.imwrite(str(tmp_path / "a.png"), cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA))
    np.testing.assert_array_equal(image_files.read(tmp_path / "a.png", 4, 8), image)
    np.testing.assert_array_equal(image_files.read(tmp_path / "a.png", 3, 16), image[..., :3].astype(np.uint16) * 257)


def test_grey_saved_as_colour_is_one_channel(tmp_path):
    grey = some(1)
    cv2.imwrite(str(tmp_path / "a.png"), np.repeat(grey, 3, axis=2))
    np.testing.assert_array_equal(image_files.read(tmp_path / "a.png", 1, 8), grey)


def test_bits_are_scaled_as_the_range_is(tmp_path):
    wide = some(5, np.uint16)
    np.save(tmp_path / "wide.npy", wide)
    np.testing.assert_array_equal(image_files.read(tmp_path / "wide.npy", 5, 8), np.rint(wide / 65535 * 255))
    narrow = some(5)
    np.save(tmp_path / "narrow.npy", narrow)
    found = image_files.read(tmp_path / "narrow.npy", 5, 16)
    np.testing.assert_allclose(found / 65535, narrow / 255, atol=1e-12)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_declared_range_of_values_becomes_the_full_range(tmp_path, bits):
    image = np.array([[[0], [100], [1000], [4095], [60000]]], np.uint16)
    np.save(tmp_path / "a.npy", image)
    full = 2**bits - 1
    expected = np.rint((image.clip(100, 4095).astype(float) - 100) / 3995 * full)
    np.testing.assert_array_equal(image_files.read(tmp_path / "a.npy", 1, bits, [100, 4095]), expected)
    np.save(tmp_path / "a.npy", image.astype(np.uint8))
    with pytest.raises(DataError, match=r"has 8 bits, and value_range=.* says what the values of 16 bits mean"):
        image_files.read(tmp_path / "a.npy", 1, bits, [100, 4095])


def test_another_number_of_channels_is_one_line(tmp_path):
    np.save(tmp_path / "a.npy", some(5))
    assert "has 5 channels where 4 are expected: set dataset.channels" in refusal(tmp_path / "a.npy", 4)
    cv2.imwrite(str(tmp_path / "a.png"), some(3))
    assert "has 3 channels where 1 are expected" in refusal(tmp_path / "a.png", 1)


def test_what_is_no_image_is_one_line(tmp_path):
    np.save(tmp_path / "float.npy", np.zeros((4, 4, 5), np.float32))
    assert "float32 pixels: convert it to uint8 or uint16" in refusal(tmp_path / "float.npy", 5)
    np.save(tmp_path / "flat.npy", np.zeros(4, np.uint8))
    assert "H x W x C or H x W" in refusal(tmp_path / "flat.npy", 5)
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((4, 4, 5), np.float32), photometric="minisblack")
    assert "float32 pixels" in refusal(tmp_path / "float.tif", 5)
    (tmp_path / "empty.npy").write_bytes(b"")
    assert "damaged" in refusal(tmp_path / "empty.npy", 5)


def test_an_array_runs_nothing_and_takes_no_more_than_it_holds(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    np.save(tmp_path / "evil.npy", np.array([[Evil(), Evil()]], dtype=object), allow_pickle=True)
    assert "of uint8 or uint16" in refusal(tmp_path / "evil.npy", 5)
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(Evil()))
    assert "damaged" in refusal(tmp_path / "pickle.npy", 5)
    assert not (tmp_path / "ran").exists()
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (100000, 100000, 5), }"
    (tmp_path / "huge.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    assert "too large" in refusal(tmp_path / "huge.npy", 5)


@pytest.mark.parametrize("name", WRITERS)
def test_a_truncated_file_is_one_line(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path, some(5, np.uint16))
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        refusal(path, 5, 16)


def test_a_compression_that_is_not_read_says_what_to_do(tmp_path):
    path = tmp_path / "a.tif"
    WRITERS["interleaved.tif"](path, some(5))
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["Compression"].overwrite(5)  # LZW, by its number
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        assert "save it uncompressed or with deflate, or pip install imagecodecs" in refusal(path, 5)
    else:
        refusal(path, 5)


EXACT = {
    ".gif": {}, ".webp": {"lossless": True}, ".jp2": {"irreversible": False}, ".pgm": {}, ".ppm": {}, ".pnm": {},
    ".bmp": {}, ".png": {},
}  # fmt: skip


@pytest.mark.parametrize("ending", EXACT)
def test_every_type_is_read_as_it_was_written(tmp_path, ending):
    grey = some(1)[..., 0]
    picture = Image.fromarray(grey if ending in (".pgm", ".gif") else np.dstack([grey, grey // 2, 255 - grey]))
    if ending == ".gif":
        picture.save(tmp_path / "a.gif", save_all=True, append_images=[picture.rotate(180)])
    else:
        picture.save(tmp_path / f"a{ending}", format="PPM" if ending == ".pnm" else None, **EXACT[ending])
    expected = np.array(picture.convert("RGB"))
    np.testing.assert_array_equal(image_files.read(tmp_path / f"a{ending}"), expected)
    assert ending in image_files.IMAGE_EXTENSIONS


@pytest.mark.parametrize("ending", [".jpg", ".jpeg", ".jpe", ".jfif"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_with_a_video_behind_is_whole_and_one_without_its_end_is_not(tmp_path, ending, progressive):
    path = tmp_path / f"a{ending}"
    Image.fromarray(some(3)).save(path, format="JPEG", progressive=progressive, quality=95)
    whole, image = path.read_bytes(), image_files.read(path)
    for seed in range(5):
        video = np.random.default_rng(seed).integers(0, 256, 2**17, np.uint8).tobytes()
        path.write_bytes(whole + b"MotionPhoto_Data\0\0\0\x18ftypmp42" + video)
        np.testing.assert_array_equal(image_files.read(path), image)
    path.write_bytes(whole[: len(whole) * 2 // 3])
    assert "damaged or truncated" in refusal(path, 3)


def test_what_is_no_image_of_a_known_kind(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    assert "damaged or truncated" in refusal(tmp_path / "a.png", 3)
