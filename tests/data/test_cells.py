from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from fcnlab.config.schema import CellsConfig
from fcnlab.core.errors import DataError
from fcnlab.data import Cached, cells
from fcnlab.data.cells import Cells


@pytest.fixture(scope="module")
def slices():
    return list(Cells(CellsConfig(num_train=6), "train"))


def same(one, other) -> bool:
    return np.array_equal(one.image, other.image) and np.array_equal(one.label, other.label)


def test_shapes_types_and_names(slices):
    assert [sample.name for sample in slices] == [f"train-000{index}" for index in range(6)]
    for image, label, _ in slices:
        assert image.shape == (256, 256, 3)
        assert label.shape == (256, 256)
        assert image.dtype == label.dtype == np.uint8
        assert set(np.unique(label)) == {0, 1}
        assert (image == image[..., :1]).all()


@pytest.mark.parametrize("size", [64, 101, 320])
def test_any_size(size):
    image, label, _ = Cells(CellsConfig(image_size=size), "val")[0]
    assert image.shape == (size, size, 3)
    assert label.shape == (size, size)


def test_split_lengths_and_index_range():
    config = CellsConfig(num_train=5, num_val=2)
    assert len(Cells(config, "train")) == 5
    val = Cells(config, "val")
    assert len(val) == len(val.names) == 2
    assert val[-1].name == "val-0001"
    with pytest.raises(IndexError):
        val[2]


def test_a_sample_depends_on_seed_split_and_index_alone():
    few, many = Cells(CellsConfig(num_train=3), "train"), Cells(CellsConfig(num_train=500), "train")
    last = few[2]
    assert same(last, many[2])
    assert same(last, few[2])
    assert not same(few[0], few[1])
    assert not same(few[0], Cells(CellsConfig(), "val")[0])
    assert not same(few[0], Cells(CellsConfig(seed=1), "train")[0])


def test_neighbouring_seeds_and_indices_do_not_coincide():
    labels = [
        Cells(CellsConfig(seed=seed, image_size=64), split)[index].label.tobytes()
        for seed in range(3)
        for split in ("train", "val")
        for index in range(3)
    ]
    assert len(set(labels)) == len(labels)


def test_membranes_cover_about_a_fifth(slices):
    fractions = [(sample.label == 0).mean() for sample in slices]
    assert 0.15 < np.mean(fractions) < 0.25
    assert min(fractions) > 0.1
    assert max(fractions) < 0.3


def test_membranes_are_thin_lines_that_enclose_cells(slices):
    for _, label, _ in slices:
        membrane = np.uint8(label == 0)
        # A line at most 5 pixels wide leaves next to nothing after an opening by 7.
        assert cv2.morphologyEx(membrane, cv2.MORPH_OPEN, np.ones((7, 7), np.uint8)).mean() < 0.2 * membrane.mean()
        count, _, stats, _ = cv2.connectedComponentsWithStats(label, connectivity=4)
        areas = stats[1:, cv2.CC_STAT_AREA]
        assert count - 1 > 15
        assert areas.max() < 0.5 * label.size
        assert np.percentile(areas, 95) > 5 * np.median(areas) / 2


def test_membranes_are_darker_but_no_threshold_finds_them(slices):
    for image, label, _ in slices:
        grey = image[..., 0].astype(float)
        assert grey[label == 0].mean() < grey[label == 1].mean() - 25
        smooth = cv2.GaussianBlur(grey, (0, 0), 1)
        scores = [
            ((smooth < level) & (label == 0)).sum() / ((smooth < level) | (label == 0)).sum()
            for level in range(60, 180, 4)
        ]
        assert 0.2 < max(scores) < 0.75  # the best threshold's intersection over union


def test_a_coarse_grid_loses_the_membranes(slices):
    """Return the scores of a perfect network whose output has one pixel per ``stride`` and is enlarged smoothly."""

    def ceiling(stride: int) -> float:
        hits = union = 0
        for _, label, _ in slices:
            membrane = np.float32(label == 0)
            small = cv2.resize(membrane, None, fx=1 / stride, fy=1 / stride, interpolation=cv2.INTER_AREA)
            found = cv2.resize(small, label.shape, interpolation=cv2.INTER_LINEAR) > 0.35
            hits += (found & (label == 0)).sum()
            union += (found | (label == 0)).sum()
        return hits / union

    scores = [ceiling(stride) for stride in (32, 16, 8, 4, 2)]
    assert all(coarse + 0.02 < fine for coarse, fine in pairwise(scores))


def small(split: str = "train", **changes) -> Cells:
    return Cells(CellsConfig(**{"image_size": 64, "num_train": 3, "num_val": 3, **changes}), split)


def test_fingerprint_tells_the_generators_configurations_apart():
    datasets = [small(), small("val"), small(seed=1), small(image_size=65), small(num_train=4)]
    assert len({dataset.fingerprint() for dataset in datasets}) == len(datasets)
    assert small().fingerprint() == small(num_val=9, crop_size=32, cache_mib=0).fingerprint()


def test_fingerprint_changes_with_the_generators_code(monkeypatch):
    before = small().fingerprint()
    with monkeypatch.context() as patch:
        patch.setattr(cells, "_vesicles", lambda distance, rng: 0 * distance)
        assert small().fingerprint() != before
    assert small().fingerprint() == before


def test_source_names_the_seed():
    assert Cached(small(seed=7), limit_mib=1).source == "generated by fcnlab, seed 7"


def test_neither_a_check_nor_a_fingerprint_generates_a_whole_split():
    cached = Cached(small(num_train=100_000), limit_mib=1000)
    cached.check()
    assert cached.fingerprint() == small(num_train=100_000).fingerprint()
    assert cached.nbytes == 0


def test_unknown_split():
    with pytest.raises(DataError, match=r"'test'.*train, val"):
        Cells(CellsConfig(), "test")
