"""Pickles of tensors and plain containers, read without executing anything.

Python's own unpickler imports and calls what a pickle names; a restricted one still takes as much memory as a pickle
asks for. This one interprets the instructions that a file of weights needs and builds only dicts, lists, tuples,
numbers, texts and what its caller makes of a name.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple


class Global(NamedTuple):
    """The name of a function or class, which is never imported."""

    module: str
    name: str


class Opaque:
    """A value that nobody needs, such as numpy's scalar of a score; what is set on it is dropped."""


_AS_THEY_ARE = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def unpickle(
    data: bytes,
    find: Callable[[Global], Any],
    call: Callable[[Any, tuple[Any, ...]], Any],
    load: Callable[[Any], Any],
) -> Any:
    """Interpret a pickle.

    Args:
        data: The pickle.
        find: Gives what stands for a name, or refuses it.
        call: Gives what stands for the result of calling what ``find`` gave.
        load: Gives what stands for an object that the pickle keeps elsewhere, from its persistent id.

    Returns:
        What the pickle describes. Its containers may hold themselves, and each other in many ways.

    Raises:
        ValueError: If the pickle is damaged, or needs something else. Others of Python's errors may come of damage.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def pop_to_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for opcode, argument, _ in pickletools.genops(data):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case name if name in _AS_THEY_ARE:
                stack.append(argument)
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case name if name in _TUPLES:
                items = tuple(stack[-_TUPLES[name] :])
                stack[-_TUPLES[name] :] = [items]
            case "TUPLE":
                stack.append(tuple(pop_to_mark()))
            case "APPEND":
                item = stack.pop()
                _extend(stack[-1], [item])
            case "APPENDS":
                items = pop_to_mark()
                _extend(stack[-1], items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set(stack[-1], [key, value])
            case "SETITEMS":
                items = pop_to_mark()
                _set(stack[-1], items)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(find(Global(*argument.split(" ", 1))))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                if not isinstance(name, str) or not isinstance(module, str):
                    raise ValueError("its pickle is damaged")
                stack.append(find(Global(module, name)))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                if not isinstance(arguments, tuple):
                    raise ValueError("its pickle is damaged")
                stack.append(call(function, arguments))
            case "BUILD":
                stack.pop()  # attributes, such as the versions that PyTorch keeps of a state_dict
                if not isinstance(stack[-1], dict | Opaque):
                    raise ValueError("its pickle is damaged")
            case "BINPERSID":
                stack.append(load(stack.pop()))
            case other:
                raise ValueError(f"its pickle has the instruction {other}, which weights do not need")
    raise ValueError("its pickle is damaged")


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif not isinstance(target, Opaque):
        raise ValueError("its pickle is damaged")


def _set(target: Any, items: list[Any]) -> None:
    if isinstance(target, Opaque):
        return
    if not isinstance(target, dict) or len(items) % 2:
        raise ValueError("its pickle is damaged")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | int):  # a tuple could be nested so deeply that its hash takes for ever
            raise ValueError("its pickle has a dict whose keys are neither texts nor numbers")
        target[key] = value
