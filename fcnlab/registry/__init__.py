"""Named factories, open to other packages through entry points.

A package adds an architecture, encoder, data set, loss, transform, optimizer or schedule by declaring an entry point::

    [project.entry-points."fcnlab.datasets"]
    mitochondria = "their_package.data:Mitochondria"

The object may have an attribute ``Config``: a dataclass with its configuration keys. ``dataset=mitochondria`` then
selects it with these keys, without a YAML file. The keys of a transform stand below ``augment.<name>`` once
``augment.extra`` names it, and those of an encoder below ``arch.<name>`` once ``arch.encoder`` does. The dataclass need
not derive from one of `fcnlab.config.schema`, whose keys it gets anyway. A key may state a role
(``fcnlab.config.schema.key(2, Role.FREE)``); a key that does not is taken to shape the compiled graphs and to be fixed
for a training's life.

Names are listed without importing anything: the module of a plug-in is imported when its name is used.
"""

from __future__ import annotations

from fcnlab.registry.catalogue import (
    ARCHITECTURES,
    DATASETS,
    ENCODERS,
    LOSSES,
    OPTIMIZERS,
    REGISTRIES,
    SCHEDULES,
    TRANSFORMS,
)
from fcnlab.registry.factories import Origin, Registry

__all__ = [
    "ARCHITECTURES",
    "DATASETS",
    "ENCODERS",
    "LOSSES",
    "OPTIMIZERS",
    "REGISTRIES",
    "SCHEDULES",
    "TRANSFORMS",
    "Origin",
    "Registry",
]
