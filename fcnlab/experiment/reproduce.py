"""Says where a training that reproduces a run, by ``from_run``, departs from it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fcnlab.config import Config
from fcnlab.core.errors import TrackingError
from fcnlab.experiment import recorded
from fcnlab.recording import worker_history

if TYPE_CHECKING:
    from fcnlab.models.foreign import Initialisation
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


def compare_weights(config: Config, initialisation: Initialisation | None) -> None:
    """Warn if the file of ``init_from`` is not the one that the run that is reproduced started from.

    Args:
        config: A configuration with ``from_run``.
        initialisation: What the new training started from; None if it started from random weights.
    """
    if initialisation is None:
        return
    try:
        digest = recorded.initial_weights_digest(str(config.from_run), config.tracking.uri)
    except TrackingError as error:
        log.warning("from_run=%s: whether the initial weights are the same is unknown (%s)", config.from_run, error)
        return
    if digest not in (None, initialisation.sha256):
        log.warning(
            "from_run=%s: init_from=%s is not the file that that run started from (SHA-256 %s, then %s)",
            *(config.from_run, config.init_from, initialisation.sha256, digest),
        )


def compare_workers(config: Config, count: int) -> None:
    """Warn if another number of workers trained the run that is reproduced, which gave other bits.

    Args:
        config: A configuration with ``from_run``.
        count: The number of workers of the new training.
    """
    try:
        then = recorded.workers(str(config.from_run), config.tracking.uri)
    except TrackingError as error:
        log.warning("from_run=%s: how many workers trained it is unknown (%s)", config.from_run, error)
        return
    if then != [count]:
        log.warning(
            "from_run=%s: that run was trained by %s, and this one is by %s: it is not the same bit for bit, and "
            "arch.norm=batch normalises other shares of a batch",
            *(config.from_run, worker_history.in_words(then), worker_history.in_words([count])),
        )
