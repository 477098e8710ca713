"""The role of a configuration key: what it means to those who keep something for another process or another day.

Each key states its role where it is declared, in `fcnlab.config.schema` or in the dataclass of a plug-in. The graph
cache, ``resume``, ``from_run``, the comparison, sweeps and the memory of checked files all ask for it here.
"""

from __future__ import annotations

from enum import Flag, auto


class Role(Flag):
    """What a key means; the members are combined with ``|``."""

    FREE = 0
    """The key may change when a training is resumed, which a warning says, and none of the below is true of it."""
    SHAPES_GRAPH = auto()
    """The value is compiled into a graph, so that a graph that was compiled with another value must not be reused."""
    FIXED = auto()
    """``resume`` refuses another value: the saved state, or the order of the data, depends on it."""
    READS = auto()
    """The value changes what is read from a data set's files, or which files are accepted."""
    MACHINE = auto()
    """The key belongs to a machine, a place or a process rather than to the experiment.

    It may change on ``resume`` without a word, and trainings that differ in it are still repetitions of each other.
    """
    DESCRIBED = auto()
    """A folder's ``dataset.yaml`` may set the key."""
    ANEW = auto()
    """The key is said anew for each start: ``from_run`` does not take it over, and no trial's folder is named by it."""
    BESIDE_SWEEP = auto()
    """The key may be given beside ``sweep.resume``, which otherwise uses the words that the sweep was begun with."""


UNCLASSIFIED = Role.SHAPES_GRAPH | Role.FIXED | Role.READS
"""The role of a key that states none. It costs a compilation or a refusal, and never reuses what does not fit."""
