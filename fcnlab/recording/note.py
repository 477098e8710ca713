"""The description of a run that MLflow shows on its page: one screen of Markdown."""

from __future__ import annotations

import math
import re
import shlex
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fcnlab.config import Config
from fcnlab.core.credentials import redact
from fcnlab.core.processor import describe_cpu
from fcnlab.core.progress import in_words
from fcnlab.drawing.captions import caption
from fcnlab.metrics.names import IOU, SUMMARY
from fcnlab.recording.provenance import DIFF_FILE, GitState

if TYPE_CHECKING:
    from fcnlab.recording.inputs import Input
    from fcnlab.training.callbacks import EvaluationEvent, Status

_METRICS = {"val/loss": "loss", **SUMMARY}

_MARKUP = re.compile(r"[\\`*{}\[\]<>()#+!|~&@:]|(?<![^\W_])_|_(?![^\W_])")
"""The characters that Markdown may act on. An underscore between letters is harmless."""

# Together, these limits keep a note below the 8000 characters that MLflow takes.
_MAX_CLASSES = 24
_MAX_NAME = 24
_MAX_LINE = 120
_MAX_COMMAND = 1500


@dataclass(frozen=True)
class Summary:
    """What is known of a run when it starts.

    Attributes:
        config: The whole configuration.
        parameters: The number of the network's parameters.
        inputs: The images of the training, of the validation and, if there are any, of the test.
        command: The words of the command line; empty in a notebook.
        git: The state of the code; None if it is in no repository.
    """

    config: Config
    parameters: int
    inputs: Sequence[Input]
    command: Sequence[str]
    git: GitState | None


def render(
    summary: Summary,
    status: Literal["running"] | Status,
    seconds: float = 0.0,
    best: EvaluationEvent | None = None,
    test: EvaluationEvent | None = None,
) -> str:
    """Return the description of a run, which is written at its start and again at its end.

    Args:
        summary: What was known at the start.
        status: The present status of the run.
        seconds: How long the training has run.
        best: The best evaluation so far.
        test: The evaluation of the test images with its weights; None if there is none.

    Returns:
        Markdown without passwords. The caller replaces ``{run_id}`` by the id of the run.
    """
    paragraphs = [
        _network(summary),
        _inputs(summary.inputs),
        "**Status:** running" if status == "running" else f"**Status:** {status} after {in_words(seconds)}",
        *(_result(summary.config.trainer.monitor, best) if best is not None else []),
        *(_test(test) if test is not None else []),
        f"**Machine:** {_escape(f'{socket.gethostname()}, {describe_cpu()}', _MAX_LINE)}",
        _code(summary.git),
        f"**Reproduce:**\n\n{_fenced('python -m fcnlab.train from_run={run_id}')}",
    ]
    if summary.command:
        command = redact(shlex.join(summary.command))
        command = command if len(command) <= _MAX_COMMAND else f"{command[: _MAX_COMMAND - 1]}…"
        paragraphs.append(f"It was started by\n\n{_fenced(command)}")
    return "\n\n".join(paragraphs) + "\n"


def _network(summary: Summary) -> str:
    arch = summary.config.arch
    # Networks of other packages may have neither.
    encoder = f" on {_escape(arch.encoder)}" if hasattr(arch, "encoder") else ""
    width = f" of width {arch.width:g}" if hasattr(arch, "width") else ""
    return f"**{_escape(arch.name)}**{encoder}{width}, {summary.parameters:,} parameters, seed {summary.config.seed}"


def _inputs(inputs: Sequence[Input]) -> str:
    rows = [[_escape(item.name), item.context, f"{item.images:,}", _escape(item.digest, _MAX_LINE)] for item in inputs]
    return _table(["data", "for", "images", "digest"], rows)


def _result(monitor: str, best: EvaluationEvent) -> list[str]:
    metrics = best.evaluation.metrics
    classes = {name.removeprefix(IOU): value for name, value in metrics.items() if name.startswith(IOU)}
    return [
        f"**Best** by {_escape(monitor)}, at step {best.step:,} (epoch {best.epoch:,})",
        _table(_METRICS.values(), [[_number(metrics.get(name, math.nan)) for name in _METRICS]]),
        *_class_table(classes),
    ]


def _test(test: EvaluationEvent) -> list[str]:
    metrics = test.evaluation.metrics
    row = [_number(metrics.get(name.replace("val/", "test/", 1), math.nan)) for name in _METRICS]
    return [f"**Test images**, with the weights of step {test.step:,}", _table(_METRICS.values(), [row])]


def _class_table(classes: Mapping[str, float]) -> list[str]:
    """Return a table of three classes a row, which fits on one screen; of many classes, only the lowest are shown."""
    shown = dict(classes)
    if len(classes) > _MAX_CLASSES:
        shown = dict(sorted(classes.items(), key=lambda item: item[1])[:_MAX_CLASSES])
    cells = [cell for name, value in shown.items() for cell in (_escape(name), _number(value))]
    rows = [cells[start : start + 6] for start in range(0, len(cells), 6)]
    columns = max(map(len, rows), default=0)
    paragraphs = [_table(["class", "IoU"] * (columns // 2), [row + [""] * (columns - len(row)) for row in rows])]
    if len(classes) > len(shown):
        paragraphs.append(f"The {len(shown)} lowest of {len(classes)} classes.")
    return paragraphs if rows else []


def _code(git: GitState | None) -> str:
    if git is None:
        return "**Code:** not in a git repository"
    branch = f" on {_escape(git.branch, _MAX_LINE)}" if git.branch else ""
    changes = {
        False: "",
        True: f", **with changes that are not committed: see {DIFF_FILE} among the artifacts**",
        None: ", **perhaps with changes that are not committed: git could not tell**",
    }
    return f"**Code:** commit `{git.commit[:12]}`{branch}{changes[git.dirty]}"


def _table(header: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fenced(text: str) -> str:
    """Return a code block, whose fence is longer than any run of backticks in the text."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(longest + 1, 3)
    return f"{fence}\n{text}\n{fence}"


def _escape(text: str, longest: int = _MAX_NAME) -> str:
    """Return one line in which neither GitHub nor MLflow's pages, which read an older Markdown, find any markup."""
    # A backslash does not escape everywhere, so that numbers are used.
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};", caption(text, longest))


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"
