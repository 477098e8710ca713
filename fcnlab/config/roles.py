"""The role of a configuration key: what the key means to code that keeps something for another process.

Each key states its role where it is declared, in `fcnlab.config.schema` or in the dataclass of a plug-in. The graph
cache, ``resume``, ``from_run``, the comparison, sweeps and the memory of checked files go by it.
"""

from __future__ import annotations

from enum import Flag, auto


class Role(Flag):
    """The meaning of a key; the members are combined with ``|``."""

    FREE = 0
    """No other role applies: the key may change when a training is resumed, with a warning."""
    SHAPES_GRAPH = auto()
    """The value is compiled into a graph, so a graph that was compiled with another value must not be reused."""
    FIXED = auto()
    """``resume`` refuses another value: the saved state, or the order of the data, depends on it."""
    READS = auto()
    """The value changes what is read from a data set's files, or which files are accepted."""
    MACHINE = auto()
    """The key belongs to a machine, a place or a process rather than to the experiment.

    It may change on ``resume`` without a warning, and trainings that differ in it are repetitions of each other.
    """
    DESCRIBED = auto()
    """A folder's ``dataset.yaml`` may set the key."""
    ANEW = auto()
    """The key is given anew for each start: ``from_run`` does not take it over, and no trial's folder name holds it."""
    BESIDE_SWEEP = auto()
    """The key may be given beside ``sweep.resume``, which takes all others from the start of the sweep."""


UNCLASSIFIED = Role.SHAPES_GRAPH | Role.FIXED | Role.READS
"""The role of a key that states none: it may cost a compilation or a refusal, but never reuses what does not fit."""
