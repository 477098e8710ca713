"""Data sets in every layout and encoding that `fcnlab.prepare` takes, whose truth is known."""

import json

import cv2
import numpy as np
import tifffile
from PIL import Image

LAYOUTS = ("plain", "archive folder", "split outside", "split inside", "carvana", "side by side", "suffix")
ENCODINGS = ("indices", "binary", "values", "zero is void", "palette", "colours", "one bit")
OTHERS = ("labelme", "coco", "masks", "stack", "composite stack")
NAMES = (
    *(
        "a",
        "10",
        "2",
        "#1_control",
        "b ",
        "c,d",
        "it's",
        'say "x"',
        "Zelle ä",
        "細胞",
        "x=y",
        "50%20",
        "q?",
        "~",
        "[1]",
    ),
    *("img.v2", "-dash", "a+b", "p&q", "tab\there"),
)

VALUES = [10, 0]
COLOURS = [[0, 0, 0], [200, 30, 90]]


def some_pair(random, channels=3, void=True):
    """Return an image, H x W x C, and class indices of two classes, with 255 for void."""
    height, width = random.integers(33, 50, 2).tolist()
    image = random.integers(0, 256, (height, width, channels), np.uint8)
    label = (cv2.resize(random.integers(0, 256, (5, 5), np.uint8), (width, height)) > 127).astype(np.uint8)
    label[0, :2] = 0, 1
    if void:
        label[-3:, -4:] = 255
    return image, label


def encoded(label, encoding):
    """Return a label as a picture of PIL's, and the words that say what it means."""
    if encoding == "indices":
        return Image.fromarray(label), []
    if encoding == "binary":
        return Image.fromarray(np.where(label == 1, 255, 0).astype(np.uint8)), []
    if encoding == "one bit":
        return Image.fromarray(label == 1), []
    if encoding == "values":
        return Image.fromarray(np.where(label == 255, 255, np.take(VALUES, label % 2)).astype(np.uint8)), [
            f"values={VALUES}".replace(" ", "")
        ]
    if encoding == "zero is void":
        return Image.fromarray(np.where(label == 255, 0, label + 1).astype(np.uint8)), ["void_values=[0]"]
    if encoding == "palette":
        picture = Image.fromarray(label, "P")
        picture.putpalette([*COLOURS[0], *COLOURS[1], *[9] * 253 * 3, 255, 255, 255])
        return picture, []
    table = np.array([*COLOURS, [255, 255, 255]], np.uint8)
    words = [f"colours={COLOURS}".replace(" ", ""), "void_colour=[255,255,255]"]
    return Image.fromarray(table[np.where(label == 255, 2, label)]), words


def has_void(encoding):
    """Whether an encoding can hold void."""
    return encoding not in ("binary", "one bit")


def places(layout, name, number, ending):
    """Return where a layout keeps an image and its label."""
    split = "train" if number % 3 else "val"
    return {
        "plain": (f"images/{name}{ending}", f"labels/{name}.png"),
        "archive folder": (f"download/images/{name}{ending}", f"download/masks/{name}.png"),
        "split outside": (f"{split}/images/{name}{ending}", f"{split}/labels/{name}.png"),
        "split inside": (f"imgs/{split}/{name}{ending}", f"gt/{split}/{name}.png"),
        "carvana": (f"train/{name}{ending}", f"train_masks/{name}_mask.png"),
        "side by side": (f"{name}{ending}", f"{name}_seg.png"),
        "suffix": (f"images/{name}{ending}", f"labels/{name}_Segmentation.png"),
    }[layout]


def save(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path) if isinstance(picture, np.ndarray) else picture.save(path)


def make(root, seed, kind, names, ending=".png", layout="plain"):
    """Write a data set.

    Returns:
        The words for `fcnlab.prepare`, and the image and the class indices of each sample by its name.
    """
    random, truth, words = np.random.default_rng(seed), {}, ["classes=[background,cell]"]
    if kind in ENCODINGS:
        for number, name in enumerate(names):
            image, label = some_pair(random, void=has_void(kind))
            at, labelled = places(layout, name, number, ending)
            save(root / at, image)
            picture, more = encoded(label, kind)
            save(root / labelled, picture)
            truth[name] = image, label
        return words + more, truth
    if "stack" in kind:
        return words, _stacks(root, random, kind)
    documents = {"images": [], "annotations": [], "categories": [{"id": 4, "name": "cell"}]}
    for number, name in enumerate(names):
        image, _ = some_pair(random)
        label = np.zeros(image.shape[:2], np.uint8)
        top, left = random.integers(1, 9, 2).tolist()
        bottom, right = top + 20, left + 18
        label[top : bottom + 1, left : right + 1] = 1
        corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
        save(root / "images" / f"{name}{ending}", image)
        height, width = label.shape
        if kind == "labelme":
            said = {"imagePath": f"{name}{ending}", "imageHeight": height, "imageWidth": width}
            said["shapes"] = [{"label": "cell", "points": corners, "shape_type": "polygon"}]
            (root / "images" / f"{name}.json").write_text(json.dumps(said), encoding="utf-8")
        elif kind == "coco":
            documents["images"].append({"id": number, "file_name": f"{name}{ending}", "height": height, "width": width})
            documents["annotations"].append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": 4,
                    "area": 400,
                    "segmentation": [np.ravel(corners).tolist()],
                }
            )
        else:
            save(root / "masks" / "cell" / f"{name}.png", label * np.uint8(255))
        truth[name] = image, label
    if kind == "coco":
        (root / "coco.json").write_text(json.dumps(documents), encoding="utf-8")
        words.append("annotations=coco.json")
    return words, truth


def _stacks(root, random, kind):
    truth = {}
    for stack in ("one", "two"):
        images = random.integers(0, 256, (4, 36, 40, 3), np.uint8)
        labels = random.integers(0, 2, (4, 36, 40)).astype(np.uint8)
        for folder in ("images", "labels"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        metadata = {"axes": "ZCYX", "mode": "composite"}
        if kind == "stack":
            images = np.repeat(images[..., :1], 3, axis=-1)
            metadata = {"axes": "ZYX"}
        pages = images[..., 0] if kind == "stack" else images.transpose(0, 3, 1, 2)
        tifffile.imwrite(root / "images" / f"{stack}.tif", pages, imagej=True, metadata=metadata)
        tifffile.imwrite(root / "labels" / f"{stack}.tif", labels, imagej=True, metadata={"axes": "ZYX"})
        truth |= {f"{stack}-{number:04d}": (images[number], labels[number]) for number in range(4)}
    return truth
