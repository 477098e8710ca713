"""Writes the journals of trainings that never ran."""

from fcnlab.recording.journal import Journal

SWEEP = "ab" * 16


def write(folder, name="a run", *, tags=None, params=None, end="finished", identity=None):
    """Write a journal with three evaluations, of which the second is the best, and a slow first step."""
    written = Journal(folder)
    params = {"arch.name": "fcn8s", "seed": "1", "trainer.monitor": "val/mean_iou", **(params or {})}
    tags = {"fcnlab.parameters": "1234", **(tags or {})}
    identity = identity or f"id of {folder.name}"
    written.append("run", journal=identity, experiment="study", name=name, tags=tags, params=params)
    dataset = {"name": "cells", "digest": "0123", "source": "made", "context": "validation", "profile": "{}"}
    trained = {**dataset, "context": "training", "digest": "4567", "profile": '{"images": 12}'}
    written.append("inputs", datasets=[dataset, trained])
    for step, (iou, rate) in enumerate([(0.4, 1.0), (0.6, 10.0), (0.5, 20.0)], start=1):
        written.append("metrics", step=step, values={"train/images_per_second": rate, "train/loss": 1 / step})
        written.append("metrics", step=step, values={"val/mean_iou": iou, "val/iou/cell": iou / 2})
    if end:
        written.append("end", status=end)
    written.close()
    return folder
