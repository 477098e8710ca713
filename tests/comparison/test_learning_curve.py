"""A comparison over the share of the training images has a curve, a sentence, a table and a figure of it."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
from made_up_trials import trial

from fcnlab.comparison import compare, markdown, write_report
from fcnlab.metrics.image_counts import ImageCounts
from fcnlab.metrics.marginals import marginals, measure

CLASSES = "['membrane', 'cell']"
SIZES = {"0.1": 4, "0.2": 8, "0.4": 16, "0.8": 32, "1": 40}


def trained(share, images, seed=0, score=None, **more):
    score = 0.8 - 0.6 * images**-0.5 if score is None else score
    found = trial(score, dataset__train_share=share, seed=seed, **more)
    return replace(found, training_images=images)


def noisy(seeds, **more):
    random = np.random.default_rng(1)
    return [
        trained(share, images, seed, 0.8 - 0.6 * images**-0.5 + random.normal(0, 0.005), **more)
        for seed in range(seeds)
        for share, images in SIZES.items()
    ]


def test_the_sentence_says_what_as_many_images_again_would_add(tmp_path):
    found = compare(noisy(3))
    (curve,) = found.curves
    truth = 0.6 * (40**-0.5 - 80**-0.5)
    gain = curve.gain(40)
    assert gain.low < truth < gain.high
    text = markdown(found)
    assert f"- 40 more training images, 80 in place of 40: {gain.value:+.4f} of mean IoU (95 % interval" in text
    assert "of the chance of the seeds); power law 0." in text
    paths = {path.name: path for path in write_report(found, tmp_path)}
    assert paths["learning_curve.png"].stat().st_size > 5000
    with paths["learning_curve.csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["training images"]) for row in rows] == [4, 8, 16, 32, 40, 80]
    assert [row["n"] for row in rows] == ["3"] * 5 + ["0"]
    assert rows[5]["val/mean_iou mean"] == ""
    assert float(rows[5]["power law"]) == pytest.approx(0.8 - 0.6 * 80**-0.5, abs=0.01)
    assert float(rows[0]["power law low"]) < float(rows[0]["power law"]) < float(rows[0]["power law high"])


def test_each_other_setting_has_a_curve_of_its_own():
    found = compare([*noisy(2), *noisy(2, arch__name="fcn32s")])
    assert [curve.label for curve in found.curves] == ["fcn32s", "fcn8s"]
    assert "- fcn32s: 40 more training images" in markdown(found)


def test_a_comparison_of_anything_else_has_no_curve(tmp_path):
    found = compare([trial(0.5, seed=0), trial(0.6, seed=1)])
    assert found.curves == []
    assert "learning_curve.csv" not in {path.name for path in write_report(found, tmp_path)}


def test_two_sizes_are_not_extrapolated():
    found = compare([trained(share, SIZES[share], seed) for share in ("0.4", "1") for seed in range(3)])
    assert found.curves[0].law is None
    assert (
        "- nothing is extrapolated from 16 and 40 training images, since that takes 3 sizes: train more shares, as in "
        "dataset.train_share=0.25,0.5,1"
    ) in markdown(found)
    with pytest.raises(ValueError, match="without a law"):
        found.curves[0].gain(40)


def test_shares_that_are_the_same_images_count_once():
    same = [trained("0.01", 4, score=0.5), trained("0.02", 4, score=0.5), trained("1", 8, score=0.6)]
    assert [point.images for point in compare(same).curves[0].points] == [4, 8]


def test_a_single_seed_with_three_sizes_has_no_interval():
    text = markdown(compare([trained(share, SIZES[share]) for share in ("0.2", "0.4", "1")]))
    assert "(without an interval, which takes a further size or seed)" in text


def test_scores_that_are_all_the_same_are_not_extrapolated():
    """Networks that call everything a cell have one score; a fit of it would be exact, and sure of no growth."""
    flat = [trained(share, images, seed, 0.3995) for share, images in SIZES.items() for seed in range(2)]
    assert "- all trainings have the same score" in markdown(compare(flat))


def test_runs_that_do_not_say_their_images_are_named():
    older = [replace(made, training_images=None) for made in noisy(1)]
    assert "- 5 trainings do not say how many images they trained on" in markdown(compare(older))


def counted(seed, images, hard, random):
    """Make up the counts of 12 validation images, some of which are hard for every training."""
    wrong = np.clip(0.1 + 0.4 * images**-0.5 + hard + random.normal(0, 0.003, len(hard)), 0.01, 0.9)
    counts = np.round(1000 * np.array([[1 - wrong, wrong], [wrong / 2, 2 - wrong / 2]])).astype(int)
    names = tuple(f"image {number}" for number in range(len(hard)))
    found = ImageCounts(names, names, np.moveaxis(counts, 2, 0), step=9)
    score = float(measure(marginals(found.total), "val/mean_iou", ["membrane", "cell"]))
    share = next(share for share, count in SIZES.items() if count == images)
    made = trained(share, images, seed, score, dataset__class_names=CLASSES)
    return replace(made, image_counts=found, best_step=9)


def test_the_chance_of_the_images_that_are_measured_on_widens_the_interval():
    random = np.random.default_rng(2)
    hard = random.normal(0, 0.05, 12)
    trials = [counted(seed, images, hard, random) for seed in range(2) for images in SIZES.values()]
    (curve,) = compare(trials).curves
    (blind,) = compare([replace(made, image_counts=None) for made in trials]).curves
    assert (curve.images, blind.images) == (12, 0)
    one, other = curve.gain(40), blind.gain(40)
    assert one.value == other.value
    assert one.low < other.low
    assert one.high > other.high
    assert not math.isnan(one.low)
    assert "of the chance of the seeds and of the 12 images" in markdown(compare(trials))
