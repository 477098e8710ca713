"""The Chinese README names everything that the English one names."""

import re
from itertools import zip_longest

import pytest
from test_readme import README

TRANSLATION = README.with_name("README.zh.md")


def code_lines(path):
    """Return the lines of all code blocks without their comments, whose words are translated."""
    text = path.read_text(encoding="utf-8")
    lines = "\n".join(re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)).splitlines()
    bare = (re.sub(r"(^|\s+)#\s.*", "", line).rstrip() for line in lines)
    return [line for line in bare if line]


def named(path):
    """Return what stands between backticks outside of code blocks: keys, commands, files."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)}


def shape(path):
    """Return the level of each heading and the number of cells of each row of a table."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = []
    for line in text.splitlines():
        if line.startswith("#"):
            found.append(line.partition(" ")[0])
        elif line.startswith("|"):
            found.append(line.count("|"))
    return found


def test_both_have_the_same_commands_and_code():
    english, chinese = code_lines(README), code_lines(TRANSLATION)
    missing = [line for line in english if line not in chinese]
    surplus = [line for line in chinese if line not in english]
    assert not missing, f"README.zh.md lacks these lines of README.md: {missing}"
    assert not surplus, f"README.zh.md has lines of code that README.md has not: {surplus}"
    order = [pair for pair in zip_longest(english, chinese) if pair[0] != pair[1]]
    assert not order, f"README.md and README.zh.md have their code in another order, from {order[0]} on"


def test_both_name_the_same_keys_and_files():
    english, chinese = named(README), named(TRANSLATION)
    assert not english - chinese, f"README.zh.md does not name {sorted(english - chinese)}"
    assert not chinese - english, f"README.zh.md names what README.md does not: {sorted(chinese - english)}"


def test_both_have_the_same_sections_and_tables():
    assert shape(README) == shape(TRANSLATION)


@pytest.mark.parametrize("pattern", [r"\]\((?!#)([^)\s]+)\)", r"\d+\.\d\d+"], ids=["links", "numbers"])
def test_both_have_the_same(pattern):
    """Pictures and pages, and the numbers of the results."""
    english, chinese = (sorted(re.findall(pattern, path.read_text(encoding="utf-8"))) for path in (README, TRANSLATION))
    missing = [item for item in english if english.count(item) > chinese.count(item)]
    surplus = [item for item in chinese if chinese.count(item) > english.count(item) and item != "README.md"]
    assert not missing, f"README.zh.md lacks {missing}"
    assert not surplus, f"README.zh.md has {surplus}, which README.md has not"
