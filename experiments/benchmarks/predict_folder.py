"""Compare `fcnlab.predict` on a folder with the bare forward pass on arrays that are in memory already.

    python experiments/benchmarks/predict_folder.py
    python experiments/benchmarks/predict_folder.py --width 1 --size 256

Both run by turns in one process, after everything is compiled. The folder holds generated slices as 8-bit PNG
files; a mask and an overlay of each are written.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=float, default=0.25, help="factor on the channels")
    parser.add_argument("--size", type=int, default=512, help="side of an image in pixels, a multiple of 32")
    parser.add_argument("--images", type=int, default=24, help="images in the folder")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of each")
    arguments = parser.parse_args()

    from fcnlab.core import device  # before MindSpore, whose warnings it silences

    # isort: split
    from mindspore import Tensor

    from fcnlab.data import normalise
    from fcnlab.data.cells import generate
    from fcnlab.data.unlabelled import find
    from fcnlab.inference import TrainedNetwork
    from fcnlab.inference.prediction import OutputFolder, PredictionOptions, PredictionOutcome, label_all, list_images
    from fcnlab.models import build_model

    device.configure("cpu")
    arch = {"name": "fcn8s", "num_classes": 2, "width": arguments.width}
    normalisation = {"mean": [0.55] * 3, "std": [0.2] * 3}
    bare = build_model(**arch)
    trained = TrainedNetwork(bare, {"arch": arch, "normalisation": normalisation}, "benchmark")
    seconds: dict[str, list[float]] = {"bare forward": [], "predict": []}
    with tempfile.TemporaryDirectory() as folder:
        arrays = []
        for index in range(arguments.images):
            image, _ = generate(arguments.size, np.random.default_rng(index))
            cv2.imwrite(f"{folder}/{index}.png", image[..., 0])
            arrays.append(normalise(image, **normalisation)[np.newaxis])

        def forward() -> None:
            for array in arrays:
                bare(Tensor(array)).asnumpy()

        def predict(number: int) -> None:
            options = PredictionOptions()
            output = OutputFolder(Path(folder) / f"out{number}", options)
            outcome = PredictionOutcome()
            pictures = list_images(find(f"{folder}/*.png"), outcome, trained)
            for _ in label_all(trained, pictures, output, options, outcome):
                pass
            assert len(outcome.written) == arguments.images

        forward()
        predict(0)
        for number in range(1, arguments.rounds + 1):
            for name, run in (("bare forward", forward), ("predict", lambda number=number: predict(number))):
                begun = time.perf_counter()
                run()
                seconds[name].append((time.perf_counter() - begun) / arguments.images)
    size = f"{arguments.size} x {arguments.size}"
    print(f"FCN-8s, width {arguments.width:g}, {arguments.images} images of {size}, {arguments.rounds} rounds")
    print(f"{'seconds an image':<18}{'min':>8}{'median':>8}{'max':>8}")
    for name, values in seconds.items():
        print(f"{name:<18}{min(values):8.4f}{statistics.median(values):8.4f}{max(values):8.4f}")
    ratios = [summary(seconds["predict"]) / summary(seconds["bare forward"]) for summary in (statistics.median, min)]
    print(f"predict / bare forward: {ratios[0]:.3f} (medians), {ratios[1]:.3f} (minima)")


if __name__ == "__main__":
    main()
