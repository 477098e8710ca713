"""The names of pictures in MLflow, which no two samples share and which can be read back."""

from __future__ import annotations

import hashlib
import re

_WRITTEN_OUT = re.compile(r"[^A-Za-z0-9_\-./ ]|-(?=u)|(?:\A|(?<=/))/|(?:\A|(?<=/))\.(?=\.?(?:/|\Z))|/\Z")
"""What does not stand for itself in the key of an image: what MLflow does not take, the mark's own beginning, and the
slashes and dots that the path of a file would lose."""
_LONGEST_KEY = 120
"""MLflow makes it a part of a file's name, beside a step, a time and an identifier of its own."""


def image_key(name: str) -> str:
    """What MLflow calls the picture of a sample; no two samples' pictures have the same name.

    A character that MLflow does not take there is written by its number, ``a+b`` as ``a-u002B-b``. The end of what is
    too long for the name of a file is a digest of the whole name.
    """
    key = _WRITTEN_OUT.sub(lambda found: f"-u{ord(found[0]):04X}-", name)
    if len(key) <= _LONGEST_KEY:
        return key
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:24]
    end = f"-u-{digest}"  # the mark without a number, as in no other key
    begin = ""
    for written in re.findall(r"-u[0-9A-F]{4,6}-|.", key):  # so that none is cut into something else
        if len(begin) + len(written) + len(end) > _LONGEST_KEY:
            break
        begin += written
    return begin + end


def name_of_key(key: str) -> str | None:
    """What `image_key` made a key of; None if the key holds only a digest of its end."""
    found = list(re.finditer(r"-u(?:([0-9A-F]{4,6})-|-[0-9a-f]{24}\Z)", key))
    if found and found[-1][1] is None:
        return None
    name, end = "", 0
    for written in found:
        name += key[end : written.start()] + chr(int(written[1], 16))
        end = written.end()
    return name + key[end:]
