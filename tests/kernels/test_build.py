import os
import subprocess
import sys
from pathlib import Path

import pytest

from fcnlab.kernels import selection
from fcnlab.kernels.build import BuildError, build


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A compiler that counts its calls, and copies the suite's library instead of compiling one."""
    library, calls, script = build(), tmp_path / "calls", tmp_path / "c++"
    script.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo counting; exit; }\n'
        f'case " $* " in *" -shared "*) echo call >> {calls};; esac\n'
        f'while [ "$1" != -o ]; do shift; done\ncp {library} "$2"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    return lambda: len(calls.read_text().splitlines()) if calls.exists() else 0


def test_compiles_once(compiler, tmp_path):
    first = build(tmp_path / "cache")
    assert first.is_file()
    assert build(tmp_path / "cache") == first
    assert compiler() == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [first.name]


def test_another_processor_compiles_again(compiler, tmp_path, monkeypatch):
    first = build(tmp_path)
    monkeypatch.setattr("fcnlab.kernels.build.cpu_flags", lambda: {"another"})
    assert build(tmp_path) != first
    assert compiler() == 2


def test_keeps_the_newest_libraries(compiler, tmp_path, monkeypatch):
    monkeypatch.setattr("fcnlab.kernels.build.MAX_LIBRARIES", 2)
    for age, name in enumerate(("a", "b", "c")):
        (tmp_path / f"{name}.so").touch()
        os.utime(tmp_path / f"{name}.so", (100 - age, 100 - age))
    newest = build(tmp_path)
    assert {path.name for path in tmp_path.glob("*.so")} == {"a.so", newest.name}


@pytest.mark.parametrize("cut", [0, 100, -100, -1])
def test_a_library_that_a_power_cut_left_half_is_made_anew(compiler, tmp_path, cut):
    library = build(tmp_path)
    whole = library.read_bytes()
    library.write_bytes(whole[:cut])
    assert build(tmp_path) == library
    assert library.read_bytes() == whole
    assert compiler() == 2


def test_a_library_that_others_may_write_is_made_anew(compiler, tmp_path):
    library = build(tmp_path)
    library.chmod(0o777)
    assert build(tmp_path) == library
    assert library.stat().st_mode & 0o777 == 0o755
    assert compiler() == 2


def test_the_own_folder_is_closed_to_others(compiler, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o775)
    assert build(tmp_path / "cache").parent == tmp_path / "cache"
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_the_folder_of_another_user_is_not_used(compiler, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    if tmp_path.stat().st_uid == 0:
        os.chown(tmp_path, 12346, -1)
    assert build(tmp_path).parent != tmp_path
    assert compiler() == 1
    assert f"others may write {tmp_path}; remove it, or set XDG_CACHE_HOME" in caplog.text


def test_a_folder_that_cannot_be_made_costs_the_reuse_alone(compiler, tmp_path):
    (tmp_path / "file").touch()
    library = build(tmp_path / "file" / "cache")
    assert library.is_file()
    assert tmp_path not in library.parents


def test_no_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(BuildError, match=r"^no C\+\+ compiler .*install g\+\+"):
        build(tmp_path)


def test_a_compiler_that_fails(tmp_path, monkeypatch):
    script = tmp_path / "c++"
    script.write_text("#!/bin/sh\necho 'x.cpp:3: error: no such header' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    with pytest.raises(BuildError, match=r"failed: x\.cpp:3: error: no such header") as caught:
        build(tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_compiler_that_makes_nonsense(tmp_path, monkeypatch):
    script = tmp_path / "c++"
    script.write_text('#!/bin/sh\nwhile [ "$#" -gt 0 ] && [ "$1" != -o ]; do shift; done\n[ "$2" ] && echo no > "$2"\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    with pytest.raises(BuildError, match="cannot be loaded"):
        build(tmp_path / "cache")
    assert list((tmp_path / "cache").glob("*.so")) == []


def test_without_a_library_the_user_hears_it_once_and_networks_are_stock(monkeypatch, caplog):
    def fail():
        raise BuildError("no C++ compiler; install g++")

    monkeypatch.delenv("FCNLAB_KERNELS", raising=False)
    monkeypatch.setattr(selection, "build", fail)
    selection._built.cache_clear()
    try:
        assert selection.library() is None
        assert selection.library() is None
    finally:
        selection._built.cache_clear()
    assert [record.message for record in caplog.records] == [
        "training takes about twice as long as it could: no C++ compiler; install g++"
    ]


def test_the_variable_and_the_context_switch_it_off(monkeypatch):
    monkeypatch.delenv("FCNLAB_KERNELS", raising=False)
    assert selection.describe() == f"compiled {selection.library().stem}"
    with selection.stock_operators():
        assert selection.library() is None
        assert selection.describe() == "stock"
    assert selection.library() is not None
    monkeypatch.setenv("FCNLAB_KERNELS", "0")
    assert selection.library() is None


def test_the_user_s_number_of_threads_survives_mindspore():
    """MindSpore sets OMP_NUM_THREADS to 1 in the process, for C alone to see."""
    code = "import fcnlab, os, mindspore; print(os.environ['FCNLAB_NUM_THREADS'])"
    environment = os.environ | {"OMP_NUM_THREADS": "3", "PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("FCNLAB_NUM_THREADS", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "3"
