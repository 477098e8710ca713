"""The files that a user means by ``input``, and the images that are read from them."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from fcnlab.core.errors import DataError
from fcnlab.data.unlabelled import find

GREY = np.arange(40 * 60, dtype=np.uint32).reshape(40, 60).astype(np.uint8)
RGB = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def read_one(path):
    [file] = find(str(path))
    [image] = file.images()
    return image.read()


def names(files):
    return [file.name for file in files]


def test_a_folder_is_taken_with_those_below_but_not_its_output(tmp_path):
    for name in ("b.png", "a.tif", "sub/c.jpg", "out/masks/b.png", ".hidden.png"):
        write(tmp_path / name, GREY)
    (tmp_path / "notes.txt").write_text("")
    assert names(find(str(tmp_path), without=tmp_path / "out")) == ["a", "b", "sub/c"]


def test_a_pattern_and_a_file(tmp_path):
    for name in ("a1.png", "a2.png", "b1.png", "deep/a3.png"):
        write(tmp_path / name, GREY)
    assert names(find(str(tmp_path / "a*.png"))) == ["a1", "a2"]
    assert names(find(str(tmp_path / "**" / "a*.png"))) == ["a1", "a2", "deep/a3"]
    assert names(find(str(tmp_path / "b1.png"))) == ["b1"]


def test_files_of_one_stem_keep_their_extension(tmp_path):
    for name in ("a.png", "a.bmp", "b.png"):
        write(tmp_path / name, GREY)
    assert names(find(str(tmp_path))) == ["a.bmp", "a.png", "b"]


@pytest.mark.parametrize("what", ["nowhere", "no*fit.png", "empty", "empty/*"])
def test_nothing_there_is_one_line(tmp_path, what):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("")
    with pytest.raises(DataError) as caught:
        find(str(tmp_path / what))
    assert str(caught.value).startswith(f"input={tmp_path / what}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "kind", ["grey", "grey 16", "rgb", "rgb 16", "rgba", "rgba 16", "grey alpha", "palette", "1 bit"]
)
def test_any_depth_and_channels_become_8_bit_rgb(tmp_path, kind):
    path = tmp_path / "a.png"
    expected = np.stack([GREY] * 3, axis=-1) if kind.startswith("grey") else RGB
    alpha = np.full_like(GREY, 7)
    if kind == "grey":
        write(path, GREY)
    elif kind == "grey alpha":
        write(path, np.dstack([GREY, alpha]))
    elif kind == "grey 16":
        cv2.imwrite(str(path), GREY.astype(np.uint16) * 257)
    elif kind == "rgb":
        write(path, RGB)
    elif kind == "rgb 16":
        cv2.imwrite(str(path), RGB[..., ::-1].astype(np.uint16) * 257)
    elif kind == "rgba":
        write(path, np.dstack([RGB, alpha]))
    elif kind == "rgba 16":
        cv2.imwrite(str(path), np.dstack([RGB[..., ::-1], alpha]).astype(np.uint16) * 257)
    elif kind == "palette":
        Image.fromarray(RGB).quantize(64).save(path)
        expected = np.array(Image.open(path).convert("RGB"))
    else:
        Image.fromarray(GREY > 127).save(path)
        expected = np.stack([np.where(GREY > 127, 255, 0)] * 3, axis=-1)
    pixels = read_one(path)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_images_are_turned_as_their_metadata_say(tmp_path, orientation, ending):
    image = Image.fromarray(RGB)
    exif = image.getexif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{ending}"
    image.save(path, exif=exif)
    expected = np.array(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    assert expected.shape[:2] == ((60, 40) if orientation > 4 else (40, 60))
    np.testing.assert_array_equal(read_one(path), expected)


@pytest.mark.parametrize(("ending", "pixels", "channels"), [("png", GREY, 1), ("tif", np.dstack([RGB, GREY]), 3)])
def test_images_of_other_channels_are_turned_once(tmp_path, ending, pixels, channels):
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / f"a.{ending}", exif=exif)
    [file] = find(str(tmp_path))
    [image] = file.images(channels=channels)
    np.testing.assert_array_equal(image.read(), np.rot90(np.atleast_3d(pixels)[..., :channels], -1))


def test_the_pages_of_a_tiff_are_images_of_their_own(tmp_path):
    pages = [GREY, GREY[:20, ::-1], 255 - GREY]
    cv2.imwritemulti(str(tmp_path / "stack.tif"), [page.astype(np.uint16) * 257 for page in pages])
    [file] = find(str(tmp_path))
    images = file.images()
    assert [image.name for image in images] == ["stack-0000", "stack-0001", "stack-0002"]
    for image, page in zip(reversed(images), reversed(pages), strict=True):
        np.testing.assert_array_equal(image.read(), np.stack([page] * 3, axis=-1))


def test_transparent_pages_keep_their_colours(tmp_path):
    pages = [Image.fromarray(np.dstack([page, np.full_like(GREY, 9)])) for page in (RGB, RGB[::-1])]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    [file] = find(str(tmp_path))
    found = [image.read() for image in file.images()]
    np.testing.assert_array_equal(found, [RGB, RGB[::-1]])


def test_the_frames_of_a_video_and_going_on_in_the_middle(tmp_path):
    path = tmp_path / "clip.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    levels = (20, 80, 140, 200)
    for level in levels:
        video.write(np.full((48, 64, 3), level, np.uint8))
    video.release()
    [file] = find(str(path))
    assert [image.name for image in file.images()] == [f"clip-000{index}" for index in range(4)]
    means = [image.read().mean() for image in file.images()]
    np.testing.assert_allclose(means, levels, atol=3)
    assert file.images()[2].read().mean() == pytest.approx(140, abs=3)
    path.write_bytes(b"no video")
    with pytest.raises(DataError, match=r"clip\.avi' cannot be read"):
        file.images()


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_a_damaged_file_is_one_line(tmp_path, name, capfd):
    path = write(tmp_path / name, np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(DataError, match=rf"{name}' .*damaged or truncated") as caught:
        read_one(path)
    assert "\n" not in str(caught.value)
    assert "label" not in str(caught.value)
