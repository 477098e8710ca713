"""Images that a COCO file annotates, as they are found in a folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath

from fcnlab.config.schema import PrepareConfig
from fcnlab.core.errors import DataError
from fcnlab.core.foreign_files import shown
from fcnlab.data.image_files import IMAGE_EXTENSIONS
from fcnlab.data.image_folder import files_by_stem, require_file, require_within
from fcnlab.data.sample_names import first_few, natural_key
from fcnlab.preparation import layouts
from fcnlab.preparation.annotated_images import Annotated, Originals, given
from fcnlab.preparation.coco import Coco
from fcnlab.preparation.image_names import first_twice, unique_stems
from fcnlab.preparation.json_documents import is_file


def find(config: PrepareConfig, folder: Path) -> tuple[list[Annotated], Originals]:
    """Return the images of a COCO file."""
    home = folder.resolve()
    path = Path(config.annotations).expanduser()
    if not path.exists() and not path.is_absolute():
        path = folder / path
        require_within(path, home, "source")
    coco = Coco(path, config.classes, config.boxes)
    place = layouts.find_image_folder(folder, config.images)
    images = {key: _coco_image(coco, name, place, folder, home) for key, name in coco.files.items()}
    twice = first_twice([str(image) for image in images.values()])
    if twice is not None:
        raise DataError(f"annotation '{coco.path}': two of its images are '{twice}': give each a file of its own")
    if not images:
        raise DataError(f"annotation '{coco.path}': it lists no image")
    names = unique_stems([(key, PurePosixPath(coco.files[key].replace("\\", "/"))) for key in images])
    items = [
        Annotated(names[key], image, partial(coco.label, key), partial(given, coco.sizes[key]))
        for key, image in images.items()
    ]
    items.sort(key=lambda item: natural_key(item.name))
    found = Originals([], coco.class_names, warnings=list(coco.notes))
    others = (
        set(files_by_stem(place, IMAGE_EXTENSIONS).values()) - set(images.values())
        if layouts.holds_images(place)
        else ()
    )
    if others:
        found.warnings.append(
            f"{len(others)} images in '{place}' are not in '{path.name}', and are left out: "
            f"{first_few(other.name for other in others)}"
        )
    listed = {image.resolve() for image in images.values()}
    line = layouts.left_out_files(
        folder, IMAGE_EXTENSIONS, "images", lambda path: path.parent == place or path.resolve() in listed
    )
    found.warnings += [line] if line else []
    found.meaning = [(name, name) for name in coco.class_names] + [("crowds (iscrowd)", "void")]
    return items, found


def _coco_image(coco: Coco, name: str, place: Path, folder: Path, home: Path) -> Path:
    """Return the file of an image that a COCO file lists, which lies in the source.

    Raises:
        DataError: If it is not there, or leads elsewhere.
    """
    written = PurePosixPath(name.replace("\\", "/"))
    if ".." in written.parts or not written.name or len(name) > 4096 or "\0" in name:
        raise DataError(f"annotation '{coco.path}': image '{shown(name)}' is no file below a folder")
    inside = PurePosixPath(*written.parts[1:]) if written.is_absolute() else written
    places = [place / inside, folder / inside, place / written.name, folder / written.name]
    image = next((path for path in places if is_file(path)), None)
    if image is None:
        raise DataError(f"annotation '{coco.path}': there is no image '{places[0]}'")
    require_within(image, home, "source")
    require_file(image)
    if image.suffix.lower() not in IMAGE_EXTENSIONS:
        raise DataError(f"annotation '{coco.path}': image '{image}' is none of {', '.join(IMAGE_EXTENSIONS)}")
    return image
