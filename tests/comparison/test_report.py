import csv
import io
from itertools import pairwise

import cv2
import numpy as np
from made_up_trials import by_arch, by_seed, trial
from rich.console import Console

from fcnlab.comparison import compare, markdown, show, write_report
from fcnlab.comparison.charts import _Scale


def some(count=2):
    return by_arch({"fcn32s": [0.5, 0.52, 0.51][:count], "fcn8s": [0.7, 0.75, 0.72][:count]})


def test_the_tables_hold_the_numbers(tmp_path):
    failed = trial(None, arch__name="fcn8s", seed=9, status="FAILED", tags={"fcnlab.reason": "loss is | nan"})
    found = compare([*some(), failed])
    paths = write_report(found, tmp_path / "report")
    assert {path.name for path in paths} == {
        *("comparison.md", "comparison.csv", "trials.csv", "comparison.png", "classes.png")
    }
    assert all(path.is_file() for path in paths)
    with (tmp_path / "report/comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["arch.name"] for row in rows] == ["fcn32s", "fcn8s"]
    assert np.isclose(float(rows[0]["val/mean_iou mean"]), 0.51)
    assert np.isclose(float(rows[0]["difference mean"]), (0.5 - 0.7 + 0.52 - 0.75) / 2)
    assert [row["difference pairs"] for row in rows] == ["2", ""]
    assert [row["difference from"] for row in rows] == ["fcn8s", "reference"]
    assert rows[1]["difference mean"] == ""
    assert rows[1]["missing"] == "1"
    with (tmp_path / "report/trials.csv").open(newline="") as file:
        trials = list(csv.DictReader(file))
    assert len(trials) == 5
    assert {(row["status"], row["reason"]) for row in trials} == {("FINISHED", ""), ("FAILED", "loss is | nan")}
    text = markdown(found)
    assert "| **fcn8s** | 2 of 3 | 0.7250 ± 0.0354 | reference |  |  |" in text
    assert "| pairs |" in text
    assert "loss is | nan" in text
    assert "IoU cell" in text


def test_the_terminal_shows_every_group_on_a_hundred_columns():
    console = Console(width=100, record=True, file=io.StringIO())
    show(compare(some(3)), console)
    text = console.export_text()
    assert "fcn32s" in text
    assert "0.7233 ± 0.0252" in text
    assert max(map(len, text.splitlines())) <= 100


def test_every_table_says_on_how_many_pairs_a_difference_rests():
    found = compare(by_seed({"fcn8s": {1: 0.700, 2: 0.712, 3: 0.721}, "fcn16s": {1: 0.601, 2: 0.612, 9: 0.99}}))
    text = markdown(found)
    assert "| fcn16s | 3 | 0.7343 ± 0.2215 | -0.0995 [-0.1059, -0.0931] | 2 | 0.0032 |" in text
    assert "| **fcn8s** | 3 | 0.7110 ± 0.0105 | reference |  |  |" in text
    assert "Best training: `id-fcn16s-16-adam-0.001-9` (fcn16s-16-adam-0.001-9), not of the best group" in text
    console = Console(width=100, record=True, file=io.StringIO())
    show(found, console)
    (row,) = [line for line in console.export_text().splitlines() if line.startswith("│ fcn16s") and "-0.0995" in line]
    assert [cell.strip() for cell in row.split("│")][2:7] == [
        "3",
        "0.7343 ± 0.2215",
        "-0.0995 [-0.1059, -0.0931]",
        "2",
        "0.0032",
    ]


def test_without_a_best_group_nothing_is_bold(tmp_path):
    circle = {"fcn8s": {1: 0.9, 2: 0.1}, "fcn16s": {2: 0.2, 3: 0.1}, "fcn32s": {3: 0.2, 1: 0.5}}
    found = compare(by_seed(circle))
    text = markdown(found)
    assert "**" not in text
    assert "no group is the best" in text
    assert "Differences are from fcn8s (no group is the best; this one has the best mean)" in text
    assert "of the best group" not in text
    show(found, Console(width=100, file=io.StringIO()))
    assert {path.name for path in write_report(found, tmp_path)} >= {"comparison.png", "classes.png"}


def test_more_axes_are_drawn_as_parallel_coordinates(tmp_path):
    trials = [
        trial(0.4 + index / 10, arch__name=arch, optimizer__lr=lr, tags={"fcnlab.trial": str(index)})
        for index, (arch, lr) in enumerate((arch, lr) for arch in ("fcn8s", "fcn16s") for lr in (1e-4, 1e-2))
    ]
    paths = {path.name: path for path in write_report(compare(trials), tmp_path)}
    for name in ("parallel_coordinates.png", "history.png"):
        picture = cv2.imread(str(paths[name]))
        assert picture.std() > 5  # something is drawn


def test_labels_of_an_axis_keep_clear_of_each_other():
    heights = [height for height, _ in _Scale([0.001, 0.00101, 0.5, 0.9, 0.995, 1.0]).ticks()]
    assert all(above - below >= 0.04 for below, above in pairwise(heights))
    assert (heights[0], heights[-1]) == (0.0, 1.0)
    assert _Scale([3.0]).ticks() == [(0.5, "3")]


def test_the_history_is_of_what_ended(tmp_path):
    """Trials that were pruned or killed at a higher value are not the best so far."""
    states = [{}, {"tags": {"fcnlab.pruned": "true"}}, {"status": "KILLED"}, {}]
    trials = []
    for index, state in enumerate(states):
        tags = {"fcnlab.trial": str(index), **state.get("tags", {})}
        status = state.get("status", "FINISHED")
        trials.append(trial(0.9 - index / 100, optimizer__lr=10.0**-index, tags=tags, status=status))
    names = {path.name for path in write_report(compare(trials), tmp_path)}
    assert "history.png" in names
    assert "pruned" not in markdown(compare(trials)).partition("left out")[0]
    assert "killed" in markdown(compare(trials)).partition("left out")[2]


def test_without_a_value_there_are_tables_and_no_pictures(tmp_path):
    paths = write_report(compare([trial(None)]), tmp_path)
    assert {path.suffix for path in paths} == {".md", ".csv"}


def test_a_setting_that_looks_like_markup_is_shown_as_it_is():
    """A list of class names is not taken for a style of rich, nor a | for a column of Markdown."""
    given = {"tags": {"hydra.overrides": "dataset.class_names=[bold,cell]"}}
    trials = [
        trial(0.5 + 0.01 * seed, seed=seed, dataset__class_names=names, **given)
        for names in ("['bold', 'cell']", "['bold', 'a|b']")
        for seed in (1, 2)
    ]
    found = compare(trials)
    output = io.StringIO()
    show(found, Console(file=output, width=200))
    assert "['bold', 'cell']" in output.getvalue()
    assert "a\\|b" in markdown(found)
