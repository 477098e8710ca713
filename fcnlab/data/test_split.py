"""The test split, which some data sets have beside those to train and to validate on.

No choice of a training depends on it: it is evaluated once, at the end, with the weights that the validation chose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fcnlab.data.dataset import TEST, Dataset

if TYPE_CHECKING:
    from fcnlab.config.schema import DatasetConfig


def open_test(factory: Callable[..., Dataset], config: DatasetConfig) -> Dataset | None:
    """Open the test split of a data set.

    Args:
        factory: The data set's factory. If it has an attribute ``has_test``, that is a function of the configuration
            which says whether there is a test split, and the factory then takes ``"test"`` as a split.
        config: The keys of the data set.

    Returns:
        None if the data set has no test split.

    Raises:
        DataError: If the split cannot be opened.
    """
    has_test = getattr(factory, "has_test", None)
    return None if has_test is None or not has_test(config) else factory(config, TEST)
