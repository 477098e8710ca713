import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fcnlab.kernels import selection
from fcnlab.kernels.build import build
from fcnlab.kernels.compiler import WITHOUT_AMX, BuildError, find_compiler

MACROS = 'case " $* " in *" -dM "*) echo "#define __GNUC__ 12"; exit;; esac\n'
"""What lets a script pass for a compiler."""


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A compiler that counts its calls, and copies the suite's library instead of compiling one."""
    library, calls, script = build(), tmp_path / "calls", tmp_path / "c++"
    script.write_text(
        f"#!/bin/sh\n{MACROS}"
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cpu_flags", {"another"}),
        ("describe_cpu", "another, 64 cores"),
        ("platform.libc_ver", ("glibc", "2.17")),
    ],
)
def test_machines_that_share_a_home_find_their_own(compiler, tmp_path, monkeypatch, name, value):
    first = build(tmp_path)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(f"fcnlab.kernels.build.{name}", lambda: value)
        second = build(tmp_path)
        assert second != first
        assert build(tmp_path) == second
    assert build(tmp_path) == first
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
    library.unlink()  # this process has loaded it, and would read beyond its end
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


def named(folder, name, macros):
    """Make a compiler that says no more than what it defines."""
    script = folder / name
    script.write_text(f"#!/bin/sh\necho '{macros}'\n")
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize(
    ("macros", "reason"),
    [
        ("#define __GNUC__ 8", "is GCC 8, and the operators take GCC 9 or Clang 11; CXX=<path> chooses another"),
        ("#define __GNUC__ 4\n#define __clang_major__ 10", "is Clang 10, and the operators take GCC 9 or Clang 11"),
        ("#define _MSC_VER 1940", "is neither GCC nor Clang"),
    ],
)
def test_a_compiler_that_will_not_do_is_named_with_the_version_that_does(tmp_path, monkeypatch, macros, reason):
    path = named(tmp_path, "c++", macros)
    monkeypatch.setenv("CXX", path)
    with pytest.raises(BuildError) as caught:
        find_compiler()
    assert f"{path} {reason}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_first_compiler_that_is_new_enough_is_taken(tmp_path, monkeypatch):
    named(tmp_path, "g++", "#define __GNUC__ 8")
    newer = named(tmp_path, "clang++", "#define __GNUC__ 4\n#define __clang_major__ 11")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CXX", raising=False)
    assert find_compiler().path == newer
    monkeypatch.setenv("CXX", "g++")
    with pytest.raises(BuildError, match="is GCC 8"):
        find_compiler()


@pytest.mark.parametrize("knows", [True, False])
def test_an_assembler_that_knows_no_matrix_instructions_costs_these_alone(tmp_path, monkeypatch, knows):
    script = tmp_path / "c++"
    script.write_text(
        "#!/bin/sh\n"
        "echo '#define __GNUC__ 12'\n"
        'case " $* " in *" -mno-amx-bf16 "*) ;; *" -dM "*) echo "#define __AMX_BF16__ 1";; esac\n'
        f'case " $* " in *amx.s*) exit {0 if knows else 1};; esac\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    found = find_compiler()
    assert set(WITHOUT_AMX).isdisjoint(found.flags) == knows
    assert ("__AMX_BF16__" in found.macros) == knows


@pytest.mark.parametrize("line", ["x.cpp:3: error: no such header", "x.s:3: Error: no such instruction"])
def test_a_compiler_that_fails(tmp_path, monkeypatch, line):
    script = tmp_path / "c++"
    script.write_text(f"#!/bin/sh\n{MACROS}echo 'Assembler messages:' >&2\necho '{line}' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    with pytest.raises(BuildError, match=f"failed: {line}") as caught:
        build(tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_compiler_that_is_newer_than_the_c_plus_plus_library(compiler, tmp_path, monkeypatch):
    """What it links cannot be loaded, unless the library brings a C++ library of its own."""
    script = Path(os.environ["CXX"])
    counting = script.read_text()  # an executable cannot be loaded as a library can
    script.write_text(
        counting.replace("while", 'own=/bin/sh; case " $* " in *" -static-libstdc++ "*) own=;; esac\nwhile', 1)
    )
    script.write_text(script.read_text() + 'case "$own $2" in /bin/sh*.so) cp $own "$2";; esac\n')
    assert ctypes.CDLL(str(build(tmp_path / "cache"))).conv3x3
    assert compiler() == 2


def test_a_compiler_that_makes_nonsense(tmp_path, monkeypatch):
    script = tmp_path / "c++"
    script.write_text(
        f'#!/bin/sh\n{MACROS}while [ "$#" -gt 0 ] && [ "$1" != -o ]; do shift; done\n[ "$2" ] && echo no > "$2"\n'
    )
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
