"""What makes a comparison of made-up trainings less than fair."""

from made_up_trials import by_seed, trial

from fcnlab.comparison import compare


def test_what_makes_it_unfair_is_said():
    trials = [
        trial(0.5, seed=1, tags={"git.commit": "a"}),
        trial(0.6, seed=2, digest="other", tags={"git.commit": "b"}),
    ]
    said = " ".join(compare(trials).warnings)
    assert "2 different sets of validation images" in said
    assert "2 different commits" in said
    assert not compare([trial(0.5, seed=1), trial(0.6, seed=2)]).warnings


def test_what_is_said_of_seeds_is_true():
    same = compare(by_seed({"fcn8s": {1: 0.5, 2: 0.25}, "fcn16s": {1: 0.5, 2: 0.75}}))
    assert not same.warnings
    again = trial(0.75, arch__name="fcn8s", seed=1, tracking__run_name="again")
    repeated = compare([*by_seed({"fcn8s": {1: 0.25}, "fcn16s": {1: 0.5}}), again])
    (said,) = repeated.warnings
    assert said == "a seed was trained several times: means are over all, differences over the means of each seed"
    assert repeated.groups[1].mean("val/mean_iou") == 0.5
    assert repeated.differences["fcn16s"].mean + repeated.differences["fcn8s"].mean == 0
