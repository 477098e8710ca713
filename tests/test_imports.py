import sys

from fcnlab.imports import import_ahead


def test_what_is_needed_later_is_imported_in_the_background(tmp_path, monkeypatch):
    (tmp_path / "needed_later.py").write_text("import threading\nthread = threading.current_thread().name\n")
    monkeypatch.syspath_prepend(tmp_path)
    import_ahead("no_such_module_anywhere", "needed_later").join(10)
    module = sys.modules.pop("needed_later")
    assert module.thread == "fcnlab-imports"
