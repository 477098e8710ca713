"""Builds objects from a configuration: each function reads its own group and asks the registry by name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import mindspore as ms
import numpy as np
from mindspore import nn

import fcnlab
from fcnlab import kernels
from fcnlab.config import MEDIAN_FREQUENCY, Config, keys_with, options
from fcnlab.config.roles import Role
from fcnlab.config.schema import ArchConfig, FCNConfig, FolderConfig, TrainerConfig
from fcnlab.core import workers
from fcnlab.core.errors import ConfigError, DataError
from fcnlab.core.processor import describe_cpu
from fcnlab.data.cached_checks import CachedChecks
from fcnlab.data.class_balance import median_frequency, repeat_factors
from fcnlab.data.dataset import TEST, Dataset
from fcnlab.data.loader import EvalLoader, TrainLoader
from fcnlab.data.test_split import open_test
from fcnlab.data.train_share import share_of
from fcnlab.data.transforms import TrainTransform
from fcnlab.data.wrappers import Cached
from fcnlab.drawing.palette import class_palette
from fcnlab.metrics.names import class_names
from fcnlab.models import build_model
from fcnlab.models.foreign import Initialisation, initialise
from fcnlab.models.foreign.layouts import FIRST
from fcnlab.recording import journal
from fcnlab.recording.inputs import Input
from fcnlab.registry import ARCHITECTURES, DATASETS, ENCODERS, LOSSES, OPTIMIZERS, SCHEDULES, Registry
from fcnlab.training.accumulation import AccumulatedStep
from fcnlab.training.callbacks import Callback
from fcnlab.training.evaluation import Compiler, Evaluation, Evaluator
from fcnlab.training.freezing import freeze
from fcnlab.training.loss_scaling import LossScale
from fcnlab.training.mixed_precision import SCALED_LEVELS, MixedPrecision, with_parameters_of
from fcnlab.training.parallel import ParallelStep
from fcnlab.training.recomputation import recompute_blocks
from fcnlab.training.step import TrainStep
from fcnlab.training.trainer import Trainer

log = logging.getLogger(__name__)

COMPILED = {"arch": ARCHITECTURES, "loss": LOSSES, "optimizer": OPTIMIZERS}
"""The registries of the groups of the configuration whose objects become part of compiled graphs.

So does the encoder of an FCN, which is no group of its own: see `compiled_parts`.
"""


class Data(NamedTuple):
    """The two splits of a data set."""

    train: Dataset
    val: Dataset


def build_data(config: Config) -> Data:
    """Open both splits, and read every file once to find errors before anything is trained.

    Of the training images, ``dataset.train_share`` are taken, by ``seed``, and no others are read.

    Files that an earlier process found good, and that have not changed since, are not checked again.

    Raises:
        DataError: If a file, key or value is wrong; the text names the first one.
    """
    factory = DATASETS.get(config.dataset.name)
    limit, keys = config.dataset.cache_mib, keys_with(Role.READS, config.dataset)
    train, val = (factory(config.dataset, split) for split in Data._fields)
    chosen = share_of(train, config.dataset.train_share, config.seed)
    if config.dataset.train_share != 1:
        log.info(
            "dataset.train_share=%g: trains on %d of the %d images, drawn by seed=%d",
            *(config.dataset.train_share, len(chosen), len(train), config.seed),
        )
    splits = [CachedChecks(Cached(split, limit), keys) for split in (chosen, val)]
    for split in splits:
        split.check()
    return Data(*splits)


def build_test(config: Config, data: Data) -> Dataset | None:
    """Open the test split, and read every file once as `build_data` does.

    Returns:
        None if the data set has no test split, ``dataset.test_set`` is ``none``, or the images of a folder that are
        kept for a test also train or validate, since lists of the user's say so.

    Raises:
        DataError: If a file, key or value is wrong; the text names the first one, and how to train without a test.
    """
    if config.dataset.test_set == "none":
        return None
    try:
        found = open_test(DATASETS.get(config.dataset.name), config.dataset)
        if found is None:
            return None
        if isinstance(config.dataset, FolderConfig):  # where a name is that of one file, whatever the split
            shared = {*found.names} & {*data.train.names, *data.val.names}
            if shared:
                log.warning(
                    "%d of the %d images that are kept for a test also train or validate, such as '%s': the test is "
                    "left out, since it would be worthless",
                    *(len(shared), len(found), min(shared)),
                )
                return None
        split = CachedChecks(found, keys_with(Role.READS, config.dataset))  # read once, so that no image is kept
        split.check()
    except DataError as error:
        raise DataError(f"{error}; or set dataset.test_set=none, which leaves the test images out") from error
    return split


def settle_class_weights(config: Config, data: Data) -> Config:
    """Replace ``loss.class_weights=median_frequency`` by the numbers, so that these are recorded."""
    if getattr(config.loss, "class_weights", None) != MEDIAN_FREQUENCY:
        return config
    weights = median_frequency(data.train.class_pixels(config.dataset.num_classes))
    names = class_names(config.dataset.class_names, config.dataset.num_classes)
    absent = [name for name, weight in zip(names, weights, strict=True) if weight == 0]
    if absent:
        log.warning("no training label has %s: weight 0", ", ".join(absent))
    log.info("loss.class_weights=%s, by median frequency", [round(weight, 4) for weight in weights])
    return replace(config, loss=replace(config.loss, class_weights=weights))


def describe_inputs(config: Config, data: Data, test: Dataset | None = None) -> list[Input]:
    """Describe the training, the validation and any test images for the record of a run."""
    splits = {"training": data.train, "validation": data.val, **({"testing": test} if test is not None else {})}
    return [
        Input(config.dataset.name, context, split.fingerprint(), split.source, len(split))
        for context, split in splits.items()
    ]


def build_network(config: Config) -> nn.Cell:
    """Build the network, with its initial weights."""
    return build_model(**architecture(config), seed=config.seed)


def initialise_network(config: Config, network: nn.Cell) -> Initialisation | None:
    """Start the network from the weights of ``init_from``, if that is set, and log what became of them.

    The images must then have the mean that `settle_mean` gives them.

    Raises:
        CheckpointError: If the file cannot be read or does not fit. The network has not changed then.
    """
    if not config.init_from:
        return None
    done = initialise(
        network,
        Path(config.init_from).expanduser(),
        f"init_from={config.init_from}",
        mean=config.dataset.mean,
        std=config.dataset.std,
        take_mean=config.init_mean,
        class_names=class_names(config.dataset.class_names, config.dataset.num_classes),
        partial=config.init_partial,
    )
    log.info("%s", done.table())
    expected = done.convention
    if expected is None:
        log.warning(
            "init_from=%s: does not tell which images its weights expect; they are taken as they are", config.init_from
        )
    elif config.dataset.channels == 3 and not np.allclose(expected.exact_mean, done.mean, atol=1e-3):
        if done.converted_input:
            log.info(
                "init_from=%s: its weights expect images of another mean and are converted, which is exact except at "
                "the border; with init_mean=true, or with dataset.mean=%s, it is exact there, too",
                *(config.init_from, expected.exact_mean),
            )
        else:
            log.warning(
                "init_from=%s: its weights expect images of another mean, dataset.mean=%s, and are not converted, "
                "since this network has no %s",
                *(config.init_from, expected.exact_mean, FIRST),
            )
    return done


def settle_mean(config: Config, initialisation: Initialisation | None) -> Config:
    """Set ``dataset.mean`` to the mean that a network was initialised for, so that this is recorded."""
    dataset = config.dataset
    if initialisation is None or list(initialisation.mean) == list(dataset.mean):
        return config
    log.info(
        "dataset.mean=%s: the images' mean is what the weights of init_from expect, in place of %s; set "
        "init_mean=false to keep that",
        *(initialisation.mean, dataset.mean),
    )
    return replace(config, dataset=replace(dataset, mean=list(initialisation.mean)))


def architecture(config: Config) -> dict[str, Any]:
    """Return the arguments of `fcnlab.build_model`, which a checkpoint records."""
    channels = {} if config.dataset.channels == 3 else {"in_channels": config.dataset.channels}
    own = options(config.arch, *(["stride"] if isinstance(config.arch, ArchConfig) else []))
    if isinstance(config.arch, FCNConfig) and config.arch.encoder in own:  # the encoder has keys of its own
        own["encoder_options"] = options(own.pop(config.arch.encoder))
    return {"name": config.arch.name, "num_classes": config.dataset.num_classes, **own, **channels}


def build_step(config: Config, network: nn.Cell) -> TrainStep | AccumulatedStep | ParallelStep:
    """Build the training step from the loss, the optimizer and the network, part of which it may freeze.

    With ``trainer.amp``, the step has a network of its own with the same parameters, so that the given one goes on
    computing in float32: validation and checkpoints mean what `fcnlab.evaluate` and `fcnlab.predict` compute.

    Raises:
        ConfigError: If a pattern of ``optimizer.freeze`` or ``optimizer.groups`` does not fit the network, the
            optimizer takes no groups, the gradients of the loss cannot be added up, or blocks of the network cannot
            be recomputed.
    """
    trainer = config.trainer
    if trainer.amp != "O0":
        network = with_parameters_of(network, build_network(config))
    frozen = freeze(network, config.optimizer.freeze)
    factory = OPTIMIZERS.get(config.optimizer.name)
    own = options(config.optimizer, "lr", "freeze", "groups")
    if groups := getattr(config.optimizer, "groups", None):
        if "groups" not in signature(factory).parameters:
            raise ConfigError(f"optimizer.groups: optimizer={config.optimizer.name} takes no groups; leave them out")
        own["groups"] = groups
    optimizer = factory(network.trainable_params(), **own)
    loss_scale, given = None, network
    if trainer.amp != "O0":
        network = MixedPrecision(network, trainer.amp)
    if trainer.recompute == "blocks":
        if trainer.mode != "graph":
            raise ConfigError("trainer.recompute=blocks: needs trainer.mode=graph, since only graphs are rearranged")
        recompute_blocks(given)  # whose blocks now hold the cells of another precision, too
    if trainer.amp in SCALED_LEVELS:
        loss_scale = LossScale(trainer.loss_scale, trainer.loss_scale_window)
    else:
        _refuse_loss_scale(trainer)
    step = TrainStep if trainer.accumulate == 1 else AccumulatedStep
    guarded = trainer.skip_nonfinite > 0 or loss_scale is not None
    arguments = (network, build_loss(config), optimizer, trainer.clip_norm, guarded, frozen, loss_scale)
    if trainer.parallel == "data":
        return ParallelStep(*arguments, batch_size=trainer.batch_size, workers=workers.current())
    return step(*arguments)


def _refuse_loss_scale(trainer: TrainerConfig) -> None:
    """Refuse another scale of the loss than the default one where no loss is scaled.

    Raises:
        ConfigError: It names the key.
    """
    for key in ("loss_scale", "loss_scale_window"):
        value = getattr(trainer, key)
        if value != getattr(TrainerConfig, key):
            raise ConfigError(
                f"trainer.{key}={value:g}: trainer.amp={trainer.amp} scales no loss; leave the key out, or choose "
                f"trainer.amp={', '.join(SCALED_LEVELS[:-1])} or {SCALED_LEVELS[-1]}"
            )


def build_loss(config: Config) -> nn.Cell:
    """Build the loss over logits and labels."""
    return LOSSES.get(config.loss.name)(
        ignore_index=config.dataset.ignore_index, num_classes=config.dataset.num_classes, **options(config.loss)
    )


def compiled_parts(config: Config) -> list[tuple[Registry, str]]:
    """Return the registry and the name of everything that becomes part of compiled graphs."""
    parts = [(registry, getattr(config, group).name) for group, registry in COMPILED.items()]
    if isinstance(config.arch, FCNConfig):
        parts.append((ENCODERS, config.arch.encoder))
    return parts


def graph_compiler(config: Config) -> Compiler | None:
    """Return the function that compiles the graphs of a training; None where nothing is compiled.

    Args:
        config: A configuration with settled class weights, since every value that shapes a graph is a part of its key.
    """
    if config.trainer.mode != "graph":
        return None
    others = [registry.origin(name) for registry, name in compiled_parts(config) if not registry.is_builtin(name)]
    if not config.trainer.compile_cache or None in others:  # a part that was registered at run time has no known source
        return lambda cell, *inputs: cell.compile(*inputs)
    from fcnlab.experiment.graph_cache import GraphCache

    return GraphCache(keys_with(Role.SHAPES_GRAPH, config), others).compile


def build_trainer(
    config: Config,
    network: nn.Cell,
    data: Data,
    folder: Path,
    callbacks: list[Callback],
    test: Dataset | None = None,
) -> Trainer:
    """Build the trainer with everything that it needs.

    Args:
        config: A configuration with settled class weights.
        network: The network to train.
        data: The two splits.
        folder: The output folder, below which the checkpoints go.
        callbacks: The callbacks of the trainer.
        test: The images to evaluate once at the end.
    """
    compiler = graph_compiler(config)
    dataset, group = config.dataset, workers.current()
    pixels = {"mean": dataset.mean, "std": dataset.std}
    loader = TrainLoader(
        data.train,
        TrainTransform(config.augment, dataset.crop_size, dataset.ignore_index),
        batch_size=config.trainer.batch_size,
        crops_per_image=dataset.crops_per_image,
        seed=config.seed,
        num_workers=dataset.num_workers,
        repeats=_repeats(config, data),
        batches_per_step=config.trainer.accumulate,
        share=group.share(config.trainer.batch_size),
        **pixels,
    )
    names = class_names(dataset.class_names, dataset.num_classes)
    evaluator = Evaluator(
        network,
        build_loss(config),
        EvalLoader(data.val, indices=range(group.rank, len(data.val), group.count), **pixels),
        channels=dataset.channels,
        num_classes=dataset.num_classes,
        ignore_index=dataset.ignore_index,
        class_names=names,
        keep=config.tracking.overlays,
        compiler=compiler,
        workers=group,
    )
    schedule = partial(SCHEDULES.get(config.schedule.name), **options(config.schedule))
    metadata = {
        "arch": architecture(config),
        "class_names": names,
        "ignore_index": dataset.ignore_index,
        "palette": class_palette(names, dataset.palette).tolist(),
        "normalisation": pixels,
        "bits": dataset.bits,
        **({"value_range": list(dataset.value_range)} if dataset.value_range else {}),
        "seed": config.seed,
        "versions": {"fcnlab": fcnlab.__version__, "mindspore": ms.__version__},
        "cpu": describe_cpu(),
        "kernels": kernels.describe(bfloat16=config.trainer.amp == "bf16"),
        **({"workers": group.count} if group.count > 1 else {}),
    }
    return Trainer(
        build_step(config, network),
        loader,
        evaluator,
        lambda step, total_steps: config.optimizer.lr * schedule(step, total_steps),
        config.trainer,
        folder / journal.CHECKPOINTS,
        metadata,
        callbacks,
        compiler,
        _test(evaluator, test, pixels),
        group,
    )


def _test(evaluator: Evaluator, test: Dataset | None, pixels: dict[str, Any]) -> Callable[[], Evaluation] | None:
    """Return what evaluates the test images, which the workers share as they do the validation images."""
    if test is None:
        return None
    group = evaluator.workers
    loader = EvalLoader(test, indices=range(group.rank, len(test), group.count), **pixels)
    return partial(evaluator.over, loader, TEST)


def _repeats(config: Config, data: Data) -> np.ndarray | None:
    """Return how often each training image is drawn, by the rarest of its classes; None if each is drawn once."""
    threshold = config.dataset.rare_threshold
    if threshold == 0:
        return None
    return repeat_factors(data.train.class_pixels(config.dataset.num_classes), threshold)
