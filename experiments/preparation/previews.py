"""Prepares a photo that is to be turned, a stack and a composite, and keeps the pages that `prepare` draws of them."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image

from fcnlab.config import compose
from fcnlab.prepare import prepare

HERE = Path(__file__).parent


def cells(random: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return bright ellipses on dark ground, H x W x 3 uint8, and their label."""
    label = np.zeros((height, width), np.uint8)
    for _ in range(12):
        at = (int(random.integers(0, width)), int(random.integers(0, height)))
        axes = tuple(random.integers(8, 24, 2).tolist())
        cv2.ellipse(label, at, axes, float(random.integers(0, 180)), 0, 360, 1, cv2.FILLED)
    image = np.where(label[..., None] == 1, [90, 190, 120], [40, 30, 60])
    return image.astype(np.uint8), label


def photos(root: Path, random: np.random.Generator) -> list[str]:
    """Write photos whose pixels are stored in six orientations, with the polygons that LabelMe draws on them."""
    (root / "images").mkdir(parents=True)
    for orientation in range(1, 7):
        shown, label = cells(random, 180, 240)
        stored = {1: shown, 2: shown[:, ::-1], 3: shown[::-1, ::-1], 4: shown[::-1],
                  5: shown.swapaxes(0, 1), 6: np.rot90(shown)}[orientation]  # fmt: skip
        exif = Image.Exif()
        exif[0x0112] = orientation
        name = f"orientation{orientation}"
        Image.fromarray(np.ascontiguousarray(stored)).save(root / "images" / f"{name}.jpg", quality=95, exif=exif)
        outlines = cv2.findContours(label, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        shapes = [{"label": "cell", "points": line[:, 0].tolist()} for line in outlines if len(line) > 2]
        said = {"imagePath": f"{name}.jpg", "imageHeight": 180, "imageWidth": 240, "shapes": shapes}
        (root / "images" / f"{name}.json").write_text(json.dumps(said), encoding="utf-8")
    return ["classes=[background,cell]"]


def stack(root: Path, random: np.random.Generator, *, composite: bool) -> list[str]:
    """Write a stack of six slices as ImageJ does, grey or of three channels, with its label stack."""
    pairs = [cells(random, 180, 240) for _ in range(6)]
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    images, labels = (np.stack(part) for part in zip(*pairs, strict=True))
    if composite:
        tifffile.imwrite(
            root / "images" / "composite.tif",
            images.transpose(0, 3, 1, 2),
            imagej=True,
            metadata={"axes": "ZCYX", "mode": "composite"},
        )
    else:
        tifffile.imwrite(root / "images" / "stack.tif", images[..., 1], imagej=True, metadata={"axes": "ZYX"})
    name = "composite" if composite else "stack"
    tifffile.imwrite(root / "labels" / f"{name}.tif", labels, imagej=True, metadata={"axes": "ZYX"})
    return ["classes=[background,cell]"]


def main() -> None:
    """Prepare all three."""
    with tempfile.TemporaryDirectory() as temporary:
        for name, make in (
            ("turned", photos),
            ("stack", lambda root, random: stack(root, random, composite=False)),
            ("composite", lambda root, random: stack(root, random, composite=True)),
        ):
            source, root = Path(temporary, name, "source"), Path(temporary, name, "data")
            words = make(source, np.random.default_rng(0))
            prepare(compose([f"source={source}", f"root={root}", *words], "prepare"))
            shutil.copy(root / "preview.png", HERE / f"{name}.png")


if __name__ == "__main__":
    main()
