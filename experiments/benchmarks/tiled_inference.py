"""Measure memory and time of labelling a large image in tiles, and how far tiled logits are from those of the whole.

    python experiments/benchmarks/tiled_inference.py                      # 4096 x 4096, FCN-8s, width 1
    python experiments/benchmarks/tiled_inference.py --sides 1024 2048 --width 0.25

Each image is labelled in a process of its own, whose peak memory the operating system reports.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from own_process import result_of

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

NORMALISATION = {"mean": [0.5] * 3, "std": [0.25] * 3}


def network(arguments: argparse.Namespace) -> Any:
    """Build an untrained network with random score layers, so that its logits depend on the image."""
    from fcnlab.core import device  # before MindSpore, whose warnings it silences

    # isort: split
    from mindspore import Tensor

    from fcnlab.inference import TrainedNetwork
    from fcnlab.models import build_model

    device.configure("cpu")
    arch = {"name": arguments.arch, "num_classes": arguments.classes, "width": arguments.width}
    built = build_model(**arch)
    random = np.random.default_rng(0)
    for parameter in built.trainable_params():
        if parameter.name.startswith("score") and parameter.name.endswith("weight"):
            weight = random.standard_normal(parameter.shape, dtype=np.float32) / parameter.shape[1] ** 0.5
            parameter.set_data(Tensor(weight))
    return TrainedNetwork(built, {"arch": arch, "normalisation": NORMALISATION}, "benchmark")


def label(arguments: argparse.Namespace) -> dict[str, float]:
    """Label one image of noise."""
    trained = network(arguments)
    image = np.random.default_rng(1).integers(0, 256, (arguments.side, arguments.side, 3), dtype=np.uint8)
    begun = time.perf_counter()
    trained.predict(image, tile=arguments.tile)
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def difference(arguments: argparse.Namespace) -> dict[str, float]:
    """Compare the logits of one image in tiles with those of the whole."""
    trained = network(arguments)
    image = np.random.default_rng(1).integers(0, 256, (arguments.side, arguments.side, 3), dtype=np.uint8)
    whole, tiled = (trained.logits(image, tile=tile) for tile in (arguments.side + 32, arguments.tile))
    return {"difference": float(np.abs(whole - tiled).max()), "largest": float(np.abs(whole).max())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[4096], help="sides of the images in pixels")
    parser.add_argument("--tile", type=int, default=1408, help="largest side computed at once, in pixels")
    parser.add_argument("--arch", default="fcn8s", help="the network")
    parser.add_argument("--width", type=float, default=1.0, help="factor on the channels")
    parser.add_argument("--classes", type=int, default=2, help="number of classes")
    parser.add_argument("--check-side", type=int, default=1024, help="side of the compared image; 0 compares none")
    parser.add_argument("--check-tile", type=int, default=768, help="largest tile of that image")
    parser.add_argument("--job", choices=("label", "difference"), help="do only this, in this process, and print JSON")
    parser.add_argument("--side", type=int, help="side of the image of --job")
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps({"label": label, "difference": difference}[arguments.job](arguments)))
        return

    def run(job: str, side: int, tile: int) -> dict[str, float]:
        forwarded = [f"--{key}={getattr(arguments, key)}" for key in ("arch", "width", "classes")]
        return result_of(__file__, f"--job={job}", f"--side={side}", f"--tile={tile}", *forwarded)

    print(f"{arguments.arch}, width {arguments.width:g}, {arguments.classes} classes, tiles up to {arguments.tile}")
    print(f"{'image':>13}{'seconds':>10}{'peak GiB':>10}")
    for side in arguments.sides:
        result = run("label", side, arguments.tile)
        print(f"{f'{side} x {side}':>13}{result['seconds']:10.1f}{result['gib']:10.2f}", flush=True)
    if arguments.check_side:
        result = run("difference", arguments.check_side, arguments.check_tile)
        print(
            f"{arguments.check_side} x {arguments.check_side} in tiles up to {arguments.check_tile} and whole: logits "
            f"of up to {result['largest']:.2f} differ by at most {result['difference']:.1e}"
        )


if __name__ == "__main__":
    main()
