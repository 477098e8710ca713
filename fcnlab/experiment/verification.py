"""Trains the first steps of a recorded run again, and says what agrees with its record."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fcnlab.config import Config
from fcnlab.experiment.run_record import RunRecord
from fcnlab.recording.tags import WORKERS_TAG
from fcnlab.recording.worker_history import counts, in_words
from fcnlab.training.callbacks import Callback, EvaluationEvent, StepEvent

if TYPE_CHECKING:
    from fcnlab.recording.inputs import Input

Status = Literal["agrees", "differs", "not checked"]

_SAME_BITS = ("mindspore", "numpy", "cpu", "kernels", "platform")
"""What of the environment must be the same for the same bits. Another Python or MLflow computes no loss."""

_DIGESTED = ("init_from", "dataset.train_list", "dataset.val_list")
"""Keys that name files which may lie elsewhere here: whether they are the run's, the digests say."""

FIRST = 5
"""The number of first steps whose losses must nearly be the same on any machine, as rounding has not grown yet."""

NEARLY = 1e-3
"""How far these losses may differ, relatively.

Measured on the ISBI 2012 recipe with FCN-8s, against operators compiled for AVX2: operators for x86-64-v2 change the
first five losses by 7e-5, and a later one by up to 0.07, as the updates of Adam enlarge what rounding began; over 50
steps it is 0.009 on average. MindSpore's own operators change them by 5e-5, 0.04 and 0.008. Another seed changes the
first five by 0.03 to 0.04, another stride by 0.004.
"""

METRICS_SHARE = 5
"""The factor on the tolerance of the mean over losses that gives the tolerance of a metric.

After 24 and 48 steps of the same recipe, metrics changed by up to 0.072 with other operators, and the validation loss
by 0.077 relatively: early in a training, a small change of the weights turns many pixels.
"""


@dataclass(frozen=True)
class Finding:
    """What is known of one part of a record.

    Attributes:
        what: The part.
        status: Whether it agrees, or why it could not be checked.
        text: What a reader should know, as a sentence.
    """

    what: str
    status: Status
    text: str


@dataclass
class Replayed:
    """What the training gave this time; the attributes are those of `RunRecord`, and one more.

    Attributes:
        has_local_statistics: Whether workers would each normalise their share of a batch by itself, which one process
            cannot repeat.
    """

    losses: dict[int, float] = field(default_factory=dict)
    evaluations: dict[int, Mapping[str, float]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    initial_weights: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    has_local_statistics: bool = False


def compare(record: RunRecord, replayed: Replayed, steps: int, tolerance: float) -> list[Finding]:
    """Return what agrees, what does not, and what cannot be told.

    On the same kind of machine, with the same versions and operators, everything must agree bit for bit. Elsewhere
    rounding differs and grows with each step. The losses of the `FIRST` steps must then be `NEARLY` the same, those of
    all steps within a tolerance on average, both relatively, and metrics, which are shares of pixels, within
    `METRICS_SHARE` times that tolerance.

    Args:
        record: What the run recorded.
        replayed: What the training gave this time.
        steps: The number of steps that were trained again.
        tolerance: The mean relative difference of the losses that is allowed elsewhere.
    """
    findings = [_code(record, replayed), *_inputs(record, replayed)]
    others = [key for key in _SAME_BITS if record.environment.get(key) != replayed.environment.get(key)]
    findings.append(_machine(record, replayed, others))
    reason = None
    if any(finding.status == "differs" for finding in findings):
        reason = "They cannot agree, since the training did not start from the same images and weights."
    elif _is_of_local_statistics(record, replayed):
        reason = "They cannot agree, since each worker normalised its share of a batch by itself (batch normalisation)."
    if reason is not None:
        return [*findings, Finding("losses", "not checked", reason), Finding("metrics", "not checked", reason)]
    allowed = tolerance if others or WORKERS_TAG in record.environment else 0.0
    metrics = _metrics(record, replayed, steps, METRICS_SHARE * allowed)
    return [*findings, _losses(record, replayed, steps, allowed), metrics]


def _code(record: RunRecord, replayed: Replayed) -> Finding:
    then, now = (found.environment for found in (record, replayed))
    if "git.commit" not in then or "git.commit" not in now:
        same = then.get("fcnlab") == now.get("fcnlab")
        text = f"The run says version {then.get('fcnlab', 'unknown')} and no commit; here is {now.get('fcnlab')}."
        return Finding("code", "not checked" if not same else "agrees", text)
    if then["git.commit"] != now["git.commit"]:
        text = f"The run was made by commit {then['git.commit'][:12]}, and here is {now['git.commit'][:12]}."
        return Finding("code", "not checked", text)
    if "true" in (then.get("git.dirty"), now.get("git.dirty")):
        text = f"The commit is the same, {then['git.commit'][:12]}, but there are changes that are not committed."
        return Finding("code", "not checked", text)
    if not then.get("git.dirty") == now.get("git.dirty") == "false":
        text = f"The commit is the same, {then['git.commit'][:12]}, but git did not say whether all is committed."
        return Finding("code", "not checked", text)
    return Finding("code", "agrees", f"The commit is the same, {then['git.commit'][:12]}.")


def _inputs(record: RunRecord, replayed: Replayed) -> list[Finding]:
    findings = []
    for context, digest in replayed.digests.items():
        then = record.digests.get(context)
        if then is None:
            findings.append(Finding(f"{context} images", "not checked", "The run did not record their digest."))
        elif then == digest:
            findings.append(Finding(f"{context} images", "agrees", f"Their digest is the same, {digest[:12]}."))
        else:
            text = f"Their digest was {then[:12]}, and is {digest[:12]} here: they are other images."
            findings.append(Finding(f"{context} images", "differs", text))
    then, now = record.initial_weights, replayed.initial_weights
    if then is not None and now is None:
        text = f"The run started from a file whose SHA-256 was {then[:12]}, and here it starts from none."
        findings.append(Finding("initial weights", "differs", text))
    elif now is not None:
        if then is None:
            findings.append(Finding("initial weights", "not checked", "The run did not record their digest."))
        elif then == now:
            findings.append(Finding("initial weights", "agrees", f"Their SHA-256 is the same, {now[:12]}."))
        else:
            text = f"Their SHA-256 was {then[:12]}, and is {now[:12]} here: init_from is another file."
            findings.append(Finding("initial weights", "differs", text))
    return findings


def _machine(record: RunRecord, replayed: Replayed, others: Sequence[str]) -> Finding:
    parts = [f"{key} {record.environment.get(key)}, here {replayed.environment.get(key)}" for key in others]
    if history := record.environment.get(WORKERS_TAG):
        further = f", and the machine is another one ({'; '.join(parts)})" if parts else ""
        text = (
            f"{in_words(counts(history))} trained the run, and one process does here{further}, so that bits cannot be "
        )
        return Finding("machine", "not checked", f"{text}checked, but a tolerance can.")
    if not others:
        text = "Processor, operators, MindSpore and numpy are the same, so that losses must agree bit for bit."
        return Finding("machine", "agrees", text)
    text = f"It is another one ({'; '.join(parts)}), so that bits cannot be checked, but a tolerance can."
    return Finding("machine", "not checked", text)


def _is_of_local_statistics(record: RunRecord, replayed: Replayed) -> bool:
    return replayed.has_local_statistics and WORKERS_TAG in record.environment


def _losses(record: RunRecord, replayed: Replayed, steps: int, tolerance: float) -> Finding:
    known = [step for step in range(1, steps + 1) if step in record.losses and step in replayed.losses]
    if not known:
        return Finding("losses", "not checked", f"The run recorded no loss of its first {steps} steps.")
    off = {step: _relative(record.losses[step], replayed.losses[step]) for step in known}
    subject = f"The losses of {f'step {known[0]}' if len(known) == 1 else f'{len(known)} steps'}"
    if tolerance == 0 or max(off.values()) == 0:
        return _judged("losses", subject, off, tolerance, "relatively", record)
    early = max((distance for step, distance in off.items() if step <= FIRST), default=0.0)
    mean = sum(off.values()) / len(off)
    measured = f"differ relatively by {early:.2g} at most in the first {FIRST}, and by {mean:.2g} on average"
    if early <= NEARLY and mean <= tolerance:
        return Finding("losses", "agrees", f"{subject} {measured}, within {NEARLY:g} and {tolerance:g}.")
    text = f"{subject} {measured}; {NEARLY:g} and {tolerance:g} are allowed."
    return Finding("losses", "differs", text + _after_resuming(record))


def _metrics(record: RunRecord, replayed: Replayed, steps: int, tolerance: float) -> Finding:
    off: dict[int, float] = {}
    for step, metrics in replayed.evaluations.items():
        then = record.evaluations.get(step)
        if then is None or step > steps:
            continue
        for name in {*then, *metrics}:
            distance = _relative if name == "val/loss" else _absolute
            worst = distance(then.get(name, math.nan), metrics.get(name, math.nan))
            off[step] = max(off.get(step, 0.0), worst)
    if not off:
        return Finding("metrics", "not checked", f"There is no evaluation within the first {steps} steps.")
    which = "1 evaluation" if len(off) == 1 else f"{len(off)} evaluations"
    return _judged("metrics", f"The metrics of {which}", off, tolerance, "", record)


def _judged(
    what: str, subject: str, off: Mapping[int, float], tolerance: float, how: str, record: RunRecord
) -> Finding:
    first = next((step for step, distance in off.items() if not distance <= tolerance), None)
    worst = max(off.values())
    how = f" {how}".rstrip()
    if first is None:
        exact = worst == 0
        text = "agree bit for bit" if exact else f"differ by {worst:.2g}{how} at most, within {tolerance:g}"
        return Finding(what, "agrees", f"{subject} {text}.")
    text = f"{subject} differ from step {first} on, by {worst:.2g}{how} at most; {tolerance:g} is allowed."
    return Finding(what, "differs", text + _after_resuming(record))


def _after_resuming(record: RunRecord) -> str:
    """Return what may explain a difference, as a further sentence."""
    if not record.resumed_at:
        return ""
    return f" The run was resumed after step {record.resumed_at}, perhaps with other keys."


def _relative(then: float, now: float) -> float:
    """Return the relative difference; 0 only for the same number, or for NaN twice, and infinity with one NaN."""
    if then == now or (math.isnan(then) and math.isnan(now)):
        return 0.0
    if not (math.isfinite(then) and math.isfinite(now)):
        return math.inf
    return abs(then - now) / max(abs(then), abs(now))


def _absolute(then: float, now: float) -> float:
    if then == now or (math.isnan(then) and math.isnan(now)):
        return 0.0
    return abs(then - now) if math.isfinite(then) and math.isfinite(now) else math.inf


class _EnoughError(Exception):
    """Ends a training whose first steps are all that is wanted."""


class _Watcher(Callback):
    """Keeps losses and metrics, and ends the training after a number of steps and the evaluation that belongs to them.

    Args:
        replayed: Takes what the training gives.
        steps: The number of steps.
        evaluates: Whether the run evaluated right after that step.
        advance: Called after each step.
    """

    def __init__(self, replayed: Replayed, steps: int, evaluates: bool, advance: Callable[[int], None]) -> None:
        self._replayed = replayed
        self._steps = steps
        self._evaluates = evaluates
        self._advance = advance

    def on_step(self, event: StepEvent) -> None:
        self._replayed.losses[event.step] = event.loss
        self._advance(event.step)
        if event.step >= self._steps and not self._evaluates:
            raise _EnoughError

    def on_evaluation(self, event: EvaluationEvent) -> None:
        self._replayed.evaluations[event.step] = event.evaluation.metrics
        if event.step >= self._steps:
            raise _EnoughError


def replay(
    config: Config, record: RunRecord, steps: int | None, advance: Callable[[int], None]
) -> tuple[Replayed, int]:
    """Train the first steps of a configuration in this process, and record nothing.

    What several workers have trained is trained as one process would, unless each of them normalised by itself.

    Args:
        config: The recorded configuration, with paths of this machine.
        record: What the run recorded; if its images are others, nothing is trained.
        steps: The number of steps; None for all.
        advance: Called with the number of each step.

    Returns:
        What the training gave, and the number of its steps.

    Raises:
        FcnlabError: If the images, the weights or the configuration cannot be used.
    """
    import mindspore as ms

    from fcnlab.core import device
    from fcnlab.experiment import assembly
    from fcnlab.models.layers import SYNCHRONISED
    from fcnlab.training.parallel import local_statistics

    device.configure(config.trainer.device, config.trainer.mode)
    ms.set_seed(config.seed)
    # What a training keeps for later is not needed; how long it is stays, since the learning rate follows from that.
    kept = {"ckpt": False, "checkpoint_minutes": None, "checkpoint_epochs": None, "save_every": None}
    trainer_config = replace(config.trainer, **kept, parallel="none", workers=None)
    config = replace(config, trainer=trainer_config, resume=None, from_run=None)
    data = assembly.build_data(config)
    config = assembly.settle_class_weights(config, data)
    inputs: list[Input] = assembly.describe_inputs(config, data)
    network = assembly.build_network(config)
    initialisation = assembly.initialise_network(config, network)
    config = assembly.settle_mean(config, initialisation)
    replayed = Replayed(
        digests={item.context: item.digest for item in inputs if item.context in ("training", "validation")},
        initial_weights=None if initialisation is None else initialisation.sha256,
        environment=environment(config),
    )
    if any(finding.status == "differs" for finding in _inputs(record, replayed)):
        return replayed, 0
    with tempfile.TemporaryDirectory(prefix="fcnlab-verify-") as folder:
        callbacks: list[Callback] = []
        trainer = assembly.build_trainer(config, network, data, Path(folder), callbacks)
        is_synchronised = getattr(config.arch, "norm", None) == SYNCHRONISED
        replayed.has_local_statistics = not is_synchronised and bool(local_statistics(trainer.step.network))
        if _is_of_local_statistics(record, replayed):
            return replayed, 0
        total = trainer.plan.total_steps
        steps = total if steps is None else min(steps, total)
        trainer.callbacks.append(_Watcher(replayed, steps, steps in record.evaluations, advance))
        size = config.dataset.crop_size
        trainer.compile((config.dataset.channels, size, size))
        with suppress(_EnoughError):
            trainer.fit()
    return replayed, steps


def environment(config: Config) -> dict[str, str]:
    """Return what a training would be made with here, as the tags of a run say it."""
    from fcnlab.experiment.run_record import ENVIRONMENT
    from fcnlab.recording import provenance

    tags = provenance.tags(config, [], [], provenance.git_state(provenance.repository_folder()))
    return {name: tags[name] for name in ENVIRONMENT if name in tags}


def require_same_training(recorded: Config, config: Config) -> None:
    """Refuse overrides that would make another training than the recorded one.

    Args:
        recorded: The recorded configuration.
        config: The same with overrides.

    Raises:
        ConfigError: It names the key.
    """
    from fcnlab.config.roles import Role
    from fcnlab.config.schema import leaves, role_of
    from fcnlab.core.errors import ConfigError

    before = {key: value for key, value, _ in leaves(recorded)}
    for key, value, metadata in leaves(config):
        if value != before.get(key) and Role.MACHINE not in role_of(metadata) and key not in _DIGESTED:
            raise ConfigError(
                f"{key}={value}: the run has {key}={before.get(key)}, and with another value it is no longer the same "
                "training; only keys of this machine may be set, such as dataset.root and init_from"
            )
