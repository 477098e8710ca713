"""Many images through one network: decoding and writing overlap with computing, and a bad file costs only itself."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from fcnlab.core.errors import ConfigError, DataError
from fcnlab.core.files import replacing
from fcnlab.data.channels import to_rgb
from fcnlab.data.prefetch import map_ahead
from fcnlab.data.unlabelled import UnlabelledFile, UnlabelledImage
from fcnlab.drawing.label_maps import write_mask, write_overlay
from fcnlab.inference.trained import TrainedNetwork

log = logging.getLogger(__name__)

RECORD_FILE = "predict.json"
"""What an output folder was made from, so that a later call goes on with nothing else."""

_WAITING = 8  # results that wait to be written, beside the two being written


@dataclass(frozen=True)
class Options:
    """How images are labelled, and what is written of each: see ``conf/predict.yaml``."""

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    tile: int = 1408
    overlays: bool = True
    probabilities: bool = False


@dataclass
class Outcome:
    """What became of the images.

    Attributes:
        written: Names of those that were labelled.
        skipped: How many were there already.
        failed: What is wrong with each of the others, one line each.
    """

    written: list[str] = field(default_factory=list)
    skipped: int = 0
    failed: list[str] = field(default_factory=list)


class OutputFolder:
    """Where predictions go: ``masks/NAME.png``, ``overlays/NAME.png``, ``probabilities/NAME.npz``.

    Args:
        folder: Made when missing.
        options: What is written.
    """

    def __init__(self, folder: Path, options: Options) -> None:
        self.folder = folder
        self._options = options

    def files(self, name: str) -> dict[str, Path]:
        """Every file of an image, by what it holds; the mask last, since it is written last."""
        files = {}
        if self._options.overlays:
            files["overlay"] = self.folder / "overlays" / f"{name}.png"
        if self._options.probabilities:
            files["probabilities"] = self.folder / "probabilities" / f"{name}.npz"
        return {**files, "mask": self.folder / "masks" / f"{name}.png"}

    def has(self, name: str) -> bool:
        """Whether all files of an image are there."""
        return all(path.exists() for path in self.files(name).values())

    def claim(self, checkpoint: str, overwrite: bool) -> None:
        """Note what the folder's files are made from.

        Args:
            checkpoint: The digest of the checkpoint.
            overwrite: Whether what is there may be of something else.

        Raises:
            ConfigError: If what is there was made from another checkpoint or with other options.
            DataError: If the folder cannot be written.
        """
        options = self._options
        record = {"checkpoint": checkpoint, "flip": options.flip, "scales": list(options.scales)}
        path = self.folder / RECORD_FILE
        with suppress(OSError, ValueError):
            there = json.loads(path.read_text(encoding="utf-8"))
            other = [key for key in record if there.get(key) != record[key]]
            if other and not overwrite:
                raise ConfigError(
                    f"output={self.folder}: holds predictions with another {' and '.join(other)}; choose another "
                    "folder, or write over them with overwrite=true"
                )
        try:
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise _cannot_write(path, error) from error

    def write(
        self,
        name: str,
        image: np.ndarray,
        labels: np.ndarray,
        probabilities: np.ndarray | None,
        network: TrainedNetwork,
    ) -> str:
        """Write the files of one image.

        Raises:
            DataError: If the disk does not take them.
        """
        files = self.files(name)
        try:
            if "overlay" in files:
                write_overlay(files["overlay"], to_rgb(image), labels, network.palette, network.class_names)
            if "probabilities" in files:
                with replacing(files["probabilities"]) as temporary, temporary.open("wb") as file:
                    np.savez(file, probabilities=probabilities, class_names=np.array(network.class_names))
            write_mask(files["mask"], labels, network.palette)
        except OSError as error:
            raise _cannot_write(files["mask"], error) from error
        return name


def fingerprint(path: Path) -> str:
    """The digest of a file that may be large."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()[:32]


def list_pictures(files: Iterable[UnlabelledFile], outcome: Outcome, network: TrainedNetwork) -> list[UnlabelledImage]:
    """The images in files, as the network takes them; a video that cannot be opened is noted in the outcome."""
    pictures = []
    for file in files:
        try:
            pictures += file.images(network.channels, network.bits)
        except DataError as error:
            outcome.failed.append(str(error))
            log.warning("%s; skipped", error)
    return pictures


def label_all(
    network: TrainedNetwork,
    pictures: Iterable[UnlabelledImage],
    output: OutputFolder,
    options: Options,
    outcome: Outcome,
) -> Iterator[str]:
    """Label images and write the results; yields each one's name once the network is done with it.

    Decoding and writing happen in threads of their own. An image that cannot be read is noted in the outcome.

    Raises:
        DataError: If the disk does not take a result.
    """
    # One thread reads: it keeps a video in order, and one is faster than any network.
    ready = map_ahead(_read, pictures, workers=1, ahead=3)
    writing: deque[Future[str]] = deque()
    pool = ThreadPoolExecutor(2, thread_name_prefix="fcnlab-write")
    try:
        for picture, image, problem in ready:
            if image is None:
                outcome.failed.append(problem)
                log.warning("%s; skipped", problem)
            else:
                labels, probabilities = _label(network, image, options)
                writing.append(pool.submit(output.write, picture.name, image, labels, probabilities, network))
            while len(writing) > _WAITING or (writing and writing[0].done()):
                outcome.written.append(writing.popleft().result())
            yield picture.name
        while writing:
            outcome.written.append(writing.popleft().result())
    finally:
        ready.close()
        pool.shutdown(wait=True, cancel_futures=True)


def _read(picture: UnlabelledImage) -> tuple[UnlabelledImage, np.ndarray | None, str]:
    """The decoded image, or what is wrong with it."""
    try:
        return picture, picture.read(), ""
    except DataError as error:
        return picture, None, str(error)
    except (cv2.error, OSError, ValueError, MemoryError) as error:  # a file in a way that nobody thought of
        return picture, None, f"image '{picture.name}' cannot be decoded ({type(error).__name__})"


def _label(network: TrainedNetwork, image: np.ndarray, options: Options) -> tuple[np.ndarray, np.ndarray | None]:
    views = {"flip": options.flip, "scales": options.scales, "tile": options.tile}
    if not options.probabilities:
        return network.predict(image, **views), None
    probabilities = network.probabilities(image, **views)
    return probabilities.argmax(axis=0).astype(np.uint8), probabilities.astype(np.float16)


def _cannot_write(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot write ({error.strerror or error}); free space or choose another output=<folder>")
