"""Generated slices that resemble electron micrographs of nerve tissue, with exact labels.

A stand-in for the ISBI 2012 slices (see `fcnlab.data.isbi2012`) that needs no download: cells of very different
sizes, packed without gaps and parted by thin dark membranes, while mitochondria, vesicles and dark smears imitate a
membrane's looks inside the cells. Only the membrane is class 0, so that a network has to place lines of 2 to 5 pixels
exactly and to tell them from the look-alikes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from fcnlab.data.dataset import SPLITS, Dataset, Sample, require_split

if TYPE_CHECKING:
    from fcnlab.config.schema import CellsConfig

MEMBRANE, CELL = 0, 1

# Lengths are in pixels of the image, grey levels in 0..255. The grey levels and the noise follow the ISBI 2012 slices.
_MARGIN = 16  # generated around the image and cut off, so that structures run across its border
_FINE = 2  # cell outlines are drawn at twice the resolution, so that a membrane's width is not quantised to pixels
_AREA_PER_NUCLEUS = 650.0
_NUCLEUS_RADIUS = (3.0, 26.0)
_HALF_WIDTH = (1.2, 2.45)
_CYTOPLASM = 168.0


class Cells(Dataset):
    """Generated slices.

    Sample ``i`` of a split depends on ``config.seed``, the split and ``i`` alone: neither on the number of samples
    nor on the order in which they are read. The two splits draw from separate streams.

    Args:
        config: ``num_train`` or ``num_val`` samples of ``image_size`` x ``image_size`` pixels, from ``seed``.
        split: "train" or "val".

    Raises:
        DataError: If there is no such split.
    """

    def __init__(self, config: CellsConfig, split: str) -> None:
        require_split(split)
        self._seed = config.seed
        self._stream = SPLITS.index(split)
        self._size = config.image_size
        count = config.num_train if split == "train" else config.num_val
        self._names = [f"{split}-{index:04d}" for index in range(count)]

    @property
    def names(self) -> list[str]:
        """The split and a running number: "train-0000", "train-0001" and so on."""
        return self._names

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        # A spawn key, not a longer seed: numpy pads a short seed with zeros, so that (0, 1) and (0, 1, 0) coincide.
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(self._stream, index)))
        image, label = generate(self._size, rng)
        return Sample(image, label, self._names[index])

    def check(self) -> None:
        """Do nothing: there is no file that could be bad."""


def generate(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One slice.

    Args:
        size: Side of the square image, in pixels.
        rng: Where all randomness comes from.

    Returns:
        The image, ``size`` x ``size`` x 3 uint8 with three equal channels; and the label, ``size`` x ``size`` uint8,
        0 on a membrane and 1 in a cell.
    """
    canvas = size + 2 * _MARGIN
    identity, distance = _tessellate(canvas, rng)
    half_width = _between(*_HALF_WIDTH, _smooth(canvas, 40, rng))
    label = np.where(distance < half_width, np.uint8(MEMBRANE), np.uint8(CELL))

    # Fades structures inside a cell out before they touch its membrane.
    interior = np.clip((distance - half_width) / 2, 0, 1)
    shades = rng.normal(0, 10, size=int(identity.max()) + 1).astype(np.float32)
    grey = _CYTOPLASM + shades[identity] + 9 * _smooth(canvas, 80, rng)
    grey -= interior * _mitochondria(distance, rng)
    grey -= interior * _vesicles(distance, rng)
    grey -= _membranes(distance, half_width, rng)
    grey -= _smears(distance, rng)
    grey += 9 * _smooth(canvas, 6, rng) + 13 * _smooth(canvas, 2.5, rng)
    grey = cv2.GaussianBlur(grey, (0, 0), 0.7)
    grey += cv2.GaussianBlur(rng.standard_normal(grey.shape, dtype=np.float32) * 24, (0, 0), 0.55)
    grey *= 1 + 0.04 * _smooth(canvas, 120, rng)

    inner = slice(_MARGIN, _MARGIN + size)
    visible = np.clip(np.rint(grey[inner, inner]), 0, 255).astype(np.uint8)
    return cv2.cvtColor(visible, cv2.COLOR_GRAY2RGB), np.ascontiguousarray(label[inner, inner])


def _smooth(side: int, wavelength: float, rng: np.random.Generator) -> np.ndarray:
    """A random field, ``side`` x ``side`` float32, of mean about 0, deviation about 1 and features of one size."""
    knots = max(4, round(side / wavelength) + 3)
    noise = rng.standard_normal((knots, knots), dtype=np.float32)
    # Interpolation between knots averages some of the variance away.
    return 1.4 * cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)


def _between(low: float, high: float, field: np.ndarray) -> np.ndarray:
    """A field of mean 0 and deviation 1, brought into the range from ``low`` to ``high``."""
    return low + (high - low) * np.clip(0.5 + 0.35 * field, 0, 1)


def _tessellate(side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pack the plane with cells.

    Every pixel belongs to the nearest of many elliptic nuclei of very different sizes: a Voronoi diagram whose cells
    are weighted by their nuclei. A warp then bends its straight borders.

    Returns:
        The cell's number and the distance to the nearest border in pixels, both ``side`` x ``side`` (int32, float32).
    """
    fine = side * _FINE
    _, numbers = cv2.distanceTransformWithLabels(
        _nuclei(side, rng), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_CCOMP
    )
    rows, columns = np.mgrid[0:fine, 0:fine].astype(np.float32)
    for field in (rows, columns):
        field += _FINE * (4.0 * _smooth(fine, 44 * _FINE, rng) + 0.9 * _smooth(fine, 11 * _FINE, rng))
    # float32 carries numbers up to 2**24 exactly; remap takes no int32.
    numbers = cv2.remap(
        numbers.astype(np.float32), columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
    ).astype(np.int32)

    inside = np.full((fine, fine), 1, np.uint8)
    inside[:, :-1] &= numbers[:, :-1] == numbers[:, 1:]
    inside[:-1] &= numbers[:-1] == numbers[1:]
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_5)
    distance = cv2.resize(distance, (side, side), interpolation=cv2.INTER_AREA) / _FINE
    return numbers[::_FINE, ::_FINE], distance


def _nuclei(side: int, rng: np.random.Generator) -> np.ndarray:
    """Disjoint ellipses, as zeros in a fine uint8 canvas of ones: large ones first, small ones in the gaps."""
    fine = side * _FINE
    count = max(8, round(side * side / _AREA_PER_NUCLEUS))
    low, high = _NUCLEUS_RADIUS
    radii = np.sort(np.clip(rng.lognormal(np.log(6.0), 0.75, count), low, high))[::-1]
    centres = rng.uniform(0, side, (count, 2))
    elongations = rng.uniform(1.0, 2.4, count)
    # Neighbouring processes tend to run alongside one another.
    angles = rng.uniform(0, 180) + rng.normal(0, 40, count)

    free = np.ones((fine, fine), np.uint8)
    for (x, y), radius, elongation, angle in zip(centres, radii, elongations, angles, strict=True):
        reach = radius * elongation**0.5 + 2.0
        top, left = (max(0, int((centre - reach) * _FINE)) for centre in (y, x))
        bottom, right = (int((centre + reach) * _FINE) + 1 for centre in (y, x))
        if free[top:bottom, left:right].all():
            axes = (radius * elongation**0.5, radius / elongation**0.5)
            _ellipse(free, (x, y), axes, angle, 0, scale=_FINE)
    return free


def _ellipse(
    canvas: np.ndarray,
    centre: tuple[float, float],
    axes: tuple[float, float],
    angle: float,
    value: float,
    *,
    thickness: int = cv2.FILLED,
    scale: int = 1,
) -> None:
    """Draw an ellipse with centre (x, y) and semi-axes in image pixels, to a 16th of a canvas pixel."""
    bits = 4
    points = [tuple(round(value * scale * 2**bits) for value in pair) for pair in (centre, axes)]
    line = cv2.LINE_8 if scale > 1 else cv2.LINE_AA
    cv2.ellipse(canvas, points[0], points[1], angle, 0, 360, value, thickness, line, bits)


def _membranes(distance: np.ndarray, half_width: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darkness of the membranes: lines of varying strength, the widest of them split by a brighter cleft."""
    side = distance.shape[0]
    strength = _between(62, 135, _smooth(side, 30, rng))
    cleft = 0.45 * np.clip(half_width - 1.7, 0, None)
    offset = (distance - cleft) / (0.78 * half_width)
    return strength * np.exp(-offset * offset)


def _mitochondria(distance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darkness of the mitochondria: ellipses with a dark rim and striped by their cristae."""
    side = distance.shape[0]
    body = np.zeros((side, side), np.uint8)
    rim = np.zeros((side, side), np.uint8)
    for x, y in rng.integers(0, side, (max(2, round(side * side / 2000)), 2)):
        room = float(distance[y, x])
        if room < 7:
            continue
        minor = min(rng.uniform(5.0, 13.0), 0.75 * room)
        axes = (minor * rng.uniform(1.1, 2.0), minor)
        angle = rng.uniform(0, 180)
        _ellipse(body, (x, y), axes, angle, rng.uniform(150, 255))
        _ellipse(rim, (x, y), axes, angle, rng.uniform(120, 255), thickness=2)
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
    for field in (rows, columns):
        field += 1.3 * _smooth(side, 9, rng)
    body, rim = (cv2.remap(canvas, columns, rows, cv2.INTER_LINEAR) for canvas in (body, rim))
    direction = rng.uniform(0, np.pi)
    stripes = np.sin((np.cos(direction) * columns + np.sin(direction) * rows) * 1.4 + _smooth(side, 12, rng))
    return body * ((44 + 12 * stripes) / 255) + rim * np.float32(50 / 255)


def _vesicles(distance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darkness of the vesicles: small rings and dots, crowded in some places and missing in others."""
    side = distance.shape[0]
    canvas = np.zeros((side, side), np.uint8)
    crowd = _smooth(side, 50, rng)
    for x, y in rng.integers(0, side, (max(8, round(side * side / 170)), 2)):
        if distance[y, x] < 4 or crowd[y, x] < rng.normal(0.0, 0.6):
            continue
        centre = (x + rng.uniform(-0.5, 0.5), y + rng.uniform(-0.5, 0.5))
        radius = rng.uniform(1.6, 4.2)
        shade = rng.uniform(90, 230)
        if rng.random() < 0.7:
            axes = (radius, radius * rng.uniform(0.7, 1.0))
            _ellipse(canvas, centre, axes, rng.uniform(0, 180), shade, thickness=1)
        else:
            _ellipse(canvas, centre, (0.5 * radius, 0.5 * radius), 0, shade)
    return canvas * np.float32(115 / 255)


def _smears(distance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darkness of a few stained patches beside membranes, as synapses have."""
    side = distance.shape[0]
    canvas = np.zeros((side, side), np.uint8)
    for x, y in rng.integers(0, side, (max(4, round(side * side / 2200)), 2)):
        if distance[y, x] < 4:
            axes = (rng.uniform(4, 11), rng.uniform(2, 5))
            _ellipse(canvas, (x, y), axes, rng.uniform(0, 180), rng.uniform(60, 200))
    return cv2.GaussianBlur(canvas, (0, 0), 3.5) * np.float32(130 / 255)
