import numpy as np
import pytest
from mindspore import Parameter, Tensor

from fcnlab.models.finite import first_nonfinite, is_finite


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_number_among_many_is_found(kind, bad):
    array = np.ones((3, 5, 7), kind)
    assert is_finite(array)
    array[2, 4, 6] = bad
    assert not is_finite(array)


def test_large_numbers_are_finite_though_their_squares_are_not():
    array = np.full((4, 9), 1e30, np.float32)
    assert is_finite(array)
    array[3, 1] = np.inf
    assert not is_finite(array)


def test_scalars_integers_and_nothing():
    for array in (np.array(2, np.float32), np.arange(3), np.array([True]), np.zeros((0, 3), np.float32)):
        assert is_finite(array)
    assert not is_finite(np.full([], np.nan, np.float32))


def test_the_first_bad_parameter_is_named():
    arrays = {"a": np.ones(3, np.float32), "b": np.array([1, np.nan], np.float32), "c": np.array([np.inf])}
    parameters = {
        name: Parameter(Tensor(array.astype(np.float32)), name=name) for name, array in arrays.items() if name < "c"
    }
    assert first_nonfinite(arrays) == first_nonfinite(parameters) == "b"
    assert first_nonfinite({"a": arrays["a"]}) is None
