"""Declares every key of the configuration: one typed dataclass for each group, with the range of every value.

Hydra composes ``conf/`` against these classes, so that a wrong type or an unknown key is refused before anything is
built. The files of ``conf/`` say what each key means. Nothing here imports MindSpore, MLflow or Hydra.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Optional

from fcnlab.config.roles import UNCLASSIFIED, Role

MISSING: Any = "???"
"""OmegaConf's mark for a value that must be given; it is not imported, since a served model lacks OmegaConf."""


def key(
    default: Any,
    role: Role = UNCLASSIFIED,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[Any] | None = None,
    required: bool = False,
) -> Any:
    """Declare a configuration key: a dataclass field with a role and a range.

    Args:
        default: The value of the key unless it is set. A list is copied for each configuration.
        role: What the key means to the graph cache, ``resume`` and others.
        minimum: The smallest allowed number. Here and for the next three, every element of a list is checked.
        maximum: The largest allowed number.
        above: A bound that the number must exceed.
        below: A bound that the number must stay below.
        choices: The only allowed values.
        required: Whether None is refused, so that the user has to give a value.
    """
    bounds = {"minimum": minimum, "maximum": maximum, "above": above, "below": below}
    metadata: dict[str, Any] = {name: bound for name, bound in bounds.items() if bound is not None}
    metadata["role"] = role
    if choices is not None:
        metadata["choices"] = tuple(choices)
    if required:
        metadata["required"] = True
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


_NETWORK = Role.SHAPES_GRAPH | Role.FIXED  # the compiled graphs and the saved parameters follow from the key
_FOLDER = Role.READS | Role.DESCRIBED  # a folder describes its files by the key
_START = Role.MACHINE | Role.ANEW  # the key belongs to one start of the process


@dataclass
class AnyArchConfig:
    """The keys of every architecture, also of one from another package."""

    name: str = key(MISSING, _NETWORK)


@dataclass
class ArchConfig(AnyArchConfig):
    """The keys of an architecture from another package that declares none."""

    name: str = key("fcn8s", _NETWORK)
    stride: int = key(8, _NETWORK, choices=(2, 4, 8, 16, 32))
    width: float = key(0.25, _NETWORK, above=0, maximum=4)
    norm: str = key("batch", _NETWORK, choices=("batch", "none"))
    dropout: float = key(0.5, _NETWORK, minimum=0, below=1)


@dataclass
class FCNConfig(ArchConfig):
    """The keys of this package's networks: see `fcnlab.models.FCN`.

    Those of the encoder, if it is from another package and declares some, stand in a section of its name.
    """

    encoder: str = key("vgg16", _NETWORK)
    norm: str = key("batch", _NETWORK, choices=("batch", "sync_batch", "group", "none"))


@dataclass
class DilatedArchConfig(AnyArchConfig):
    """The keys of torchvision's networks: see `fcnlab.models.DilatedFCN`."""

    width: float = key(0.25, _NETWORK, above=0, maximum=4)
    norm: str = key("batch", _NETWORK, choices=("batch", "sync_batch", "group"))
    dropout: float = key(0.1, _NETWORK, minimum=0, below=1)


@dataclass
class PaperArchConfig(AnyArchConfig):
    """The keys of the networks that FCN's authors published: see `fcnlab.models.FCN`."""

    width: float = key(1.0, _NETWORK, above=0, maximum=4)
    dropout: float = key(0.5, _NETWORK, minimum=0, below=1)


@dataclass
class DatasetConfig:
    """The keys of every data set."""

    name: str = key(MISSING, Role.READS)
    root: Optional[str] = key(None, Role.MACHINE)
    num_classes: int = key(2, _NETWORK | _FOLDER, minimum=2, maximum=255)
    ignore_index: int = key(255, _NETWORK | _FOLDER, minimum=0, maximum=255)
    class_names: list[str] = key([], _FOLDER)
    palette: list[list[int]] = key([], Role.DESCRIBED)
    crop_size: int = key(128, _NETWORK, minimum=32)
    crops_per_image: int = key(1, Role.FIXED, minimum=1)
    mean: list[float] = key([0.5, 0.5, 0.5], Role.DESCRIBED, minimum=0, maximum=1)
    std: list[float] = key([0.25, 0.25, 0.25], Role.DESCRIBED, above=0)
    train_share: float = key(1.0, Role.FIXED, above=0, maximum=1)
    rare_threshold: float = key(0.0, Role.FREE, minimum=0, maximum=1)
    cache_mib: int = key(2048, Role.MACHINE, minimum=0)
    num_workers: int = key(1, Role.MACHINE, minimum=1, maximum=64)
    # What was recorded without this key evaluated no test split. It changes nothing of a training.
    test_set: str = key("none", Role.MACHINE, choices=("auto", "none"))

    # These are keys only where images may have other channels and bits, as in `FolderConfig`.
    channels: ClassVar[int] = 3
    bits: ClassVar[int] = 8
    value_range: ClassVar[Sequence[int]] = ()
    turned: ClassVar[Optional[bool]] = False


@dataclass
class CellsConfig(DatasetConfig):
    """The keys of the generated slices: see `fcnlab.data.cells`."""

    name: str = key("cells", Role.READS)
    class_names: list[str] = key(["membrane", "cell"], _FOLDER)
    num_train: int = key(32, Role.READS, minimum=1)
    num_val: int = key(8, Role.READS, minimum=1)
    image_size: int = key(256, Role.READS, minimum=64, maximum=8192)
    seed: int = key(0, Role.READS, minimum=0)


@dataclass
class PairedFilesConfig(DatasetConfig):
    """The keys of every data set with a folder of images and one of labels: see `fcnlab.data.image_folder`."""

    root: Optional[str] = key(None, Role.MACHINE, required=True)
    images: str = key("images", _FOLDER)
    labels: str = key("labels", _FOLDER)
    label_values: list[int] = key([], _FOLDER, minimum=0, maximum=255)
    train_list: Optional[str] = key(None, Role.DESCRIBED)
    val_list: Optional[str] = key(None, Role.DESCRIBED)


@dataclass
class FolderConfig(PairedFilesConfig):
    """The keys of a researcher's own folder: see `fcnlab.data.folder`."""

    name: str = key("folder", Role.READS)
    channels: int = key(3, _NETWORK | _FOLDER, minimum=1, maximum=64)
    bits: int = key(8, Role.FIXED | _FOLDER, choices=(8, 16))
    value_range: list[int] = key([], Role.FIXED | _FOLDER, minimum=0, maximum=65535)
    turned: Optional[bool] = key(False, _FOLDER)  # what was recorded without this key took the stored pixels
    records: Optional[bool] = key(None, _FOLDER)
    val_fraction: float = key(0.2, Role.FREE, above=0, below=1)
    folds: Optional[int] = key(None, Role.DESCRIBED, minimum=2, maximum=100)
    fold: Optional[int] = key(None, Role.FREE, minimum=0)
    split_seed: int = key(0, Role.FREE, minimum=0)


@dataclass
class Isbi2012Config(PairedFilesConfig):
    """The keys of the ISBI 2012 challenge's slices: see `fcnlab.data.isbi2012`."""

    name: str = key("isbi2012", Role.READS)
    class_names: list[str] = key(["membrane", "cell"], _FOLDER)
    label_values: list[int] = key([0, 255], _FOLDER, minimum=0, maximum=255)


# fmt: off
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
CAMVID_CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)
# fmt: on


@dataclass
class Voc2012Config(DatasetConfig):
    """The keys of PASCAL VOC: see `fcnlab.data.voc2012`."""

    name: str = key("voc2012", Role.READS)
    root: Optional[str] = key(None, Role.MACHINE, required=True)
    num_classes: int = key(21, _NETWORK | _FOLDER, minimum=2, maximum=255)
    class_names: list[str] = key(list(VOC_CLASSES), _FOLDER)
    train_set: str = key("train", Role.READS, choices=("train", "trainval", "trainaug"))
    val_set: str = key("val", Role.READS, choices=("val", "seg11valid"))
    sbd_root: Optional[str] = key(None, Role.MACHINE | Role.READS)


@dataclass
class CamvidConfig(DatasetConfig):
    """The keys of CamVid: see `fcnlab.data.camvid`."""

    name: str = key("camvid", Role.READS)
    root: Optional[str] = key(None, Role.MACHINE, required=True)
    num_classes: int = key(11, _NETWORK | _FOLDER, minimum=2, maximum=255)
    ignore_index: int = key(11, _NETWORK | _FOLDER, minimum=0, maximum=255)
    class_names: list[str] = key(list(CAMVID_CLASSES), _FOLDER)
    val_set: str = key("val", Role.READS, choices=("val", "test"))


@dataclass
class AugmentConfig:
    """The keys of the joint random transforms of image and label: see `fcnlab.data.transforms`."""

    horizontal_flip: float = key(0.0, Role.FREE, minimum=0, maximum=1)
    vertical_flip: float = key(0.0, Role.FREE, minimum=0, maximum=1)
    rotate90: bool = key(False, Role.FREE)
    scale: list[float] = key([1.0, 1.0], Role.FREE, minimum=0.1, maximum=10)
    brightness: float = key(0.0, Role.FREE, minimum=0, maximum=1)
    contrast: float = key(0.0, Role.FREE, minimum=0, below=1)
    max_void: float = key(1.0, Role.FREE, minimum=0, maximum=1)
    class_crops: float = key(0.0, Role.FREE, minimum=0, maximum=1)
    rotation: float = key(0.0, Role.FREE, minimum=0, maximum=180)
    elastic: float = key(0.0, Role.FREE, minimum=0, maximum=100)
    elastic_spacing: float = key(32.0, Role.FREE, minimum=2)
    gamma: list[float] = key([1.0, 1.0], Role.FREE, minimum=0.1, maximum=10)
    saturation: float = key(0.0, Role.FREE, minimum=0, maximum=1)
    hue: float = key(0.0, Role.FREE, minimum=0, maximum=0.5)
    blur: float = key(0.0, Role.FREE, minimum=0, maximum=20)
    noise: float = key(0.0, Role.FREE, minimum=0, maximum=1)
    extra: list[str] = key([], Role.FREE)


@dataclass
class AnyOptimizerConfig:
    """The keys of every optimizer, also of one from another package."""

    name: str = key(MISSING, _NETWORK)
    lr: float = key(1e-3, Role.FREE, above=0)
    freeze: list[str] = key([], _NETWORK)


@dataclass
class OptimizerConfig(AnyOptimizerConfig):
    """The keys of every optimizer of this package."""

    weight_decay: float = key(0.0, Role.SHAPES_GRAPH, minimum=0, below=1)
    groups: list[Any] = key([], Role.SHAPES_GRAPH)


@dataclass
class AdamConfig(OptimizerConfig):
    """The keys of Adam with L2 regularisation."""

    name: str = key("adam", _NETWORK)
    beta1: float = key(0.9, Role.SHAPES_GRAPH, minimum=0, below=1)
    beta2: float = key(0.999, Role.SHAPES_GRAPH, minimum=0, below=1)
    epsilon: float = key(1e-8, Role.SHAPES_GRAPH, above=0)


@dataclass
class AdamWConfig(AdamConfig):
    """The keys of Adam with decoupled weight decay."""

    name: str = key("adamw", _NETWORK)
    weight_decay: float = key(0.01, Role.SHAPES_GRAPH, minimum=0, below=1)


@dataclass
class SGDConfig(OptimizerConfig):
    """The keys of stochastic gradient descent with momentum."""

    name: str = key("sgd", _NETWORK)
    lr: float = key(0.01, Role.FREE, above=0)
    weight_decay: float = key(5e-4, Role.SHAPES_GRAPH, minimum=0, below=1)
    momentum: float = key(0.9, Role.SHAPES_GRAPH, minimum=0, below=1)


@dataclass
class AnyScheduleConfig:
    """The keys of every learning-rate schedule, also of one from another package."""

    name: str = key(MISSING, Role.FREE)


@dataclass
class ScheduleConfig(AnyScheduleConfig):
    """The keys of every learning-rate schedule of this package."""

    warmup_steps: int = key(0, Role.FREE, minimum=0)


@dataclass
class ConstantConfig(ScheduleConfig):
    """The keys of a constant learning rate."""

    name: str = key("constant", Role.FREE)


@dataclass
class PolyConfig(ScheduleConfig):
    """The keys of the schedule (1 - step / total) ** power."""

    name: str = key("poly", Role.FREE)
    power: float = key(0.9, Role.FREE, above=0)


@dataclass
class CosineConfig(ScheduleConfig):
    """The keys of the schedule that follows half a cosine from 1 to ``final``."""

    name: str = key("cosine", Role.FREE)
    final: float = key(0.0, Role.FREE, minimum=0, maximum=1)


@dataclass
class LossConfig:
    """The keys of every loss."""

    name: str = key(MISSING, _NETWORK)


MEDIAN_FREQUENCY = "median_frequency"
"""The value of ``loss.class_weights`` that weights a class by how often it occurs: see `fcnlab.data.class_balance`."""


@dataclass
class WeightedLossConfig(LossConfig):
    """The keys of every loss of this package."""

    class_weights: Any = key(None, Role.FREE, minimum=0)  # free, since the weights are an input of the graph


@dataclass
class CrossEntropyConfig(WeightedLossConfig):
    """The keys of the pixel-wise cross-entropy."""

    name: str = key("cross_entropy", _NETWORK)
    reduction: str = key("mean", Role.SHAPES_GRAPH, choices=("mean", "sum"))


@dataclass
class FocalConfig(CrossEntropyConfig):
    """The keys of the focal loss."""

    name: str = key("focal", _NETWORK)
    gamma: float = key(2.0, Role.SHAPES_GRAPH, minimum=0, maximum=10)


@dataclass
class DiceConfig(WeightedLossConfig):
    """The keys of the soft Dice loss."""

    name: str = key("dice", _NETWORK)


@dataclass
class CombinedConfig(WeightedLossConfig):
    """The keys of the weighted sum of a cross-entropy or focal loss and a Dice loss."""

    name: str = key("combined", _NETWORK)
    gamma: float = key(0.0, Role.SHAPES_GRAPH, minimum=0, maximum=10)
    dice: float = key(0.5, Role.SHAPES_GRAPH, minimum=0, maximum=1)


@dataclass
class TrainerConfig:
    """The keys of the training loop: see `fcnlab.training.trainer`."""

    epochs: int = key(20, Role.FREE, minimum=1)
    max_steps: Optional[int] = key(None, Role.FREE, minimum=1)
    batch_size: int = key(8, _NETWORK, minimum=1)
    accumulate: int = key(1, _NETWORK, minimum=1)
    parallel: str = key("none", Role.MACHINE | Role.SHAPES_GRAPH, choices=("none", "data"))
    workers: Optional[int] = key(None, Role.MACHINE, minimum=1)
    worker_timeout: float = key(120.0, Role.MACHINE, minimum=10)
    eval_every: int = key(5, Role.FREE, minimum=1)
    mode: str = key("graph", Role.SHAPES_GRAPH, choices=("graph", "pynative"))
    device: str = key("auto", Role.SHAPES_GRAPH, choices=("auto", "cpu", "ascend"))
    amp: str = key("O0", _NETWORK, choices=("O0", "O2", "O3", "auto", "bf16"))
    loss_scale: float = key(65536.0, Role.FIXED, minimum=2.0**-24, maximum=2.0**24)
    loss_scale_window: int = key(2000, Role.SHAPES_GRAPH, minimum=1)
    recompute: str = key("none", Role.MACHINE | Role.SHAPES_GRAPH, choices=("none", "blocks"))
    compile_cache: bool = key(True, Role.MACHINE)
    clip_norm: Optional[float] = key(None, Role.SHAPES_GRAPH, above=0)
    monitor: str = key("val/mean_iou", Role.FREE)
    patience: Optional[int] = key(None, Role.FREE, minimum=1)
    save_every: Optional[int] = key(None, Role.MACHINE, minimum=1)
    checkpoint_epochs: Optional[int] = key(None, Role.MACHINE, minimum=1)
    checkpoint_minutes: Optional[float] = key(5.0, Role.MACHINE, minimum=0)
    ckpt: bool = key(True, Role.MACHINE)
    skip_nonfinite: int = key(0, Role.MACHINE | Role.SHAPES_GRAPH, minimum=0)


@dataclass
class TrackingConfig:
    """The keys of the record in MLflow: see `fcnlab.tracking`."""

    name: str = key("mlflow", Role.MACHINE, choices=("mlflow", "none"))
    uri: Optional[str] = key(None, _START | Role.BESIDE_SWEEP)
    experiment: str = key("fcnlab", Role.MACHINE)
    run_name: Optional[str] = key(None, Role.MACHINE)
    overlays: int = key(3, Role.MACHINE, minimum=0)
    system_metrics_every: Optional[float] = key(10.0, Role.MACHINE, minimum=0.1)
    wait: float = key(60.0, Role.MACHINE, minimum=0)
    register_as: Optional[str] = key(None, Role.MACHINE)
    alias: str = key("champion", Role.MACHINE)


@dataclass
class SweepConfig:
    """The keys of a training that is a trial of a sweep: see `fcnlab.sweeps`."""

    id: Optional[str] = key(None, _START)
    resume: Optional[str] = key(None, _START)
    skip_finished: bool = key(False, _START)
    threads: Optional[int] = key(None, _START | Role.BESIDE_SWEEP, minimum=1)
    search_trial: Optional[int] = key(None, _START, minimum=0)
    starts_from: Optional[int] = key(None, _START, minimum=0)


@dataclass
class Config:
    """The configuration of a training: ``python -m fcnlab.train``."""

    arch: AnyArchConfig = field(default_factory=FCNConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: AnyOptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: AnyScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    seed: int = key(0, Role.FIXED, minimum=0, maximum=2**31 - 1)
    init_from: Optional[str] = key(None, Role.FIXED)
    init_partial: bool = key(False, Role.FIXED)
    init_mean: bool = key(False, Role.FREE)  # what was recorded without this key had its mean from the data set
    from_run: Optional[str] = key(None, _START)
    resume: Optional[str] = key(None, _START)


@dataclass
class StoreConfig:
    """The keys of the tracking store with the runs and the registered models."""

    uri: Optional[str] = None


@dataclass
class InferenceConfig:
    """The keys of every command that runs a trained network: see `fcnlab.inference`."""

    checkpoint: Optional[str] = key(None, required=True)
    flip: bool = False
    scales: list[float] = key([1.0], minimum=0.1, maximum=8)
    tile: int = key(1408, minimum=480, maximum=32768)
    device: str = key("auto", choices=("auto", "cpu", "ascend"))
    tracking: StoreConfig = field(default_factory=StoreConfig)


@dataclass
class EvaluateConfig(InferenceConfig):
    """The configuration of ``python -m fcnlab.evaluate``."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    split: str = key("val", choices=("train", "val", "test", "all"))
    output: Optional[str] = None
    boundary_tolerance: float = key(2.0, minimum=0)
    worst: int = key(5, minimum=0)
    log_to: Optional[str] = None


@dataclass
class PredictConfig(InferenceConfig):
    """The configuration of ``python -m fcnlab.predict``."""

    input: Optional[str] = key(None, required=True)
    output: Optional[str] = key(None, required=True)
    overlays: bool = True
    probabilities: bool = False
    review: bool = False
    overwrite: bool = False


@dataclass
class ExportConfig:
    """The configuration of ``python -m fcnlab.export``."""

    checkpoint: Optional[str] = key(None, required=True)
    format: Optional[str] = key(None, required=True, choices=("mindir", "onnx", "safetensors", "torch"))
    layout: str = key("fcnlab", choices=("fcnlab", "torchvision", "torchfcn"))
    output: Optional[str] = None
    device: str = key("auto", choices=("auto", "cpu", "ascend"))
    tracking: StoreConfig = field(default_factory=StoreConfig)


@dataclass
class ExperimentConfig(StoreConfig):
    """The keys of the tracking store and of one experiment in it."""

    experiment: Optional[str] = None


@dataclass
class CompareConfig:
    """The configuration of ``python -m fcnlab.compare``."""

    sweep: Optional[str] = None
    filter: Optional[str] = None
    runs: list[str] = key([])
    monitor: Optional[str] = None
    baseline: Optional[str] = None
    margin: Optional[float] = key(None, above=0)
    output: Optional[str] = None
    log_to: Optional[str] = None
    tracking: ExperimentConfig = field(default_factory=ExperimentConfig)


@dataclass
class PrepareConfig:
    """The configuration of ``python -m fcnlab.prepare``."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    source: Optional[str] = None
    root: Optional[str] = key(None, required=True)
    check: bool = False
    near_duplicates: str = key("show", choices=("show", "refuse"))
    images: Optional[str] = None
    labels: Optional[str] = None
    classes: list[str] = key([])
    values: list[int] = key([], minimum=0, maximum=65535)
    void_values: list[int] = key([], minimum=0, maximum=65535)
    instances: bool = False
    colours: list[list[int]] = key([])
    void_colour: Optional[list[int]] = key(None, minimum=0, maximum=255)
    annotations: Optional[str] = None
    boxes: str = key("refuse", choices=("refuse", "area", "void", "none"))
    annotation_scale: bool = False
    turned: Optional[bool] = None
    channels: int = key(3, minimum=1, maximum=64)
    bits: int = key(8, choices=(8, 16))
    value_range: list[int] = key([], minimum=0, maximum=65535)
    tile: Optional[int] = key(None, minimum=32, maximum=8192)
    records: bool = False
    val_fraction: float = key(0.2, above=0, below=1)
    test_fraction: float = key(0.0, minimum=0, below=1)
    group_by: Optional[str] = None
    folds: Optional[int] = key(None, minimum=2, maximum=100)
    fold: int = key(0, minimum=0)
    split_seed: int = key(0, minimum=0)


COMMANDS = {
    "prepare": PrepareConfig,
    "train": Config,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "export": ExportConfig,
    "compare": CompareConfig,
}
"""The class of each primary configuration, ``conf/<name>.yaml``."""

SCHEMAS: dict[str, dict[str, type]] = {
    "arch": {
        **dict.fromkeys(("fcn32s", "fcn16s", "fcn8s", "fcn4s", "fcn2s"), FCNConfig),
        **dict.fromkeys(
            ("paper/fcn32s", "paper/fcn16s", "paper/fcn8s", "paper/fcn8s_atonce", "paper/fcn_alexnet"), PaperArchConfig
        ),
        **dict.fromkeys(("torchvision/fcn_resnet50", "torchvision/fcn_resnet101"), DilatedArchConfig),
    },
    "dataset": {
        "cells": CellsConfig,
        "folder": FolderConfig,
        "isbi2012": Isbi2012Config,
        "voc2012": Voc2012Config,
        "camvid": CamvidConfig,
    },
    "optimizer": {"adam": AdamConfig, "adamw": AdamWConfig, "sgd": SGDConfig},
    "schedule": {"constant": ConstantConfig, "poly": PolyConfig, "cosine": CosineConfig},
    "loss": {"cross_entropy": CrossEntropyConfig, "focal": FocalConfig, "dice": DiceConfig, "combined": CombinedConfig},
}
"""The class of each option of the groups whose options differ in their keys."""

BASES: dict[str, type] = {
    "arch": AnyArchConfig,
    "dataset": DatasetConfig,
    "optimizer": AnyOptimizerConfig,
    "schedule": AnyScheduleConfig,
    "loss": LossConfig,
}
"""The class with the keys of every option of a group, whichever package the option is from."""

UNDECLARED: dict[str, type] = {**BASES, "arch": ArchConfig}
"""The class of an option from another package that declares no keys."""

RESERVED: dict[str, tuple[str, ...]] = {
    "arch": ("num_classes", "seed", "in_channels"),
    "arch.encoder": ("width", "norm", "in_channels"),
    "dataset": (),
    "augment": ("augment", "ignore_index"),
    "optimizer": ("parameters",),
    "schedule": ("step", "total_steps"),
    "loss": ("ignore_index", "num_classes"),
}
"""The further arguments that the objects of a group are called with, whose names no key of theirs can have."""


def leaves(section: Any, prefix: str = "") -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Yield every key below a section: its dotted name, its value, and the metadata with its role and range."""
    for item in dataclasses.fields(section):
        value, key = getattr(section, item.name), f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{key}.")
        else:
            yield key, value, item.metadata


def flatten(section: Any, prefix: str = "") -> dict[str, Any]:
    """Return the dotted keys and the values below a section, such as ``{"arch.name": "fcn8s", ...}``.

    Args:
        section: A dataclass, or a nested dictionary, as a parsed YAML file is one. An empty dictionary is a value.
        prefix: What every key begins with.
    """
    if not isinstance(section, dict):
        return {key: value for key, value, _ in leaves(section, prefix)}
    flat: dict[str, Any] = {}
    for key, value in section.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return flat


def role_of(metadata: Mapping[str, Any]) -> Role:
    """Return the role that a key's metadata states; `UNCLASSIFIED` if it states none, as in a plug-in."""
    return metadata.get("role", UNCLASSIFIED)


def keys_with(role: Role, section: Any) -> dict[str, Any]:
    """Return the keys below a section whose role includes all of ``role``, from dotted names to values."""
    return {name: value for name, value, metadata in leaves(section) if role in role_of(metadata)}


def options(section: Any, *without: str) -> dict[str, Any]:
    """Return a section's keys as keyword arguments for a factory, without ``name`` and the keys of ``without``."""
    return {
        item.name: getattr(section, item.name)
        for item in dataclasses.fields(section)
        if item.name not in ("name", *without)
    }
