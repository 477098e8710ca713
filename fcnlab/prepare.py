"""``python -m fcnlab.prepare``: from what there is to a folder that trains, and a look at whether it is right."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
import numpy as np
from omegaconf import DictConfig

from fcnlab import command
from fcnlab import config as configuration
from fcnlab.config import PrepareConfig
from fcnlab.core.errors import ConfigError, DataError, FcnlabError

if TYPE_CHECKING:
    from fcnlab.preparation.checking import Findings
    from fcnlab.preparation.originals import Source

log = logging.getLogger(__name__)

_MOST_PROBLEMS = 200


def prepare(config: PrepareConfig) -> Path:
    """Write images, labels, lists, ``dataset.yaml`` and ``preview.png``.

    Args:
        config: From ``fcnlab.config.compose([...], "prepare")``, or built by hand.

    Returns:
        The folder, for ``dataset=folder dataset.root=...``.

    Raises:
        FcnlabError: For everything that the user can mend. What was written before stays; a second call goes on.
    """
    _check_keys(config)
    from rich import get_console

    from fcnlab.core.progress import tracked
    from fcnlab.data.channels import to_rgb
    from fcnlab.drawing.palette import palette
    from fcnlab.preparation import originals, preview, writing

    root = Path(config.root).expanduser()
    with _unpacked(Path(config.source).expanduser()) as folder:
        if root.resolve() == folder.resolve() or folder.resolve() in root.resolve().parents:
            raise ConfigError(f"root={config.root}: lies in the source, which stays as it is; give another folder")
        source = originals.find(config, folder)
        for line in originals.missing(config, source):
            log.warning(line)
        splits = _split(source, config)
        validation = set(splits["val"])
        statistics = {split: writing.Statistics.of(len(source.class_names), source.channels) for split in splits}
        shown, written = [], 0
        every = max(len(source.items) // preview.SHOWN, 1)
        try:
            for index, item in enumerate(tracked(source.items, len(source.items), "images", get_console())):
                image, label = item.read()
                label = writing.without_void(label, source.ignore_index)
                written += writing.write_pair(root, item, source, image, label)
                statistics["val" if item.name in validation else "train"].add(image, label)
                if index % every == 0 and len(shown) < preview.SHOWN:
                    shown.append((item.name, to_rgb(image), label))
            described = (root, source, statistics["train"], splits, str(Path(config.source).resolve()))
            writing.write_description(*described)
            if config.records:
                _write_records(root)
                writing.write_description(*described, records=True)  # not before they are there
            colours = np.array(source.palette or palette(len(source.class_names)), np.uint8)
            pixels = {split: found.pixels for split, found in statistics.items()}
            preview.draw(shown, pixels, source.class_names, colours, root / "preview.png")
        except OSError as error:
            raise DataError(f"{error.filename or root}: cannot write ({error.strerror}); free space") from error
    total = len(source.items)
    log.info("%d training and %d validation images in %s", len(splits["train"]), len(splits["val"]), root)
    log.info("%d of %d were written, the others were there; look at %s", written, total, root / "preview.png")
    log.info("to train: python -m fcnlab.train dataset=folder dataset.root=%s", root)
    return root


def check(config: PrepareConfig) -> Findings:
    """Open every pair of a folder and show what is wrong.

    Args:
        config: With ``root``; ``dataset`` for another layout than a prepared folder's.

    Raises:
        ConfigError: If there is no such folder.
    """
    from rich import get_console

    from fcnlab.core.progress import tracked
    from fcnlab.metrics.names import class_names
    from fcnlab.preparation import checking

    if not config.root or not Path(config.root).expanduser().is_dir():
        raise ConfigError(f"root={config.root}: give the folder to look at")
    dataset = config.dataset
    findings, seen = checking.Findings(), {}
    for split, opened in checking.open_splits(dataset, findings).items():
        looked_at = checking.look_at(findings, dataset, split, opened, seen)
        for _ in tracked(looked_at, len(opened), f"{split} images", get_console()):
            pass
    names = class_names(dataset.class_names, dataset.num_classes)
    checking.add_summary(findings, names)
    _show(findings, names)
    return findings


def _write_records(root: Path) -> None:
    from fcnlab.config.schema import FolderConfig
    from fcnlab.data.folder import Folder
    from fcnlab.preparation import mindrecord_shards

    config = FolderConfig(root=str(root), train_list=str(root / "train.txt"), val_list=str(root / "val.txt"))
    for split in ("train", "val"):
        files = Folder(config, split)
        samples = [
            mindrecord_shards.Files(name, files.image_path(name), files.label_path(name)) for name in files.names
        ]
        written = mindrecord_shards.write_split(root, split, samples)
        log.info("%s %s", root / f"{split}.mindrecord", "was written" if written else "holds the same already")


def _check_keys(config: PrepareConfig) -> None:
    from fcnlab.metrics.names import why_refused

    for key in ("source", "root"):
        if not getattr(config, key):
            raise ConfigError(f"{key}: give a value, as in {key}=...")
    if not Path(config.source).expanduser().exists():
        from fcnlab.preparation.originals import LICENCES

        hint = LICENCES.get(config.dataset.name)
        raise ConfigError(f"source={config.source}: is not there{f'; {hint}' if hint else ''}")
    for key, count in (("values", len(config.values)), ("colours", len(config.colours))):
        if count and count != len(config.classes):
            raise ConfigError(
                f"{key}: has {count} entries for {len(config.classes)} classes: give one for each of both"
            )
    rows = [*config.colours, *([config.void_colour] if config.void_colour else [])]
    if any(len(row) != 3 or not all(0 <= value <= 255 for value in row) for row in rows):
        raise ConfigError("colours and void_colour: give red, green and blue from 0 to 255, as in [[0,0,0],[255,0,0]]")
    if len(config.classes) > 254:
        raise ConfigError(f"classes: has {len(config.classes)} names: give at most 254")
    reason = why_refused(config.classes)
    if reason is not None:
        raise ConfigError(f"classes: {reason}")


@contextmanager
def _unpacked(source: Path) -> Iterator[Path]:
    from fcnlab.preparation.originals import ARCHIVES, unpack

    if source.is_dir():
        yield source
        return
    if not source.name.lower().endswith(ARCHIVES):
        raise ConfigError(f"source={source}: is neither a folder nor an archive ({', '.join(ARCHIVES)})")
    with tempfile.TemporaryDirectory() as temporary:
        unpack(source, Path(temporary))
        yield Path(temporary)


def _split(source: Source, config: PrepareConfig) -> dict[str, list[str]]:
    """The names of both splits: the source's own, or drawn by ``split_seed``."""
    splits: dict[str, list[str]] = {"train": [], "val": []}
    if any(item.split for item in source.items):
        for item in source.items:
            splits[item.split or "train"].append(item.name)
    else:
        names = [item.name for item in source.items]
        if len(names) < 2:
            raise DataError(f"source={config.source}: has {len(names)} images, and two splits need at least 2")
        count = min(max(1, round(len(names) * config.val_fraction)), len(names) - 1)
        chosen = set(np.random.default_rng(config.split_seed).permutation(len(names))[:count].tolist())
        for index, name in enumerate(names):
            splits["val" if index in chosen else "train"].append(name)
    return splits


def _show(findings: Findings, names: list[str]) -> None:
    from rich import get_console
    from rich.markup import escape
    from rich.table import Table

    console = get_console()
    table = Table(title="Pixels of each class", title_justify="left")
    table.add_column("class", overflow="fold")
    for split in findings.pixels:
        table.add_column(split, justify="right")
    for index, name in enumerate(names):
        shares = [counts[index] / max(counts.sum(), 1) for counts in findings.pixels.values()]
        table.add_row(escape(name), *(f"{share:.2%}" for share in shares))
    table.add_section()
    table.add_row("void pixels", *(f"{count:,}" for count in findings.void.values()))
    table.add_row("images", *(f"{findings.images[split]:,}" for split in findings.pixels))
    console.print(table)
    if findings.sizes:
        heights, widths = zip(*findings.sizes, strict=True)
        console.print(f"{min(widths)} to {max(widths)} pixels wide, {min(heights)} to {max(heights)} high")
    for place, problem in findings.problems[:_MOST_PROBLEMS]:
        console.print(f"{place}: {problem}", markup=False, highlight=False, soft_wrap=True)
    if len(findings.problems) > _MOST_PROBLEMS:
        console.print(f"and {len(findings.problems) - _MOST_PROBLEMS} more")


def _main() -> None:
    if sys.argv[1:2] == ["check"]:
        sys.argv[1] = "check=true"
    hydra.main(version_base="1.3", config_path=str(configuration.config_folder()), config_name="prepare")(_command)()


def _command(node: DictConfig) -> None:
    try:
        config = configuration.from_node(node)
        if not config.check:
            prepare(config)
            return
        found = check(config)
    except FcnlabError as error:
        command.leave(command.EXIT_ERROR, str(error))
    if found.problems:
        command.leave(command.EXIT_ERROR, f"{len(found.problems)} things are wrong with {config.root}")
    log.info("nothing is wrong with %s", config.root)


if __name__ == "__main__":
    command.run(_main, PrepareConfig)
