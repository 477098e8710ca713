"""A journal with an entry of every kind but a model, and a check of what a store holds of it."""

import cv2
import numpy as np

from fcnlab.recording.journal import Journal

STEPS = 30


def write_run(folder, *, end="finished"):
    """Write a journal with an entry of every kind but a model; return its folder."""
    written = Journal(folder)
    written.append(
        "run",
        journal=f"id-of-{folder.name}",
        experiment="study",
        name="a run",
        tags={"host": "here"},
        params={"seed": 3},
    )
    dataset = {"name": "cells", "digest": "0123", "source": "made", "context": "training", "profile": "{}"}
    written.append("inputs", datasets=[dataset])
    for step in range(1, STEPS + 1):
        written.append("metrics", step=step, values={"train/loss": 1 / step, "train/learning_rate": 0.1})
        if step % 10 == 0:
            path = folder / f"{step}.png"
            cv2.imwrite(str(path), np.full((8, 8, 3), step, np.uint8))
            written.append("image", path=path.name, key="overlay/a", step=step)
    (folder / "config.yaml").write_text("seed: 3\n")
    written.append("artifact", path="config.yaml", to=None)
    written.append("tags", values={"mlflow.note.content": "from_run={run_id}"})
    if end:
        written.append("end", status=end)
    written.close()
    return folder


def losses(client, run_id):
    return [(point.step, point.value) for point in client.get_metric_history(run_id, "train/loss")]


def check_whole(client, run_id, status="FINISHED"):
    run = client.get_run(run_id)
    assert run.info.status == status
    assert losses(client, run_id) == [(step, 1 / step) for step in range(1, STEPS + 1)]
    assert run.data.params == {"seed": "3"}
    assert run.data.tags["mlflow.note.content"] == f"from_run={run_id}"
    assert [item.dataset.digest for item in run.inputs.dataset_inputs] == ["0123"]
    assert sorted(item.path for item in client.list_artifacts(run_id)) == ["config.yaml", "images"]
    assert len(client.list_artifacts(run_id, "images")) == 2 * STEPS // 10  # a picture and a thumbnail each
