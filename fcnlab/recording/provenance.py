"""Where a run comes from: the command, the code, the machine. What is said of them holds no password."""

from __future__ import annotations

import getpass
import logging
import os
import platform
import shlex
import shutil
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
"""Characters that MLflow takes as the value of a tag, which is a column of that width in its database."""

MAX_DIFF_BYTES = 5 * 2**20
"""A diff is for people and ``git apply``; larger ones are data, and would weigh on every run."""

DIFF_FILE = "git.diff"
"""The name under which a run keeps the diff, as its note says."""

_PACKAGES = ("fcnlab", "mindspore", "numpy", "mlflow", "hydra-core", "opencv-python-headless")

_UNTRACKED = ("*.py",)  # configuration is recorded whole, and other files may hold what is nobody's business
_OUTPUT_FOLDERS = (".hydra", "outputs", "multirun", "mlruns", "mlartifacts", "site-packages")
"""Folders that may hold such files without being code: what earlier runs wrote, and installed packages."""

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
"""Variables that git itself sets while it runs a hook, and that would lead to the hook's repository."""


@dataclass(frozen=True)
class GitState:
    """What a working tree held.

    Attributes:
        commit: The full hash of HEAD.
        branch: None when HEAD is detached.
        dirty: Whether it differed from the commit, or had code that git does not track; None when git could not
            tell, or not in time.
        diff: From the commit to the working tree, for ``git apply``, without passwords.
    """

    commit: str
    branch: str | None
    dirty: bool | None
    diff: str


def repository_folder() -> Path:
    """The folder whose commit describes the code: this package's checkout if it is one, else the working directory."""
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / ".git").exists() else Path.cwd()


def git_state(folder: Path, seconds: float = 10.0) -> GitState | None:
    """The state of the repository that holds a folder. Nothing in it changes, the index included.

    Untracked Python files count as new; what earlier runs wrote does not. Files above `MAX_DIFF_BYTES`
    and binary ones are only named in the diff, and the diff is cut to that size in all, which its last line then says.

    Args:
        folder: Anywhere below the repository's top.
        seconds: How long git may take in all. After that it is known what the commit is, but not what differs.

    Returns:
        None without git, a repository, or a commit, and where git refuses to look; only the last is logged.
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
        diff = _diff(git)
    except (_GitError, OSError) as error:
        log.warning("uncommitted changes are not recorded: %s", error)
        return GitState(commit, branch, None, "")
    return GitState(commit, branch, bool(diff), redact(_cut_diff(diff)))


def command_words() -> list[str]:
    """The command line, if this process runs one of the package's commands; empty in a notebook or script."""
    module = _main_module()
    return ["python", "-m", module, *sys.argv[1:]] if module else []


def tags(config: Config, words: Sequence[str], overrides: Sequence[str], git: GitState | None) -> dict[str, str]:
    """What a reader needs to know of the command, the code and the machine, a year later.

    Args:
        config: The whole configuration.
        words: The command line, as from `command_words`.
        overrides: What Hydra was told to change, such as ``arch=fcn16s``; of a sweep, this run's part.
        git: As from `git_state`.

    Returns:
        Names to values, without passwords and as short as MLflow demands. Those that begin with ``mlflow.`` are
        MLflow's own, which its pages show.
    """
    from fcnlab import kernels  # not at the top: it brings MindSpore

    user = _user()
    found = {
        "command": shlex.join(words),
        OVERRIDES_TAG: shlex.join(overrides),
        "host": socket.gethostname(),
        "user": user,
        "cpu": describe_cpu(),
        "kernels": kernels.describe(),
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
    # Cut only what is redacted: half a URL does not show that it holds a password.
    return {name: _cut(redact(value)) for name, value in found.items()}


class _GitError(Exception):
    """Git is missing, refuses, or takes too long; the text is one line."""


class _Git:
    """Runs git in a folder, with a limit on the time of all calls together."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        self.deadline = time.monotonic() + seconds
        kept = {name: value for name, value in os.environ.items() if name not in _OTHER_REPOSITORY}
        # Its messages are looked at, it must not ask, and it must not write the index to make itself faster.
        self.environment = {**kept, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}

    def __call__(self, *words: str, input: bytes = b"", environment: Mapping[str, str] | None = None) -> bytes:
        """What git prints."""
        # A big file counts as binary, so that a changed data set does not fill the memory; and no hook runs.
        settings = ["-c", f"core.bigFileThreshold={MAX_DIFF_BYTES}", "-c", f"core.hooksPath={os.devnull}"]
        try:
            done = subprocess.run(
                ["git", *settings, *words],
                cwd=self.folder,
                input=input,
                capture_output=True,
                timeout=max(self.deadline - time.monotonic(), 0),
                env={**self.environment, **(environment or {})},
            )
        except subprocess.TimeoutExpired:
            raise _GitError("git takes too long here") from None
        except OSError as error:
            raise _GitError(f"git does not start ({error.strerror})") from None
        if done.returncode != 0:
            warnings, _, reason = done.stderr.decode(errors="replace").rpartition("fatal: ")
            raise _GitError(" ".join((reason or warnings).split())[:500])
        return done.stdout

    def line(self, *words: str) -> str:
        """What git prints, as text without the last end of line."""
        return os.fsdecode(self(*words)).removesuffix("\n")


def _diff(git: _Git) -> bytes:
    """From HEAD to the working tree, untracked code included."""
    excluded = [f":(exclude,glob)**/{name}/**" for name in _OUTPUT_FOLDERS]
    untracked = git("ls-files", "--others", "--exclude-standard", "-z", "--", *_UNTRACKED, *excluded)
    index = git.folder / git.line("rev-parse", "--git-path", "index")
    objects = git.folder / git.line("rev-parse", "--git-path", "objects")
    with tempfile.TemporaryDirectory() as temporary:
        # Git shows an untracked file once it is meant to be added. So a copy of the index is told so, and the object
        # that this writes goes where the copy is.
        environment = {
            "GIT_INDEX_FILE": str(Path(temporary, "index")),
            "GIT_OBJECT_DIRECTORY": temporary,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(objects),
        }
        if index.exists():
            shutil.copy2(index, environment["GIT_INDEX_FILE"])  # its age tells git which files to look into
        if untracked:
            words = ["--literal-pathspecs", "add", "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul"]
            git(*words, input=untracked, environment=environment)
        plain = ["--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/"]
        return git("diff", *plain, "--full-index", "HEAD", environment=environment)


def _cut_diff(diff: bytes) -> str:
    """As text. It is cut after a line, for half a URL does not show that it holds a password."""
    if len(diff) <= MAX_DIFF_BYTES:
        return diff.decode(errors="replace")
    kept = diff[: diff.rfind(b"\n", 0, MAX_DIFF_BYTES) + 1]
    return f"{kept.decode(errors='replace')}... cut off here: the whole diff has {len(diff):,} bytes\n"


def _cut(value: str) -> str:
    return value if len(value) <= MAX_TAG_LENGTH else value[: MAX_TAG_LENGTH - 1] + "…"


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):  # OpenCV comes under several names
            versions[package] = version(package)
    return versions


def _user() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container's user may have a number but no name
        return "unknown"


def _main_module() -> str | None:
    """Which of the package's modules ``python -m`` runs, if any."""
    specification = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = getattr(specification, "name", "")
    if name == "fcnlab.sweeps.process":  # which the user's command started
        return "fcnlab.train"
    return name if name.startswith("fcnlab.") else None
