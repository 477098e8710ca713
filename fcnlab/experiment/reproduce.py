"""Says where a training that reproduces a run, by ``from_run``, departs from it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fcnlab.config import Config
from fcnlab.core.errors import TrackingError
from fcnlab.experiment import recorded

if TYPE_CHECKING:
    from fcnlab.recording.inputs import Input

log = logging.getLogger(__name__)


def compare_inputs(config: Config, inputs: Sequence[Input]) -> None:
    """Warn if the images are not those of the run that is reproduced.

    Args:
        config: A configuration with ``from_run``.
        inputs: The images of the new training.
    """
    try:
        digests = recorded.input_digests(str(config.from_run), config.tracking.uri)
    except TrackingError as error:
        log.warning("from_run=%s: whether the images are the same is unknown (%s)", config.from_run, error)
        return
    for item in inputs:
        digest = digests.get(item.context, item.digest)
        if digest != item.digest:
            log.warning(
                "from_run=%s: the %s images are not those of that run (digest %s, then %s)",
                config.from_run,
                item.context,
                item.digest,
                digest,
            )
