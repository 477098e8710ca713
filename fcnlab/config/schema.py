"""Every key of the configuration: one typed dataclass a group, with the range of every value.

Hydra composes ``conf/`` against these classes, so that a wrong type or an unknown key is refused before anything is
built. They are light on purpose: nothing here imports MindSpore or MLflow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Optional

from omegaconf import MISSING


def ranged(
    default: Any,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A number within bounds (``above`` and ``below`` exclude the bound itself); a list has each element bounded."""
    bounds = {"minimum": minimum, "maximum": maximum, "above": above, "below": below}
    metadata = {key: bound for key, bound in bounds.items() if bound is not None}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def one_of(default: Any, choices: Sequence[Any]) -> Any:
    """A value out of a closed list."""
    return field(default=default, metadata={"choices": tuple(choices)})


@dataclass
class ArchConfig:
    """Which network: see `fcnlab.models.FCN`."""

    name: str = "fcn8s"
    stride: int = one_of(8, (2, 4, 8, 16, 32))
    width: float = ranged(0.25, above=0, maximum=4)
    norm: str = one_of("batch", ("batch", "none"))
    dropout: float = ranged(0.5, minimum=0, below=1)


@dataclass
class DatasetConfig:
    """What every data set has."""

    name: str = MISSING
    root: Optional[str] = None
    num_classes: int = ranged(2, minimum=2, maximum=255)
    ignore_index: int = ranged(255, minimum=0, maximum=255)
    class_names: list[str] = field(default_factory=list)
    palette: list[list[int]] = field(default_factory=list)
    crop_size: int = ranged(128, minimum=32)
    crops_per_image: int = ranged(1, minimum=1)
    mean: list[float] = ranged([0.5, 0.5, 0.5], minimum=0, maximum=1)
    std: list[float] = ranged([0.25, 0.25, 0.25], above=0)
    rare_threshold: float = ranged(0.0, minimum=0, maximum=1)
    cache_mib: int = ranged(2048, minimum=0)
    num_workers: int = ranged(1, minimum=1, maximum=64)

    # Keys only where images may have others, as `FolderConfig` does.
    channels: ClassVar[int] = 3
    bits: ClassVar[int] = 8


@dataclass
class CellsConfig(DatasetConfig):
    """Generated slices: see `fcnlab.data.cells`."""

    name: str = "cells"
    class_names: list[str] = field(default_factory=lambda: ["membrane", "cell"])
    num_train: int = ranged(32, minimum=1)
    num_val: int = ranged(8, minimum=1)
    image_size: int = ranged(256, minimum=64, maximum=8192)
    seed: int = ranged(0, minimum=0)


@dataclass
class PairedFilesConfig(DatasetConfig):
    """What every folder of images with one of labels has: see `fcnlab.data.folder`."""

    root: Optional[str] = field(default=None, metadata={"required": True})
    images: str = "images"
    labels: str = "labels"
    label_values: list[int] = ranged([], minimum=0, maximum=255)
    train_list: Optional[str] = None
    val_list: Optional[str] = None


@dataclass
class FolderConfig(PairedFilesConfig):
    """Any images: see `fcnlab.data.folder`."""

    name: str = "folder"
    channels: int = ranged(3, minimum=1, maximum=64)
    bits: int = one_of(8, (8, 16))
    records: Optional[bool] = None
    val_fraction: float = ranged(0.2, above=0, below=1)
    split_seed: int = ranged(0, minimum=0)


@dataclass
class Isbi2012Config(PairedFilesConfig):
    """The ISBI 2012 challenge's slices: see `fcnlab.data.isbi2012`."""

    name: str = "isbi2012"
    class_names: list[str] = field(default_factory=lambda: ["membrane", "cell"])
    label_values: list[int] = ranged([0, 255], minimum=0, maximum=255)


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
    """PASCAL VOC: see `fcnlab.data.voc2012`."""

    name: str = "voc2012"
    root: Optional[str] = field(default=None, metadata={"required": True})
    num_classes: int = ranged(21, minimum=2, maximum=255)
    class_names: list[str] = field(default_factory=lambda: list(VOC_CLASSES))
    train_set: str = one_of("train", ("train", "trainval", "trainaug"))
    val_set: str = one_of("val", ("val", "seg11valid"))
    sbd_root: Optional[str] = None


@dataclass
class CamvidConfig(DatasetConfig):
    """CamVid: see `fcnlab.data.camvid`."""

    name: str = "camvid"
    root: Optional[str] = field(default=None, metadata={"required": True})
    num_classes: int = ranged(11, minimum=2, maximum=255)
    ignore_index: int = ranged(11, minimum=0, maximum=255)
    class_names: list[str] = field(default_factory=lambda: list(CAMVID_CLASSES))
    val_set: str = one_of("val", ("val", "test"))


@dataclass
class AugmentConfig:
    """Joint random transforms of a training image and its label: see `fcnlab.data.transforms`."""

    horizontal_flip: float = ranged(0.0, minimum=0, maximum=1)
    vertical_flip: float = ranged(0.0, minimum=0, maximum=1)
    rotate90: bool = False
    scale: list[float] = ranged([1.0, 1.0], minimum=0.1, maximum=10)
    brightness: float = ranged(0.0, minimum=0, maximum=1)
    contrast: float = ranged(0.0, minimum=0, below=1)
    max_void: float = ranged(1.0, minimum=0, maximum=1)
    class_crops: float = ranged(0.0, minimum=0, maximum=1)
    rotation: float = ranged(0.0, minimum=0, maximum=180)
    elastic: float = ranged(0.0, minimum=0, maximum=100)
    elastic_spacing: float = ranged(32.0, minimum=2)
    gamma: list[float] = ranged([1.0, 1.0], minimum=0.1, maximum=10)
    saturation: float = ranged(0.0, minimum=0, maximum=1)
    hue: float = ranged(0.0, minimum=0, maximum=0.5)
    blur: float = ranged(0.0, minimum=0, maximum=20)
    noise: float = ranged(0.0, minimum=0, maximum=1)
    extra: list[str] = field(default_factory=list)


@dataclass
class OptimizerConfig:
    """What every optimizer has."""

    name: str = MISSING
    lr: float = ranged(1e-3, above=0)
    weight_decay: float = ranged(0.0, minimum=0, below=1)


@dataclass
class AdamConfig(OptimizerConfig):
    """Adam with L2 regularisation."""

    name: str = "adam"
    beta1: float = ranged(0.9, minimum=0, below=1)
    beta2: float = ranged(0.999, minimum=0, below=1)
    epsilon: float = ranged(1e-8, above=0)


@dataclass
class AdamWConfig(AdamConfig):
    """Adam with decoupled weight decay."""

    name: str = "adamw"
    weight_decay: float = ranged(0.01, minimum=0, below=1)


@dataclass
class SGDConfig(OptimizerConfig):
    """Stochastic gradient descent with momentum."""

    name: str = "sgd"
    lr: float = ranged(0.01, above=0)
    weight_decay: float = ranged(5e-4, minimum=0, below=1)
    momentum: float = ranged(0.9, minimum=0, below=1)


@dataclass
class ScheduleConfig:
    """What every learning-rate schedule has."""

    name: str = MISSING
    warmup_steps: int = ranged(0, minimum=0)


@dataclass
class ConstantConfig(ScheduleConfig):
    """The same learning rate throughout."""

    name: str = "constant"


@dataclass
class PolyConfig(ScheduleConfig):
    """(1 - step / total) ** power."""

    name: str = "poly"
    power: float = ranged(0.9, above=0)


@dataclass
class CosineConfig(ScheduleConfig):
    """Half a cosine from 1 to ``final``."""

    name: str = "cosine"
    final: float = ranged(0.0, minimum=0, maximum=1)


@dataclass
class LossConfig:
    """What every loss has."""

    name: str = MISSING


MEDIAN_FREQUENCY = "median_frequency"
"""In place of numbers: class weights by how often each class occurs, see `fcnlab.data.balance`."""


@dataclass
class CrossEntropyConfig(LossConfig):
    """Pixel-wise cross-entropy."""

    name: str = "cross_entropy"
    class_weights: Any = ranged(None, minimum=0)


@dataclass
class FocalConfig(CrossEntropyConfig):
    """The focal loss."""

    name: str = "focal"
    gamma: float = ranged(2.0, minimum=0, maximum=10)


@dataclass
class DiceConfig(CrossEntropyConfig):
    """The soft Dice loss."""

    name: str = "dice"


@dataclass
class CombinedConfig(CrossEntropyConfig):
    """Cross-entropy or focal loss, and Dice."""

    name: str = "combined"
    gamma: float = ranged(0.0, minimum=0, maximum=10)
    dice: float = ranged(0.5, minimum=0, maximum=1)


@dataclass
class TrainerConfig:
    """How long to train, on what, and what to keep: see `fcnlab.training.trainer`."""

    epochs: int = ranged(20, minimum=1)
    max_steps: Optional[int] = ranged(None, minimum=1)
    batch_size: int = ranged(8, minimum=1)
    eval_every: int = ranged(5, minimum=1)
    mode: str = one_of("graph", ("graph", "pynative"))
    device: str = one_of("auto", ("auto", "cpu", "ascend"))
    compile_cache: bool = True
    clip_norm: Optional[float] = ranged(None, above=0)
    monitor: str = "val/mean_iou"
    patience: Optional[int] = ranged(None, minimum=1)
    save_every: Optional[int] = ranged(None, minimum=1)
    checkpoint_epochs: Optional[int] = ranged(None, minimum=1)
    checkpoint_minutes: Optional[float] = ranged(5.0, minimum=0)
    ckpt: bool = True
    skip_nonfinite: int = ranged(0, minimum=0)


@dataclass
class TrackingConfig:
    """Where the experiment is recorded: see `fcnlab.tracking`."""

    name: str = one_of("mlflow", ("mlflow", "none"))
    uri: Optional[str] = None
    experiment: str = "fcnlab"
    run_name: Optional[str] = None
    overlays: int = ranged(3, minimum=0)
    system_metrics_every: Optional[float] = ranged(10.0, minimum=0.1)
    wait: float = ranged(60.0, minimum=0)
    register_as: Optional[str] = None
    alias: str = "champion"


@dataclass
class SweepConfig:
    """A training as a trial of a sweep: see `fcnlab.sweeps`."""

    id: Optional[str] = None
    resume: Optional[str] = None
    skip_finished: bool = False
    threads: Optional[int] = ranged(None, minimum=1)
    search_trial: Optional[int] = ranged(None, minimum=0)


@dataclass
class Config:
    """A whole experiment."""

    arch: ArchConfig = field(default_factory=ArchConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    seed: int = ranged(0, minimum=0, maximum=2**31 - 1)
    init_from: Optional[str] = None
    from_run: Optional[str] = None
    resume: Optional[str] = None


@dataclass
class StoreConfig:
    """The tracking store that runs and registered models are looked for in."""

    uri: Optional[str] = None


@dataclass
class InferenceConfig:
    """What every command that runs a trained network has: see `fcnlab.inference`."""

    checkpoint: Optional[str] = field(default=None, metadata={"required": True})
    flip: bool = False
    scales: list[float] = ranged([1.0], minimum=0.1, maximum=8)
    tile: int = ranged(1408, minimum=480, maximum=32768)
    device: str = one_of("auto", ("auto", "cpu", "ascend"))
    tracking: StoreConfig = field(default_factory=StoreConfig)


@dataclass
class EvaluateConfig(InferenceConfig):
    """``python -m fcnlab.evaluate``."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    split: str = one_of("val", ("train", "val", "all"))
    output: Optional[str] = None
    boundary_tolerance: float = ranged(2.0, minimum=0)
    worst: int = ranged(5, minimum=0)
    log_to: Optional[str] = None


@dataclass
class PredictConfig(InferenceConfig):
    """``python -m fcnlab.predict``."""

    input: Optional[str] = field(default=None, metadata={"required": True})
    output: Optional[str] = field(default=None, metadata={"required": True})
    overlays: bool = True
    probabilities: bool = False
    overwrite: bool = False


@dataclass
class ExportConfig:
    """``python -m fcnlab.export``."""

    checkpoint: Optional[str] = field(default=None, metadata={"required": True})
    format: Optional[str] = field(
        default=None, metadata={"required": True, "choices": ("mindir", "onnx", "safetensors")}
    )
    output: Optional[str] = None
    device: str = one_of("auto", ("auto", "cpu", "ascend"))
    tracking: StoreConfig = field(default_factory=StoreConfig)


@dataclass
class ExperimentConfig(StoreConfig):
    """The tracking store, or one experiment in it."""

    experiment: Optional[str] = None


@dataclass
class CompareConfig:
    """``python -m fcnlab.compare``."""

    sweep: Optional[str] = None
    filter: Optional[str] = None
    runs: list[str] = field(default_factory=list)
    monitor: Optional[str] = None
    baseline: Optional[str] = None
    output: Optional[str] = None
    log_to: Optional[str] = None
    tracking: ExperimentConfig = field(default_factory=ExperimentConfig)


@dataclass
class PrepareConfig:
    """``python -m fcnlab.prepare``."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    source: Optional[str] = None
    root: Optional[str] = field(default=None, metadata={"required": True})
    check: bool = False
    images: str = "images"
    labels: str = "labels"
    classes: list[str] = field(default_factory=list)
    values: list[int] = ranged([], minimum=0, maximum=65535)
    colours: list[list[int]] = field(default_factory=list)
    void_colour: Optional[list[int]] = ranged(None, minimum=0, maximum=255)
    annotations: Optional[str] = None
    channels: int = ranged(3, minimum=1, maximum=64)
    bits: int = one_of(8, (8, 16))
    records: bool = False
    val_fraction: float = ranged(0.2, above=0, below=1)
    split_seed: int = ranged(0, minimum=0)


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
"""The typed class of each option in the groups whose options differ in their keys."""


def leaves(section: Any, prefix: str = "") -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Every key below a section: its dotted name, its value and the metadata with its range."""
    for item in dataclasses.fields(section):
        value, key = getattr(section, item.name), f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{key}.")
        else:
            yield key, value, item.metadata


def flatten(config: Config) -> dict[str, Any]:
    """Dotted keys to values: ``{"arch.name": "fcn8s", ...}``."""
    return {key: value for key, value, _ in leaves(config)}


def options(section: Any, *without: str) -> dict[str, Any]:
    """A section's keys as keyword arguments for a registry's factory, without its name and the keys given."""
    return {
        item.name: getattr(section, item.name)
        for item in dataclasses.fields(section)
        if item.name not in ("name", *without)
    }
