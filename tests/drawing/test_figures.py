"""The figures of a run show what they should, and nothing in them covers anything else."""

import csv
import itertools
import subprocess
import sys

import cv2
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as reference_confusion

from fcnlab.drawing import confusion_matrix, figures, learning_curves
from fcnlab.drawing.confusion_matrix import draw_confusion_matrix, write_confusion_csv
from fcnlab.drawing.learning_curves import draw_learning_curves

STEPS = range(1, 101)
EVALUATIONS = (25, 50, 75, 100)


def history(class_names, steps=STEPS, evaluations=EVALUATIONS):
    series = {
        "train/loss": [(step, 1 / step) for step in steps],
        "train/learning_rate": [(step, 1e-3 / step) for step in steps],
        "train/images_per_second": [(step, 9.0) for step in steps],
        "val/loss": [(step, 2 / step) for step in evaluations],
    }
    for name in ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou"):
        series[f"val/{name}"] = [(step, step / 200) for step in evaluations]
    for index, name in enumerate(class_names):
        series[f"val/iou/{name}"] = [(step, (step + index) / 500) for step in evaluations]
    return series


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, as a picture does not show everything about them."""
    seen = []
    save = figures.save
    for module in (confusion_matrix, learning_curves):
        monkeypatch.setattr(module, "save", lambda figure, path: (seen.append(figure), save(figure, path)))
    return seen


def legend_names(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def lines(axes):
    return {tuple(line.get_xdata()): list(line.get_ydata()) for line in axes.lines}


def test_each_panel_shows_its_metrics(tmp_path, drawn):
    assert draw_learning_curves(history(["membrane", "cell"]), tmp_path / "new" / "curves.png")
    picture = cv2.imread(str(tmp_path / "new" / "curves.png"))
    assert picture.shape[0] > 600
    assert picture.shape[1] > 900
    loss, summary, classes, rate = drawn[0].axes
    assert [axes.get_ylabel() for axes in drawn[0].axes] == [
        "loss",
        "validation metric",
        "IoU of each class",
        "learning rate",
    ]
    assert {axes.get_xlabel() for axes in drawn[0].axes} == {"step"}
    assert legend_names(loss) == ["train, mean of 5 steps", "val"]
    assert legend_names(summary) == ["mean IoU", "pixel accuracy", "mean accuracy", "frequency-weighted IoU"]
    assert legend_names(classes) == ["membrane", "cell"]
    assert lines(loss)[EVALUATIONS] == [2 / step for step in EVALUATIONS]
    assert [list(line.get_ydata()) for line in classes.lines] == [
        [step / 500 for step in EVALUATIONS],
        [(step + 1) / 500 for step in EVALUATIONS],
    ]
    assert lines(rate) == {tuple(STEPS): [1e-3 / step for step in STEPS]}


def test_a_single_evaluation_is_a_dot(tmp_path):
    few = history([], steps=(1, 2), evaluations=(2,))
    draw_learning_curves({"train/learning_rate": few["train/learning_rate"]}, tmp_path / "without.png")
    draw_learning_curves({key: few[key] for key in ("train/learning_rate", "val/loss")}, tmp_path / "with.png")
    # Matplotlib's first colour, in the upper left quarter below the legend.
    count = {}
    for name in ("without", "with"):
        picture = cv2.imread(str(tmp_path / f"{name}.png"))[100:480, :660]
        count[name] = np.count_nonzero((picture == (180, 119, 31)).all(axis=2))
    assert count["without"] == 0
    assert 10 < count["with"] < 200


def test_nothing_to_draw_makes_no_file(tmp_path):
    nothing = {"train/loss": [(1, float("nan")), (2, float("inf"))], "val/loss": [], "system/cpu": [(0, 1.0)]}
    assert not draw_learning_curves({}, tmp_path / "curves.png")
    assert not draw_learning_curves(nothing, tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


def test_what_is_not_a_number_leaves_a_gap_and_a_repeated_step_counts_once(tmp_path, drawn):
    series = [(3, 0.3), (1, 0.1), (2, float("nan")), (3, 0.4), (4, float("inf"))]
    assert draw_learning_curves({"val/loss": series}, tmp_path / "curves.png")
    (line,) = drawn[0].axes[0].lines
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4])
    np.testing.assert_array_equal(line.get_ydata(), [0.1, np.nan, 0.4, np.nan])
    assert [text.get_text() for text in drawn[0].axes[1].texts] == ["no values"]


def test_the_running_mean_is_over_what_is_known():
    values = np.random.default_rng(0).normal(size=41)
    values[[0, 7, 8, 40]] = np.nan
    values[20:30] = np.nan
    with np.testing.suppress_warnings() as quiet:
        quiet.filter(RuntimeWarning, "Mean of empty slice")
        expected = [np.nanmean(values[max(index - 2, 0) : index + 3]) for index in range(values.size)]
    np.testing.assert_allclose(learning_curves._running_mean(values, 5), expected)


def test_a_spike_does_not_flatten_the_loss(tmp_path, drawn):
    draw_learning_curves({"train/loss": [(1, 700.0), (2, 1.0), (3, 0.9)]}, tmp_path / "a.png")
    draw_learning_curves({"train/loss": [(1, 2.0), (2, 1.0), (3, 0.9)]}, tmp_path / "b.png")
    assert [figure.axes[0].get_yscale() for figure in drawn] == ["log", "linear"]


def test_with_many_classes_the_lowest_have_names(tmp_path, drawn):
    names = [f"class {index}" for index in range(21)]
    draw_learning_curves(history(names), tmp_path / "curves.png")
    classes = drawn[0].axes[2]
    assert legend_names(classes) == [*names[:5], "16 others"]
    assert len(classes.lines) == 21


ODD = [
    "_hidden",
    "$x^",
    "a $b$ c",
    "two\nlines",
    "\\frac",
    "",
    "%",
    "{x}",
    "Zellkern",
    "an endless name that ends in 1",
]


def test_odd_and_long_names_are_readable_and_cover_nothing(tmp_path, drawn):
    draw_learning_curves(history(ODD), tmp_path / "curves.png")
    (figure,) = drawn
    shown = [name.replace("\\$", "$") for name in legend_names(figure.axes[2])]
    assert shown[:4] == ["_hidden", "$x^", "a $b$ c", "two lines"]
    assert shown[-1].endswith("ends in 1")
    boxes = [box for axes in figure.axes for box in (axes.get_window_extent(), *legend_boxes(axes))]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.padded(-1).overlaps(other)
    for box in boxes:
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1


def legend_boxes(axes):
    return [axes.get_legend().get_window_extent()] if axes.get_legend() else []


def test_the_confusion_matrix_shows_shares_of_the_labels(tmp_path, drawn):
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 4000)
    predictions = np.where(random.random(4000) < 0.8, labels, random.integers(0, 4, 4000))
    counts = reference_confusion(labels, predictions, labels=range(4))
    draw_confusion_matrix(counts, ["a", "b", "c", "never"], tmp_path / "confusion.png")
    assert cv2.imread(str(tmp_path / "confusion.png")) is not None
    axes = drawn[0].axes[0]
    percent = axes.images[0].get_array()
    expected = 100 * reference_confusion(labels, predictions, labels=range(4), normalize="true")
    np.testing.assert_allclose(percent[:3], expected[:3])
    assert percent.mask.tolist() == [[False] * 4] * 3 + [[True] * 4]
    numbers = {text.get_position(): text.get_text() for text in axes.texts}
    assert numbers == {
        (column, row): f"{expected[row, column]:.1f}" if counts[row, column] else "0"
        for row in range(3)
        for column in range(4)
    }
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c", "never"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("prediction", "label")


@pytest.mark.parametrize("classes", [2, 25, 26, pytest.param(255, marks=pytest.mark.slow)])
def test_any_number_of_classes_fits(tmp_path, drawn, classes):
    counts = np.eye(classes, dtype=np.int64) * 10**12
    draw_confusion_matrix(counts, [f"a long name of class {index}" for index in range(classes)], tmp_path / "c.png")
    (figure,) = drawn
    axes = figure.axes[0]
    assert len(axes.texts) == (classes**2 if classes <= 25 else 0)
    assert max(cv2.imread(str(tmp_path / "c.png")).shape) < 2200
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    for one, other in itertools.pairwise(boxes):
        assert not one.overlaps(other)
    assert all(figure.bbox.x0 <= box.x0 for box in boxes)


def test_the_table_holds_the_counts(tmp_path):
    counts = np.array([[2**53 + 1, 2], [0, 4]])
    names = ["cell, dead", 'the "rest"\n']
    write_confusion_csv(counts, names, tmp_path / "new" / "confusion.csv")
    with (tmp_path / "new" / "confusion.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header[1:] == names
    assert [row[0] for row in rows] == names
    assert [[int(cell) for cell in row[1:]] for row in rows] == counts.tolist()


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def fail(self, file, **options):
        file.write_bytes(b"half")
        raise OSError("disk full")

    picture, table = tmp_path / "confusion.png", tmp_path / "confusion.csv"
    picture.write_bytes(b"old")
    table.write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        draw_confusion_matrix(np.eye(2, dtype=np.int64), ["a", "b"], picture)
    with pytest.raises(ValueError, match="longer"):
        write_confusion_csv(np.eye(2, dtype=np.int64), ["only one"], table)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {picture.name: b"old", table.name: b"old"}


def test_a_notebooks_own_plots_are_left_alone(tmp_path):
    code = (
        "import sys; from pathlib import Path; from fcnlab.drawing.learning_curves import draw_learning_curves;"
        f"draw_learning_curves({{'val/loss': [(1, 1.0)]}}, Path({str(tmp_path)!r}, 'a.png'));"
        "assert 'matplotlib.pyplot' not in sys.modules and 'matplotlib.figure' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "a.png").exists()
