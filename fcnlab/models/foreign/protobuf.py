"""The wire format of protobuf, for messages of which a few fields are needed.

The generated classes would parse a whole file into objects, several times its size, before anything can be checked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Value = int | memoryview
"""A number, or the content of a string, a message, packed numbers or one number of fixed size."""


def fields(message: memoryview) -> Iterator[tuple[int, int, Value]]:
    """Yield number, wire type and value of each field of a message.

    Raises:
        ValueError: If the message is damaged.
    """
    position, end = 0, len(message)
    while position < end:
        key, position = _varint(message, position)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ValueError("a field has the number 0")
        if kind == VARINT:
            value, position = _varint(message, position)
            yield number, kind, value
            continue
        if kind == BYTES:
            size, position = _varint(message, position)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"a field is of wire type {kind}")
        if size > end - position:
            raise ValueError("it ends within a field")
        yield number, kind, message[position : position + size]
        position += size


def parts(message: memoryview, *numbers: int) -> Iterator[memoryview]:
    """Yield the strings and messages in the fields of these numbers, in their order."""
    for number, kind, value in fields(message):
        if number in numbers and kind == BYTES:
            yield value


def integers(kind: int, value: Value) -> list[int]:
    """Return the integers of a repeated field, packed or not; negative ones come as they do in 64 bits."""
    if kind == VARINT:
        return [_signed(value)]
    if kind != BYTES:
        raise ValueError("a number is of another type")
    found, position = [], 0
    while position < len(value):
        number, position = _varint(value, position)
        found.append(_signed(number))
    return found


def text(value: Value) -> str:
    """Return a string.

    Raises:
        ValueError: If it is no string.
    """
    if isinstance(value, int):
        raise ValueError("a name is no text")
    return bytes(value).decode()


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        if position >= len(message):
            raise ValueError("it ends within a number")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
    raise ValueError("a number has more than ten bytes")


def _signed(value: int) -> int:
    return struct.unpack("<q", struct.pack("<Q", value))[0]
