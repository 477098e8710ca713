import gc
import sys

import pytest

from fcnlab.core.imports import import_ahead


def test_what_is_needed_later_is_imported_in_the_background(tmp_path, monkeypatch):
    (tmp_path / "needed_later.py").write_text("import threading\nthread = threading.current_thread().name\n")
    monkeypatch.syspath_prepend(tmp_path)
    import_ahead("no_such_module_anywhere", "needed_later").join(10)
    module = sys.modules.pop("needed_later")
    assert module.thread == "fcnlab-imports"


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_not_collected_meanwhile_and_again_afterwards(tmp_path, monkeypatch, enabled):
    (tmp_path / "needed_later.py").write_text("import gc\ncollected = gc.isenabled()\n")
    monkeypatch.syspath_prepend(tmp_path)
    (gc.enable if enabled else gc.disable)()
    try:
        import_ahead("needed_later").join(10)
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
    assert not sys.modules.pop("needed_later").collected
