"""The labelling of many images: decoding and writing overlap with computing, and a bad file stops no other."""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fcnlab.core.errors import ConfigError, DataError
from fcnlab.core.files import replacing, sha256
from fcnlab.data.channels import to_rgb
from fcnlab.data.prefetch import map_ahead
from fcnlab.data.unlabelled import UnlabelledFile, UnlabelledImage
from fcnlab.drawing.label_maps import write_mask, write_overlay
from fcnlab.inference.trained import DEFAULT_TILE, TrainedNetwork

log = logging.getLogger(__name__)

SOURCES_FILE = "sources.json"
"""The file that names the file of each prediction in an output folder."""

REVIEW_FILE = "review.csv"
"""The file that orders the images for a reviewer, the most doubtful first."""

SETTINGS_FILE = "predict.json"
"""The file that names the checkpoint and the options of an output folder, so that a later call mixes no others in."""

_OTHER_SETTINGS = ""
"""The source that is written down for a mask which an earlier checkpoint, or other options, made."""

_REVIEW_COLUMNS = ("image", "doubt")

_WAITING = 8
"""The number of results that may wait to be written, besides the two that are being written."""


@dataclass(frozen=True)
class PredictionOptions:
    """How images are labelled and which files are written for each; see ``conf/predict.yaml``."""

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    tile: int = DEFAULT_TILE
    overlays: bool = True
    probabilities: bool = False
    review: bool = False


@dataclass
class PredictionOutcome:
    """The outcome for all images.

    Attributes:
        written: The names of the images that were labelled.
        skipped: The number of images that had been labelled before.
        failed: One line about what is wrong with each of the others.
    """

    written: list[str] = field(default_factory=list)
    skipped: int = 0
    failed: list[str] = field(default_factory=list)


class OutputFolder:
    """The folder of predictions: ``masks/NAME.png``, ``overlays/NAME.png``, ``probabilities/NAME.npz``.

    Args:
        folder: The folder, which is made when missing.
        options: The options of the predictions.
    """

    def __init__(self, folder: Path, options: PredictionOptions) -> None:
        self.folder = folder
        self._options = options
        self._doubts = _read_doubts(folder / REVIEW_FILE) if options.review else {}

    def files(self, name: str) -> dict[str, Path]:
        """Return the files of an image by kind; the mask is the last, since it is written last."""
        files = {}
        if self._options.overlays:
            files["overlay"] = self.folder / "overlays" / f"{name}.png"
        if self._options.probabilities:
            files["probabilities"] = self.folder / "probabilities" / f"{name}.npz"
        return {**files, "mask": self.folder / "masks" / f"{name}.png"}

    def has(self, name: str) -> bool:
        """Return whether all files of an image exist and, if the images are to be reviewed, its doubt is known."""
        known = not self._options.review or name in self._doubts
        return known and all(path.exists() for path in self.files(name).values())

    def claim(self, checkpoint: str, pictures: Sequence[UnlabelledImage], overwrite: bool) -> None:
        """Write down what the folder's files are made from, so that none is taken for another's.

        With ``overwrite``, the old masks of the images are removed first: after an interruption, an old one does not
        pass for a new one. Those of other images stay, and a later call refuses to mix them in.

        Args:
            checkpoint: The digest of the checkpoint.
            pictures: The images that are to be labelled.
            overwrite: Whether existing files may have been made from something else.

        Raises:
            ConfigError: If existing files were made from another checkpoint or file, or with other options.
            DataError: If the folder cannot be written.
        """
        options = self._options
        settings = {"checkpoint": checkpoint, "flip": options.flip, "scales": list(options.scales)}
        before = _read_json(self.folder / SETTINGS_FILE)
        other = [key for key in settings if before and before.get(key) != settings[key]]
        if other and not overwrite:
            raise ConfigError(
                f"output={self.folder}: holds predictions with another {' and '.join(other)}; choose another "
                "folder, or write over them with overwrite=true"
            )
        known = _read_json(self.folder / SOURCES_FILE)
        sources = {picture.name: str(picture.path.resolve()) for picture in pictures}
        for name, source in sources.items():
            if known.get(name) not in (None, source) and self.has(name) and not overwrite:
                made_from = f"from '{known[name]}'" if known[name] != _OTHER_SETTINGS else "with another checkpoint"
                raise ConfigError(
                    f"output={self.folder}: '{name}' is there already, made {made_from} and not from '{source}'; "
                    "choose another folder, or write over it with overwrite=true"
                )
        try:
            if overwrite:
                for name in sources:
                    self.files(name)["mask"].unlink(missing_ok=True)
            if other:
                (self.folder / REVIEW_FILE).unlink(missing_ok=True)  # another network's doubt is not comparable
                self._doubts.clear()
                masks = self.folder / "masks"
                left = (path.relative_to(masks).with_suffix("").as_posix() for path in masks.rglob("*.png"))
                known |= dict.fromkeys(left, _OTHER_SETTINGS)
            self._write_json(SOURCES_FILE, known | sources)
            self._write_json(SETTINGS_FILE, settings)  # at last: until then, the files count as what they were
        except OSError as error:
            raise _cannot_write(self.folder / SOURCES_FILE, error) from error

    def _write_json(self, name: str, document: Mapping[str, Any]) -> None:
        with replacing(self.folder / name) as temporary:
            temporary.write_text(json.dumps(document, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")

    def write(
        self,
        name: str,
        image: np.ndarray,
        labels: np.ndarray,
        probabilities: np.ndarray | None,
        network: TrainedNetwork,
        doubt: float | None = None,
    ) -> str:
        """Write the files of one image.

        Raises:
            DataError: If a file cannot be written.
        """
        files = self.files(name)
        try:
            if "overlay" in files:
                write_overlay(
                    files["overlay"], to_rgb(image), labels, network.palette, network.class_names, "prediction"
                )
            if "probabilities" in files:
                with replacing(files["probabilities"]) as temporary, temporary.open("wb") as file:
                    np.savez(file, probabilities=probabilities, class_names=np.array(network.class_names))
            write_mask(files["mask"], labels, network.palette)
        except OSError as error:
            raise _cannot_write(files["mask"], error) from error
        if doubt is not None:
            self._doubts[name] = doubt
        return name

    def write_review(self) -> None:
        """Write the doubt of each image that has a mask, the largest first.

        Raises:
            DataError: If the file cannot be written.
        """
        if not self._options.review:
            return
        rows = [(name, doubt) for name, doubt in self._doubts.items() if self.files(name)["mask"].exists()]
        try:
            with (
                replacing(self.folder / REVIEW_FILE) as temporary,
                temporary.open("w", newline="", encoding="utf-8") as file,
            ):
                writer = csv.writer(file)
                writer.writerow(_REVIEW_COLUMNS)
                writer.writerows(sorted(rows, key=lambda row: (-row[1], row[0])))
        except OSError as error:
            raise _cannot_write(self.folder / REVIEW_FILE, error) from error


def _read_doubts(path: Path) -> dict[str, float]:
    """Return the doubt of each image of an earlier call; none if there is no such file, or it is not ours."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        return {name: float(doubt) for name, doubt in rows} if tuple(header) == _REVIEW_COLUMNS else {}
    except (OSError, ValueError, csv.Error):
        return {}


def _read_json(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file; an empty one if there is none, or it is not what this package writes."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def file_digest(path: Path) -> str:
    """Return the digest by which an output folder knows its checkpoint."""
    return sha256(path)[:32]


def list_images(
    files: Iterable[UnlabelledFile], outcome: PredictionOutcome, network: TrainedNetwork
) -> list[UnlabelledImage]:
    """Return all images of the files, as the network takes them; a file that cannot be opened counts as failed.

    Where an image of a stack or a video would be called like another image, all images of its file are named with the
    file's extension, as ``stack.tif-0003``.

    Raises:
        DataError: If two images still have one name.
    """
    found: dict[UnlabelledFile, list[UnlabelledImage]] = {}
    for file in files:
        try:
            found[file] = file.images(network.channels, network.bits, network.value_range)
        except DataError as error:
            outcome.failed.append(str(error))
            log.warning("%s; skipped", error)
    often = Counter(picture.name for pictures in found.values() for picture in pictures)
    for file, pictures in found.items():
        if len(pictures) > 1 and any(often[picture.name] > 1 for picture in pictures):
            found[file] = [
                picture._replace(name=f"{file.whole_name}{picture.name.removeprefix(file.name)}")
                for picture in pictures
            ]
    files_of: dict[str, Path] = {}
    for file, pictures in found.items():
        for picture in pictures:
            if picture.name in files_of:
                raise DataError(
                    f"input: images of '{files_of[picture.name]}' and '{file.path}' would both be written as "
                    f"'{picture.name}': rename one file, or label them in two calls"
                )
            files_of[picture.name] = file.path
    return [picture._replace(path=file.path) for file, pictures in found.items() for picture in pictures]


def label_all(
    network: TrainedNetwork,
    pictures: Iterable[UnlabelledImage],
    output: OutputFolder,
    options: PredictionOptions,
    outcome: PredictionOutcome,
) -> Iterator[str]:
    """Label images and write the results, in threads of their own; an image that cannot be read counts as failed.

    Yields:
        The name of each image, once it is labelled.

    Raises:
        DataError: If a result cannot be written.
    """
    # A single thread reads, which keeps a video in order and is faster than any network.
    ready = map_ahead(_read, pictures, workers=1, ahead=3)
    writing: deque[Future[str]] = deque()
    pool = ThreadPoolExecutor(2, thread_name_prefix="fcnlab-write")
    try:
        for picture, image, problem in ready:
            if image is None:
                outcome.failed.append(problem)
                log.warning("%s; skipped", problem)
            else:
                labels, probabilities, doubt = _label(network, image, options)
                writing.append(pool.submit(output.write, picture.name, image, labels, probabilities, network, doubt))
            while len(writing) > _WAITING or (writing and writing[0].done()):
                outcome.written.append(writing.popleft().result())
            yield picture.name
        while writing:
            outcome.written.append(writing.popleft().result())
    finally:
        ready.close()
        pool.shutdown(wait=True, cancel_futures=True)
        output.write_review()


def _read(picture: UnlabelledImage) -> tuple[UnlabelledImage, np.ndarray | None, str]:
    """Return the decoded image, or what is wrong with it."""
    try:
        return picture, picture.read(), ""
    except DataError as error:
        return picture, None, str(error)
    except (
        cv2.error,
        OSError,
        ValueError,
        MemoryError,
    ) as error:  # damaged in a way that nobody thought of
        return picture, None, f"image '{picture.name}' cannot be decoded ({type(error).__name__})"


def _label(
    network: TrainedNetwork, image: np.ndarray, options: PredictionOptions
) -> tuple[np.ndarray, np.ndarray | None, float | None]:
    """Return the labels of an image, its probabilities if they are to be written, and its doubt if that is."""
    views = {"flip": options.flip, "scales": options.scales, "tile": options.tile}
    if options.probabilities:
        probabilities = network.probabilities(image, **views)
        doubt = _doubt(probabilities.max(axis=0)) if options.review else None
        return probabilities.argmax(axis=0).astype(np.uint8), probabilities.astype(np.float16), doubt
    if options.review:
        labels, confidence = network.predict_with_confidence(image, **views)
        return labels, None, _doubt(confidence)
    return network.predict(image, **views), None, None


def _doubt(confidence: np.ndarray) -> float:
    """Return the mean of one minus the probability of the predicted class."""
    return 1 - float(confidence.mean(dtype=np.float64))


def _cannot_write(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot write ({error.strerror or error}); free space or choose another output=<folder>")
