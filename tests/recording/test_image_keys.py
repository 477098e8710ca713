"""The keys of pictures are taken by MLflow, and read back as the names of samples."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fcnlab.recording.image_keys import image_key, name_of_key

NASTY = st.text(st.sampled_from("ab-u/. _+~%ä背\udcff\U0001f6000042B"), max_size=14)
NAMES = st.one_of(NASTY, st.text(max_size=30))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("overlay/val-0001", "overlay/val-0001"),
        ("overlay/Zelle ä", "overlay/Zelle -u00E4-"),
        ("overlay/a+b", "overlay/a-u002B-b"),
        ("overlay/a-u002B-b", "overlay/a-u002D-u002B-b"),
        ("overlay/a~b", "overlay/a-u007E-b"),
        ("overlay/../b", "overlay/-u002E-./b"),
        ("overlay//b.png", "overlay/-u002F-b.png"),
    ],
)
def test_what_mlflow_does_not_take_in_a_key_is_written_by_its_number(name, key):
    assert image_key(name) == key
    assert name_of_key(key) == name


@given(NAMES)
@example(".")
@example("a/..")
@example("-u-" + 24 * "0")
@example("x" * 200)
@example("背" * 40)
@example("-" * 60 + "-u" * 60)
def test_every_key_is_taken_by_mlflow_and_read_back(name):
    key = image_key(f"overlay/{name}")
    assert re.match(r"^[a-zA-Z0-9_\-./ ]+$", key)  # as `MlflowClient.log_image` asks
    assert key.isprintable()
    assert len(key) <= 120
    assert not {"", ".", ".."} & set(key.split("/"))
    assert name_of_key(key) in (f"overlay/{name}", None)
    assert len(name) > 12 or name_of_key(key) is not None


@given(NAMES, NAMES)
def test_no_two_samples_have_one_key(one, other):
    assert (image_key(one) == image_key(other)) == (one == other)


def test_long_names_that_differ_at_their_end_have_keys_of_their_own():
    begin = "overlay/" + "背" * 30
    keys = {image_key(f"{begin}{end}") for end in ("a", "b", "")}
    assert len(keys) == 3
    assert {name_of_key(key) for key in keys} == {None}
