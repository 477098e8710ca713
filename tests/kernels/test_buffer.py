"""The memory that operators work in, which is kept for the next operator."""

import os
import subprocess
from pathlib import Path

import pytest

from fcnlab.kernels import build
from fcnlab.kernels.compiler import find_compiler


@pytest.fixture(scope="module")
def taken_anew(tmp_path_factory):
    """From the blocks in use at a time and the threads to how many blocks a second round takes from the system."""
    folder = Path(build.__file__).parent
    program = tmp_path_factory.mktemp("blocks") / "block_counter"
    sources = [folder / "buffer.cpp", folder / "parallel.cpp", Path(__file__).with_name("block_counter.cpp")]
    find_compiler().run("-std=c++17", "-pthread", f"-I{folder}", "-o", str(program), *map(str, sources))
    environment = {name: value for name, value in os.environ.items() if name != "FCNLAB_NUM_THREADS"}

    def count(blocks, threads):
        command = [program, str(blocks), str(threads)]
        return int(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)

    return count


@pytest.mark.parametrize(("blocks", "threads", "anew"), [
    (64, 1, 0), (64, 2, 0),
    (70, 2, 6),  # those that were unused for longest are given back to the system
    (500, 16, 0), (520, 16, 8),
])  # fmt: skip
def test_blocks_are_kept_for_each_thread(taken_anew, blocks, threads, anew):
    assert taken_anew(blocks, threads) == anew
