"""What ``--help`` says beside the composed configuration: the keys of the options that are not chosen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from fcnlab.config.schema import SCHEMAS

_HERE = "@_here_"


def other_keys(folder: str) -> str:
    """Return the keys that options have beyond those of their group's default, as YAML below ``group=option``.

    Args:
        folder: The folder of the YAML files.
    """
    chosen = {group: name for item in _read(folder, "train")["defaults"] if isinstance(item, dict)
              for group, name in item.items() if group in SCHEMAS}  # fmt: skip
    blocks = []
    for group, default in chosen.items():
        shown = dict(_values(folder, f"{group}/{default}"))
        for name in SCHEMAS[group]:
            further = {key: value for key, value in _values(folder, f"{group}/{name}") if key not in shown}
            if further:
                text = "".join(f"  {line}\n" for line in OmegaConf.to_yaml(further).splitlines())
                blocks.append(f"{group}={name}\n{text}")
    return "\n".join(blocks).replace("$", "$$")  # Hydra takes the help for a template


def _values(folder: str, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of an option, those of the files that it inherits from first."""
    content = _read(folder, name)
    for item in content.pop("defaults", []):
        if isinstance(item, str) and item.endswith(_HERE) and not item.startswith("/schema_"):
            yield from _values(folder, item.removeprefix("/").removesuffix(_HERE))
    yield from content.items()


def _read(folder: str, name: str) -> dict[str, Any]:
    return OmegaConf.to_container(OmegaConf.load(f"{folder}/{name}.yaml"))
