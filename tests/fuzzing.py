"""Coverage-guided fuzzing in a process of its own: ``python tests/fuzzing.py TARGET -runs=5000 corpus``.

The arguments after the target are libFuzzer's. Any error that is not one of ours ends it with an exit code, and so do
two GiB of memory.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=[
        *("fcnlab.data.decode", "fcnlab.data.image_files", "fcnlab.data.label_files"),
        *("fcnlab.models.checkpoint", "fcnlab.models.foreign"),
    ]
):
    from fcnlab.core.checkpoint_header import read_metadata
    from fcnlab.data import image_files
    from fcnlab.data.label_files import read_label
    from fcnlab.models.checkpoint import read_weights
    from fcnlab.models.foreign import read
from fcnlab.core.errors import FcnlabError

TARGETS = {
    "images": [
        ("a.png", image_files.read),
        ("a.png", lambda path: read_label(path, white=255)),
    ],
    "checkpoints": [("a.safetensors", read_weights), ("a.safetensors", read_metadata), ("a.ckpt", read_weights)],
    "weights": [("a", read)],
}


def main():
    checks = TARGETS[sys.argv.pop(1)]
    with tempfile.TemporaryDirectory() as folder:

        def check(data):
            for name, read in checks:
                path = Path(folder) / name
                path.write_bytes(data)
                try:
                    read(path)
                except FcnlabError as error:
                    if "\n" in str(error):
                        raise RuntimeError("more than one line") from error

        atheris.Setup(sys.argv, check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
