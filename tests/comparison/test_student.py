import numpy as np
import pytest
from scipy import stats

from fcnlab.comparison.student import quantile, tail


@pytest.mark.parametrize("freedom", [1, 2, 3.7, 30, 1e6, np.inf])
def test_it_is_scipys_t_distribution(freedom):
    probabilities = np.array([0.0005, 0.05, 0.5, 0.8, 0.975, 0.99999])
    np.testing.assert_allclose(
        quantile(probabilities, freedom), stats.t.ppf(probabilities, freedom), atol=1e-6, rtol=1e-6
    )
    values = np.array([-3.0, 0.0, 0.5, 4.3, 40.0])
    np.testing.assert_allclose(tail(values, freedom), stats.t.sf(values, freedom), rtol=1e-6, atol=1e-300)
