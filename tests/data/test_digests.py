from __future__ import annotations

from fcnlab.data.digests import digest, digest_of


def test_digest_is_the_first_half_of_sha256():
    # The standard's own example (FIPS 180-2, appendix B.1).
    assert digest(b"abc") == "ba7816bf8f01cfea414140de5dae2223"


def test_digest_of_tells_lists_apart():
    values = [["ab", "c"], ["a", "bc"], ["abc"], [["ab"], "c"], ["c", "ab"], ['ab", "c'], [1, 2], ["1", 2], [12], []]
    assert len({digest_of(value) for value in values}) == len(values)
    assert digest_of(["ab", "c"]) == digest_of(["ab", "c"])


def test_digest_of_takes_file_names_of_any_bytes():
    # How Python shows a file name that is not UTF-8.
    assert digest_of(["\udcff.png"]) != digest_of(["\udcfe.png"])
