"""What Python has on POSIX alone is guarded, since MindSpore has wheels for Windows and macOS."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY
from other_systems import MODULES, NAMES

import fcnlab

PACKAGE = Path(fcnlab.__file__).parent

GUARDED = {
    "core/interrupts.py": "signals are installed where they can be blocked",
    "core/locks.py": "fcntl is imported where there is one",
    "core/memory.py": "a limit is asked for where there is resource",
    "core/msrun.py": "workers are started where a starter and its workers can be connected",
    "core/owned_folder.py": "the owner is asked where files have one",
    "core/starter.py": "workers are started where a starter and its workers can be connected",
    "core/supervision.py": "workers are supervised where a process can fork",
    "core/processor.py": "sched_getaffinity is asked where there is one",
    "data/file_times.py": "no file system is known without device numbers",
    "data/mindrecord.py": "pread is used where there is one",
    "kernels/build.py": "operators are compiled under Linux alone",
    "recording/provenance.py": "a group of processes is killed where there are groups",
    "sweeps/process.py": "a signal is sent where signals can be blocked",
}
"""Why a module may name what another system lacks."""


def posix_names(path):
    """Return what a module names that exists on POSIX alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in NAMES.get(node.value.id, ()):
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            yield from ([node.module] if node.module in MODULES else ())
            yield from (alias.name for alias in node.names if alias.name in NAMES.get(node.module, ()))


def test_what_other_systems_lack_is_named_only_where_it_is_guarded():
    named = {str(path.relative_to(PACKAGE)): set(posix_names(path)) for path in PACKAGE.rglob("*.py")}
    assert {name for name, found in named.items() if found} == set(GUARDED), {n: f for n, f in named.items() if f}


@pytest.mark.slow
def test_the_package_is_imported_and_trains_without_them(tmp_path):
    """The process that sends to MLflow runs without them, too, since its interpreter reads the same file first."""
    (tmp_path / "sitecustomize.py").write_text("import other_systems\nother_systems.hide()\n")
    code = (
        "import importlib, os, pkgutil, signal, sys\n"
        "assert os.name == 'nt' and not hasattr(signal, 'SIGHUP')\n"
        "import fcnlab\n"
        "for module in pkgutil.walk_packages(fcnlab.__path__, 'fcnlab.'):\n"
        "    if not module.name.startswith('fcnlab.sweeps.plugins'):\n"  # those need packages of their own
        "        importlib.import_module(module.name)\n"
        "from fcnlab import command, train\n"
        "from fcnlab.core import interrupts\n"
        "interrupts.install()\n"
        "done = train(fcnlab.compose(sys.argv[1:]))\n"
        "assert len(done.losses) == 4 and done.run_id\n"
        "resumed = train(fcnlab.compose([*sys.argv[1:], f'resume={done.run_id}', 'trainer.epochs=3']))\n"
        "assert resumed.steps == 6, resumed\n"
    )
    folders = [str(tmp_path), str(Path(__file__).parent), str(PACKAGE.parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders), "FCNLAB_KERNELS": "0"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    words = [*TINY, "arch=fcn32s", "trainer.mode=pynative"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
