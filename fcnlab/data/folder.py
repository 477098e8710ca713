"""A folder of images and one of labels, matched by file stem."""

from __future__ import annotations

import os
import re
import unicodedata
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fcnlab.data.background import map_ahead
from fcnlab.data.dataset import Dataset, Sample, require_split
from fcnlab.data.decode import EXTENSIONS, read_file, read_image, read_label
from fcnlab.data.fingerprint import digest, digest_of
from fcnlab.errors import ConfigError, DataError

if TYPE_CHECKING:
    from fcnlab.config.schema import FolderConfig, PairedFilesConfig


class PairedFiles(Dataset):
    """Images in ``root/images`` and labels in ``root/labels``, paired by stem; their extensions may differ.

    A sample's name is its stem. Samples are sorted naturally: "2" before "10". The splits are those of ``train_list``
    and ``val_list``; if just one of them is given, the other split is the rest. What they are without a list is left
    to the classes that derive from this one.

    A label is a single-channel or palette image. Without ``label_values`` its pixels are class indices; with it, the
    position of a value in the list is its class. ``ignore_index`` stands for itself unless the list has it.

    The whole folder is listed and matched when the data set is made; pixels are read on access and by `check`.

    Args:
        config: Where the files are, what labels mean and how to split.
        split: "train" or "val".

    Raises:
        DataError: If a folder, file or list is missing, a file has no partner, two files share a stem, or a split is
            empty.
        ConfigError: If ``label_values`` has a value twice or more values than there are classes.
    """

    def __init__(self, config: PairedFilesConfig, split: str) -> None:
        require_split(split)
        self._config = config
        self._table, self._known = _label_table(config)
        root = _root(config)
        self._source = f"{config.name} {root.resolve()}"
        self._images = _files_by_stem(root, config.images, "images")
        self._labels = _files_by_stem(root, config.labels, "labels")
        _require_partners(self._images, root / config.labels, self._labels, "image", "label")
        _require_partners(self._labels, root / config.images, self._images, "label", "image")
        stems = sorted(self._images, key=_natural)
        chosen = self._split(stems, root)[split]
        if not chosen:
            raise DataError(f"the {split} split of '{root}' is empty: see dataset.train_list and dataset.val_list")
        self._names = sorted(chosen, key=_natural)

    @property
    def names(self) -> list[str]:
        """The split's stems, in natural order."""
        return self._names

    @property
    def source(self) -> str:
        """The kind of data set and its folder's absolute path."""
        return self._source

    def __getitem__(self, index: int) -> Sample:
        name = self._names[index]
        image_path, label_path = self._images[name], self._labels[name]
        image = read_image(image_path)
        values = read_label(label_path, white=255 if 255 in self._config.label_values else 1)
        if values.shape != image.shape[:2]:
            raise DataError(
                f"label '{label_path}' is {_size(values)} pixels but image '{image_path}' is {_size(image)}: "
                "a label must have its image's size"
            )
        return Sample(image, self._classes(values, label_path), name)

    def fingerprint(self) -> str:
        """A digest of the split's files, by name and content, and of what their labels mean.

        Reading them for this, without decoding them, takes 6 to 20 % of what `check` does.

        Raises:
            DataError: For the first file, in order, that cannot be read.
        """
        config = self._config
        meaning = [_label_values(config), config.num_classes, config.ignore_index, config.class_names]
        return digest_of([meaning, list(map_ahead(self._stored, self._names, workers=2, ahead=4))])

    def _stored(self, name: str) -> list[str]:
        """The file names of a sample's image and label, each followed by its content's digest."""
        image, label = self._images[name], self._labels[name]
        return [
            f"{name}{image.suffix}",  # not its path's own name: see _files_by_stem on the forms of letters
            digest(read_file(image, "image")),
            f"{name}{label.suffix}",
            digest(read_file(label, "label")),
        ]

    def _split(self, stems: list[str], root: Path) -> dict[str, set[str]]:
        """The stems of both splits."""
        config = self._config
        listed = {
            split: _read_list(path, f"dataset.{split}_list", root, stems)
            for split, path in (("train", config.train_list), ("val", config.val_list))
            if path
        }
        if not listed:
            return self._default_split(stems, root)
        if len(listed) == 1:
            (given,) = listed
            listed["val" if given == "train" else "train"] = set(stems) - listed[given]
        shared = listed["train"] & listed["val"]
        if shared:
            raise DataError(
                f"dataset.train_list and dataset.val_list both name {_some(shared)}: "
                "remove it from one, or the validation is worthless"
            )
        return listed

    @abstractmethod
    def _default_split(self, stems: list[str], root: Path) -> dict[str, set[str]]:
        """The stems of both splits where no list says so."""

    def _classes(self, values: np.ndarray, path: Path) -> np.ndarray:
        """Turn a label's raw values into class indices."""
        # A 16-bit label may go beyond the table.
        known = self._known[values] if values.dtype == np.uint8 else np.isin(values, np.flatnonzero(self._known))
        if not known.all():
            strange = np.unique(values[~known])
            raise DataError(
                f"label '{path}' has {_some(strange.tolist())} outside the {self._config.num_classes} classes: set "
                "dataset.label_values to the raw value of each class, or raise dataset.num_classes"
            )
        return self._table[values]


class Folder(PairedFiles):
    """`PairedFiles` that validate on a share of ``val_fraction``, drawn by ``split_seed``, unless lists say otherwise.

    Args:
        config: Where the files are, what labels mean and how to split.
        split: "train" or "val".

    Raises:
        DataError: As `PairedFiles` does, and if there is a single image but no list.
        ConfigError: As `PairedFiles` does.
    """

    _config: FolderConfig

    def _default_split(self, stems: list[str], root: Path) -> dict[str, set[str]]:
        if len(stems) < 2:
            raise DataError(f"'{root}' has just one image, '{stems[0]}': two splits need at least 2")
        config = self._config
        count = min(max(1, round(len(stems) * config.val_fraction)), len(stems) - 1)
        shuffled = np.random.default_rng(config.split_seed).permutation(len(stems))
        validation = {stems[position] for position in shuffled[:count]}
        return {"train": set(stems) - validation, "val": validation}


def _root(config: PairedFilesConfig) -> Path:
    if not config.root:
        raise DataError("dataset.root is not set: give the folder that holds images and labels, dataset.root=<folder>")
    root = Path(config.root).expanduser()
    if not root.is_dir():
        raise DataError(f"dataset.root: there is no folder '{root}'")
    return root


def _files_by_stem(root: Path, name: str, key: str) -> dict[str, Path]:
    """The picture files of a folder below the root, by stem."""
    folder = root / name
    if not folder.is_dir():
        raise DataError(f"there is no folder '{folder}': create it, or set dataset.{key} to its name in dataset.root")
    home = _home(root, name)
    _require_within(folder, home)
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in EXTENSIONS:
            continue
        if path.is_symlink():
            _require_within(path, home)
        # macOS may store a name decomposed: the same letters have to match whatever wrote them.
        stem = unicodedata.normalize("NFC", path.stem)
        if stem in files:
            raise DataError(f"'{files[stem]}' and '{path}' share the stem '{stem}': remove or rename one")
        files[stem] = path
    if not files:
        raise DataError(f"folder '{folder}' is empty: no file ends in {', '.join(EXTENSIONS)}")
    return files


def _home(root: Path, name: str) -> Path:
    """What a data set's files must lie in: its root, or the folder that the user names beyond it."""
    root = root.resolve()
    named = Path(os.path.normpath(root / name))  # without following links: `..` is what the user wrote
    return root if named.is_relative_to(root) else named.resolve()


def _require_within(path: Path, home: Path) -> None:
    """Refuse a symbolic link that leads out of the data set: somebody else's archive must not read other files."""
    if not path.resolve().is_relative_to(home):
        raise DataError(
            f"'{path}' is a link to '{path.resolve()}', out of '{home}': copy what it leads to, or set dataset.root to "
            "the folder that holds both"
        )


def _require_partners(
    files: dict[str, Path], folder: Path, partners: dict[str, Path], kind: str, partner_kind: str
) -> None:
    alone = sorted(files.keys() - partners.keys(), key=_natural)
    if alone:
        more = f" (and {len(alone) - 1} more like it)" if len(alone) > 1 else ""
        raise DataError(
            f"{kind} '{files[alone[0]]}' has no {partner_kind} '{alone[0]}.*' in '{folder}'{more}: add it or "
            f"remove the {kind}"
        )


def _read_list(location: str, key: str, root: Path, stems: list[str]) -> set[str]:
    """The stems that a list file names: one a line, blank lines and ``#`` comments aside."""
    path = Path(location).expanduser()
    if not path.exists():
        path = root / path
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{key}: cannot read '{location}', here or in '{root}' ({_reason(error)})") from None
    known = set(stems)
    named: set[str] = set()
    for number, line in enumerate(lines, start=1):
        stem = unicodedata.normalize("NFC", line.strip())
        if not stem or stem.startswith("#"):
            continue
        where = f"{key}: '{path}', line {number}"
        if stem in (".", "..") or "/" in stem or "\\" in stem:
            raise DataError(f"{where}: '{stem}' is a path; write the file's stem alone")
        if stem not in known:
            hint = f"; write '{Path(stem).stem}', without the extension" if Path(stem).stem in known else ""
            raise DataError(f"{where}: there is no image '{stem}' in '{root}'{hint}")
        if stem in named:
            raise DataError(f"{where}: '{stem}' is listed twice; remove one")
        named.add(stem)
    if not named:
        raise DataError(f"{key}: '{path}' names no image, so that its split is empty")
    return named


def _label_values(config: PairedFilesConfig) -> list[int]:
    """The raw value of each class, in order."""
    return list(config.label_values) or list(range(config.num_classes))


def _label_table(config: PairedFilesConfig) -> tuple[np.ndarray, np.ndarray]:
    """For each raw value its class (256 uint8), and whether it has one (256 bool)."""
    values = _label_values(config)
    if len(set(values)) < len(values):
        raise ConfigError(f"dataset.label_values={values} has a value twice: each class needs its own")
    if len(values) > config.num_classes:
        raise ConfigError(
            f"dataset.label_values has {len(values)} values but dataset.num_classes is {config.num_classes}: "
            "a value for each class is enough"
        )
    table = np.zeros(256, np.uint8)
    known = np.zeros(256, bool)
    table[config.ignore_index] = config.ignore_index
    known[config.ignore_index] = True
    table[values] = np.arange(len(values))
    known[values] = True
    return table, known


def _natural(stem: str) -> tuple[list[tuple[int, int, str]], str]:
    """A sorting key under which runs of digits compare as numbers; equal numbers fall back on the text."""
    parts = re.findall(r"[0-9]+|[^0-9]+", stem)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], stem


def _some(items: Iterable[object], limit: int = 5) -> str:
    """The first few items, for an error: ``3, 7, 9 and 12 more``."""
    ordered = sorted(items, key=lambda item: _natural(str(item)))
    text = ", ".join(str(item) for item in ordered[:limit])
    return f"{text} and {len(ordered) - limit} more" if len(ordered) > limit else text


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error.strerror or error)
