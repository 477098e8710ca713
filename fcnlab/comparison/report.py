"""Writes a comparison to disk."""

from __future__ import annotations

import csv
import math
import statistics
from pathlib import Path

from fcnlab.comparison import charts, texts
from fcnlab.comparison.comparison import Comparison
from fcnlab.comparison.drawings import pooled
from fcnlab.comparison.groups import Group, why_left_out
from fcnlab.comparison.power_law import Estimate
from fcnlab.core.files import replacing
from fcnlab.metrics.names import IOU

_SUMMARY = ("val/mean_iou", "val/pixel_accuracy", "val/mean_accuracy", "val/frequency_weighted_iou", "val/loss")

_DIFFERENCE = (
    *("pairs", "images", "mean", "low", "high", "p"),
    *("equivalence_p", "seeds_low", "seeds_high", "seeds_p", "wilcoxon_p"),
)
"""The attributes of `fcnlab.comparison.significance.Difference` that ``comparison.csv`` has."""


def write_report(comparison: Comparison, folder: Path) -> list[Path]:
    """Write ``comparison.md``, ``comparison.csv`` (a row a group), ``trials.csv`` (a row a training) and charts.

    Where the share of the training images varies, ``learning_curve.csv`` has a row for each number of images.

    Returns:
        The files.

    Raises:
        OSError: If the disk does not take them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "comparison.md") as temporary:
        temporary.write_text(markdown(comparison), encoding="utf-8")
    _write_rows(folder / "comparison.csv", _group_rows(comparison))
    _write_rows(folder / "trials.csv", _trial_rows(comparison))
    written = [folder / name for name in ("comparison.md", "comparison.csv", "trials.csv")]
    if comparison.curves:
        _write_rows(folder / "learning_curve.csv", _curve_rows(comparison))
        written.append(folder / "learning_curve.csv")
    return written + charts.draw(comparison, folder)


def markdown(comparison: Comparison, short: bool = False) -> str:
    """Return the conclusion and the table in Markdown, with what to know about them.

    Args:
        comparison: The comparison.
        short: Whether to leave out the classes and the explanation.
    """
    classes = [] if short else comparison.class_names
    metric = _cell(comparison.monitor.removeprefix("val/"))
    header = ["group", "n", f"{metric} (mean ± sd)", "difference (95 % interval)", "pairs", "p", "verdict"]
    header += [f"IoU {_cell(name)}" for name in classes] + ["parameters", "time", "images/s"]
    lines = [header, ["---"] * len(header)]
    for group in comparison.groups:
        cells = texts.cells(comparison, group)
        ious = [texts.mean_and_spread(group, f"{IOU}{name}") for name in classes]
        row = [_cell(group.label) or "all", *cells, *ious, *texts.costs(group)]
        lines.append([f"**{row[0]}**" if group is comparison.best else row[0], *row[1:]])
    parts = [comparison.conclusion, "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    parts += [f"- {line}" for line in texts.remarks(comparison)]
    if comparison.best_trial is not None and comparison.best_trial.run_id:
        about = f"({comparison.best_trial.name}){texts.beside_the_best(comparison)}"
        parts.append(f"Best training: `{comparison.best_trial.run_id}` {about}")
    if not short and comparison.reference is not None:
        parts.append(texts.explanation(comparison))
    return "\n\n".join(parts) + "\n"


def _group_rows(comparison: Comparison) -> list[dict[str, object]]:
    rows = []
    metrics = [*dict.fromkeys((comparison.monitor, *_SUMMARY)), *(f"{IOU}{name}" for name in comparison.class_names)]
    for group in comparison.groups:
        found = comparison.differences.get(group.label) if group is not comparison.reference else None
        row: dict[str, object] = {**group.settings, "n": len(group.trials), "missing": len(group.missing)}
        for metric in metrics:
            row |= {f"{metric} mean": group.mean(metric), f"{metric} sd": group.spread(metric)}
        together = pooled(group, comparison.monitor)
        row["pooled over folds"] = "" if together is None else together
        row["difference from"] = _name_of_reference(comparison, group)
        for name in _DIFFERENCE:
            row[f"difference {name}"] = getattr(found, name) if found is not None else ""
        verdict = comparison.verdicts.get(group.label) if found is not None else None
        row["verdict"] = "" if verdict is None else verdict.word
        row["further seeds"] = "" if verdict is None or verdict.further_seeds is None else verdict.further_seeds
        row |= {"parameters": group.parameters or "", "seconds": group.seconds}
        row["images_per_second"] = group.images_per_second
        rows.append(row)
    return rows


def _curve_rows(comparison: Comparison) -> list[dict[str, object]]:
    """Return a row for each number of training images: what was measured, and what the law says; the last is ahead."""
    rows = []
    for curve in comparison.curves:
        sizes = sorted({point.images for point in curve.points})
        ahead = [2 * curve.largest] if curve.law is not None else []
        for size in [*sizes, *ahead]:
            scores = [point.score for point in curve.points if point.images == size]
            fitted = curve.law.at(size) if curve.law is not None else Estimate(math.nan, math.nan, math.nan)
            rows.append(
                {
                    "curve": curve.label,
                    "training images": size,
                    "n": len(scores),
                    f"{comparison.monitor} mean": statistics.fmean(scores) if scores else math.nan,
                    f"{comparison.monitor} sd": statistics.stdev(scores) if len(scores) > 1 else math.nan,
                    "power law": fitted.value,
                    "power law low": fitted.low,
                    "power law high": fitted.high,
                }
            )
    return rows


def _name_of_reference(comparison: Comparison, group: Group) -> str:
    if comparison.reference is None:
        return ""
    return "reference" if group is comparison.reference else comparison.reference.label


def _trial_rows(comparison: Comparison) -> list[dict[str, object]]:
    trials = comparison.trials
    names = sorted({name for trial in trials for name in trial.metrics})
    return [
        {
            "run_id": trial.run_id,
            "name": trial.name,
            "status": "PRUNED" if trial.pruned else trial.status,
            "reason": (why_left_out(trial, comparison.monitor) if trial.complete else trial.reason) or "",
            **{axis: trial.params.get(axis, "") for axis in comparison.axes},
            "seed": trial.seed,
            "fold": trial.fold,
            "best_step": "" if trial.best_step is None else trial.best_step,
            **{name: trial.metrics.get(name, "") for name in names},
            "parameters": trial.parameters or "",
            "seconds": trial.seconds,
            "images_per_second": trial.images_per_second,
        }
        for trial in trials
    ]


def _write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        for row in rows:
            writer.writerow({key: "" if _is_nan(value) else value for key, value in row.items()})


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
