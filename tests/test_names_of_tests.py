"""pytest imports each file of tests by its bare name, so that two of one name cannot be collected together."""

from collections import Counter
from pathlib import Path


def test_no_two_files_of_tests_have_the_same_name():
    names = Counter(path.name for path in Path(__file__).parent.rglob("*.py"))
    assert [name for name, count in names.items() if count > 1] == []
