"""The configuration of `fcnlab.prepare` from words of its command line, without Hydra, which takes half a second."""

import yaml

from fcnlab.config.schema import FolderConfig, PrepareConfig


def prepare_config(*words):
    """Return a configuration for ``dataset=folder``; values are YAML, as in Hydra's words that need no quotes."""
    values = {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in words)}
    return PrepareConfig(dataset=FolderConfig(root=values.get("source")), **values)
