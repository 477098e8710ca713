"""Cells to compile, and a program that compiles them in an order: MindSpore opens the file of the program that runs.

    python tests/stored_cells.py FOLDER Scale Minus plain:Minus foreign:Minus Scale:factor=3

It prints a list with an item for each word but those of ``plain`` (compiled without the cache) and ``foreign`` (stored
by somebody else): whether the graph was loaded, and what it computes of 3 and 5.
"""

import json
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from fcnlab.core.device import configure
from fcnlab.experiment.graph_cache import GraphCache

VALUES = np.array([3.0, 5.0], np.float32)


class Scale(nn.Cell):
    """A graph with every kind of constant in it."""

    def __init__(self, factor=2.0, offset=(1.0, 2.0), weight=1.0, more=None):
        super().__init__()
        self.factor = factor
        self.offset = Tensor(list(offset), ms.float32)
        self.weight = Parameter(Tensor([weight], ms.float32), name="weight")
        self.more = more

    def construct(self, values):
        return values * self.factor * self.weight + self.offset


class Minus(nn.Cell):
    """Another graph of the same inputs."""

    def construct(self, values):
        return values - 1


class Wrong(nn.Cell):
    """Cannot be compiled."""

    def construct(self, values):
        return values + self.missing


def compiled(folder, cell, **settings):
    """Whether a cell's graph was loaded, and what it computes."""
    loaded = GraphCache(settings, folder=folder).compile(cell, Tensor(VALUES))
    return loaded, cell(Tensor(VALUES)).asnumpy().tolist()


def _run(folder, words):
    for word in words:
        how, _, rest = word.rpartition(":") if word.startswith(("plain:", "foreign:")) else ("", "", word)
        name, _, argument = rest.partition(":")
        key, _, value = argument.partition("=")
        cell = globals()[name](**({key: float(value)} if key else {}))
        if how:
            ms.set_context(enable_compile_cache=how == "foreign")
            cell.compile(Tensor(VALUES))
            ms.set_context(enable_compile_cache=False)
        else:
            yield compiled(folder, cell)


if __name__ == "__main__":
    configure("cpu", "graph")
    print(json.dumps(list(_run(Path(sys.argv[1]), sys.argv[2:]))))
