"""The names of metrics in Python, in the journal and in the store."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name

from fcnlab.metrics.names import read, read_all, recorded, told_apart, why_refused

SURROGATES = st.characters(categories=["Cs"])
NASTY = st.text(st.sampled_from("ab:/. -_+,'\"%\n\t\\|~äß背́\udcff\U0001f600U0041"), max_size=12)
NAMES = st.one_of(NASTY, st.text(max_size=40), st.text(st.one_of(SURROGATES, st.characters()), max_size=8))


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("val/mean_iou", "val/mean_iou"),
        ("system/process_memory_megabytes", "system/process_memory_megabytes"),
        ("val/iou/cell body", "val/iou/cell body"),
        ("val/iou/Hülle", "val/iou/Hülle"),
        ("val/iou/背景", "val/iou/背景"),
        ("val/iou/ядро 2.1-b_c", "val/iou/ядро 2.1-b_c"),
        ("val/iou/a+b", "val/iou/a:plus sign:b"),
        ("val/iou/a,b", "val/iou/a:comma:b"),
        ("val/iou/CD4+CD8-", "val/iou/CD4:plus sign:CD8-"),
        ("val/iou/boy's (left)", "val/iou/boy:apostrophe:s :left parenthesis:left:right parenthesis:"),
        ("val/iou/a/b", "val/iou/a:solidus:b"),
        ("val/iou/a:b", "val/iou/a:colon:b"),
        ("val/iou/..", "val/iou/:full stop:."),
        ("val/iou/ a  b ", "val/iou/:space:a :space:b:space:"),
        ("val/iou/a\nb", "val/iou/a:U000A:b"),
        ("val/iou/😀", "val/iou/:U1F600:"),
        ("val/iou/u\u0308", "val/iou/u:U0308:"),  # not the single character ü, which looks the same
        ("evaluate/boundary_f1/a+b", "evaluate/boundary_f1/a:plus sign:b"),
    ],
)
def test_what_mlflow_does_not_take_is_written_out(metric, name):
    assert recorded(metric) == name
    assert read(name) == metric


@given(NAMES)
@example(".")
@example("..")
@example("/")
@example("//..")
@example("::")
@example("")
def test_every_name_is_taken_by_mlflow_and_read_back(name):
    written = recorded(f"val/iou/{name}")
    _validate_metric_name(written)
    assert written.count("/") == 2  # no class lies in the folder of another
    assert read(written) == f"val/iou/{name}"
    _validate_metric_name(recorded(name))
    assert read(recorded(name)) == name


@given(NAMES, NAMES)
def test_no_two_names_are_recorded_as_one(one, other):
    assert (recorded(one) == recorded(other)) == (one == other)


@pytest.mark.parametrize("name", ["val/a:b", "val/a:nonsense:b", "val/:", "val/:U110000:", "val/iou/a/b", "a/b/c/d"])
def test_what_others_logged_stays_as_it_is(name):
    assert read(name) == name


def test_older_names_are_known_by_the_classes_where_only_one_can_be_meant():
    old = {"val/loss": [1], "val/iou/H_lle": [2], "val/iou/a_b": [3], "val/iou/cell": [4]}
    classes = ["Hülle", "a+b", "a,b", "cell"]
    read_as = {"val/loss": [1], "val/iou/Hülle": [2], "val/iou/a_b": [3], "val/iou/cell": [4]}
    assert read_all(old, classes) == read_as
    assert read_all(old) == old
    assert read_all({"val/iou/a_b": [1]}, ["a_b", "a+b"]) == {"val/iou/a_b": [1]}


def test_a_training_that_went_on_has_one_series():
    series = {"val/iou/a_b": [(1, 0.1)], "val/iou/a:plus sign:b": [(1, 0.2), (2, 0.3)]}
    assert read_all(series, ["a+b", "c"]) == {"val/iou/a+b": [(1, 0.1), (1, 0.2), (2, 0.3)]}


@pytest.mark.parametrize("names", [[], ["a"], ["Hülle", "Hölle"], ["a+b", "a,b"], ["Cell", "cell"], ["背景" * 19, "b"]])
def test_names_that_can_be_told_apart_are_taken(names):
    assert why_refused(names) is None


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["cell", "body", "cell"], "'cell' is the name of classes 0 and 2: give each class its own"),
        ([unicodedata.normalize(form, "Hülle") for form in ("NFD", "NFC")], "the name of classes 0 and 1"),
        (["a b", "a\n b "], "'a b' is the name of classes 0 and 1"),
        (["a", ""], "class 1 has no name"),
        (["a", " \t"], "class 1 has no name"),
        (["a", "b\udcff"], r"the name of class 1, 'b\udcff', is no text"),
        (
            ["x" * 230, "b"],
            f"the name of class 0, '{'x' * 20}…', is too long: its metrics' names would have 251",
        ),
        (["+" * 22, "b"], "is too long"),
    ],
)
def test_other_names_are_refused(names, said):
    assert said in why_refused(names)


def test_the_longest_name_that_is_taken_fits():
    assert why_refused(["x" * 229]) is None
    assert len(recorded(f"evaluate/boundary_f1/{'x' * 229}")) == 250


def test_classes_of_an_older_network_with_one_name_are_told_apart():
    assert told_apart(["a", "b"]) == ["a", "b"]
    assert told_apart(["a", "b", "a"]) == ["a (0)", "b (1)", "a (2)"]
