"""Draw the training loss and mean IoU of a store, a line for each run: ``python plot.py [mlflow.db] [out.png]``."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
from mlflow import MlflowClient

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SMOOTHING = 20  # steps of the running mean over the loss


def main(store: str = "mlflow.db", out: str = "curves.png") -> None:
    client = MlflowClient(f"sqlite:///{Path(store).resolve()}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, "attributes.status = 'FINISHED'", order_by=["start_time"])
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for run in runs:
        name = run.data.params["arch.name"]
        loss = client.get_metric_history(run.info.run_id, "train/loss")
        mean = np.convolve([metric.value for metric in loss], np.ones(SMOOTHING) / SMOOTHING, mode="valid")
        left.plot(np.arange(SMOOTHING, len(loss) + 1), mean, label=name)
        iou = client.get_metric_history(run.info.run_id, "val/mean_iou")
        right.plot([metric.step for metric in iou], [metric.value for metric in iou], marker="o", label=name)
    left.set(xlabel="step", ylabel=f"train/loss, mean of {SMOOTHING} steps")
    right.set(xlabel="step", ylabel="val/mean_iou")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    right.legend()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
