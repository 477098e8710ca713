"""A folder of images and one of labels, matched by file stem."""

from __future__ import annotations

import logging
import os
import re
import shlex
import unicodedata
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.core.foreign_files import kind_of
from fcnlab.data import description, image_groups
from fcnlab.data.dataset import SPLITS, TEST, require_split
from fcnlab.data.decode import EXTENSIONS
from fcnlab.data.image_files import IMAGE_EXTENSIONS, Page
from fcnlab.data.labelled_files import LabelledFiles, root_folder
from fcnlab.data.sample_lists import read_stems
from fcnlab.data.sample_names import first_few, natural_key
from fcnlab.data.stacks import with_pages
from fcnlab.data.zarr_images import SUFFIX as ZARR
from fcnlab.metrics.names import class_names

if TYPE_CHECKING:
    from fcnlab.config.schema import FolderConfig, PairedFilesConfig

log = logging.getLogger(__name__)


class PairedFiles(LabelledFiles):
    """Images in ``root/images`` and labels in ``root/labels``, paired by stem; their extensions may differ.

    A sample's name is its stem; each page of a stack is a sample, such as ``stack-0003``. Samples are sorted naturally:
    "2" before "10". ``train_list`` and ``val_list`` name the samples of the splits; if just one of them is given, the
    other split is the rest. Without a list, derived classes decide.

    The whole folder is listed and matched when the data set is made; pixels are read on access and by `check`.

    Args:
        config: Where the files are, what labels mean and how to split.
        split: "train" or "val".

    Raises:
        DataError: If a folder, file or list is missing, a file has no partner, two files share a stem, or a split is
            empty.
        ConfigError: If ``label_values`` has a value twice or more values than there are classes.
    """

    _splits = SPLITS

    def __init__(self, config: PairedFilesConfig, split: str) -> None:
        require_split(split, self._splits)
        self._config, self._wanted = config, split
        root = root_folder(config)
        images, labels = self._find(root)
        stems = sorted(images, key=natural_key)
        chosen = self._split(stems, root).get(split)
        if not chosen:
            key = "test_list in dataset.yaml" if split == TEST else "dataset.train_list and dataset.val_list"
            raise DataError(f"the {split} split of '{root}' is empty: see {key}")
        super().__init__(config, root, sorted(chosen, key=natural_key), images, labels, config.label_values)
        if not config.label_values:  # Values that are declared count whatever their colours.
            self._compare_palettes()
        self._may_be_binary = split == "train" and config.num_classes == 2 and not config.label_values
        self._may_be_binary &= config.ignore_index == 255
        self._root = root

    @property
    def groups(self) -> list[str]:
        """The group of each sample: as ``groups.csv`` says, or the file of a page, or the sample's own name.

        Raises:
            DataError: If ``groups.csv`` is damaged.
        """
        stated = image_groups.read(self._root)
        files = ((name, self._images[name]) for name in self.names)
        own = ((name, f"stack {file.path.name}" if isinstance(file, Page) else name) for name, file in files)
        return [stated.get(name, group) for name, group in own]

    def fingerprint(self) -> str:
        """Return the digest of `LabelledFiles`; a start that has it cached reads no file, and is not warned again."""
        if self._may_be_binary:
            self._warn_of_void_alone()
        return super().fingerprint()

    def _warn_of_void_alone(self) -> None:
        """Say it where 255, which is void, may have been meant as the second class: no label has a value but 0 and 255.

        Labels are read up to the first that has the value 1, which is mostly the first of all.
        """
        seen: set[int] = set()
        for path in self._labels.values():
            try:
                seen |= set(np.unique(self._read_label(path)).tolist())
            except DataError:  # which `check` reports
                return
            if seen - {0, 255}:
                return
        if 255 in seen:
            log.warning(
                "no label has a value but 0 and 255, and 255 is void, so that there is nothing but class 0 to learn: "
                "set dataset.label_values=[0,255] if 255 is the second class"
            )

    def _find(self, root: Path) -> tuple[Mapping[str, Path | Page], Mapping[str, Path | Page]]:
        """Return the images and the labels of both splits, by name."""
        config = self._config
        images = _files_within(root, config.images, "images", IMAGE_EXTENSIONS)
        labels = _files_within(root, config.labels, "labels", EXTENSIONS)
        if not images.keys() & labels.keys():
            first = min(images, key=natural_key)
            raise OtherLayoutError(
                f"image '{images[first]}' has no label '{first}.*' in '{root / config.labels}', and no other image has "
                "one: labels must be called like their images"
            )
        _require_partners(images, root / config.labels, labels, "image", "label")
        _require_partners(labels, root / config.images, images, "label", "image")
        return with_pages(images, labels, config.channels, config.bits)

    def _split(self, stems: list[str], root: Path) -> dict[str, set[str]]:
        """Return the stems of both splits."""
        config = self._config
        listed = {
            split: read_stems(path, f"dataset.{split}_list", root, stems)
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
        """Return the stems of both splits if no list is given."""


class Folder(PairedFiles):
    """`PairedFiles` that validate on a share of ``val_fraction``, drawn by ``split_seed``, unless lists say otherwise.

    Where `fcnlab.prepare` has dealt the images to folds, ``fold`` is the one to validate on, and the others train.
    The images that ``dataset.yaml`` keeps for a test are the split "test".

    Args:
        config: Where the files are, what labels mean and how to split.
        split: "train", "val" or "test".

    Raises:
        DataError: As `PairedFiles` does, and if there is a single image but no list, or no such fold.
        ConfigError: As `PairedFiles` does.
    """

    _config: FolderConfig
    _splits = (*SPLITS, TEST)

    def _find(self, root: Path) -> tuple[Mapping[str, Path | Page], Mapping[str, Path | Page]]:
        try:
            return super()._find(root)
        except OtherLayoutError as error:
            names = class_names(self._config.class_names, self._config.num_classes)
            raise DataError(
                f"{error}; if the folder is laid out in another way, such as train/images, images/train or "
                f"NAME_mask.png, this makes one that trains: {prepare_command(root, names)}"
            ) from None

    def _split(self, stems: list[str], root: Path) -> dict[str, set[str]]:
        """Return the stems that are kept for a test, or those of the other splits, by the fold if one is chosen."""
        if self._wanted == TEST:
            listed = description.test_list(root)
            return {} if listed is None else {TEST: read_stems(str(listed), "test_list", root, stems)}
        fold, folds = self._config.fold, self._config.folds
        if fold is None:
            return super()._split(stems, root)
        if folds is None or fold >= folds:
            made = f"the folds 0 to {folds - 1}" if folds else "no folds"
            raise DataError(f"dataset.fold={fold}: '{root}' has {made}; make them with fcnlab.prepare folds=5")
        members = [read_stems(str(root / fold_list(number)), "dataset.fold", root, stems) for number in range(folds)]
        twice = [name for name, count in Counter(name for names in members for name in names).items() if count > 1]
        if twice:
            raise DataError(f"dataset.fold: two folds of '{root}' hold {first_few(twice)}: prepare the folder again")
        others = set().union(*(names for number, names in enumerate(members) if number != fold))
        return {"train": others, "val": members[fold]}

    def _default_split(self, stems: list[str], root: Path) -> dict[str, set[str]]:
        if len(stems) < 2:
            raise DataError(f"'{root}' has just one image, '{stems[0]}': two splits need at least 2")
        validation = draw_validation(stems, self._config.val_fraction, self._config.split_seed)
        return {"train": set(stems) - validation, "val": validation}


class OtherLayoutError(DataError):
    """A folder has not the layout that is read here; it may have another one, which `fcnlab.prepare` reads."""


def prepare_command(root: Path, class_names: Sequence[str]) -> str:
    """Return the command line that prepares a folder, quoted for the shell and for Hydra where either needs it.

    Args:
        root: The folder; what is prepared goes to a new one beside it.
        class_names: The names of the classes.
    """
    whole = root.resolve()
    beside = whole if root.name in ("", "..") else root  # which has no name of its own, as the folder one is in
    prepared = beside.parent / f"{whole.name or 'data'}-prepared"
    words = [f"source={_quoted(str(root))}", f"root={_quoted(str(prepared))}"]
    words.append(f"classes=[{','.join(map(_quoted, class_names))}]")
    return " ".join(["python -m fcnlab.prepare", *map(shlex.quote, words)])


def _quoted(text: str) -> str:
    """Return a text as Hydra takes it in a value."""
    if re.fullmatch(r"[\w./-]+", text, re.ASCII) and text.lower() not in ("null", "true", "false", "nan", "inf"):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def fold_list(fold: int) -> str:
    """Return the name of the list of a fold in a prepared folder."""
    return f"fold-{fold}.txt"


def draw_validation(names: list[str], fraction: float, seed: int) -> set[str]:
    """Draw the names of the validation split: a share of at least two names, which leaves neither split empty."""
    count = min(max(1, round(len(names) * fraction)), len(names) - 1)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    return {names[position] for position in shuffled[:count]}


class EmptyFolderError(DataError):
    """A folder holds no file of the kind that is looked for."""


class _FilesByStem(Mapping[str, Path]):
    """Files of a folder by stem, kept as their names alone: of a million files, the paths would take a gigabyte."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, str] = {}

    def add(self, stem: str, name: str) -> None:
        """Add a file.

        Raises:
            DataError: If another file has the same stem.
        """
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


def files_by_stem(folder: Path, extensions: Sequence[str], home: Path | None = None) -> Mapping[str, Path]:
    """Return the files of a folder that have one of some extensions, by stem.

    Args:
        folder: The folder; its hidden files are left out.
        extensions: The extensions, in lower case.
        home: The folder that symbolic links must not lead out of; if None, they may lead anywhere.

    Raises:
        DataError: If there is no such file, two share a stem, or one is no file or a link out of ``home``.
    """
    files = _FilesByStem(folder)
    with os.scandir(folder) as entries:  # An entry knows whether it is a link without asking the disk once more.
        for entry in sorted(entries, key=lambda entry: entry.name):
            stem, suffix = os.path.splitext(entry.name)
            if stem.startswith(".") or suffix.lower() not in extensions:
                continue
            if home is not None and entry.is_symlink():
                require_within(folder / entry.name, home)
            if suffix.lower() == ZARR and entry.is_dir():
                pass  # Such an image is a folder.
            elif not entry.is_file():  # which asks the disk for links alone
                require_file(folder / entry.name)
            # macOS may store a name decomposed: the same letters have to match whatever wrote them.
            files.add(unicodedata.normalize("NFC", stem), entry.name)
    if not files:
        raise EmptyFolderError(f"folder '{folder}' is empty: no file ends in {', '.join(extensions)}")
    return files


def _files_within(root: Path, name: str, key: str, extensions: Sequence[str]) -> Mapping[str, Path]:
    """Return the files of a folder below the root, none of which may lie elsewhere, by stem."""
    folder, home = root / name, _home(root, name)
    if not folder.is_dir():
        raise OtherLayoutError(
            f"there is no folder '{folder}': create it, or set dataset.{key} to its name in dataset.root"
        )
    require_within(folder, home)
    try:
        return files_by_stem(folder, extensions, home)
    except EmptyFolderError as error:
        raise OtherLayoutError(str(error)) from None


def _home(root: Path, name: str) -> Path:
    """Return the folder that a data set's files must lie in: its root, or a folder beyond it that the user names."""
    root = root.resolve()
    named = Path(os.path.normpath(root / name))  # Links are not followed yet: the user wrote this path.
    return root if named.is_relative_to(root) else named.resolve()


def require_within(path: Path, home: Path, key: str = "dataset.root") -> None:
    """Refuse a symbolic link out of the data set: an archive from someone else must not make us read other files.

    Args:
        path: The file or folder.
        home: The folder that it must lie in, without links on the way.
        key: The configuration key that names that folder.

    Raises:
        DataError: If it leads elsewhere.
    """
    if not path.resolve().is_relative_to(home):
        raise DataError(
            f"'{path}' is a link to '{path.resolve()}', out of '{home}': copy what it leads to, or set {key} to "
            "the folder that holds both"
        )


def require_file(path: Path) -> None:
    """Refuse a path that is no regular file, such as a named pipe, which a reader would wait for.

    Raises:
        DataError: If it is none.
    """
    try:
        kind = kind_of(path.stat().st_mode)
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror or error}") from None
    if kind is not None:
        raise DataError(f"'{path}' is {kind}, not a file: remove it")


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
