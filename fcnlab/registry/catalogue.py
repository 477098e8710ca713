"""The kinds of parts that a configuration chooses by name, what each is called with, and this package's own names."""

from __future__ import annotations

from fcnlab.registry.factories import Registry

ARCHITECTURES = Registry(
    "architecture",
    "fcnlab.architectures",
    {
        **{f"fcn{stride}s": f"fcnlab.models.fcn:fcn{stride}s" for stride in (32, 16, 8, 4, 2)},
        **{
            f"paper/{name}": f"fcnlab.models.fcn:paper_{name}"
            for name in ("fcn32s", "fcn16s", "fcn8s", "fcn8s_atonce", "fcn_alexnet")
        },
        **{f"torchvision/{name}": f"fcnlab.models.dilated:{name}" for name in ("fcn_resnet50", "fcn_resnet101")},
    },
)
"""The architectures, called with ``num_classes``, ``seed``, ``in_channels`` if that is not 3, and their own keys.

The own keys are those of the ``Config`` without ``name`` and ``stride``; ``width``, ``norm`` and ``dropout`` are among
them if the ``Config`` derives from `fcnlab.config.schema.ArchConfig` or there is none. An architecture returns the
network: an ``nn.Cell`` from images (N x in_channels x H x W, float32) to logits (N x C x H x W, float32).
"""

ENCODERS = Registry(
    "encoder",
    "fcnlab.encoders",
    {
        **{f"vgg{depth}": f"fcnlab.models.vgg:VGG{depth}Encoder" for depth in (11, 13, 16, 19)},
        "alexnet": "fcnlab.models.one_tower_alexnet:OneTowerAlexNetEncoder",
        **{f"resnet{depth}": f"fcnlab.models.resnet:ResNet{depth}Encoder" for depth in (18, 34, 50, 101)},
    },
)
"""The encoders of this package's FCNs, called with ``width``, ``norm``, ``in_channels`` and their own keys.

The keys of an encoder with a ``Config`` stand below ``arch.<name>``. An encoder is an ``nn.Cell`` from images to the
maps at strides 2 to 32: `fcnlab.models.encoders` says what else an FCN asks of it.
"""

DATASETS = Registry(
    "dataset",
    "fcnlab.datasets",
    {
        "cells": "fcnlab.data.cells:Cells",
        "folder": "fcnlab.data.folder:folder",
        "isbi2012": "fcnlab.data.isbi2012:isbi2012",
        "voc2012": "fcnlab.data.voc2012:Voc2012",
        "camvid": "fcnlab.data.camvid:Camvid",
    },
)
"""The data sets, called with their configuration and a split ("train", "val"); they return a `fcnlab.data.Dataset`.

A factory with an attribute ``has_test``, a function of the configuration, takes the split "test" where that is true
and ``dataset.test_set`` is ``auto``, which a plug-in's own ``Config`` may have as its default.
"""

LOSSES = Registry(
    "loss",
    "fcnlab.losses",
    {
        "cross_entropy": "fcnlab.losses:CrossEntropy",
        "focal": "fcnlab.losses:Focal",
        "dice": "fcnlab.losses:Dice",
        "combined": "fcnlab.losses:Combined",
    },
)
"""The losses, called with ``ignore_index``, ``num_classes`` and their own keys.

They return a cell from logits and labels to a scalar. If the cell is a `fcnlab.losses.SummedLoss`, ``val/loss`` is the
loss of all validation images as one batch; otherwise, it is the mean over the images, weighted by the number of their
pixels that are not void.
"""

TRANSFORMS = Registry(
    "transform",
    "fcnlab.transforms",
    {
        "rotation": "fcnlab.data.warps:rotation",
        "elastic": "fcnlab.data.warps:elastic",
        "gamma": "fcnlab.data.appearance:gamma",
        "colour_jitter": "fcnlab.data.appearance:colour_jitter",
        "blur": "fcnlab.data.appearance:blur",
        "noise": "fcnlab.data.appearance:noise",
    },
)
"""The transforms, called with the ``augment`` section, ``ignore_index`` and the keys of their own ``Config``.

They return a `fcnlab.data.dataset.Transform`, or None where there is nothing to do. The built-in ones are applied in
this order, then those that ``augment.extra`` names.
"""

OPTIMIZERS = Registry(
    "optimizer",
    "fcnlab.optimizers",
    {name.lower(): f"fcnlab.training.optimizers:{name}" for name in ("Adam", "AdamW", "SGD")},
)
"""The optimizers, called with the parameters that are not frozen and their own keys except ``lr``; they return a cell
that updates them. An optimizer that takes ``groups`` gets them where ``optimizer.groups`` has any."""

SCHEDULES = Registry(
    "schedule",
    "fcnlab.schedules",
    {name: f"fcnlab.training.schedules:{name}" for name in ("constant", "poly", "cosine")},
)
"""The schedules, called with ``step``, ``total_steps`` and their own keys; they return the learning rate's factor."""

REGISTRIES = {
    "arch": ARCHITECTURES,
    "dataset": DATASETS,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
"""The registry of each group of the configuration that selects a factory by its name."""
