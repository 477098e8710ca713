"""A folder of images and one of labels, matched by file stem."""

from __future__ import annotations

import os
import unicodedata
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.data.dataset import require_split
from fcnlab.data.decode import EXTENSIONS
from fcnlab.data.image_files import IMAGE_EXTENSIONS
from fcnlab.data.labelled_files import LabelledFiles, root_folder
from fcnlab.data.sample_names import first_few, natural_key

if TYPE_CHECKING:
    from fcnlab.config.schema import FolderConfig, PairedFilesConfig


class PairedFiles(LabelledFiles):
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
        self._config = config  # `_default_split` reads it
        root = root_folder(config)
        images, labels = self._find(root)
        stems = sorted(images, key=natural_key)
        chosen = self._split(stems, root)[split]
        if not chosen:
            raise DataError(f"the {split} split of '{root}' is empty: see dataset.train_list and dataset.val_list")
        super().__init__(config, root, sorted(chosen, key=natural_key), images, labels, config.label_values)

    def _find(self, root: Path) -> tuple[Mapping[str, Path], Mapping[str, Path]]:
        """The images and the labels of both splits, by stem."""
        config = self._config
        images = _files_by_stem(root, config.images, "images", IMAGE_EXTENSIONS)
        labels = _files_by_stem(root, config.labels, "labels", EXTENSIONS)
        _require_partners(images, root / config.labels, labels, "image", "label")
        _require_partners(labels, root / config.images, images, "label", "image")
        return images, labels

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
                f"dataset.train_list and dataset.val_list both name {first_few(shared)}: "
                "remove it from one, or the validation is worthless"
            )
        return listed

    @abstractmethod
    def _default_split(self, stems: list[str], root: Path) -> dict[str, set[str]]:
        """The stems of both splits where no list says so."""


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


class _Files(Mapping[str, Path]):
    """Files of a folder by stem, kept as their names alone: of a million files, the paths would take a gigabyte."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, str] = {}

    def add(self, stem: str, name: str) -> None:
        """Raises a DataError if there is another one of the stem."""
        if stem in self._names:
            raise DataError(f"'{self[stem]}' and '{self._folder / name}' share the stem '{stem}': remove or rename one")
        self._names[stem] = name

    def __getitem__(self, stem: str) -> Path:
        return self._folder / self._names[stem]

    def __contains__(self, stem: object) -> bool:
        return stem in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted by name; an entry knows whether it is a link without asking the disk once more."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _files_by_stem(root: Path, name: str, key: str, extensions: tuple[str, ...]) -> _Files:
    """The picture files of a folder below the root, by stem."""
    folder = root / name
    if not folder.is_dir():
        raise DataError(f"there is no folder '{folder}': create it, or set dataset.{key} to its name in dataset.root")
    home = _home(root, name)
    _require_within(folder, home)
    files = _Files(folder)
    for entry in _entries(folder):
        stem, suffix = os.path.splitext(entry.name)
        if stem.startswith(".") or suffix.lower() not in extensions:
            continue
        if entry.is_symlink():
            _require_within(folder / entry.name, home)
        # macOS may store a name decomposed: the same letters have to match whatever wrote them.
        files.add(unicodedata.normalize("NFC", stem), entry.name)
    if not files:
        raise DataError(f"folder '{folder}' is empty: no file ends in {', '.join(extensions)}")
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
    files: Mapping[str, Path], folder: Path, partners: Mapping[str, Path], kind: str, partner_kind: str
) -> None:
    alone = sorted(files.keys() - partners.keys(), key=natural_key)
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


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error.strerror or error)
