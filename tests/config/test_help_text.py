"""``--help`` has every key of every option."""

import dataclasses
import re
from functools import cache

import pytest
from omegaconf import OmegaConf

from fcnlab.config import compose, composition, config_folder
from fcnlab.config.help_text import other_keys
from fcnlab.config.schema import SCHEMAS


@cache
def default():
    return compose()


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group, options in SCHEMAS.items() for name in options], ids="=".join
)
def test_each_key_of_an_option_is_in_the_configuration_or_below_the_option(group, name):
    shown = set(OmegaConf.to_container(OmegaConf.structured(getattr(default(), group))))
    blocks = dict(re.findall(r"^(\S+=\S+)\n((?:  .*\n)+)", other_keys(str(config_folder())), re.MULTILINE))
    below = set(re.findall(r"^  (\w+):", blocks.get(f"{group}={name}", ""), re.MULTILINE))
    assert {item.name for item in dataclasses.fields(SCHEMAS[group][name])} <= shown | below
    assert not shown & below


def test_a_value_is_the_one_of_the_option_and_not_of_what_it_inherits():
    text = other_keys(str(config_folder()))
    assert "dataset=isbi2012\n" in text
    assert "  label_values:\n  - 0\n  - 255\n" in text.partition("dataset=isbi2012\n")[2].partition("\n\n")[0] + "\n"


def test_the_footer_says_where_the_files_are():
    composition.register_schemas()
    shown = OmegaConf.load(config_folder() / "train.yaml").hydra.help
    assert shown.footer.endswith(f"The files that explain each key are in {config_folder()}")
    assert "optimizer=sgd\n  momentum: 0.9\n" in shown.template
