"""Draw each transform at the far end of a wide range, on a generated slice.

python experiments/augmentation/gallery.py            # writes experiments/augmentation/gallery.png
python experiments/augmentation/gallery.py --time     # milliseconds a crop of 256 x 256 pixels, one thread
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fcnlab.config import compose
from fcnlab.config.schema import AugmentConfig, CellsConfig
from fcnlab.data import Sample, TrainTransform
from fcnlab.data.cells import Cells

SHOWN = {
    "nothing": {},
    "scale=[0.6,0.6]": {"scale": [0.6, 0.6]},
    "horizontal_flip=1": {"horizontal_flip": 1.0},
    "rotate90=true": {"rotate90": True},
    "rotation=30": {"rotation": 30.0},
    "elastic=3": {"elastic": 3.0},
    "brightness=0.3": {"brightness": 0.3},
    "contrast=0.7": {"contrast": 0.7},
    "gamma=[2.2,2.2]": {"gamma": [2.2, 2.2]},
    "saturation=1": {"saturation": 1.0},
    "hue=0.4": {"hue": 0.4},
    "blur=4": {"blur": 4.0},
    "noise=0.25": {"noise": 0.25},
    "augment=em": "em",
    "augment=voc": "voc",
}
VOID = 255


def augmentation(settings: dict[str, object] | str) -> AugmentConfig:
    """Return the configuration with these keys, or that of a file of ``conf/augment/``."""
    return compose([f"augment={settings}"]).augment if isinstance(settings, str) else AugmentConfig(**settings)


def sample(size: int) -> Sample:
    """Return a slice with its label, tinted so that changes of colour are visible."""
    made = Cells(CellsConfig(num_train=1, image_size=size, seed=3), "train")[0]
    tint = np.array([1.0, 0.82, 0.66])
    return made._replace(image=np.rint(made.image * tint).astype(np.uint8))


def picture(crop: Sample) -> np.ndarray:
    """Draw the image above its label, with dark membranes, light cells and red void."""
    colours = np.full((256, 3), (200, 40, 40), np.uint8)
    colours[:2] = [(40, 40, 60), (235, 235, 225)]
    return np.vstack([crop.image, np.full((3, crop.image.shape[1], 3), 255, np.uint8), colours[crop.label]])


def draw(path: Path, side: int = 128, columns: int = 5) -> None:
    """Draw all transforms on one sheet."""
    tiles = []
    for name, settings in SHOWN.items():
        transform = TrainTransform(augmentation(settings), side, VOID)
        tile = picture(transform(sample(side), np.random.default_rng(5)))
        caption = np.full((22, side, 3), 255, np.uint8)
        cv2.putText(caption, name, (2, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 0, 0), 1, cv2.LINE_AA)
        tiles.append(cv2.copyMakeBorder(np.vstack([caption, tile]), 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=(255,) * 3))
    rows = [np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    cv2.imwrite(str(path), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))


def measure(side: int = 256, count: int = 60) -> None:
    """Print the milliseconds that each transform takes for a crop."""
    cv2.setNumThreads(1)
    given = sample(512)
    print(f"milliseconds a crop of {side} x {side}, one thread, median of {count}")
    for name, settings in SHOWN.items():
        transform = TrainTransform(augmentation(settings), side, VOID)
        seconds = []
        for seed in range(count):
            began = time.perf_counter()
            transform(given, np.random.default_rng(seed))
            seconds.append(time.perf_counter() - began)
        print(f"{name:<20}{1000 * statistics.median(seconds):8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--time", action="store_true", help="measure instead of drawing")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("gallery.png"))
    arguments = parser.parse_args()
    if arguments.time:
        measure()
    else:
        draw(arguments.output)


if __name__ == "__main__":
    main()
