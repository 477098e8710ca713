"""``python -m fcnlab.experiment.worker``: a worker of a training, which `fcnlab.experiment.starting` starts."""

from __future__ import annotations

import os
import pickle
import sys
from typing import NoReturn

from fcnlab import command
from fcnlab.core import launch, starter, supervision, workers


def _begin() -> NoReturn:
    """Connect with the process that has started ``msrun``, and do what it says."""
    started = launch.current()
    if started is None:
        sys.exit("fcnlab: python -m fcnlab.experiment.worker is what trainer.workers=... starts; call fcnlab.train")
    link = starter.connect(started, os.environ.pop(starter.VARIABLE, None))
    if link is None:
        sys.exit(command.EXIT_INTERRUPTED)
    supervision.fork(started, link)

    def work() -> None:
        if started.role == "scheduler":
            workers.serve()
        else:
            pickle.loads(link.task)()  # which may be of a plug-in's class, so that the plug-ins come first

    command.run(work)


if __name__ == "__main__":
    _begin()
