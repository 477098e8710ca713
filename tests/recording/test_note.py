"""The description of a run, as a Markdown parser reads it."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fcnlab.config import Config
from fcnlab.recording.note import Summary, render
from fcnlab.recording.provenance import MAX_TAG_LENGTH, GitState

INPUTS = [
    SimpleNamespace(name="cells", context="training", digest="0123abcd", source="", images=1234),
    SimpleNamespace(name="cells", context="validation", digest="4567cdef", source="", images=8),
]
METRICS = {
    "val/loss": 0.5,
    "val/pixel_accuracy": 0.91,
    "val/mean_accuracy": 0.82,
    "val/mean_iou": 0.73,
    "val/frequency_weighted_iou": 0.64,
}
GIT = GitState("5d2203436725ef98f234354b87a1a688b5c46def", "main", False, "")
COMMAND = ["python", "-m", "fcnlab.train", "arch=fcn8s"]


def summary(git=GIT, command=COMMAND):
    return Summary(Config(seed=7), 8433026, INPUTS, command, git)


def best(iou):
    metrics = {**METRICS, **{f"val/iou/{name}": value for name, value in iou.items()}}
    return SimpleNamespace(step=480, epoch=40, evaluation=SimpleNamespace(metrics=metrics), improved=True)


def plain(token):
    return "".join(child.content for child in token.children if child.type in ("text", "text_special", "code_inline"))


def parse(text):
    """Return the tables as rows of plain text, the paragraphs, and the code blocks."""
    tables, paragraphs, blocks = [], [], []
    in_table = False
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type == "fence":
            blocks.append(token.content.rstrip("\n"))
        elif token.type == "inline":
            (tables[-1][-1] if in_table else paragraphs).append(plain(token))
        in_table = (in_table or token.type == "table_open") and token.type != "table_close"
    return tables, paragraphs, blocks


def test_at_the_start():
    tables, paragraphs, blocks = parse(render(summary(), "running"))
    assert paragraphs[0] == "fcn8s on vgg16 of width 0.25, 8,433,026 parameters, seed 7"
    assert tables == [
        [
            ["data", "for", "images", "digest"],
            ["cells", "training", "1,234", "0123abcd"],
            ["cells", "validation", "8", "4567cdef"],
        ]
    ]
    assert "Status: running" in paragraphs
    assert "Code: commit 5d2203436725 on main" in paragraphs
    assert blocks == ["python -m fcnlab.train from_run={run_id}", "python -m fcnlab.train arch=fcn8s"]


def test_at_the_end():
    text = render(summary(), "finished", 200.4, best({"membrane": 0.5, "cell": 0.96, "void": float("nan")}))
    tables, paragraphs, _ = parse(text)
    assert "Status: finished after 3 min 20 s" in paragraphs
    assert "Best by val/mean_iou, at step 480 (epoch 40)" in paragraphs
    assert dict(zip(*tables[1], strict=True)) == {
        "loss": "0.5000",
        "mean IoU": "0.7300",
        "pixel accuracy": "0.9100",
        "mean accuracy": "0.8200",
        "frequency-weighted IoU": "0.6400",
    }
    assert tables[2][1] == ["membrane", "0.5000", "cell", "0.9600", "void", ""]
    assert len(text.splitlines()) < 50


@pytest.mark.parametrize(
    ("seconds", "expected"), [(9.6, "10 s"), (59.7, "1 min 0 s"), (3599.9, "1 h 0 min"), (90061, "25 h 1 min")]
)
def test_the_time(seconds, expected):
    assert f"failed after {expected}" in render(summary(), "failed", seconds)


def test_changes_that_are_not_committed_are_a_warning():
    dirty = render(summary(GitState(GIT.commit, None, True, "diff")), "running")
    assert "**with changes that are not committed: see git.diff" in dirty
    assert "git could not tell" in render(summary(GitState(GIT.commit, None, None, "")), "running")
    assert "changes" not in render(summary(), "running")
    assert "not in a git repository" in render(summary(None), "running")


NAMES = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=20)


@settings(deadline=None)
@given(st.lists(NAMES.map(lambda name: " ".join(name.split())), max_size=7, unique=True))
def test_no_name_breaks_the_table(names):
    tables, *_ = parse(render(summary(), "finished", 1, best(dict.fromkeys(names, 0.25))))
    cells = [cell for row in (tables[2][1:] if names else []) for cell in row]
    assert [name for name in cells[::2] if name] == [name for name in names if name]
    assert cells[1::2][: len(names)] == ["0.2500"] * len(names)


@pytest.mark.parametrize("name", ["a|b", "_x_", "*x*", "`x`", "[x](y)", "<b>", "&amp;", "~~x~~", ":smile:", "@me"])
def test_names_are_shown_as_they_are(name):
    text = render(summary(), "finished", 1, best({name: 0.25}))
    tables, *_ = parse(text)
    assert tables[2] == [["class", "IoU"], [name, "0.2500"]]
    assert name not in text  # MLflow's pages know more marks than the parser here


def test_a_name_of_two_lines_takes_one():
    tables, *_ = parse(render(summary(), "finished", 1, best({"two\n\nlines": 0.25})))
    assert tables[2][1] == ["two lines", "0.2500"]


def test_the_command_is_shown_as_it_is_without_its_password():
    command = [*COMMAND, "tracking.uri=https://me:s3cret@host", "tracking.run_name=a ```\n``` b"]
    *_, shown = parse(render(summary(command=command), "running"))[2]
    assert shown == (
        "python -m fcnlab.train arch=fcn8s tracking.uri=https://me:***@host 'tracking.run_name=a ```\n``` b'"
    )
    assert len(parse(render(summary(command=[]), "running"))[2]) == 1


def test_it_fits_on_a_screen_and_into_mlflow():
    names = {f"{'|' * 40}{index}": index / 255 for index in reversed(range(255))}
    command = [*COMMAND, "x" * 5000, "tracking.uri=https://me:s3cret@host"]
    text = render(summary(GitState(GIT.commit, "&" * 200, True, ""), command), "killed", 1e9, best(names))
    assert len(text.replace("{run_id}", "0" * 32)) < MAX_TAG_LENGTH
    assert len(text.splitlines()) < 60
    tables, paragraphs, _ = parse(text)
    assert "The 24 lowest of 255 classes." in paragraphs
    assert tables[2][1][0].endswith("|0")
    assert tables[2][-1][-2].endswith("|23")
