"""What the values of labels mean is decided by all labels together, or refused with the words that settle it."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from prepare_words import prepare_config

from fcnlab.core.errors import DataError
from fcnlab.preparation import originals

TWO, THREE = "classes=[background,cell]", "classes=[background,cell,nucleus]"


def source(tmp_path, *labels, ending=".png"):
    """Make a source with labels, each a row of values, a picture of PIL's, or a function that saves one."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for number, label in enumerate(labels):
        picture = label if isinstance(label, Image.Image) else Image.fromarray(np.array([label], np.uint8).repeat(4, 0))
        picture.save(tmp_path / "labels" / f"{number}{ending}")
        Image.fromarray(np.full((*picture.size[::-1], 3), 10 * number, np.uint8)).save(
            tmp_path / "images" / f"{number}.png"
        )
    return tmp_path


def read(root, *words):
    found = originals.find(prepare_config(f"source={root}", "root=out", *words), root)
    return [image.read()[1][0].tolist() for image in found.images], found


@pytest.mark.parametrize(
    ("labels", "words", "expected"),
    [
        ([[0, 255], [0, 0]], [TWO], [[0, 1], [0, 0]]),
        ([[0, 255], [0, 1]], [TWO], [[0, 255], [0, 1]]),  # 255 is void in both, since there is a 1
        ([[0, 255], [0, 0]], [TWO, "void_values=[255]"], [[0, 255], [0, 0]]),
        ([[0, 128], [0, 255]], [TWO, "values=[0,128]"], [[0, 1], [0, 255]]),
        ([[0, 1, 2, 3]], [THREE, "void_values=[0]"], [[255, 0, 1, 2]]),
        ([[0, 1, 2, 255]], [TWO, "void_values=[0,255]"], [[255, 0, 1, 255]]),
        ([[5, 6, 7, 8]], [THREE, "values=[5,6,7]", "void_values=[8]"], [[0, 1, 2, 255]]),
        ([[0, 7, 255, 9]], [TWO, "instances=true"], [[0, 1, 1, 1]]),
        ([[0, 7, 255, 9]], [TWO, "instances=true", "void_values=[255]"], [[0, 1, 255, 1]]),
        ([[0, 1], [0, 255]], [THREE], [[0, 1], [0, 255]]),
    ],
)
def test_one_meaning_for_all(tmp_path, labels, words, expected):
    labels = [*labels, labels[0]] if len(labels) == 1 else labels
    assert read(source(tmp_path, *labels), *words)[0] == (expected * 2 if len(expected) == 1 else expected)


def test_one_bit_beside_eight_bits(tmp_path):
    bits = Image.fromarray(np.array([[False, True]]))
    assert read(source(tmp_path, bits, [0, 255]), TWO)[0] == [[0, 1], [0, 1]]


def test_one_bit_beside_indices(tmp_path):
    bits = Image.fromarray(np.array([[False, True]]))
    assert read(source(tmp_path, bits, [1, 255]), TWO)[0] == [[0, 1], [1, 255]]


def test_objects_numbered_in_sixteen_bits(tmp_path):
    label = Image.fromarray(np.array([[0, 300, 40000]], np.uint16))
    assert read(source(tmp_path, label, label), TWO, "instances=true")[0] == [[0, 1, 1]] * 2
    assert read(tmp_path, TWO, "values=[0,300]", "void_values=[40000]")[0] == [[0, 1, 255]] * 2


def palette(indices, colours):
    picture = Image.fromarray(np.array([indices], np.uint8).repeat(4, 0), "P")
    picture.putpalette(np.ravel(colours).tolist())
    return picture


BLACK, RED, GREEN = [0, 0, 0], [255, 0, 0], [0, 255, 0]


def test_palettes_of_another_order_are_matched_by_colour_or_refused(tmp_path):
    root = source(tmp_path, palette([0, 1, 2], [BLACK, RED, GREEN]), palette([0, 1, 2], [BLACK, GREEN, RED]))
    with pytest.raises(DataError, match=r"1 is \[255,0,0\] in '.*0\.png' and \[0,255,0\] in '.*1\.png'; set `colours`"):
        read(root, THREE)
    assert read(root, THREE, "colours=[[0,0,0],[255,0,0],[0,255,0]]")[0] == [[0, 1, 2], [0, 2, 1]]
    assert read(root, THREE, "values=[0,1,2]")[0] == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize("axes", ["S", "ZYXS", "ZCYX"])
def test_colours_in_tiffs(tmp_path, axes):
    """A label in colours may have its channels on pages of their own, as a label of values may not."""
    colours = np.array([[BLACK, RED, GREEN], [GREEN, RED, BLACK]], np.uint8)[:, None].repeat(4, 1)  # Z x Y x X x S
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for number in range(2) if axes == "S" else [0]:
        pixels = {"S": colours[number], "ZYXS": colours, "ZCYX": np.ascontiguousarray(colours.transpose(0, 3, 1, 2))}
        options = {} if axes == "S" else {"imagej": True, "metadata": {"axes": axes, "mode": "composite"}}
        tifffile.imwrite(tmp_path / "labels" / f"{number}.tif", pixels[axes], **options)
        grey = np.zeros((4, 3) if axes == "S" else (2, 4, 3), np.uint8)
        more = {} if axes == "S" else {"imagej": True, "metadata": {"axes": "ZYX"}}
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", grey, **more)
    assert read(tmp_path, THREE, "colours=[[0,0,0],[255,0,0],[0,255,0]]")[0] == [[0, 1, 2], [2, 1, 0]]


def test_numbered_objects_may_have_any_colours(tmp_path):
    root = source(tmp_path, palette([0, 1, 2], [BLACK, RED, GREEN]), palette([0, 1, 2], [BLACK, GREEN, RED]))
    assert read(root, TWO, "instances=true")[0] == [[0, 1, 1], [0, 1, 1]]
    with pytest.raises(DataError, match=r"name two classes.* and leave out `values`"):
        read(root, TWO, "instances=true", "values=[0,1]")


def test_palettes_differ_only_where_values_are_used(tmp_path):
    root = source(tmp_path, palette([0, 1, 0], [BLACK, RED, GREEN]), palette([0, 0, 0], [BLACK, GREEN, RED]))
    assert read(root, TWO)[0] == [[0, 1, 0], [0, 0, 0]]


def test_what_was_decided_is_shown(tmp_path):
    found = read(source(tmp_path, [0, 128], [0, 255]), TWO, "values=[0,128]")[1]
    assert found.meaning == [("0", "background"), ("128", "cell"), ("255", "void")]


@pytest.mark.parametrize(
    ("labels", "words", "said"),
    [
        ([[0, 1], [0, 5]], [TWO], r"1\.png' has the values 5, which are no class's: set `values`"),
        ([[0, 128], [0, 0]], [TWO], r"as in values=\[0,128\]"),
        ([[0, 255], [0, 0]], [THREE], "hold 0 and 255 alone, .* and there are 3 classes"),
        ([list(range(40)), [0, 1]], [TWO], "instances=true makes every value but 0 the class 'cell'"),
        ([[0, 1], [0, 1]], [THREE, "instances=true"], "instances=true: name two classes"),
        ([[0, 1], [0, 1]], [TWO, "values=[0,1]", "void_values=[1]"], "void_values and values both have 1"),
        (
            [Image.fromarray(np.array([[BLACK, RED]], np.uint8))] * 2,
            [TWO],
            r"\(\[0,0,0\], \[255,0,0\]\): set `colours`",
        ),
    ],
)
def test_what_is_unclear_is_one_line(tmp_path, labels, words, said):
    with pytest.raises(DataError, match=said) as caught:
        read(source(tmp_path, *labels), *words)
    assert "\n" not in str(caught.value)


def test_a_jpeg_has_other_values_than_were_drawn(tmp_path):
    label = np.zeros((32, 32), np.uint8)
    label[5:20, 7:23] = 255
    root = source(tmp_path, *[Image.fromarray(label)] * 2, ending=".jpg")
    with pytest.raises(DataError, match="is a JPEG: JPEG changes the values of pixels"):
        read(root, TWO)


def test_masks_of_classes_that_overlap_are_spoken_of(tmp_path):
    root = source(tmp_path, [0, 0, 0], [0, 0, 0])
    for name, values in (("cell", [0, 255, 255]), ("nucleus", [0, 0, 255])):
        (root / "masks" / name).mkdir(parents=True)
        for number in range(2):
            row = np.array([values], np.uint8).repeat(4, 0)
            Image.fromarray(row).save(root / "masks" / name / f"{number}.png")
    rows, found = read(root, THREE, "labels=masks")
    assert rows == [[0, 1, 2], [0, 1, 2]]
    assert found.warnings[-1] == "masks of '0' overlap in 4 pixels: the later class is taken"


def test_masks_of_classes_are_scaled_where_that_is_asked_for(tmp_path):
    masks = {"cell": [[0, 255, 0]], "nucleus": [[0, 0, 255]]}
    (tmp_path / "images").mkdir()
    Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6)).save(tmp_path / "images" / "a.png")
    for name, values in masks.items():
        (tmp_path / "masks" / name).mkdir(parents=True)
        Image.fromarray(np.array(values, np.uint8).repeat(2, 0)).save(tmp_path / "masks" / name / "a.png")
    words = [f"source={tmp_path}", "root=out", THREE]
    found = originals.find(prepare_config(*words, "annotation_scale=true"), tmp_path)
    np.testing.assert_array_equal(found.images[0].read()[1], [[0, 0, 1, 1, 2, 2]] * 4)
    with pytest.raises(DataError, match="annotation_scale=true scales the label"):
        originals.find(prepare_config(*words), tmp_path).images[0].read()
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "masks" / "nucleus" / "a.png")
    with pytest.raises(DataError, match=r"nucleus.*is 6 x 4 pixels and another one of its image 3 x 2"):
        originals.find(prepare_config(*words, "annotation_scale=true"), tmp_path).images[0].read()


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("drawn_on", ["shown", "stored"])
def test_photos_that_are_to_be_turned(tmp_path, orientation, drawn_on, caplog):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    shown = np.zeros((20, 30), np.uint8)
    shown[3:9, 4:20] = 1
    stored = {1: shown, 3: shown[::-1, ::-1], 6: np.rot90(shown)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in "ab":
        Image.fromarray(np.ascontiguousarray(stored) * 200).save(tmp_path / "images" / f"{name}.png", exif=exif)
        label = shown if drawn_on == "shown" else np.ascontiguousarray(stored)
        Image.fromarray(label).save(tmp_path / "labels" / f"{name}.png")
    unclear = orientation == 3
    words = ["turned=false"] if unclear and drawn_on == "stored" else []
    found = originals.find(prepare_config(f"source={tmp_path}", "root=out", TWO, *words), tmp_path)
    assert found.turned is {1: None, 3: drawn_on == "shown", 6: drawn_on == "shown"}[orientation]
    pixels, label = found.images[0].read()
    np.testing.assert_array_equal(pixels[..., 0] > 100, label == 1)
    assert len([record for record in caplog.records if "turned=false" in record.getMessage()]) == (
        unclear and drawn_on == "shown"
    )


@pytest.mark.parametrize("word", ["classes=[cell,nucleus]", "classes=[background,cell,nucleus]"])
@pytest.mark.parametrize("covered", [True, False])
def test_pixels_that_no_mask_covers_are_of_a_first_class_without_masks(tmp_path, word, covered):
    (tmp_path / "images").mkdir()
    masks = {"a": {"cell": [1, 1, 0, 0], "nucleus": [0, 0, 1, covered]}, "b": {"nucleus": [1, 1, 1, covered]}}
    for name, by_class in masks.items():
        Image.fromarray(np.full((2, 4, 3), ord(name), np.uint8)).save(tmp_path / "images" / f"{name}.png")
        for kind, row in by_class.items():
            (tmp_path / "labels" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.array([row, row], np.uint8)).save(tmp_path / "labels" / kind / f"{name}.png")
    first = int("background" in word)
    if first or covered:
        cell, nucleus, bare = first, first + 1, first + 1 if covered else 0
        assert read(tmp_path, word)[0] == [[cell, cell, nucleus, bare], [nucleus, nucleus, nucleus, bare]]
        return
    found = originals.find(prepare_config(f"source={tmp_path}", "root=out", word), tmp_path)
    for image in found.images:
        with pytest.raises(
            DataError, match=f"no mask of '{image.name}' covers 2 of its pixels, and the first class"
        ) as e:
            image.read()
        assert "classes=[background,cell,nucleus]" in str(e.value)
