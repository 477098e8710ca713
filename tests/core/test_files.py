"""Files appear whole or not at all, whoever else writes them."""

import threading
from contextlib import suppress

from fcnlab.core import files
from fcnlab.core.files import replacing


def test_of_writers_at_once_the_last_prevails_and_each_file_is_whole(tmp_path):
    path, failures, seen = tmp_path / "file", [], set()
    both = threading.Barrier(2)

    def write(letter):
        try:
            for _ in range(20):
                both.wait(30)
                with replacing(path) as temporary, temporary.open("wb") as file:
                    for _ in range(4):
                        file.write(letter * 1000)
                        file.flush()
                seen.add(path.read_bytes())
        except Exception as error:
            failures.append(error)
            both.abort()

    writers = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failures
    assert seen <= {b"a" * 4000, b"b" * 4000}
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_fails_replaces_nothing(tmp_path):
    path = tmp_path / "deep" / ("x" * 255)
    with suppress(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert list(path.parent.iterdir()) == []
    with replacing(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole"


def test_what_a_killed_process_did_not_finish_is_removed_and_nothing_else(tmp_path):
    others = {".journal.sent.partial", ".x.0123456789abcdeg.partial", "x.0123456789abcdef.partial", "y"}
    for name in (*others, ".x.0123456789abcdef.partial", ".0123456789abcdef.partial"):
        (tmp_path / name).touch()
    files.remove_partial(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == others
    files.remove_partial(tmp_path / "missing")
