"""Student's t distribution (1908), without the import of all of ``scipy.stats``, which takes a second."""

from __future__ import annotations

from typing import Any

import numpy as np

_MOST_FREEDOM = 1e9  # beyond which the distribution is the normal one to all digits


def quantile(probability: Any, freedom: Any) -> Any:
    """Return the value that t stays below with a probability.

    Args:
        probability: Between 0 and 1; a number or an array.
        freedom: The degrees of freedom, which may be infinite; a number or an array.
    """
    from scipy import special

    return special.stdtrit(np.minimum(freedom, _MOST_FREEDOM), probability)


def tail(value: Any, freedom: Any) -> Any:
    """Return the probability that t is above a value; see `quantile` for the arguments."""
    from scipy import special

    return special.stdtr(np.minimum(freedom, _MOST_FREEDOM), np.negative(value))
