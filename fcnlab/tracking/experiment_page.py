"""What MLflow's page of an experiment says about itself: how to read it."""

from __future__ import annotations

import re

from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from fcnlab.recording.tags import OVERRIDES_TAG

KIND_TAG = "mlflow.experimentKind"
"""The tag by which MLflow's pages know whether to show trainings or language models."""

_TEXT = """\
**How to read this page.** Each run is a training by fcnlab; a run that can be unfolded is a sweep of several.

- *Columns* above the table adds what a run was started with, the tag `{overrides}`, and metrics such as `val/mean_iou`,
  by which the table can then be sorted.
- Mark some runs and choose *Compare* for their curves side by side. To know which is better, and how sure that is:
  `python -m fcnlab.compare {experiment}`
- On the page of a run, *Overview* has the result and the line that reproduces it, *Model metrics* the curves and the
  pictures of `overlay` and `overview`, whose slider goes through the evaluations, and *Artifacts* the checkpoints and
  `figures`: `contact_sheet.png` shows the whole training.
- If you see traces and prompts in place of runs, choose *Model training* at the top left.
"""


def experiment_tags(name: str) -> dict[str, str]:
    """Return the tags that a new experiment of this name is given; whoever changes them later is left alone."""
    plain = re.fullmatch(r"[\w./-]+", name, re.ASCII) is not None
    experiment = f"tracking.experiment={name if plain else '...'}"
    text = _TEXT.format(overrides=OVERRIDES_TAG, experiment=experiment)
    return {MLFLOW_RUN_NOTE: text, KIND_TAG: "custom_model_development"}
