"""A large image takes memory for its own pixels and its labels, whatever is computed for them."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from tiny_network import METADATA

import fcnlab
from fcnlab.inference import TrainedNetwork


def peak_of_arrays(network, side, tile):
    """Return the peak number of bytes that Python and numpy allocate for a prediction besides the image."""
    image = np.zeros((side, side, 3), np.uint8)
    tracemalloc.start()
    try:
        network.predict(image, tile=tile)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_arrays_are_as_large_as_a_tile_not_as_the_image():
    network = TrainedNetwork(fcnlab.build_model(**METADATA["arch"]), METADATA, "test")
    shapes = set()

    def forward(images, output):
        shapes.add(images.shape[2:])
        return np.zeros((1, *images.shape[2:]), np.int32)

    network._forward = forward  # the slow test measures what MindSpore takes
    small, large = (peak_of_arrays(network, side, tile=1024) for side in (1024, 4096))
    labels = 4096 * 4096 - 1024 * 1024
    last_tile = 4 * 1024 * 1024  # its int32 classes, while the next one is computed
    assert large - small < labels + last_tile + 2**20
    assert max(max(shape) for shape in shapes) <= 1024
    assert len(shapes) == 2  # one compilation for each image


RESIDENT = """
import resource
import sys

import fcnlab
import numpy as np
from fcnlab.core import device
from fcnlab.inference import TrainedNetwork

device.configure("cpu")
arch = {"name": "fcn8s", "num_classes": 2, "width": 1 / 16}
pixels = {"mean": [0.5] * 3, "std": [0.25] * 3}
network = TrainedNetwork(fcnlab.build_model(**arch), {"arch": arch, "normalisation": pixels}, "test")
side = int(sys.argv[1])
network.predict(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8), tile=736)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
"""


@pytest.mark.slow
def test_a_process_takes_no_more_for_an_image_16_times_as_large():
    def peak(side):
        command = [sys.executable, "-c", RESIDENT, str(side)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])

    small, large = peak(736), peak(2944)
    pixels = 4 * (2944**2 - 736**2) / 2**20  # MiB: three channels and the label
    assert large - small < pixels + 100
