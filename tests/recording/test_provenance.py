"""The state of the code is that of real repositories, and git applies the recorded diff."""

import os
import shlex
import shutil
import subprocess
import sys
import time
import types
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import compose_tiny

from fcnlab.recording import provenance
from fcnlab.recording.provenance import GitState, command_line, git_state, tags


def git(folder, *arguments):
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(autouse=True)
def private_git(tmp_path, monkeypatch):
    """Hide the user's settings and any repository around the test's own."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Somebody")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "somebody@example.org")


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    (folder / "package").mkdir(parents=True)
    git(folder, "init", "--initial-branch=work/new")
    (folder / "package" / "a.py").write_text("one\ntwo\nthree\n")
    (folder / "package" / "b.py").write_text("gone soon\n")
    (folder / "notes.txt").write_text("text\n")
    (folder / ".gitignore").write_text("ignored.py\n")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    return folder


def snapshot(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_clean_tree(repository):
    expected = GitState(git(repository, "rev-parse", "HEAD"), "work/new", False, "")
    assert git_state(repository) == git_state(repository / "package") == expected
    git(repository, "checkout", "--detach")
    assert git_state(repository).branch is None


def test_the_diff_gives_the_tree_back(repository, tmp_path):
    # Some users have these settings, with which `git apply` could not read a diff.
    for setting in ("diff.noprefix=true", "color.ui=always", "diff.external=false", "diff.mnemonicPrefix=true"):
        git(repository, "config", *setting.split("="))
    (repository / "package" / "a.py").write_text("one\n2\nthree")
    (repository / "package" / "b.py").unlink()
    (repository / "staged.py").write_text("staged\n")
    git(repository, "add", "staged.py")
    (repository / "conf ä").mkdir()
    for name in ("new.py", 'conf ä/with "quotes" and *.py', "empty.py", "x.py"):
        (repository / name).write_text("" if name == "empty.py" else f"{name}\n")
    before = snapshot(repository)

    state = git_state(repository / "package")

    assert snapshot(repository) == before  # the index and the objects too
    assert state.dirty
    clone = tmp_path / "clone"
    git(tmp_path, "clone", str(repository), str(clone))
    subprocess.run(["git", "apply"], cwd=clone, input=state.diff.encode(), check=True)
    tree = {path.relative_to(repository): data for path, data in before.items() if ".git" not in path.parts}
    assert {path.relative_to(clone): data for path, data in snapshot(clone).items() if ".git" not in path.parts} == tree


def test_what_is_not_code_does_not_make_it_dirty(repository):
    outputs = ("outputs/2026/a/model/code/a.py", "sub/mlruns/0/a.py", "secrets.yaml")
    for name in ("data.txt", "ignored.py", "mlflow.db", *outputs, ".venv/lib/python3.11/site-packages/x.py"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text("x\n")
    assert git_state(repository).dirty is False


def test_a_change_as_old_as_the_index_is_seen(repository):
    """Git reads a file only if its time or size changed, or if the index was written at the same time."""
    git(repository, "config", "core.trustctime", "false")
    path, moment = repository / "package" / "a.py", (1_700_000_000, 1_700_000_000)
    os.utime(path, moment)
    git(repository, "add", "package/a.py")
    path.write_text("one\nTWO\nthree\n")
    os.utime(path, moment)
    os.utime(repository / ".git" / "index", moment)
    assert git_state(repository).dirty


def test_odd_content(repository):
    (repository / "notes.txt").write_bytes(b"caf\xe9\n")
    (repository / "new.py").write_bytes(b"# caf\xe9 \x00 binary\n")
    (repository / "x.py").write_text("uri: https://user:s3cret@host/\n")
    state = git_state(repository)
    assert state.dirty
    assert "caf\N{REPLACEMENT CHARACTER}" in state.diff
    assert "new.py" in state.diff
    assert "+uri: https://user:***@host/" in state.diff
    assert "s3cret" not in state.diff


def test_a_large_diff_is_cut_after_a_line(repository, monkeypatch):
    monkeypatch.setattr(provenance, "MAX_DIFF_BYTES", 3000)
    for name in ("a.py", "b.py", "c.py", "d.py"):
        (repository / name).write_text("x = 12345\n" * 100)
    (repository / "big.py").write_text("big\n" * 1000)
    *lines, last = git_state(repository).diff.splitlines(keepends=True)
    assert last.startswith("... cut off here")
    assert 2900 < len("".join(lines)) <= 3000
    assert lines[-1] == "+x = 12345\n"
    (repository / "a.py").unlink()
    (repository / "b.py").unlink()
    (repository / "c.py").unlink()
    assert "+big\n" not in git_state(repository).diff
    assert "+x = 12345\n" in git_state(repository).diff


def test_no_commit_is_none(tmp_path, repository, monkeypatch, caplog):
    assert git_state(tmp_path) is None
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init")
    assert git_state(tmp_path / "empty") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(repository) is None
    assert not caplog.messages


def test_a_refusal_is_logged_and_none(repository, monkeypatch, caplog):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert git_state(repository) is None
    (message,) = caplog.messages
    assert "dubious ownership" in message
    assert "safe.directory" in message  # the way out
    assert "\n" not in message


def test_a_broken_repository(repository, caplog):
    index = repository / ".git" / "index"
    content = index.read_bytes()
    index.write_bytes(b"broken")
    state = git_state(repository)
    assert (state.branch, state.dirty, state.diff) == ("work/new", None, "")
    index.write_bytes(content)
    for path in (repository / ".git" / "objects").glob("??"):
        shutil.rmtree(path)
    assert git_state(repository).dirty is None
    (repository / ".git" / "HEAD").write_text("broken\n")
    assert git_state(repository) is None
    assert all("\n" not in message for message in caplog.messages)


@pytest.fixture
def slow_diff(tmp_path, monkeypatch):
    """A function that makes ``git diff`` run a command of the shell first."""

    def make(command):
        real = shutil.which("git")
        slow = tmp_path / "bin" / "git"
        slow.parent.mkdir()
        slow.write_text(f'#!/bin/sh\ncase "$*" in *" diff "*) {command};; esac\nexec {shlex.quote(real)} "$@"\n')
        slow.chmod(0o755)
        monkeypatch.setenv("PATH", str(slow.parent), prepend=os.pathsep)

    return make


def test_git_has_a_time_limit(repository, slow_diff):
    slow_diff("sleep 90")
    began = time.monotonic()
    state = git_state(repository, seconds=1)
    assert time.monotonic() - began < 60
    assert state == GitState(git(repository, "rev-parse", "HEAD"), "work/new", None, "")


def test_what_outlives_git_is_not_waited_for(repository, slow_diff):
    slow_diff("sleep 90 & sleep 90")
    began = time.monotonic()
    assert git_state(repository, seconds=1).dirty is None
    assert time.monotonic() - began < 30


def test_no_program_of_the_repository_runs(repository, tmp_path):
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\necho "$0 $*" >> {shlex.quote(str(ran))}\ncat\n')
    program.chmod(0o755)
    (repository / ".gitattributes").write_text("*.py filter=mine diff=mine\n*.txt filter=must\n")
    git(repository, "add", ".gitattributes")
    git(repository, "commit", "-m", "attributes")
    for name in (
        *("core.fsmonitor", "core.pager", "pager.diff", "diff.external", "diff.mine.textconv", "diff.mine.command"),
        *("filter.mine.clean", "filter.mine.smudge", "filter.must.process"),
    ):
        git(repository, "config", name, str(program))
    git(repository, "config", "filter.must.required", "true")
    for name in ("post-index-change", "reference-transaction"):
        shutil.copy(program, repository / ".git" / "hooks" / name)
    (repository / "package" / "a.py").write_text("changed\n")
    (repository / "notes.txt").write_text("changed, too\n")
    (repository / "new.py").write_text("new\n")
    state = git_state(repository)
    assert state.dirty
    for line in ("+changed\n", "+changed, too\n", "+new\n"):
        assert line in state.diff
    assert not ran.exists(), ran.read_text()


def test_a_hooks_own_repository_is_not_mistaken_for_it(repository, monkeypatch):
    expected = git_state(repository)
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    assert git_state(repository) == expected


def test_the_packages_checkout_comes_before_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site" / "fcnlab" / "tracking").mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "site" / "fcnlab" / "tracking" / "provenance.py"))
    assert provenance.repository_folder() == tmp_path
    (tmp_path / "site" / ".git").write_text("gitdir: a worktree has a file\n")
    assert provenance.repository_folder() == tmp_path / "site"


def test_tags():
    command = ["python", "-m", "fcnlab.train", "seed=5", "tracking.uri=https://me:se'cret@host", "dataset.root=a b"]
    overrides = ["seed=5", "dataset.root=a b"]
    found = tags(compose_tiny("seed=5"), command, overrides, GitState("c0ffee", "main", True, "diff"))
    assert shlex.split(found["command"]) == [*command[:4], "tracking.uri=https://me:***@host", "dataset.root=a b"]
    assert shlex.split(found["hydra.overrides"]) == overrides
    assert found["seed"] == "5"
    assert found["hydra-core"] == version("hydra-core")
    assert found["mindspore"] == version("mindspore")
    assert found["mlflow.user"] == found["user"]
    assert found["mlflow.source.type"] == "LOCAL"
    assert found["git.commit"] == found["mlflow.source.git.commit"] == "c0ffee"
    assert found["git.branch"] == found["mlflow.source.git.branch"] == "main"
    assert found["git.dirty"] == "true"
    for name in ("host", "cpu", "platform", "python", "fcnlab", "numpy", "mlflow", "opencv-python-headless"):
        assert found[name]


def test_tags_without_git_or_with_part_of_it():
    config = compose_tiny()
    assert not [name for name in tags(config, [], [], None) if "git" in name]
    part = tags(config, [], [], GitState("c0ffee", None, None, ""))
    assert part["git.dirty"] == "unknown"
    assert "git.branch" not in part


def test_mlflow_takes_the_tags_as_they_are():
    from mlflow.utils import mlflow_tags, validation

    assert provenance.MAX_TAG_LENGTH == validation.MAX_TAG_VAL_LENGTH
    long = [f"dataset.root={'x' * 10_000}", f"tracking.uri=https://me:{'x' * 7990}@host"]
    found = tags(compose_tiny(), long, long[::-1], GitState("c0ffee", "main", False, ""))
    for name, value in found.items():
        assert validation._validate_tag(name, value).value == value
    own = {value for name, value in vars(mlflow_tags).items() if name.startswith("MLFLOW_")}
    assert {name for name in found if name.startswith("mlflow.")} <= own


def test_the_command_is_known_only_to_a_command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py", "seed=1"])
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert main.__spec__ is None  # as in a script
    assert command_line() == []
    assert tags(compose_tiny(), [], [], None)["mlflow.source.name"] == "/somewhere/train.py"
    main.__spec__ = ModuleSpec("pytest.__main__", None)
    assert command_line() == []
    main.__spec__ = ModuleSpec("fcnlab.train", None)
    assert command_line() == ["python", "-m", "fcnlab.train", "seed=1"]
    assert tags(compose_tiny(), [], [], None)["mlflow.source.name"] == "fcnlab.train"


def test_none_of_this_needs_a_store_or_a_network():
    rooms = ("recording.provenance", "recording.note", "recording.system_metrics", "drawing.figures")
    names = ", ".join(f"fcnlab.{room}" for room in rooms)
    code = f"import sys, {names}; print(sorted({{'mlflow', 'mindspore', 'matplotlib'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "[]"
