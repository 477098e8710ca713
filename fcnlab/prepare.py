"""``python -m fcnlab.prepare``: turn a researcher's files into a folder that trains, or check such a folder."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from fcnlab import command
from fcnlab import config as configuration
from fcnlab.config import PrepareConfig
from fcnlab.core.errors import ConfigError, DataError, FcnlabError

if TYPE_CHECKING:
    from fcnlab.preparation.annotated_images import Originals
    from fcnlab.preparation.checking import Findings

log = logging.getLogger(__name__)

_NAMES = {"train": "training", "val": "validation", "test": "test"}


@command.visible_log()
def prepare(config: PrepareConfig) -> Path:
    """Write images, labels, lists, ``dataset.yaml`` and ``preview.png``.

    Args:
        config: A configuration from ``fcnlab.config.compose([...], "prepare")``, or built by hand.

    Returns:
        The folder, for ``dataset=folder dataset.root=...``.

    Raises:
        FcnlabError: For everything that the user can mend. What was written before stays, and a second call continues.
    """
    _check_keys(config)
    from rich import get_console

    from fcnlab.core.progress import tracked
    from fcnlab.data import image_groups
    from fcnlab.data.channels import in_range, to_rgb
    from fcnlab.preparation import originals, prepared_folder, preview, splitting, summary
    from fcnlab.preparation.archives import unpacked
    from fcnlab.preparation.pixel_statistics import PixelStatistics

    root = Path(config.root).expanduser()
    with unpacked(Path(config.source).expanduser()) as folder:
        if root.resolve() == folder.resolve() or folder.resolve() in root.resolve().parents:
            raise ConfigError(f"root={config.root} lies in the source, which stays as it is; give another folder")
        found = originals.find(config, folder)
        for line in found.notes:
            log.info(line)
        for line in (*found.warnings, *originals.missing(config, found)):
            log.warning(line)
        said = len(found.warnings)
        drawn = splitting.assign(config, found.images)
        for line in drawn.notes:
            log.info(line)
        gathered: dict[str, PixelStatistics] = {}
        colours = prepared_folder.colour_table(found)
        output = prepared_folder.PreparedFolder(root)
        shown, written, total = [], 0, len(found.images)
        every = max(total // preview.SHOWN, 1)
        try:
            for index, original in enumerate(tracked(found.images, total, "images", get_console())):
                image, label = original.read()
                label = prepared_folder.without_void(label, found.ignore_index)
                written += output.write_pair(original, colours, image, label)
                if found.value_range:
                    image = in_range(image, found.value_range, found.bits)
                gathered[original.name] = PixelStatistics(len(found.class_names), found.channels)
                gathered[original.name].add(image, label)
                if index % every == 0 and len(shown) < preview.SHOWN:
                    shown.append((original.name, to_rgb(image), label))
            folds = splitting.deal(config, drawn, {name: one.class_pixels for name, one in gathered.items()})
            statistics = {split: PixelStatistics(len(found.class_names), found.channels) for split in drawn.splits}
            for split, names in drawn.splits.items():
                for name in names:
                    statistics[split].include(gathered[name])
            described = (root, found, statistics["train"], drawn.splits, str(Path(config.source).resolve()))
            more = {"drawn": drawn.described, "folds": folds}
            prepared_folder.write_description(*described, **more)
            if config.records:
                _write_records(root, found, bool(drawn.splits.get("test")))
                prepared_folder.write_description(*described, **more, records=True)  # not before they are there
            image_groups.write(root, dict(zip(gathered, drawn.groups, strict=True)))
            pixels = {split: counted.class_pixels for split, counted in statistics.items()}
            preview.draw(shown, pixels, found.class_names, colours, root / "preview.png")
        except OSError as error:
            raise DataError(f"{error.filename or root}: cannot write ({error.strerror}); free space") from error
    for line in (*found.warnings[said:], found.depths.warning(config.value_range, config.bits)):
        if line:
            log.warning(line)
    for path in output.removed:
        log.info("'%s' was removed: its image has another extension now", path)
    summary.show(found, statistics)
    counts = " and ".join(f"{len(names)} {_NAMES[split]}" for split, names in drawn.splits.items() if names)
    log.info("%s images in %s", counts, root)
    log.info("%d of %d were written, the others were there; look at %s", written, total, root / "preview.png")
    log.info("to train: python -m fcnlab.train dataset=folder %s", command.word("dataset.root", str(root)))
    return root


def check(config: PrepareConfig) -> Findings:
    """Open every pair of a folder and show what is wrong.

    Args:
        config: A configuration with ``root``, and with ``dataset`` for another layout than a prepared folder's.

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
        pairs = checking.check_pairs(findings, dataset, split, opened, seen)
        for _ in tracked(pairs, len(opened), f"{split} images", get_console()):
            pass
    names = class_names(dataset.class_names, dataset.num_classes)
    checking.add_absent_classes(findings, names)
    if config.near_duplicates == "refuse":
        checking.add_near_duplicates(findings)
    checking.show(findings, names)
    return findings


def _write_records(root: Path, found: Originals, has_test: bool) -> None:
    """Write the MindRecord files of the splits of a prepared folder, whose samples are those of its dataset.yaml."""
    from fcnlab.config.schema import FolderConfig
    from fcnlab.data.image_folder import Folder
    from fcnlab.preparation.mindrecord_shards import write_split

    config = FolderConfig(
        root=str(root),
        train_list=str(root / "train.txt"),
        val_list=str(root / "val.txt"),
        channels=found.channels,
        bits=found.bits,
        value_range=list(found.value_range),
        turned=found.turned,
    )
    for split in ("train", "val", *(["test"] if has_test else [])):
        written = write_split(root, split, Folder(config, split))
        log.info("%s %s", root / f"{split}.mindrecord", "was written" if written else "holds the same already")


def _check_keys(config: PrepareConfig) -> None:
    from fcnlab.config.validation import check_value_range
    from fcnlab.metrics.names import why_refused

    check_value_range("value_range", config.value_range)
    for key in ("source", "root"):
        if not getattr(config, key):
            raise ConfigError(f"{key}: give a value, as in {key}=...")
    if not Path(config.source).expanduser().exists():
        from fcnlab.preparation.originals import LICENCES

        hint = LICENCES.get(config.dataset.name)
        raise ConfigError(f"source={config.source} is not there{f'; {hint}' if hint else ''}")
    for key, count in (("values", len(config.values)), ("colours", len(config.colours))):
        if count and count != len(config.classes):
            raise ConfigError(
                f"{key} has {count} entries, classes {len(config.classes)}: give one entry for each class"
            )
    rows = [*config.colours, *([config.void_colour] if config.void_colour else [])]
    if any(len(row) != 3 or not all(0 <= value <= 255 for value in row) for row in rows):
        raise ConfigError("colours and void_colour: give red, green and blue from 0 to 255, as in [[0,0,0],[255,0,0]]")
    if len(config.classes) > 254:
        raise ConfigError(f"classes has {len(config.classes)} names: give at most 254")
    reason = why_refused(config.classes)
    if reason is not None:
        raise ConfigError(f"classes: {reason}")


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
