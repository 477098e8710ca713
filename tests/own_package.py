"""The package of ``experiments/examples/own_package``, as if it was installed."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10 has none; pytest brings this one there
    import tomli as tomllib

SOURCE = Path(__file__).parents[1] / "experiments" / "examples" / "own_package"


@cache
def import_path():
    """Return the folders to import from: that of the package, and one with what an installation writes down of it."""
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    folder = Path(tempfile.mkdtemp(prefix="fcnlab-own-package-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    name, version = project["name"], project["version"]
    installed = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{point} = {value}" for point, value in points.items()), ""]
    (installed / "entry_points.txt").write_text("\n".join(lines))
    return [str(SOURCE), str(folder)]
