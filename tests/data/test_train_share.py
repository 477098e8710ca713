"""Shares of the training images are nested, made of whole groups, and never empty."""

import numpy as np
import pytest
from counting_dataset import Counting
from hypothesis import given
from hypothesis import strategies as st

from fcnlab.data.train_share import draw_share, share_of

GROUPS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40)
SHARES = st.floats(0.001, 1)


@given(GROUPS, SHARES, SHARES, st.integers(0, 2**31 - 1))
def test_a_smaller_share_is_a_part_of_a_larger_one(groups, one, other, seed):
    small, large = (set(draw_share(groups, share, seed)) for share in sorted((one, other)))
    assert small <= large


@given(GROUPS, SHARES, st.integers(0, 2**31 - 1))
def test_a_share_is_of_whole_groups_and_as_near_to_its_size_as_they_allow(groups, share, seed):
    drawn = draw_share(groups, share, seed)
    assert drawn == sorted(set(drawn))
    assert len(drawn) >= 1
    if len(set(groups)) > 1:
        inside = {groups[place] for place in drawn}
        assert inside.isdisjoint(group for place, group in enumerate(groups) if place not in drawn)
    largest = max(map(groups.count, groups)) if len(set(groups)) > 1 else 1
    assert abs(len(drawn) - share * len(groups)) <= max(largest, 1)


@given(GROUPS, st.integers(0, 2**31 - 1))
def test_the_whole_share_is_everything(groups, seed):
    assert draw_share(groups, 1.0, seed) == list(range(len(groups)))


@pytest.mark.parametrize(("share", "count"), [(0.1, 2), (0.2, 5), (0.4, 10), (0.8, 19), (0.001, 1)])
def test_images_without_groups_are_drawn_singly(share, count):
    names = [str(number) for number in range(24)]
    assert len(draw_share(names, share, 0)) == count
    assert draw_share(names, share, 0) != draw_share(names, share, 1)


def test_the_pages_of_a_single_stack_are_drawn_singly():
    assert len(draw_share(["stack a.tif"] * 10, 0.3, 0)) == 3


def test_every_image_is_drawn_equally_often_over_seeds():
    counts = np.zeros(10)
    for seed in range(600):
        counts[draw_share([str(number) for number in range(10)], 0.3, seed)] += 1
    assert abs(counts - 180).max() < 5 * np.sqrt(600 * 0.3 * 0.7)


def test_only_the_images_of_the_share_are_read_and_count():
    whole = Counting(10)
    part = share_of(whole, 0.3, 5)
    chosen = draw_share(whole.names, 0.3, 5)
    part.check()
    assert [place for place, count in enumerate(whole.reads) if count] == chosen
    assert part.names == part.groups == [str(place) for place in chosen]
    assert [part[place].name for place in range(len(part))] == part.names
    assert (part.label(1) == chosen[1]).all()
    assert part[-1].name == part.names[-1]
    with pytest.raises(IndexError):
        part[3]
    assert part.fingerprint() not in (whole.fingerprint(), share_of(whole, 0.3, 6).fingerprint())
    assert part.stamp() is None
    assert share_of(whole, 1, 5) is whole


def test_another_share_of_the_same_files_is_checked_anew():
    class Stamped(Counting):
        def stamp(self):
            return "files"

    stamps = {share_of(Stamped(10), share, seed).stamp() for share, seed in ((0.3, 0), (0.4, 0), (0.3, 1), (1, 0))}
    assert len(stamps) == 4
    assert share_of(Stamped(10), 0.3, 0).stamp() in stamps
