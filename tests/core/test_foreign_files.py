"""Files of others are read in a bounded time and in bounded memory, or refused."""

import os
import time

import pytest
import yaml

from fcnlab.core import foreign_files


@pytest.fixture(autouse=True)
def within_a_second():
    began = time.process_time()
    yield
    assert time.process_time() - began < 1


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for path, said in (
        (tmp_path / "pipe", "a named pipe"),
        (tmp_path / "folder", "a folder"),
        ("/dev/zero", "a device"),
    ):
        with pytest.raises(OSError, match=said):
            foreign_files.read_bytes(path, 10)


def test_a_file_is_read_up_to_a_size(tmp_path):
    path = tmp_path / "a"
    path.write_bytes("\ufeffäb".encode())
    assert foreign_files.read_text(path, 6) == "äb"
    with pytest.raises(OSError, match="larger than 1 MiB"):
        foreign_files.read_bytes(path, 5)
    os.truncate(path, 2**40)  # the disk holds nothing of it
    with pytest.raises(OSError, match="larger than"):
        foreign_files.read_bytes(path, 2**20)


def bomb(levels):
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels)]
    return "\n".join(lines)


def values(node):
    return (
        1 + sum(map(values, node.values() if isinstance(node, dict) else node)) if isinstance(node, (dict, list)) else 1
    )


def test_aliases_are_counted_before_they_are_written_out():
    foreign_files.require_small_yaml(bomb(3))
    foreign_files.require_small_yaml("a: &a 1\nb: [*a, *a]\nc: {<<: {d: 1}}")
    with pytest.raises(ValueError, match="more than 20,000 values"):
        foreign_files.require_small_yaml(bomb(40))
    foreign_files.require_small_yaml("a: [")  # which its reader refuses
    with pytest.raises(ValueError, match="line 1"):
        foreign_files.require_small_yaml("a: [*b")


def test_many_levels_are_refused_before_they_are_built():
    foreign_files.require_small_yaml("[" * 50 + "]" * 50)
    with pytest.raises(ValueError, match="more than 50 levels"):
        foreign_files.require_small_yaml("[" * 9000)


def test_the_count_is_that_of_the_document(monkeypatch):
    text = bomb(3)
    document = yaml.safe_load(text)
    count = values(document) + len(document)  # and its keys
    monkeypatch.setattr(foreign_files, "_MOST_NODES", count)
    foreign_files.require_small_yaml(text)
    monkeypatch.setattr(foreign_files, "_MOST_NODES", count - 1)
    with pytest.raises(ValueError, match="aliases"):
        foreign_files.require_small_yaml(text)


def test_a_value_is_cut_and_stays_in_one_line():
    assert foreign_files.shown("a\nb") == "a b"
    assert foreign_files.shown([1, 2]) == "[1, 2]"
    assert len(foreign_files.shown("x" * 10**6)) < 110
    assert foreign_files.shown([0] * 10**6) == "list of 1,000,000 values"
