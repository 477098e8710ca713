"""Which trials follow from what a sweep varies."""

import pytest

from fcnlab.sweeps.axes import planned


@pytest.mark.parametrize(
    ("sweeper", "expected"),
    [
        ({"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"}, [["a=1", "b=x"], ["a=2", "b=x"]]),
        ({"_target_": "hydra_plugins.fcnlab_search.Search", "n_trials": 2}, [[], []]),
        ({"_target_": "hydra_plugins.fcnlab_search.Search", "n_trials": "many"}, []),  # which the search refuses
        ({"_target_": "somebody.elses.Sweeper"}, []),
    ],
)
def test_what_is_to_be_done_is_known_beforehand(sweeper, expected):
    assert planned({"a": ["1", "2"], "b": ["x"]}, sweeper) == expected
