"""What ``dataset=folder`` opens: a folder of images and one of labels, or MindRecord files made from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fcnlab.data.dataset import Dataset
from fcnlab.data.image_folder import Folder
from fcnlab.data.mindrecord import RecordFolder

if TYPE_CHECKING:
    from fcnlab.config.schema import FolderConfig


def folder(config: FolderConfig, split: str) -> Dataset:
    """Open a split: from MindRecord files if ``dataset.records`` says so, else from its folders.

    Raises:
        DataError: As `Folder` and `RecordFolder` do.
        ConfigError: As `Folder` does.
    """
    return RecordFolder(config, split) if config.records else Folder(config, split)
