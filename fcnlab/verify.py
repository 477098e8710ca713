"""``python -m fcnlab.verify``: train the first steps of a recorded run again, and say what agrees with its record."""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path

from fcnlab import command
from fcnlab import config as configuration
from fcnlab.config import TrackingConfig
from fcnlab.config.command_names import BUNDLE_KEYS, VERIFY_KEYS
from fcnlab.core.errors import ConfigError, did_you_mean
from fcnlab.core.progress import in_words
from fcnlab.experiment.verification import FIRST, METRICS_SHARE, NEARLY, Finding

log = logging.getLogger(__name__)

STEPS = 50
"""The number of steps that are trained again unless ``steps`` says otherwise."""

TOLERANCE = 0.03
"""How far losses may differ on another kind of machine, relatively and on average."""

_BUNDLE = "bundle"
_ALL = "all"

HELP = f"""{__doc__}

  python -m fcnlab.verify run=<run id or output folder>
  python -m fcnlab.verify bundle run=<run id or output folder> output=run.zip
  python -m fcnlab.verify run.zip dataset.root=<folder of the images>

Keys: set one with key=value
  run           the run: its id, its output folder, or a bundle
  steps         the number of steps to train again, or {_ALL}; by default {STEPS}
  tolerance     how far losses may differ, relatively and on average, where the machine, the versions or the operators
                are not the run's; by default {TOLERANCE}. The first {FIRST} losses may then differ by {NEARLY:g},
                and metrics by {METRICS_SHARE} times the tolerance. Where all are the same, so must be all bits.
  output        the bundle to write: the configuration, the expected losses and metrics, the digests of the images, the
                versions, the commit, and what was not committed
  tracking.uri  the store that holds the run; by default MLFLOW_TRACKING_URI or mlflow.db here
  Keys of this machine may be set too, such as dataset.root and init_from.

The exit code is 0 if nothing differs from the record, and 1 if something does or nothing could be checked."""


@command.visible_log()
def verify(
    run: str,
    overrides: Sequence[str] = (),
    *,
    steps: int | None = STEPS,
    tolerance: float = TOLERANCE,
    uri: str | None = None,
) -> list[Finding]:
    """Train the first steps of a run again, and return what agrees with its record.

    Args:
        run: A run id, an output folder, or a bundle.
        overrides: Overrides of keys of this machine, such as ``dataset.root=...``.
        steps: The number of steps; None for all.
        tolerance: How far losses may differ on another kind of machine, relatively and on average; metrics may differ
            by a multiple of it, and the first losses by less: see `fcnlab.experiment.verification.compare`.
        uri: The tracking store of the run; by default the configured one.

    Returns:
        A finding for each part of the record.

    Raises:
        FcnlabError: If there is no such run, or its configuration cannot be used here.
    """
    from fcnlab.experiment import primary_config, run_record, verification

    record = run_record.read(run, uri)
    with tempfile.TemporaryDirectory(prefix="fcnlab-verify-") as folder:
        (Path(folder) / configuration.RECORD_FILE).write_text(record.config, encoding="utf-8")
        words = [configuration.override("from_run", folder), "tracking=none"]
        recorded = primary_config.compose(words)
        config = primary_config.compose([*words, *overrides])
    config, recorded = (replace(each, tracking=TrackingConfig(name="none")) for each in (config, recorded))
    verification.require_same_training(recorded, config)
    began, shown = time.monotonic(), time.monotonic()

    def advance(step: int) -> None:
        nonlocal shown
        if time.monotonic() - shown >= 10:
            shown = time.monotonic()
            log.info("step %d after %s", step, in_words(shown - began))

    replayed, made = verification.replay(config, record, steps, advance)
    findings = verification.compare(record, replayed, made, tolerance)
    log.info("%d steps in %s", made, in_words(time.monotonic() - began))
    return findings


def bundle(run: str, output: str, uri: str | None = None) -> Path:
    """Write what a stranger needs to verify a run into one file, and return its path.

    Args:
        run: A run id or an output folder.
        output: The file, which ends in ``.zip``.
        uri: The tracking store of the run; by default the configured one.

    Raises:
        FcnlabError: If there is no such run, it recorded no loss, or the file cannot be written.
    """
    from fcnlab.experiment import run_record

    path = Path(output).expanduser()
    if path.suffix != ".zip":
        raise ConfigError(f"output={output}: must end in .zip, by which verify knows a bundle")
    record = run_record.read(run, uri)
    if not record.losses:
        raise ConfigError(f"run={run}: recorded no loss, so that there is nothing to verify")
    found = sorted({f"{item.metadata['Name']}=={item.version}" for item in distributions()}, key=str.lower)
    run_record.write_bundle(record, path, "\n".join(found) + "\n")
    return path


def main(words: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        words: The words behind the name of the command; None for those of the command line.

    Raises:
        SystemExit: With code 1 if something differs from the record, or nothing could be checked.
    """
    words = list(sys.argv[1:] if words is None else words)
    if not words or {"--help", "-h"} & {*words}:
        print(HELP)
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    makes_bundle = words[0] == _BUNDLE
    keys, overrides = _read(words[1:] if makes_bundle else words)
    if makes_bundle:
        wrong = [*overrides, *(key for key in keys if key not in BUNDLE_KEYS)]
        if wrong:
            raise ConfigError(f"{wrong[0]}: verify bundle takes run, output and tracking.uri alone")
        if "output" not in keys:
            raise ConfigError("output: give the bundle to write, as in output=run.zip")
        print(f"written: {bundle(keys['run'], keys['output'], keys.get('tracking.uri'))}")
        return
    if "output" in keys:
        raise ConfigError(f"output={keys['output']}: is for a bundle: fcnlab.verify bundle run=... output=run.zip")
    findings = verify(
        keys["run"],
        overrides,
        steps=_steps(keys.get("steps", str(STEPS))),
        tolerance=_tolerance(keys.get("tolerance", str(TOLERANCE))),
        uri=keys.get("tracking.uri"),
    )
    for finding in findings:
        print(f"{finding.what + ':':<20} {finding.status:<12} {finding.text}")
    if problem := verdict(findings):
        command.leave(command.EXIT_ERROR, problem)
    print("The run is verified: nothing that could be checked differs from its record.")


def verdict(findings: Sequence[Finding]) -> str | None:
    """Return why a run is not verified, in a sentence; None if it is."""
    differing = [finding.what for finding in findings if finding.status == "differs"]
    if differing:
        return f"the run is not verified: {', '.join(differing)} differ from its record"
    if not any(finding.what == "losses" and finding.status == "agrees" for finding in findings):
        return "the run is not verified: its losses could not be checked"
    return None


def _read(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the command's own keys, and the overrides of the run's configuration."""
    keys: dict[str, str] = {}
    overrides: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            if not word.endswith(".zip"):
                raise ConfigError(f"{word}: is neither a bundle (.zip) nor key=value; see fcnlab.verify --help")
            name, value = "run", word
        if name in VERIFY_KEYS:
            keys[name] = value
        elif "." in name or name == "init_from":
            overrides.append(word)
        else:
            meant = did_you_mean(name, VERIFY_KEYS)
            raise ConfigError(f"{name}: no such key; {meant}there are {', '.join(VERIFY_KEYS)}")
    if not keys.get("run"):
        raise ConfigError("run: give the run, as in run=<run id or output folder>, or a bundle")
    return keys, overrides


def _steps(text: str) -> int | None:
    if text == _ALL:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"steps={text}: must be a whole number, at least 1, or {_ALL}")
    return int(text)


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise ConfigError(f"tolerance={text}: must be a number between 0 and 1")
    return value


if __name__ == "__main__":
    command.run(main)
