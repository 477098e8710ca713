"""The words for a difference, and the sentence at the top."""

import math
from dataclasses import replace

import numpy as np
import pytest
from made_up_trials import by_arch, by_seed, trial
from scipy import stats

from fcnlab.comparison import compare
from fcnlab.comparison.resampling import Spread
from fcnlab.comparison.significance import Difference, adjusted, paired_difference
from fcnlab.comparison.texts import remarks
from fcnlab.comparison.verdict import judge
from fcnlab.core.errors import ConfigError
from fcnlab.metrics.image_counts import ImageCounts

CLEAR = {"fcn16s": [0.60, 0.61, 0.605], "fcn8s": [0.70, 0.712, 0.704]}
CLOSE = {"fcn16s": [0.70, 0.7005, 0.70, 0.7002], "fcn8s": [0.7002, 0.7001, 0.7004, 0.7003]}
NOISY = {"fcn16s": [0.60, 0.70, 0.65], "fcn8s": [0.66, 0.69, 0.74]}


def pictured(arch, seed, wrong, groups=None):
    """Make up a training with counts of 4096 pixels for each image, of which some are wrong."""
    counts = np.array([[[2048 - one, one], [one, 2048 - one]] for one in wrong])
    names = tuple(f"image {number}" for number in range(len(wrong)))
    right = 1 - 2 * sum(wrong) / (4096 * len(wrong))
    made = trial(right / (2 - right), arch__name=arch, seed=seed)
    return replace(made, image_counts=ImageCounts(names, groups or names, counts, step=9), best_step=9)


def test_better_and_worse_are_seen_from_the_reference():
    found = compare(by_arch(CLEAR), baseline="fcn16s")
    assert (found.verdicts["fcn8s"].word, compare(by_arch(CLEAR)).verdicts["fcn16s"].word) == ("better", "worse")
    low = {name: [1 - value for value in values] for name, values in CLEAR.items()}
    trials = [replace(one, metrics={"val/loss": one.metrics["val/mean_iou"]}) for one in by_arch(low)]
    assert compare(trials, "val/loss", baseline="fcn16s").verdicts["fcn8s"].word == "better"


def test_equivalent_needs_a_margin_and_enough_seeds():
    assert compare(by_arch(CLOSE)).verdicts["fcn16s"].word == "undecided"
    assert compare(by_arch(CLOSE), margin=0.01).verdicts["fcn16s"].word == "equivalent"
    assert compare(by_arch(NOISY), margin=0.01).verdicts["fcn16s"].word == "undecided"
    # A difference that is more than chance may still be too small to matter.
    assert compare(by_arch(CLEAR), margin=0.2).verdicts["fcn16s"].word == "equivalent"


@pytest.mark.parametrize(
    ("values", "options", "said"),
    [
        (CLEAR, {}, "fcn8s is better than fcn16s by 0.1003 of mean IoU (95 % interval 0.0965 to 0.1041), over 3 seeds"),
        (CLEAR, {}, "over 3 seeds; p < 0.0001."),
        (CLEAR, {"baseline": "fcn8s"}, "The baseline fcn8s is better than fcn16s by 0.1003"),
        (CLEAR, {"baseline": "fcn16s"}, "fcn8s is better than the baseline fcn16s by 0.1003"),
        (CLOSE, {"margin": 0.01}, "fcn8s and fcn16s are equivalent: their difference of 0.0001"),
        (NOISY, {}, "It is undecided whether fcn8s is better than fcn16s: it leads by 0.0467"),
        ({"fcn16s": [0.5, 0.6], "fcn8s": [0.5, 0.6]}, {}, "fcn16s and fcn8s are tied: they have the same mean IoU"),
        ({"fcn16s": [0.5], "fcn8s": [0.6]}, {}, "leads by 0.1000 of mean IoU. One seed cannot say what another"),
        ({"fcn16s": [0.5, 0.75], "fcn8s": [0.625, 0.875]}, {}, "All pairs have the very same difference"),
        ({"fcn8s": [0.5, 0.6]}, {}, "the only group reaches a mean IoU of 0.5500 ± 0.0707 over 2 trainings."),
        (
            {**CLEAR, "fcn32s": [0.5, 0.52, 0.49]},
            {},
            "fcn8s is better than all others; the next one is fcn16s, by 0.1003 of mean IoU",
        ),
    ],
)  # fmt: skip
def test_the_sentence_says_who_wins_by_how_much_and_how_sure_that_is(values, options, said):
    assert said in compare(by_arch(values), **options).conclusion


@pytest.mark.parametrize(
    ("seeds", "margin", "word"), [(7, 0.5, "equivalent"), (4, 0.5, "undecided"), (7, 0.1, "worse")]
)
def test_equal_differences_within_the_margin_are_equivalent_from_as_many_seeds_as_their_signs_take(seeds, margin, word):
    values = [index / 16 for index in range(seeds)]
    compared = compare(by_arch({"fcn8s": [value + 0.25 for value in values], "fcn16s": values}), margin=margin)
    assert compared.verdicts["fcn16s"].word == word
    assert compared.differences["fcn16s"].equivalence_p == (2.0**-seeds if margin > 0.25 else 1)


def test_groups_without_a_common_seed_have_no_lead():
    compared = compare(by_seed({"fcn8s": {1: 0.7, 2: 0.7}, "fcn16s": {3: 0.6, 4: 0.6}}))
    undecided, way_out = compared.conclusion.split(". ")
    assert undecided == "It is undecided whether fcn8s is better than fcn16s"
    assert way_out == "They have no seed in common; train both with the same seeds."


def test_a_baseline_of_a_single_group_is_refused_with_the_way_out():
    with pytest.raises(ConfigError, match=r"baseline=fcn8s: there is only one group, .*; leave baseline out"):
        compare(by_seed({"fcn8s": {1: 0.7, 2: 0.7}}), baseline="fcn8s")


def test_a_baseline_is_better_than_every_other_group_only_if_none_is_undecided():
    near, far, unsure = [0.60, 0.61, 0.605], [0.50, 0.52, 0.49], [0.1, 0.7, 0.4]
    said = compare(by_arch({"fcn8s": CLEAR["fcn8s"], "fcn16s": near, "fcn32s": far}), baseline="fcn8s").conclusion
    assert said.startswith("The baseline fcn8s is better than every other group, of which fcn16s is the nearest, by")
    found = compare(by_arch({"fcn8s": CLEAR["fcn8s"], "fcn16s": near, "fcn32s": unsure}), baseline="fcn8s")
    assert found.verdicts["fcn32s"].word == "undecided"
    assert found.conclusion.startswith("The baseline fcn8s is better than fcn16s by 0.1003")


def test_in_a_circle_and_without_a_common_seed_the_sentence_says_so():
    circle = compare(by_seed({"fcn8s": {1: 0.9, 2: 0.1}, "fcn16s": {2: 0.2, 3: 0.1}, "fcn32s": {3: 0.2, 1: 0.5}}))
    assert circle.conclusion.startswith("No group is the best by mean IoU")
    apart = compare(by_seed({"fcn8s": {1: 0.5}, "fcn16s": {3: 0.65}}))
    assert "no seed in common" in apart.conclusion
    assert "nothing to compare" in compare([trial(None)]).conclusion


def test_the_seeds_that_would_settle_it_do_in_four_of_five_simulations():
    found = compare(by_arch(NOISY))
    verdict, difference = found.verdicts["fcn16s"], found.differences["fcn16s"]
    seeds = difference.pairs + verdict.further_seeds
    random = np.random.default_rng(0)
    spread = np.std(np.subtract(NOISY["fcn8s"], NOISY["fcn16s"]), ddof=1)
    drawn = random.normal(abs(difference.mean), spread, (20_000, seeds))
    assert 0.77 <= np.mean(stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05) <= 0.86


def test_what_only_images_can_settle():
    spread = Spread(0.1, 4.0, per_seed=0.0001, floor=0.01, images=5)
    verdict = judge(Difference(3, 0.05, -0.2, 0.3, 0.6, images=5, spread=spread), True, None, 1)
    assert (verdict.word, verdict.further_seeds, verdict.needs_images) == ("undecided", None, True)


def test_a_difference_rests_on_images_where_they_are_known():
    random = np.random.default_rng(0)
    hard = random.integers(100, 900, 12)
    trials = [
        pictured(arch, seed, hard + more + random.integers(0, 60, 12))
        for arch, more in (("fcn16s", 150), ("fcn8s", 0))
        for seed in (1, 2, 3)
    ]
    found = compare(trials)
    difference = found.differences["fcn16s"]
    assert (difference.pairs, difference.images, found.unit, found.why_no_images) == (3, 12, "images", None)
    assert difference.low < difference.mean < difference.high < 0
    assert "over 3 seeds and 12 images" in found.conclusion
    older = [*trials[:-1], replace(trials[-1], image_counts=None)]
    found = compare(older)
    assert found.differences["fcn16s"].images == 0
    assert found.why_no_images.startswith("1 of 6 trainings have no counts of their images")
    assert found.differences["fcn16s"].low == pytest.approx(difference.seeds_low)
    other = replace(trials[-1], best_step=8)
    assert "another evaluation" in compare([*trials[:-1], other]).why_no_images
    other = replace(trials[-1], metrics={"val/mean_iou": 0.123})
    assert "give another val/mean_iou" in compare([*trials[:-1], other]).why_no_images


def test_images_of_one_group_are_drawn_together():
    """Copies of each image add nothing: the interval is that of the images themselves."""
    random = np.random.default_rng(1)
    wrong = {(arch, seed): random.integers(100, 900, 6) for arch in ("fcn16s", "fcn8s") for seed in (1, 2, 3)}
    alone = compare([pictured(*key, values) for key, values in wrong.items()])
    groups = tuple(f"stack {number % 6}" for number in range(24))
    copies = compare([pictured(*key, np.tile(values, 4), groups) for key, values in wrong.items()])
    apart = compare([pictured(*key, np.tile(values, 4)) for key, values in wrong.items()])
    one, other, narrow = (next(d for d in found.differences.values() if d.images) for found in (alone, copies, apart))
    assert (one.images, other.images, narrow.images) == (6, 6, 24)
    assert copies.unit == "groups of images"
    assert other.low == pytest.approx(one.low, abs=1e-9)
    assert narrow.spread.error < other.spread.error
    for grouped in ("fcn16s", "fcn8s"):  # what belongs together for one training does for all, or they do not match
        mixed = compare(
            [pictured(*key, np.tile(values, 4), groups if key[0] == grouped else None) for key, values in wrong.items()]
        )
        (difference,) = (found for found in mixed.differences.values() if found.images)
        assert (difference.images, difference.low, mixed.unit) == (6, pytest.approx(other.low), copies.unit)


def test_one_seed_is_undecided_whatever_its_images_say():
    found = compare([pictured("fcn16s", 1, np.full(9, 900)), pictured("fcn8s", 1, np.arange(100, 109))])
    difference = found.differences["fcn16s"]
    assert (difference.pairs, difference.images) == (1, 9)
    assert difference.p < 1e-4
    assert found.verdicts["fcn16s"].word == "undecided"
    assert "over 9 images and a single seed" in found.conclusion
    assert "One seed cannot say" in found.conclusion


def test_folds_are_repetitions_and_their_images_differ():
    trials = [
        replace(
            trial(value, arch__name=arch, seed=0, dataset__fold=fold, dataset__folds=5), validation_digest=f"{fold}"
        )
        for arch, values in (("fcn16s", [0.60, 0.65, 0.62, 0.58, 0.66]), ("fcn8s", [0.70, 0.74, 0.71, 0.69, 0.75]))
        for fold, value in enumerate(values)
    ]
    found = compare(trials)
    difference = found.differences["fcn16s"]
    assert ([group.label for group in found.groups], difference.pairs) == (["fcn16s", "fcn8s"], 5)
    spread = math.sqrt(np.var([0.1, 0.09, 0.09, 0.11, 0.09], ddof=1) * (1 / 5 + 1 / 4))
    assert difference.high - difference.low == pytest.approx(2 * stats.t.ppf(0.975, 4) * spread)
    assert not found.warnings
    assert "5 pairs of folds" in found.conclusion


def test_the_images_of_all_folds_together_have_a_metric_of_their_own():
    trials = [
        replace(pictured(arch, 0, wrong), params={**trial().params, "arch.name": arch, "dataset.fold": str(fold)})
        for arch in ("fcn16s", "fcn8s")
        for fold, wrong in enumerate(([100, 200], [900], [300, 400, 500]))
    ]
    found = compare(trials)
    wrong = 2 * 2400 / (4096 * 6)  # of all pixels, as many in each class
    assert found.differences["fcn16s"].is_tie or found.differences["fcn8s"].is_tie
    assert f"fcn8s: {(1 - wrong) / (1 + wrong):.4f} on the images of all 3 folds together" in remarks(found)
    assert not any("together" in line for line in remarks(compare(trials[:1])))
    again = replace(trials[-1], params={**trials[-1].params, "seed": "1"})  # on one fold of three
    lines = [line for line in remarks(compare([*trials, again])) if "together" in line]
    assert [line.partition(":")[0] for line in lines] == ["fcn16s"]


def test_choosing_the_best_finds_no_more_than_chance_allows():
    """Five equal groups with three seeds: of 1,000 comparisons with the best, at most 5 % find any difference."""
    random = np.random.default_rng(0)
    found = 0
    for values in random.normal(0.7, 0.01, (1000, 5, 3)):
        ranked = sorted(values, key=lambda group: -group.mean())
        best, *others = ({str(seed): value for seed, value in enumerate(group)} for group in ranked)
        found += any(one.p < 0.05 for one in adjusted([paired_difference(other, best) for other in others], 10))
    assert found / 1000 <= 0.05
