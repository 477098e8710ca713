"""Labels in other formats, small enough to be drawn by hand."""

import base64
import json

import cv2
import numpy as np
import pytest

from fcnlab.core.errors import DataError
from fcnlab.data.label_files import read_raw_label
from fcnlab.preparation import labelme, pixel_labels
from fcnlab.preparation.coco import Coco
from fcnlab.preparation.json_documents import VOID
from fcnlab.preparation.pixel_labels import from_colours

CLASSES = ["background", "cell", "nucleus"]


def from_labelme(path, classes, shape):
    return labelme.read(path, classes).label(shape)


def from_values(path, values, count, void_values=()):
    scan = pixel_labels.scanned([path])
    meaning = pixel_labels.decide(scan, CLASSES[:count], values, void_values, instances=False)
    return meaning.to_classes(read_raw_label(path, white=meaning.white).values, path)


def write(path, document):
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


def test_colours_become_classes(tmp_path):
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[:, 2:4] = (255, 0, 128)
    picture[:, 4:] = (9, 9, 9)
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), picture[..., ::-1])
    found = from_colours(path, [(0, 0, 0), (255, 0, 128)], (9, 9, 9))
    assert found.tolist() == [[0, 0, 1, 1, VOID, VOID]] * 4
    with pytest.raises(DataError, match=r"has the colours \[9,9,9\], which are no class's"):
        from_colours(path, [(0, 0, 0), (255, 0, 128)], None)


@pytest.mark.parametrize(
    ("raw", "values", "classes", "expected"),
    [
        ([0, 255, 255, 0], [], 2, [0, 1, 1, 0]),  # binary, as many programs write it
        ([0, 1, 2, 255], [], 3, [0, 1, 2, VOID]),
        ([7, 3, 255, 7], [3, 7], 2, [1, 0, VOID, 1]),
        ([0, 255, 0, 0], [255, 0], 2, [1, 0, 1, 1]),
    ],
)
def test_values_become_classes(tmp_path, raw, values, classes, expected):
    cv2.imwrite(str(tmp_path / "a.png"), np.array([raw], np.uint8))
    assert from_values(tmp_path / "a.png", values, classes).tolist() == [expected]


def test_a_value_of_no_class_is_named(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[0, 1, 5]], np.uint8))
    with pytest.raises(DataError, match="has the values 5, which are no class's"):
        from_values(tmp_path / "a.png", [], 2)


def test_labelme_draws_polygons_rectangles_and_circles_in_their_order(tmp_path):
    shapes = [
        {"label": "cell", "shape_type": "polygon", "points": [[2, 2], [12, 2], [12, 12], [2, 12]]},
        {"label": "nucleus", "shape_type": "rectangle", "points": [[8, 8], [5, 5]]},
        {"label": "void", "shape_type": "circle", "points": [[17, 17], [17, 19]]},
    ]
    found = from_labelme(write(tmp_path / "a.json", {"shapes": shapes}), CLASSES, (20, 20))
    assert (found[5:9, 5:9] == 2).all()
    assert (found[2:13, 2:5] == 1).all()
    assert (found[:2] == 0).all()
    assert found[17, 17] == VOID
    assert np.count_nonzero(found == 1) + np.count_nonzero(found == 2) == 11 * 11


@pytest.mark.parametrize(("left", "top"), [(3, 4), (-1, -2), (8, 7), (30, 30)])
def test_labelme_pastes_masks(tmp_path, left, top):
    mask = np.random.default_rng(0).random((5, 4)) > 0.5
    encoded = base64.b64encode(cv2.imencode(".png", mask.astype(np.uint8) * 255)[1]).decode()
    shape = {"label": "cell", "shape_type": "mask", "mask": encoded, "points": [[left, top], [left + 3, top + 4]]}
    found = from_labelme(write(tmp_path / "a.json", {"shapes": [shape]}), CLASSES, (10, 9))
    for row, column in np.ndindex(10, 9):
        inside = 0 <= row - top < 5 and 0 <= column - left < 4
        assert found[row, column] == (inside and mask[row - top, column - left])


def coco(tmp_path, annotations, **document):
    whole = {
        "images": [{"id": 7, "file_name": "a.png", "height": 6, "width": 8}],
        "categories": [{"id": 3, "name": "nucleus"}, {"id": 1, "name": "cell"}],
        "annotations": annotations,
        **document,
    }
    return write(tmp_path / "coco.json", whole)


def test_coco_polygons_and_run_lengths(tmp_path):
    annotations = [
        {"id": 2, "image_id": 7, "category_id": 3, "area": 4, "segmentation": [[2, 2, 3, 2, 3, 3, 2, 3]]},
        {"id": 1, "image_id": 7, "category_id": 1, "area": 20, "segmentation": [[1, 1, 5, 1, 5, 4, 1, 4]]},
        # Down the columns: 42 pixels of nothing, and the last column.
        {"id": 3, "image_id": 7, "category_id": 1, "area": 6, "segmentation": {"size": [6, 8], "counts": [42, 6]}},
    ]
    found = Coco(coco(tmp_path, annotations), [])
    assert found.class_names == ["background", "cell", "nucleus"]
    label = found.label("7", (6, 8))
    assert (label[2:4, 2:4] == 2).all()  # the small one lies above the large one
    assert (label[1:5, 1] == 1).all()
    assert (label[:, 7] == 1).all()
    assert (label[:, 6] == 0).all()
    assert not found.label("99", (6, 8)).any()


@pytest.mark.parametrize(
    ("size", "counts", "expected"),
    [  # as pycocotools writes them
        ([6, 7], "=330003N1", lambda y, x: (abs(y - 2) <= 1) & (abs(x - 3) <= 1) | (y == 4) & (x == 5)),
        ([30, 40], "i:1i08K2N2N2N2O00000O20N1000001N2N2N2N5HQ9", lambda y, x: (y - 15) ** 2 + (x - 20) ** 2 <= 81),
    ],
)
def test_compressed_run_lengths(tmp_path, size, counts, expected):
    item = {"id": 1, "image_id": 7, "category_id": 1, "segmentation": {"size": size, "counts": counts}}
    label = Coco(coco(tmp_path, [item]), CLASSES).label("7", tuple(size))
    np.testing.assert_array_equal(label == 1, expected(*np.mgrid[: size[0], : size[1]]))


def test_a_crowd_is_void(tmp_path):
    crowd = {"id": 1, "image_id": 7, "category_id": 1, "iscrowd": 1, "area": 48}
    found = Coco(coco(tmp_path, [{**crowd, "segmentation": {"size": [6, 8], "counts": [0, 48]}}]), CLASSES)
    assert (found.label("7", (6, 8)) == VOID).all()


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [6, 8], "counts": [1, 2]},
        {"size": [6, 8], "counts": "compressed"},
        {"size": [6, 8], "counts": "é"},
        {"size": [6, 8], "counts": []},
        {"size": [6, 8], "counts": [2**70]},
        {"size": [6, 8], "counts": [2**62, 2**62, 2**62, 2**62, 48]},
        [[1, 2, 3]],
        "x",
        [["a", "b"]],
        None,
    ],
)
def test_what_coco_cannot_mean_is_one_line(tmp_path, segmentation):
    item = {"id": 1, "image_id": 7, "category_id": 1, "segmentation": segmentation}
    with pytest.raises(DataError, match=r"neither polygons nor run lengths of its size|has no polygon") as caught:
        Coco(coco(tmp_path, [item]), CLASSES).label("7", (6, 8))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("read", "document", "said"),
    [
        ("labelme", "{", "cannot be read"),
        ("labelme", {"images": []}, "no LabelMe file"),
        ("labelme", {"shapes": [{"label": "cell"}]}, "without a label or points"),
        ("labelme", {"shapes": [{"label": "cell", "points": [[1, None]]}]}, "without a label or points"),
        ("labelme", {"shapes": [{"label": "cell", "points": [[1, 1]], "shape_type": "cube"}]}, "of the type cube"),
        ("labelme", {"shapes": [{"label": "cell", "points": [[1, 1]], "shape_type": "mask"}]}, "no PNG in base 64"),
        (
            "labelme",
            {"shapes": [{"label": "cell", "points": [[1, 1]], "shape_type": "mask", "mask": "AAAA"}]},
            "no PNG in base 64",
        ),
        ("labelme", {"shapes": [{"label": "dog", "points": [[1, 1]]}]}, "label 'dog', which is none of"),
        ("coco", [], "no COCO file"),
        ("coco", {"images": [], "annotations": []}, "no COCO file"),
        ("coco", {"images": [], "annotations": [1], "categories": []}, "no COCO file"),
    ],
)
def test_other_files_are_one_line(tmp_path, read, document, said):
    path = write(tmp_path / "a.json", document)
    with pytest.raises(DataError, match=said) as caught:
        Coco(path, CLASSES) if read == "coco" else from_labelme(path, CLASSES, (4, 4))
    assert "\n" not in str(caught.value)


def test_categories_of_one_name_are_no_classes(tmp_path):
    item = {"id": 1, "image_id": 7, "category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 4]]}
    path = coco(tmp_path, [item], categories=[{"id": 1, "name": "cell"}, {"id": 2, "name": "cell"}])
    with pytest.raises(DataError, match=r"'cell' is the name of classes 1 and 2: .*set `classes`"):
        Coco(path, [])
    assert Coco(path, ["background", "cell"]).class_names == ["background", "cell"]
