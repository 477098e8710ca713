"""A shell completes the words of fcnlab, at once and without importing what is large."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import user_environment

from fcnlab.completion import SCRIPTS, main
from fcnlab.config.command_names import VERIFY_KEYS


def said(capsys, *words):
    main(words)
    return capsys.readouterr().out.splitlines()


def test_the_words_of_every_command_are_completed(capsys):
    assert said(capsys, "candidates", "--", "tr") == ["track", "train"]
    assert said(capsys, "candidates", "--", "train", "arch=fcn8") == ["arch=fcn8s"]
    assert said(capsys, "candidates", "--", "track", "") == ["sync"]
    assert said(capsys, "candidates", "--", "track", "sync", "") == []  # a folder follows
    assert said(capsys, "candidates", "--", "completion", "") == sorted(SCRIPTS)
    assert said(capsys, "candidates", "--", "prepare", "che") == ["check", "check="]
    assert said(capsys, "candidates", "--", "prepare", "check", "che") == ["check="]
    keys = [f"{key}=" for key in sorted(VERIFY_KEYS)]
    assert said(capsys, "candidates", "--", "verify", "") == ["bundle", *keys]
    assert said(capsys, "candidates", "--", "verify", "bundle", "") == ["output=", "run=", "tracking.uri="]
    assert said(capsys, "candidates", "--", "verify", "run.z") == []  # a file follows
    assert said(capsys, "candidates", "--", "unknown", "a") == []


def test_an_unknown_shell_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["tcsh"])
    assert "bash" in capsys.readouterr().err


_ASKS = """
eval "$(fcnlab completion bash)"
complete -p fcnlab >&2
for words in "tra" "train optimizer=sgd optimizer.m" "train trainer.device=c" "train resume=/"; do
    line="fcnlab $words"
    COMP_LINE="$line"; COMP_POINT=${#line}; _fcnlab; printf '[%s]' "${COMPREPLY[@]}"; echo
done
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
COMP_LINE="fcnlab train arch=fcn8"; COMP_POINT=${#COMP_LINE}; _fcnlab; printf '[%s]' "${COMPREPLY[@]}"; echo
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_puts_the_candidates_in_the_place_of_what_readline_replaces(tmp_path):
    program = tmp_path / "fcnlab"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fcnlab "$@"\n')
    program.chmod(0o755)
    environment = user_environment()
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-c", _ASKS],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.stdout.splitlines() == ["[track ][train ]", "[optimizer.momentum=]", "[cpu ]", "[]", "[arch=fcn8s ]"]
    assert "-o default" in done.stderr  # where there is no candidate, the name of a file is completed


def test_nothing_large_is_imported():
    command = [sys.executable, "-X", "importtime", "-m", "fcnlab", "completion", "candidates", "--", "train", "arch="]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=1800, check=True
    )
    assert "arch=paper/fcn8s\n" in done.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "fcnlab" in imported
    assert imported.isdisjoint({"mindspore", "mlflow", "hydra", "omegaconf", "rich", "cv2", "numpy"})
