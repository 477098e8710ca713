"""What MindSpore does to the module ``sys`` is undone."""

import importlib.util
import sys

import pytest

from fcnlab.core.kept_sys import kept_sys


def test_a_notebook_s_streams_and_hooks_outlive_that_sys_is_made_again(monkeypatch):
    class Stream:
        def write(self, text):
            pass

        def flush(self):
            pass

    def hook(*error):
        pass

    stream = Stream()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "excepthook", hook)

    def makes_it_again():
        importlib.util.module_from_spec(importlib.util.find_spec("sys"))  # as MindSpore does for a script's imports
        if sys.version_info < (3, 12):  # from there on, Python gives out the module as it is
            assert sys.stderr is not stream
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), kept_sys():
        makes_it_again()
    assert sys.stderr is stream
    assert sys.excepthook is hook
