"""What ``dataset=folder`` opens: a folder of images and one of labels, or MindRecord files made from them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from fcnlab.data import description
from fcnlab.data.dataset import TEST, Dataset
from fcnlab.data.image_folder import Folder
from fcnlab.data.mindrecord import RecordFolder, has_shards

if TYPE_CHECKING:
    from fcnlab.config.schema import FolderConfig

log = logging.getLogger(__name__)


def folder(config: FolderConfig, split: str) -> Dataset:
    """Open a split: from MindRecord files if ``dataset.records`` says so, else from its folders.

    The images of a test are files also where an earlier version made records of the other splits alone.

    Raises:
        DataError: As `Folder` and `RecordFolder` do.
        ConfigError: As `Folder` does.
    """
    if not config.records:
        return Folder(config, split)
    if split == TEST and not has_shards(Path(config.root).expanduser(), TEST):
        return Folder(config, split)
    return RecordFolder(config, split)


def _has_test(config: FolderConfig) -> bool:
    """Whether ``dataset.yaml`` keeps images for a test.

    A folder of records that an earlier version prepared holds no records of them. Where it was copied without its
    images, which suffices to train, there is nothing to test on, and a line says so.

    Raises:
        DataError: If ``dataset.yaml`` cannot be read, or names a list elsewhere.
    """
    root = Path(config.root).expanduser() if config.root else None
    if root is None or description.test_list(root) is None:
        return False
    if not config.records or has_shards(root, TEST) or (root / config.images).is_dir():
        return True
    log.warning(
        "'%s' keeps images for a test and holds neither their records nor their files: prepare it again with "
        "records=true to have them evaluated",
        root,
    )
    return False


folder.has_test = _has_test  # type: ignore[attr-defined]  # see `fcnlab.data.test_split`
