"""What becomes of a training whose loss, gradients or parameters are not finite."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from mindspore import Parameter

from fcnlab.core.errors import TrainingError
from fcnlab.models.finite import first_nonfinite
from fcnlab.training.loss_scaling import SMALLEST, LossScale
from fcnlab.training.state import Progress

log = logging.getLogger(__name__)


def skip_step(loss: float, names: Sequence[str], progress: Progress, limit: int, checkpoint: Path | None) -> None:
    """Count a step whose loss or gradient is not finite as skipped, or end the training.

    Args:
        loss: The loss of the step that made no update.
        names: The names of the images of the batch at fault.
        progress: How far the training is, before this step is counted.
        limit: The largest number of steps that may be skipped, ``trainer.skip_nonfinite``.
        checkpoint: The newest good checkpoint, for the message.

    Raises:
        TrainingError: If as many steps as are allowed were skipped already.
    """
    what = "the loss" if math.isinf(loss) else "the loss or a gradient"  # a gradient turns the loss into NaN alone
    where = f"{what} is {loss} at step {progress.steps + 1} on {', '.join(dict.fromkeys(names))}"
    if progress.skipped >= limit:
        raise _diverged(f"{where}{f', after {limit} skipped ones' if limit else ''}", checkpoint)
    progress.skipped += 1
    log.warning("%s: step skipped (%d of at most %d)", where, progress.skipped, limit)


def count_overflow(
    loss_scale: LossScale, loss: float, names: Sequence[str], progress: Progress, limit: int, checkpoint: Path | None
) -> None:
    """Halve the scale of the loss after a step in which something overflowed, or end the training.

    An overflow is part of finding the scale. Only where the scale cannot get any smaller is it a fault, which counts as
    in `skip_step`.

    Args:
        loss_scale: The scale of the loss of the step.
        loss: The loss of the step that made no update.
        names: The names of the images of the step.
        progress: How far the training is, before this step is counted.
        limit: The largest number of steps that may be skipped, ``trainer.skip_nonfinite``.
        checkpoint: The newest good checkpoint, for the message.

    Raises:
        TrainingError: If the scale is the smallest, and as many steps as are allowed were skipped already.
    """
    if loss_scale.is_smallest:
        log.warning("float16 overflows at the smallest loss scale, %g; trainer.amp=bf16 and O0 reach further", SMALLEST)
        skip_step(loss if not math.isfinite(loss) else math.nan, names, progress, limit, checkpoint)
        return
    loss_scale.record(overflow=True)
    log.info(
        "step %d overflows in float16 and is left out: the loss scale is now %.10g (overflows so far: %d)",
        *(progress.steps + 1, loss_scale.value, loss_scale.count),
    )


def refuse_nonfinite(parameters: Mapping[str, Parameter], steps: int, checkpoint: Path | None) -> None:
    """End the training if a weight, a moment or a moving statistic is not finite; no later step would mend it.

    Raises:
        TrainingError: It names the parameter, the step and the newest good checkpoint.
    """
    name = first_nonfinite(parameters)
    if name is not None:
        raise _diverged(f"{name} holds NaN or infinity after step {steps}", checkpoint)


def _diverged(what: str, checkpoint: Path | None) -> TrainingError:
    return TrainingError(
        f"{what}: lower optimizer.lr, add schedule.warmup_steps or set trainer.clip_norm; "
        + (f"the last good checkpoint is {checkpoint}" if checkpoint else "no checkpoint was written yet")
    )
