"""Nearly the same images in two splits are counted, and different ones are not."""

import cv2
import numpy as np

from fcnlab.preparation.near_duplicates import NearDuplicates, lines


def scene(seed, height=96, width=120):
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (12, 15, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def altered(image, how):
    if how == "jpeg":
        return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    if how == "noise":
        noise = np.random.default_rng(0).normal(0, 6, image.shape)
        return np.clip(image + noise, 0, 255).astype(np.uint8)
    if how == "brightness":
        return cv2.convertScaleAbs(image, alpha=0.7, beta=20)
    return cv2.resize(image, (90, 70), interpolation=cv2.INTER_AREA)


def test_altered_copies_in_another_split_are_found_and_others_are_not():
    found = NearDuplicates()
    kinds = ["jpeg", "noise", "brightness", "size"]
    for number in range(60):
        found.add("train", f"t{number}", scene(number))
    for number, kind in enumerate(kinds):
        found.add("val", kind, altered(scene(number), kind))
    for number in range(100, 140):
        found.add("val", f"v{number}", scene(number))
    found.add("train", "black", np.zeros((50, 50, 3), np.uint8))
    found.add("val", "black too", np.zeros((50, 50, 3), np.uint8))
    expected = {(f"train: t{number}", f"val: {kind}") for number, kind in enumerate(kinds)}
    assert set(found.pairs()) == expected
    assert lines(found) == [
        "4 pairs of images in different splits are nearly the same, such as train: t0 and val: jpeg: keep such images "
        "together with group_by when the folder is prepared"
    ]


def test_sixteen_bits_and_many_channels_count_alike():
    found, image = NearDuplicates(), scene(1)
    found.add("train", "a", image)
    found.add("val", "b", image.astype(np.uint16) * 257)
    found.add("test", "c", np.dstack([image, image]))
    assert len(found.pairs()) == 3


def test_pages_that_follow_each_other_in_two_splits():
    found, random = NearDuplicates(), np.random.default_rng(0)
    for number, split in enumerate(["train", "train", "val", "val", "train"]):
        found.add(split, f"s-{number:04d}", random.integers(0, 256, (40, 40, 3), np.uint8))
    found.add("val", "other-0001", random.integers(0, 256, (40, 40, 3), np.uint8))
    assert found.neighbours() == [("train: s-0001", "val: s-0002"), ("val: s-0003", "train: s-0004")]
    assert "2 pairs of neighbouring pages" in lines(found)[0]
