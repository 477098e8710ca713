"""LabelMe files are drawn as LabelMe draws them, or what is left out is named."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw
from prepare_words import prepare_config

from fcnlab.core.errors import DataError
from fcnlab.preparation import labelme, originals

CLASSES = ["background", "cell", "nucleus"]


def document(*shapes, **more):
    return {
        "version": "5.4.1",
        "imagePath": "a.png",
        "imageHeight": 60,
        "imageWidth": 80,
        "shapes": list(shapes),
        **more,
    }


def shape(kind, points, label="cell", **more):
    return {"label": label, "points": points, "shape_type": kind, "group_id": 1, "flags": {}, **more}


def drawn(tmp_path, *shapes):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document(*shapes)))
    return labelme.read(path, CLASSES).label((60, 80))


@pytest.mark.parametrize(
    ("kind", "points"),
    [
        ("polygon", [[10, 10], [50, 12], [40, 45], [15, 40]]),
        ("rectangle", [[60, 50], [20, 10]]),
        ("circle", [[40, 30], [55, 30]]),
        ("line", [[10, 10], [60, 40]]),
        ("linestrip", [[10, 10], [60, 12], [40, 50]]),
        ("point", [[40, 30]]),
    ],
)
def test_shapes_cover_what_labelme_makes_of_them(tmp_path, kind, points):
    """The expected masks are drawn with PIL and the sizes of labelme.utils.shape: lines 10 wide, points of radius 5."""
    mask = Image.new("1", (80, 60))
    draw, pairs = ImageDraw.Draw(mask), [tuple(point) for point in points]
    if kind == "polygon":
        draw.polygon(pairs, outline=1, fill=1)
    elif kind == "rectangle":
        draw.rectangle([(20, 10), (60, 50)], outline=1, fill=1)
    elif kind == "circle":
        draw.ellipse([25, 15, 55, 45], outline=1, fill=1)
    elif kind == "point":
        draw.ellipse([35, 25, 45, 35], outline=1, fill=1)
    else:
        draw.line(pairs, fill=1, width=10)
    expected, found = np.array(mask), drawn(tmp_path, shape(kind, points)) == 1
    assert (expected & found).sum() / (expected | found).sum() > 0.9


def test_several_shapes_of_one_group_are_one_object_and_later_ones_lie_above(tmp_path):
    first = shape("rectangle", [[0, 0], [20, 20]])
    second = shape("rectangle", [[40, 0], [60, 20]])
    found = drawn(tmp_path, first, second, shape("rectangle", [[10, 10], [50, 15]], "nucleus"))
    assert found[5, 5] == found[5, 55] == 1
    assert found[12, 30] == found[12, 15] == 2


@pytest.mark.parametrize(("label", "value"), [("__ignore__", 255), ("void", 255), ("_background_", 0), ("cell", 1)])
def test_labels_of_labelmes_own(tmp_path, label, value):
    area = shape("rectangle", [[0, 0], [79, 59]], "nucleus")
    assert drawn(tmp_path, area, shape("rectangle", [[10, 10], [20, 20]], label))[15, 15] == value


def png(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def source(tmp_path, files):
    """Make a folder of LabelMe files: for each name, the document and the file of the image or None."""
    root = tmp_path / "source" / "images"
    root.mkdir(parents=True)
    for name, (said, image) in files.items():
        (root / f"{name}.json").write_text(json.dumps(said), encoding="utf-8-sig" if name == "b" else "utf-8")
        if image is not None:
            Image.fromarray(some(int.from_bytes(name.encode(), "big"))).save(root / image)
    return root.parent


def some(seed=0, height=60, width=80):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def find(root, *words):
    given = [f"source={root}", "root=out", "classes=[background,cell,nucleus]", *words]
    return originals.find(prepare_config(*given), root)


SQUARE = shape("rectangle", [[10, 10], [20, 20]])


def test_images_of_other_types_beside_and_inside_are_found_and_what_has_none_is_named(tmp_path):
    inside = base64.b64encode(png(some(9))).decode()
    files = {
        "a": (document(SQUARE), "a.png"),
        "b": (document(SQUARE, imagePath="b.webp"), "b.webp"),  # with a byte-order mark
        "c": (document(SQUARE, imagePath="C:\\\\photos\\\\c.png", imageData=inside), None),
        "d": (document(SQUARE, imagePath="lost.png"), None),
        "e": (document(SQUARE, imagePath="renamed.jpg"), "renamed.jpg"),
    }
    found = find(source(tmp_path, files))
    assert [image.name for image in found.images] == ["a", "b", "c", "e"]
    assert [warning for warning in found.warnings if "d.json' has no image, and is left out" in warning]
    assert any("1 images are taken out of their LabelMe files" in note for note in found.notes)
    for image in found.images:
        pixels, label = image.read()
        assert label[10:21, 10:21].all()
        assert label.sum() == 121
        assert pixels.shape == (60, 80, 3)
    np.testing.assert_array_equal(found.images[2].read()[0], some(9))


@pytest.mark.parametrize(
    ("said", "words", "message"),
    [
        (document(SQUARE, imageHeight=120, imageWidth=160), (), "annotation_scale=true scales the label"),
        (document(SQUARE, imageHeight=80, imageWidth=60), (), "which are swapped"),
        (document(SQUARE, imagePath="other.png"), (), "and 'a.png' has its own name: remove one"),
    ],
)
def test_what_is_unclear_is_one_line(tmp_path, said, words, message):
    root = source(tmp_path, {"a": (said, "a.png"), "other": (document(SQUARE, imagePath="other.png"), "other.png")})
    with pytest.raises(DataError, match=message) as caught:
        [image.read() for image in find(root, *words).images]
    assert "\n" not in str(caught.value)


def test_an_annotation_is_scaled_where_that_is_asked_for(tmp_path):
    twice = shape("rectangle", [[20, 20], [40, 40]])
    root = source(tmp_path, {"a": (document(twice, imageHeight=120, imageWidth=160), "a.png")})
    label = find(root, "annotation_scale=true").images[0].read()[1]
    assert label[10:21, 10:21].all()
    assert label.sum() == 121


@pytest.mark.parametrize(("height", "width"), [(50, 50), (200, 150), (73, 40)])
@pytest.mark.parametrize("corner", [(20, 20), (-5, 80), (90, -7), (300, 5)])
def test_a_mask_is_scaled_as_a_label_of_pixels_is(tmp_path, height, width, corner):
    """The expected label is the mask in an image of the stated size, whose nearest pixels are taken."""
    mask = np.random.default_rng(0).random((30, 40)) > 0.4
    left, top = corner
    whole = np.zeros((200, 200), bool)  # with 50 pixels around the image
    if left < 150:
        whole[top + 50 : top + 80, left + 50 : left + 90] = mask
    rows, columns = (np.arange(new) * 100 // new + 50 for new in (height, width))
    points = [[left, top], [left + 39, top + 29]]
    item = shape("mask", points, mask=base64.b64encode(png(mask.astype(np.uint8) * 255)).decode())
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document(item, imageHeight=100, imageWidth=100)))
    label = labelme.read(path, CLASSES).label((height, width), scale=True)
    np.testing.assert_array_equal(label == 1, whole[np.ix_(rows, columns)])


def test_an_image_without_a_file_of_its_name_is_named(tmp_path):
    root = source(tmp_path, {"a": (document(SQUARE), "a.png")})
    Image.fromarray(some()).save(root / "images" / "z.png")
    with pytest.raises(DataError, match=r"z\.png' has no LabelMe file of its name"):
        find(root)


def test_labels_as_pictures_beside_labelme_files_are_a_question(tmp_path):
    root = source(tmp_path, {"a": (document(SQUARE), "a.png")})
    (root / "labels").mkdir()
    Image.fromarray(np.full((60, 80), 2, np.uint8)).save(root / "labels" / "a.png")
    with pytest.raises(DataError, match="LabelMe files in 'images' and labels as pictures in 'labels': set `labels`"):
        find(root)
    assert (find(root, "labels=labels").images[0].read()[1] == 2).all()
    assert find(root, "labels=images").images[0].read()[1].sum() == 121


def test_shapes_with_too_few_points_are_counted(tmp_path):
    short = shape("polygon", [[1, 1], [5, 5]])
    found = find(source(tmp_path, {"a": (document(SQUARE, short, short), "a.png")}))
    assert any("2 shapes have too few points to be drawn, such as a polygon 'cell'" in line for line in found.warnings)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_labelme_draws_on_the_turned_photo(tmp_path, orientation, caplog):
    root = source(tmp_path, {"a": (document(SQUARE), None)})
    shown = np.zeros((60, 80, 3), np.uint8)
    shown[10:21, 10:21] = 200
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = {3: shown[::-1, ::-1], 6: np.rot90(shown), 8: np.rot90(shown, -1)}[orientation]
    Image.fromarray(np.ascontiguousarray(stored)).save(root / "images" / "a.png", exif=exif)
    found = find(root)
    assert found.turned is True
    pixels, label = found.images[0].read()
    np.testing.assert_array_equal(pixels[..., 0] > 100, label == 1)
    assert not caplog.records


def test_files_of_labelme_and_images_in_other_folders_are_counted(tmp_path):
    root = source(tmp_path, {"a": (document(SQUARE), "a.png")})
    assert not find(root).warnings
    for folder, names in {"day2": "bc", "images/sub": "d"}.items():
        (root / folder).mkdir()
        for name in names:
            (root / folder / f"{name}.json").write_text(json.dumps(document(SQUARE, imagePath=f"{name}.png")))
            Image.fromarray(some()).save(root / folder / f"{name}.png")
    assert find(root).warnings == [
        f"3 {what} lie in folders that are not read, and are left out: day2 (2), images/sub (1)"
        for what in ("JSON files", "images")
    ]


@pytest.mark.parametrize("place", ["", "../images/", "../link/"])
def test_two_files_of_labelme_for_one_image_are_refused(tmp_path, place):
    root = source(tmp_path, {"x": (document(SQUARE), "x.png")})
    (root / "link").symlink_to(root / "images")
    (root / "images" / "x.json").unlink()
    (root / "labels").mkdir()
    for name in ("x_anna", "x_bert"):
        said = document(SQUARE, imagePath=f"{place}x.png")
        (root / "labels" / f"{name}.json").write_text(json.dumps(said))
    with pytest.raises(DataError, match=r"x_anna\.json' and .*x_bert\.json' are both of the image .*x\.png': keep one"):
        find(root)
    (root / "labels" / "x_bert.json").unlink()
    assert [image.name for image in find(root).images] == ["x_anna"]
    (root / "labels" / "x_anna.JSON").write_text(json.dumps(said))
    with pytest.raises(DataError, match="share the stem 'x_anna'"):
        find(root)


@pytest.mark.parametrize("kind", [["polygon"], {"polygon": 1}, 7, True])
def test_a_type_that_is_no_text_is_one_line(tmp_path, kind):
    with pytest.raises(DataError, match=r"a shape 'cell' of the type .* make it a polygon") as caught:
        drawn(tmp_path, shape(kind, [[10, 10], [20, 20]]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "more",
    [{"imageHeight": 10**400}, {"imageWidth": 10**400}, {"imagePath": f"{'x' * 300}.png"}, {"imagePath": "\0.png"}],
)
def test_numbers_and_names_that_are_too_long_count_as_not_stated(tmp_path, more):
    [image] = find(source(tmp_path, {"a": (document(SQUARE, **more), "a.png")})).images
    assert image.read()[1].sum() == 121


def test_hidden_files_of_macos_are_not_read(tmp_path):
    root = source(tmp_path, {"a": (document(SQUARE), "a.png")})
    (root / "images" / "._a.json").write_bytes(b"\0\5\x16\7Mac OS X")
    (root / "images" / "._a.png").write_bytes(b"\0\5\x16\7Mac OS X")
    found = find(root)
    assert [image.name for image in found.images] == ["a"]
    assert not found.warnings
