"""Turns the errors of Hydra and OmegaConf into one line that names the key and the way out."""

from __future__ import annotations

import dataclasses
import re

from hydra.errors import MissingConfigException, OverrideParseException

from fcnlab.config.plugins import keys_read
from fcnlab.config.schema import SCHEMAS, Config, leaves
from fcnlab.core.errors import did_you_mean


def one_line(error: BaseException, schema: type = Config) -> str:
    """Return an error of Hydra's or OmegaConf's as one line for the user.

    Args:
        error: The error.
        schema: The class of the command's configuration, whose keys are compared with a mistyped one.
    """
    return " ".join(_explain(error, schema).split())  # a quoted value may hold line breaks


def _explain(error: BaseException, schema: type) -> str:
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    for cause in causes:
        if isinstance(cause, MissingConfigException) and cause.options is not None:
            return _unknown_option(cause)
        if isinstance(cause, OverrideParseException):
            key = cause.override.partition("=")[0]
            what = str(causes[-1]).strip().splitlines()[0]
            return f"{cause.override}: {what}; quote the value twice, as in '{key}=\"...\"'"
    text = "\n".join(map(str, causes))
    override = re.search(r"Could not override '([^']+)'", text)
    full_key = re.search(r"full_key: (\S+)", text)
    if override or re.search(r"Key '[^']+' (is )?not in ", text):
        return unknown_key((override or full_key)[1], schema)
    first = next((line.strip() for line in str(causes[-1]).splitlines() if line.strip()), type(error).__name__)
    if full_key and first.endswith("is not a ListConfig, list or tuple."):
        return f"{full_key[1]}: give a list, as in {full_key[1]}=[...]"
    return f"{full_key[1]}: {first}" if full_key else first


def unknown_key(key: str, schema: type = Config) -> str:
    """Return the message that there is no such key, with the nearest key that there is."""
    known = _known_keys(schema)
    if key in known:
        return f"{key}: no such key with the {key.partition('.')[0]} that is chosen (`--cfg job` prints all)"
    return f"{key}: no such key; {did_you_mean(key, known)}`--cfg job` prints all"


def _unknown_option(error: MissingConfigException) -> str:
    file = str(error.missing_cfg_file)
    group, _, name = file.rpartition("/")
    options = list(error.options)
    outer = file.partition("/")[0]
    if outer in SCHEMAS:  # an option of a folder within the group, such as arch=paper/fcn8s, belongs to it, too
        group, name = outer, file.removeprefix(f"{outer}/")
        options = sorted({*options, *SCHEMAS[group]})
    return f"{group}={name}: {did_you_mean(name, options, group + '={}')}known are {', '.join(options)}"


def _known_keys(schema: type) -> list[str]:
    groups = {item.name for item in dataclasses.fields(schema)}
    keys = groups | {key for key, *_ in leaves(schema())}
    for group in groups & SCHEMAS.keys():
        for option in SCHEMAS[group].values():
            keys.update(key for key, *_ in leaves(option(), f"{group}."))
    return sorted(keys.union(keys_read()))
