"""Where a run comes from: its command, code and machine, without passwords."""

from __future__ import annotations

import getpass
import logging
import os
import platform
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fcnlab.config import Config
from fcnlab.core.credentials import redact
from fcnlab.core.processor import describe_cpu
from fcnlab.recording.tags import OVERRIDES_TAG

log = logging.getLogger(__name__)

MAX_TAG_LENGTH = 8000
"""The number of characters in a tag's value that MLflow's database takes."""

MAX_DIFF_BYTES = 5 * 2**20
"""The largest diff that is kept. A larger one holds data rather than code, and every run would carry it."""

DIFF_FILE = "git.diff"
"""The name of the run's artifact that holds the diff."""

_PACKAGES = ("fcnlab", "mindspore", "numpy", "mlflow", "hydra-core", "opencv-python-headless")

_UNTRACKED = ("*.py",)  # the configuration is recorded anyway, and other files may be private
_OUTPUT_FOLDERS = (".hydra", "outputs", "multirun", "mlruns", "mlartifacts", "site-packages")
"""Folders whose Python files are not the user's code: they belong to earlier runs or to installed packages."""

_OTHER_REPOSITORY = {
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
}
"""Variables that git sets for its hooks; with them, git would look at the hook's repository instead."""


@dataclass(frozen=True)
class GitState:
    """The state of a working tree.

    Attributes:
        commit: The full hash of HEAD.
        branch: The branch; None if HEAD is detached.
        dirty: Whether the tree differs from the commit or holds untracked code; None if git could not tell in time.
        diff: The difference from the commit to the tree, for ``git apply``, without passwords.
    """

    commit: str
    branch: str | None
    dirty: bool | None
    diff: str


def repository_folder() -> Path:
    """Return the folder whose commit describes the code: this package's checkout, or else the working directory."""
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / ".git").exists() else Path.cwd()


def git_state(folder: Path, seconds: float = 10.0) -> GitState | None:
    """Return the state of the repository that holds a folder. Nothing in the repository changes, not even its index.

    No program runs that the repository's settings name: no hook, file system monitor, filter, pager or text conversion.

    Untracked Python files count as new code, except those that earlier runs wrote. The diff only names binary files
    and files above `MAX_DIFF_BYTES`. The whole diff is cut to that size as well, which its last line then says.

    Args:
        folder: A folder anywhere in the repository.
        seconds: How long git may take in all. If that is not enough for the diff, the commit is returned without it.

    Returns:
        The state; None if there is no git, no repository or no commit, or if git refuses to look, which is logged.
    """
    if shutil.which("git") is None:
        return None
    git = _Git(folder, seconds)
    try:
        top, commit, reference = git.line(
            "rev-parse", "--show-toplevel", "HEAD", "--symbolic-full-name", "HEAD"
        ).rsplit("\n", 2)
    except _GitError as error:
        if "not a git repository" not in str(error) and "unknown revision" not in str(error):
            log.warning("the git commit is not recorded: %s", error)
        return None
    branch = reference.removeprefix("refs/heads/") if reference != "HEAD" else None
    git.folder = Path(top)
    try:
        git.switch_off_filters()
        diff = _diff(git)
    except (_GitError, OSError) as error:
        log.warning("uncommitted changes are not recorded: %s", error)
        return GitState(commit, branch, None, "")
    return GitState(commit, branch, bool(diff), redact(_cut_diff(diff)))


def command_line() -> list[str]:
    """Return the command line if this process runs one of the package's commands; empty in a notebook or script."""
    module = _main_module()
    return ["python", "-m", module, *sys.argv[1:]] if module else []


def tags(config: Config, command: Sequence[str], overrides: Sequence[str], git: GitState | None) -> dict[str, str]:
    """Return the tags that tell a reader about the command, the code and the machine.

    Args:
        config: The whole configuration.
        command: The command line, as `command_line` returns it.
        overrides: The overrides that Hydra was given, such as ``arch=fcn16s``; in a sweep, those of this run.
        git: The state of the code, as `git_state` returns it.

    Returns:
        Values by name, without passwords and as short as MLflow demands. The names that begin with ``mlflow.`` are
        MLflow's own, and its pages show them.
    """
    from fcnlab import kernels  # not at the top: it imports MindSpore

    user = _user()
    found = {
        "command": shlex.join(command),
        OVERRIDES_TAG: shlex.join(overrides),
        "host": socket.gethostname(),
        "user": user,
        "cpu": describe_cpu(),
        "kernels": kernels.describe(bfloat16=config.trainer.amp == "bf16"),
        "platform": platform.platform(),
        "seed": str(config.seed),
        "python": platform.python_version(),
        **_versions(),
        "mlflow.user": user,
        "mlflow.source.name": _main_module() or next(iter(sys.argv), "") or "<console>",
        "mlflow.source.type": "LOCAL",
    }
    if git is not None:
        found["git.commit"] = found["mlflow.source.git.commit"] = git.commit
        found["git.dirty"] = "unknown" if git.dirty is None else str(git.dirty).lower()
        if git.branch is not None:
            found["git.branch"] = found["mlflow.source.git.branch"] = git.branch
    # Values are redacted before they are cut: the password in half a URL would not be recognised.
    return {name: _cut(redact(value)) for name, value in found.items()}


class _GitError(Exception):
    """Git is missing, refuses, or takes too long. The message is one line."""


class _Git:
    """Runs git in a folder, with one time limit for all calls together."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        self.deadline = time.monotonic() + seconds
        self._no_filters: dict[str, str] = {}
        kept = {name: value for name, value in os.environ.items() if name not in _OTHER_REPOSITORY}
        # Git must answer in English, must not ask for a password, rewrite the index or fetch anything.
        own = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1"}
        self.environment = {**kept, **own}

    def __call__(self, *arguments: str, input: bytes = b"", environment: Mapping[str, str] | None = None) -> bytes:
        """Run git and return what it prints."""
        # A big file counts as binary, so that a changed data set does not fill the memory. No hook and no pager runs.
        settings = {
            "core.bigFileThreshold": str(MAX_DIFF_BYTES),
            "core.hooksPath": os.devnull,
            "core.fsmonitor": "false",
            **self._no_filters,
        }
        given = [word for item in settings.items() for word in ("-c", "=".join(item))]
        # What git prints goes into files: it may have started a process that outlives it and holds a pipe open.
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    ["git", "--no-pager", *given, *arguments],
                    cwd=self.folder,
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=errors,
                    env={**self.environment, **(environment or {})},
                    start_new_session=True,
                )
            except OSError as error:
                raise _GitError(f"git does not start ({error.strerror})") from None
            try:
                process.communicate(input, timeout=max(self.deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                _kill_with_children(process)
                raise _GitError("git takes too long here") from None
            except BaseException:
                _kill_with_children(process)
                raise
            output.seek(0)
            errors.seek(0)
            if process.returncode != 0:
                warnings, _, reason = errors.read().decode(errors="replace").rpartition("fatal: ")
                raise _GitError(" ".join((reason or warnings).split())[:500])
            return output.read()

    def switch_off_filters(self) -> None:
        """Let git run none of the programs that the repository's settings name as filters of its files."""
        try:
            names = self(
                "config", "--null", "--name-only", "--get-regexp", r"^filter\..*\.(clean|smudge|process|required)$"
            )
        except _GitError:  # there are none
            return
        for name in filter(None, os.fsdecode(names).split("\0")):
            self._no_filters[name] = "false" if name.endswith(".required") else ""

    def line(self, *arguments: str) -> str:
        """Run git and return what it prints as text, without the last line end."""
        return os.fsdecode(self(*arguments)).removesuffix("\n")


def _kill_with_children(process: subprocess.Popen) -> None:
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    process.wait()


def _diff(git: _Git) -> bytes:
    """Return the difference from HEAD to the working tree, with untracked code."""
    excluded = [f":(exclude,glob)**/{name}/**" for name in _OUTPUT_FOLDERS]
    untracked = git("ls-files", "--others", "--exclude-standard", "-z", "--", *_UNTRACKED, *excluded)
    index = git.folder / git.line("rev-parse", "--git-path", "index")
    objects = git.folder / git.line("rev-parse", "--git-path", "objects")
    with tempfile.TemporaryDirectory() as temporary:
        # Git shows an untracked file once it is marked as to be added. The mark goes into a copy of the index, and the
        # object that git writes for it goes beside that copy.
        environment = {
            "GIT_INDEX_FILE": str(Path(temporary, "index")),
            "GIT_OBJECT_DIRECTORY": temporary,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(objects),
        }
        if index.exists():
            shutil.copy2(index, environment["GIT_INDEX_FILE"])  # its time tells git which files to read
        if untracked:
            listed = ["--pathspec-from-file=-", "--pathspec-file-nul"]
            git("--literal-pathspecs", "add", "--intent-to-add", *listed, input=untracked, environment=environment)
        options = ["--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/"]
        options.append("--ignore-submodules=dirty")  # git would look into them with settings and programs of their own
        return git("diff", *options, "--full-index", "HEAD", environment=environment)


def _cut_diff(diff: bytes) -> str:
    """Return the diff as text, cut at a line end: the password in half a URL would not be recognised."""
    if len(diff) <= MAX_DIFF_BYTES:
        return diff.decode(errors="replace")
    kept = diff[: diff.rfind(b"\n", 0, MAX_DIFF_BYTES) + 1]
    return f"{kept.decode(errors='replace')}... cut off here: the whole diff has {len(diff):,} bytes\n"


def _cut(value: str) -> str:
    return value if len(value) <= MAX_TAG_LENGTH else value[: MAX_TAG_LENGTH - 1] + "…"


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):  # OpenCV is distributed under several names
            versions[package] = version(package)
    return versions


def _user() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # in a container, the user may have a number but no name
        return "unknown"


def _main_module() -> str | None:
    """Return the module of this package that ``python -m`` runs; None if it runs none."""
    specification = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = getattr(specification, "name", "")
    if name in ("fcnlab.sweeps.process", "fcnlab.experiment.worker"):  # started by the user's command
        return "fcnlab.train"
    return name if name.startswith("fcnlab.") else None
