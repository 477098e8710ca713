"""Lets Hydra remember what it composed for the same choices of options, which is most of the time of a composition.

Values are applied to a copy each time, as Hydra applies them. A composition that anything else takes part in (another
folder of files, a plug-in, what a run recorded) is made as ever.
"""

import copy
from contextlib import contextmanager

import pytest
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore

from fcnlab.config import config_folder
from fcnlab.config.plugins import PluginNode

MOST = 32
"""The largest number of choices that are remembered, since each takes megabytes and a fuzzed file makes a new one."""


@contextmanager
def remembered_composition():
    """Let Hydra remember compositions for the length of a block."""
    listed, composed, folder = {}, {}, str(config_folder())
    create, compose = config_loader_impl.create_defaults_list, ConfigLoaderImpl._compose_config_from_defaults_list

    def create_defaults_list(repo, config_name, overrides_list, prepend_hydra, skip_missing):
        arguments = {"prepend_hydra": prepend_hydra, "skip_missing": skip_missing}
        options = own_options(repo, folder)
        if options is None:
            return create(repo, config_name, overrides_list, **arguments)
        overrides = defaults_list.Overrides(repo=repo, overrides_list=overrides_list)
        values = {id(override) for override in overrides.config_overrides}
        choices = tuple(override.input_line for override in overrides_list if id(override) not in values)
        key = (config_name, prepend_hydra, skip_missing, choices, tuple((name, id(node)) for name, node in options))
        if key not in listed:
            if len(listed) == MOST:
                listed.clear()
                composed.clear()
            listed[key] = create(repo, config_name, overrides_list, **arguments), options  # so that no id is used again
        kept, _ = listed[key]
        return defaults_list.DefaultsList(kept.defaults, kept.defaults_tree, overrides.config_overrides, kept.overrides)

    def compose_config(self, defaults, repo):
        if not any(defaults is kept.defaults for kept, _ in listed.values()):
            return compose(self, defaults, repo)
        if id(defaults) not in composed:
            composed[id(defaults)] = compose(self, defaults, repo)
        return copy.deepcopy(composed[id(defaults)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_loader_impl, "create_defaults_list", create_defaults_list)
        patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", compose_config)
        yield


def own_options(repo, folder):
    """Return the registered options with their nodes; None if other files or a plug-in may take part."""
    if any(source.scheme() == "file" and source.path != folder for source in repo.get_sources()):
        return None
    options = list(nodes("", ConfigStore.instance().repo))
    if any(isinstance(node, PluginNode) or "from_run" in name for name, node in options):
        return None
    return options


def nodes(prefix, found):
    """Yield the name and the node of each registered option."""
    for name, node in found.items():
        if isinstance(node, dict):
            yield from nodes(f"{prefix}{name}/", node)
        else:
            yield prefix + name, node
