"""``python -m fcnlab.doctor``: what a training here would use, and what is wrong with it; a bug report needs this."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from fcnlab import command
from fcnlab.diagnosis import machine


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line about each part of the installation.

    Args:
        argv: The words behind the name of the command; None for those of the command line.

    Raises:
        SystemExit: With code 1 if something is wrong.
    """
    arguments = _parser().parse_args(argv)
    problems = 0
    for name, is_right, text in _findings(arguments.uri):
        print(f"{name + ':':<24} {text}", flush=True)
        problems += not is_right
    if problems:
        lines = "one of these lines says" if problems == 1 else f"{problems} of these lines say"
        command.leave(command.EXIT_ERROR, f"{lines} what is wrong")


def _findings(uri: str | None) -> Iterator[tuple[str, bool, str]]:
    """Yield the name of each part, whether it is right, and what is to be said of it; what is quick comes first."""
    for name, text in (*machine.versions(), machine.processor(), *machine.caches()):
        yield name, True, text
    from fcnlab.diagnosis import operators  # not at the top, so that --help does not wait for MindSpore
    from fcnlab.tracking.reachability import describe_store

    yield "compiler", *operators.compiler()
    yield "operators", *operators.speed()
    yield "tracking store", *describe_store(uri)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m fcnlab.doctor", description=__doc__.partition(": ")[2])
    parser.add_argument("--uri", help="the store to look for; by default MLFLOW_TRACKING_URI or mlflow.db here")
    return parser


if __name__ == "__main__":
    command.run(main)
