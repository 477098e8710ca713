"""The keys under which MLflow holds the pictures of samples. No two samples share one, and names can be read back."""

from __future__ import annotations

import hashlib
import re

_WRITTEN_OUT = re.compile(r"[^A-Za-z0-9_\-./ ]|-(?=u)|(?:\A|(?<=/))/|(?:\A|(?<=/))\.(?=\.?(?:/|\Z))|/\Z")
"""What is escaped in a key: characters that MLflow refuses, the beginning of an escape itself, and the slashes and dots
that the path of a file would lose."""
_LONGEST_KEY = 120
"""MLflow makes the key a part of a file's name, beside a step, a time and an identifier."""


def image_key(name: str) -> str:
    """Return the key of a sample's picture, which differs from that of every other sample.

    A character that MLflow refuses is escaped by its number: ``a+b`` becomes ``a-u002B-b``. A name that is too long for
    the name of a file ends with a digest of the whole name.
    """
    key = _WRITTEN_OUT.sub(lambda found: f"-u{ord(found[0]):04X}-", name)
    if len(key) <= _LONGEST_KEY:
        return key
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:24]
    end = f"-u-{digest}"  # no other key has an escape without a number
    begin = ""
    for written in re.findall(r"-u[0-9A-F]{4,6}-|.", key):  # so that no escape is cut in two
        if len(begin) + len(written) + len(end) > _LONGEST_KEY:
            break
        begin += written
    return begin + end


def name_of_key(key: str) -> str | None:
    """Return the name that `image_key` made a key of; None if the key holds only the beginning of the name."""
    found = list(re.finditer(r"-u(?:([0-9A-F]{4,6})-|-[0-9a-f]{24}\Z)", key))
    if found and found[-1][1] is None:
        return None
    name, end = "", 0
    for written in found:
        name += key[end : written.start()] + chr(int(written[1], 16))
        end = written.end()
    return name + key[end:]
