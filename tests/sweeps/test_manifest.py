"""The manifest of a sweep."""

import pytest

from fcnlab.core.errors import ConfigError
from fcnlab.sweeps import manifest
from fcnlab.sweeps.command_line import find
from fcnlab.sweeps.manifest import SweepManifest, read, require


def test_it_is_read_as_it_was_written(tmp_path):
    written = SweepManifest("ab" * 16, ("seed=1,2", "arch=fcn8s"))
    written.write(tmp_path)
    assert read(tmp_path) == require(tmp_path, "sweep") == SweepManifest(written.id, written.overrides, tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": "../x", "words": []}', '{"id": 3}', '{"words": [1]}'])
def test_a_damaged_manifest_is_no_sweep(tmp_path, content):
    (tmp_path / manifest.FILE).write_text(content)
    assert read(tmp_path) is None
    with pytest.raises(ConfigError):
        find(str(tmp_path))
    with pytest.raises(ConfigError, match="is no sweep's folder"):
        require(tmp_path, "sweep")
