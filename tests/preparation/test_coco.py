"""Nothing that a COCO file says is lost without a word, and no file takes longer than a second to be refused."""

import json
import math
import os
import time

import numpy as np
import pytest
from PIL import Image
from prepare_words import prepare_config

from fcnlab.core.errors import DataError
from fcnlab.preparation import originals
from fcnlab.preparation.coco import Coco

SQUARE = [[2, 2, 5, 2, 5, 5, 2, 5]]
AREA = np.zeros((8, 10), np.uint8)
AREA[2:6, 2:6] = 1


def annotation(**more):
    return {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 16, "segmentation": SQUARE, **more}


def document(*annotations, **more):
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 10}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": list(annotations) or [annotation()],
        **more,
    }


def read(tmp_path, said, *arguments, **options):
    path = tmp_path / "coco.json"
    path.write_text(said if isinstance(said, str) else json.dumps(said))
    return Coco(path, *(arguments or ([],)), **options)


@pytest.mark.parametrize(
    ("images", "item"),
    [([{"id": "1", "file_name": "a.png"}], {}), ([{"id": 1, "file_name": "a.png"}], {"image_id": "1"}),
     ([{"id": 1, "file_name": "a.png"}], {"image_id": 1.0, "category_id": "1"})],
)  # fmt: skip
def test_ids_as_numbers_and_as_texts_are_the_same(tmp_path, images, item):
    np.testing.assert_array_equal(read(tmp_path, document(annotation(**item), images=images)).label(1, (8, 10)), AREA)


@pytest.mark.parametrize("segmentation", [[], None, [[2, 2, 5, 5]]])
def test_a_box_without_a_polygon_is_refused_until_it_is_said_what_becomes_of_it(tmp_path, segmentation):
    said = document(annotation(), annotation(id=2, segmentation=segmentation, bbox=[6, 1, 3, 2]))
    with pytest.raises(DataError, match=r"annotation 2 of 'a\.png' has a box but no polygon.*boxes=area"):
        read(tmp_path, said)
    box = np.zeros((8, 10), bool)
    box[1:3, 6:9] = True
    for boxes, value in (("area", 1), ("void", 255), ("none", 0)):
        found = read(tmp_path, said, [], boxes)
        np.testing.assert_array_equal(found.label(1, (8, 10)), np.where(box, value, AREA))
        assert any("1 annotations have no polygon (annotation 2 of 'a.png')" in note for note in found.notes)
    with pytest.raises(DataError, match="no run lengths and no box"):
        read(tmp_path, document(annotation(segmentation=segmentation)))


SMALL = [[3, 3, 4, 3, 4, 4, 3, 4]]
RUNS = {"size": [8, 10], "counts": [18, 4, 4, 4, 4, 4, 4, 4, 34]}
SMALL_RUNS = {"size": [8, 10], "counts": [27, 2, 6, 2, 43]}


@pytest.mark.parametrize("stated", [{}, {"area": None}, {"area": 0}])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    ("large", "small"),
    [
        ({"segmentation": SQUARE}, {"segmentation": SMALL}),
        ({"segmentation": RUNS}, {"segmentation": SMALL_RUNS}),
        ({"segmentation": SQUARE}, {"segmentation": SMALL_RUNS}),
        ({"segmentation": None, "bbox": [2, 2, 4, 4]}, {"segmentation": None, "bbox": [3, 3, 2, 2]}),
        ({"segmentation": None, "bbox": [2, 2, 4, 4]}, {"segmentation": SMALL}),
    ],
)
def test_small_objects_lie_above_large_ones_where_the_file_states_no_area(tmp_path, large, small, swapped, stated):
    def item(number, more):
        return {"id": number, "image_id": 1, "category_id": number, **stated, **more}

    items = [item(1, large), item(2, small)]
    said = document(
        *(items[::-1] if swapped else items), categories=[{"id": 1, "name": "cell"}, {"id": 2, "name": "nucleus"}]
    )
    expected = AREA.copy()
    expected[3:5, 3:5] = 2
    np.testing.assert_array_equal(read(tmp_path, said, [], "area").label(1, (8, 10)), expected)


def test_a_stray_polygon_of_two_points_is_named(tmp_path):
    found = read(tmp_path, document(annotation(segmentation=[*SQUARE, [1, 1, 2, 2]])))
    np.testing.assert_array_equal(found.label(1, (8, 10)), AREA)
    assert found.notes == ["polygons of fewer than three points were left out of 1, such as annotation 1 of 'a.png'"]


@pytest.mark.parametrize("name", ["background", "Background", "_background_"])
def test_a_category_called_background_is_the_first_class(tmp_path, name):
    said = document(
        annotation(),
        annotation(id=2, category_id=2, area=4, segmentation=[[3, 3, 4, 3, 4, 4, 3, 4]]),
        categories=[{"id": 2, "name": name}, {"id": 1, "name": "cell"}],
    )
    found = read(tmp_path, said)
    assert found.class_names == ["background", "cell"]
    label = found.label(1, (8, 10))
    assert label[3, 3] == 0
    assert label[2, 2] == 1


def test_what_is_unusual_is_said(tmp_path):
    said = document(
        annotation(iscrowd=1),
        annotation(),
        images=[{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        categories=[{"id": 1, "name": "cell"}, {"id": 5, "name": "cells"}],
    )
    assert read(tmp_path, said).notes == [
        "1 categories have no annotation: cells",
        "1 annotations are of crowds (iscrowd), which become void",
        "1 images have no annotation, so that their labels are background alone: b.png",
    ]
    assert read(tmp_path, said, ["background", "cell"]).class_names == ["background", "cell"]


NAN = math.nan


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (document(annotations=[1]), "is no COCO file"),
        ([], "is no COCO file"),
        ("{" * 100_000, "cannot be read"),
        ('{"images": ' + "9" * 10_000 + "}", "cannot be read"),
        (document(annotation(image_id=[1])), r"is of image \[1\], which the file does not list"),
        (document(annotation(image_id=7)), "is of image 7, which the file does not list"),
        (document(annotation(category_id=7)), "is of category 7, which the file does not list"),
        (document(annotation(area="abc")), "finite area"),
        (document(annotation(area=[1])), "finite area"),
        (document(annotation(area=NAN)), "finite area"),
        (document(annotation(bbox=[1, NAN, 2, 3], segmentation=[])), "finite area and box"),
        (document(annotation(segmentation=[[NAN, NAN, 10, 1, 10, 10]])), "neither polygons nor run lengths"),
        (document(annotation(segmentation=[[1, 1, 2]])), "neither polygons nor run lengths"),
        (document(annotation(segmentation={"counts": [1]})), "neither polygons nor run lengths"),
        (document(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]), "two categories have the id 1"),
        (document(categories=[{"id": True, "name": "a"}]), "a category without an id"),
        (document(categories=[{"id": 1, "name": ["a"]}]), "a category without an id or a name"),
        (document(images=[{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "a.png"}]), "image 'a.png' 2 times"),
        (document(categories=[{"id": n, "name": f"c{n}"} for n in range(400)]), "has 401 classes, and at most 254"),
        (document(annotation(), categories=[{"id": 1, "name": "x" * 10**6}]), "."),
        (document(annotations=[]), "would be background alone: is it the right file"),
    ],
)
def test_what_is_wrong_is_one_short_line_within_a_second(tmp_path, said, message):
    (tmp_path / "coco.json").write_text(said if isinstance(said, str) else json.dumps(said))
    began = time.process_time()
    with pytest.raises(DataError, match=message) as caught:
        Coco(tmp_path / "coco.json", ["background", "dog"] if message == "." else [])
    assert time.process_time() - began < 1
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_ids_of_two_types_are_sorted(tmp_path):
    said = document(annotation(), categories=[{"id": "x", "name": "b"}, {"id": 1, "name": "cell"}])
    assert read(tmp_path, said).class_names == ["background", "cell", "b"]


def source(tmp_path, said, *files, size=(8, 10)):
    root = tmp_path / "source"
    root.mkdir()
    (root / "coco.json").write_text(json.dumps(said))
    for number, name in enumerate(files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)).save(path)
    return root


def find(root, *words):
    words = words if any(word.startswith("annotations=") for word in words) else ("annotations=coco.json", *words)
    return originals.find(prepare_config(f"source={root}", "root=out", *words), root)


def test_files_in_subfolders_are_told_apart(tmp_path):
    names = ["one/a.png", "two/a.png", "b.png"]
    said = document(
        *(annotation(id=number, image_id=number) for number in range(3)),
        images=[{"id": number, "file_name": name} for number, name in enumerate(names)],
    )
    root = source(tmp_path, said, *(f"images/{name}" for name in names), "images/c.png", "images/two/d.png", "e.png")
    found = find(root)
    assert [(image.name, image.path.relative_to(root).as_posix()) for image in found.images] == [
        ("b", "images/b.png"), ("one-a", "images/one/a.png"), ("two-a", "images/two/a.png")
    ]  # fmt: skip
    assert any("1 images in" in line and "are left out: c.png" in line for line in found.warnings)
    assert "2 images lie in folders that are not read, and are left out: . (1), images/two (1)" in found.warnings


@pytest.mark.parametrize(
    ("stated", "words", "said"),
    [
        ((16, 20), (), "annotation_scale=true scales the label"),
        ((10, 8), (), "which are swapped"),
        ((16, 20), ("annotation_scale=true",), None),
        ((8, 10), (), None),
        ((None, None), (), None),
    ],
)
def test_another_size_is_refused_or_scaled(tmp_path, stated, words, said):
    polygon = [[2 * number for number in SQUARE[0]]] if stated == (16, 20) else SQUARE
    images = [{"id": 1, "file_name": "a.png", "height": stated[0], "width": stated[1]}]
    found = find(source(tmp_path, document(annotation(segmentation=polygon), images=images), "a.png"), *words)
    if said is None:
        np.testing.assert_array_equal(found.images[0].read()[1], AREA)
    else:
        with pytest.raises(DataError, match=said):
            found.images[0].read()


@pytest.mark.parametrize("name", ["../secret.png", "/etc/../../secret.png", "a\0.png"])
def test_a_file_name_leads_nowhere_else(tmp_path, name):
    Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(tmp_path / "secret.png")
    root = source(tmp_path, document(images=[{"id": 1, "file_name": name}]), "images/b.png")
    with pytest.raises(DataError, match="is no file below a folder"):
        find(root)
    (root / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "coco.json").write_text(json.dumps(document(images=[{"id": 1, "file_name": "link.png"}])))
    with pytest.raises(DataError, match="is a link to"):
        find(root)


@pytest.mark.parametrize("what", ["pipe", "/dev/zero", "images"])
def test_what_is_no_file_is_not_waited_for(tmp_path, what):
    root = source(tmp_path, document(), "images/a.png")
    os.mkfifo(root / "pipe")
    began = time.monotonic()
    with pytest.raises(DataError, match="cannot be read") as caught:
        find(root, f"annotations={what}")
    assert time.monotonic() - began < 30
    assert "\n" not in str(caught.value)


def test_a_size_that_is_too_large_counts_as_not_stated_and_a_name_that_is_too_long_as_missing(tmp_path):
    images = [{"id": 1, "file_name": "a.png", "height": 10**400, "width": 10}]
    root = source(tmp_path, document(images=images), "images/a.png")
    np.testing.assert_array_equal(find(root).images[0].read()[1], AREA)
    images[0]["file_name"] = f"{'x' * 300}.png"
    (root / "coco.json").write_text(json.dumps(document(images=images)))
    with pytest.raises(DataError, match=r"there is no image '.*xx\.png'"):
        find(root)


def exported(tmp_path, **categories):
    """Return a source as Roboflow exports it: a COCO file beside the images of each split, which may share names."""
    root = source(tmp_path, {}, *(f"{split}/{name}.png" for split in ("train", "valid", "test") for name in "ab"))
    (root / "coco.json").unlink()
    for split in ("train", "valid", "test"):
        names = ["a.png", "b.png"] if split != "test" else ["b.png"]
        said = document(
            *(annotation(id=place, image_id=place, category_id=1) for place in range(len(names))),
            images=[{"id": place, "file_name": name} for place, name in enumerate(names)],
            categories=[{"id": 0, "name": "background"}, {"id": 1, "name": categories.get(split, "cell")}],
        )
        (root / split / "_annotations.coco.json").write_text(json.dumps(said))
    return root


@pytest.mark.parametrize("words", [(), ("annotations=_annotations.coco.json",)])
def test_a_file_for_each_split_is_read_and_the_split_kept(tmp_path, words):
    root = exported(tmp_path)
    found = originals.find(prepare_config(f"source={root}", "root=out", *words), root)
    assert [(image.name, image.split, image.path.relative_to(root).as_posix()) for image in found.images] == [
        ("test-b", "test", "test/b.png"), ("train-a", "train", "train/a.png"), ("train-b", "train", "train/b.png"),
        ("val-a", "val", "valid/a.png"), ("val-b", "val", "valid/b.png"),
    ]  # fmt: skip
    np.testing.assert_array_equal(found.images[1].read()[1], AREA)
    assert found.class_names == ["background", "cell"]
    assert any("are left out: a.png" in line and "test" in line for line in found.warnings)
    assert any(
        line.startswith("the source is split already: test/_annotations.coco.json (test)") for line in found.notes
    )


def test_files_of_splits_with_other_classes_are_refused(tmp_path):
    root = exported(tmp_path, valid="cells")
    config = prepare_config(f"source={root}", "root=out")
    with pytest.raises(DataError, match=r"have other classes.*set `classes`, as in classes=\[background,cell,cells\]"):
        originals.find(config, root)
    with pytest.raises(DataError, match="has the label 'cells'"):
        originals.find(prepare_config(f"source={root}", "root=out", "classes=[background,cell]"), root)


def test_a_file_of_a_split_beside_pictures_of_labels_is_a_question(tmp_path):
    root = exported(tmp_path)
    (root / "train" / "masks").mkdir()
    Image.fromarray(AREA).save(root / "train" / "masks" / "a.png")
    with pytest.raises(DataError, match=r"COCO file 'train/_annotations.coco.json' and labels as pictures in 'train/m"):
        originals.find(prepare_config(f"source={root}", "root=out"), root)
    assert (
        len(
            originals.find(
                prepare_config(f"source={root}", "root=out", "annotations=_annotations.coco.json"), root
            ).images
        )
        == 5
    )


@pytest.mark.parametrize("name", ["x" * 5000, f"{'x' * 300}.json", "missing.json", "~nobody-here/coco.json"])
def test_a_path_that_leads_to_no_file_is_one_line(tmp_path, name):
    root = source(tmp_path, document(), "a.png")
    with pytest.raises(DataError, match=r"^annotations=.*there is no such file, neither here nor in") as caught:
        find(root, f"annotations='{name}'")
    assert len(str(caught.value)) < 400 + 2 * len(str(root))
