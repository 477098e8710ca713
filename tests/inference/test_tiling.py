"""The places of tiles and the receptive field of a network."""

import mindspore as ms
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mindspore import Tensor

from fcnlab.core.errors import ConfigError
from fcnlab.inference.tiling import overlap, spans, tiles
from fcnlab.kernels import stock_operators
from fcnlab.models import FCN, VGG16Encoder

MARGIN = 224


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine draws slowly
@given(length=st.integers(1, 6000), largest=st.integers(15, 60).map(lambda cells: 32 * cells))
def test_tiles_cover_the_image_once_and_look_far_enough(length, largest):
    cut = spans(length, largest, MARGIN)
    padded = -(-length // 32) * 32
    kept = np.zeros(length, int)
    for span in cut:
        kept[span.first : span.last] += 1
        assert span.start % 32 == 0
        assert span.stop - span.start == cut[0].stop - cut[0].start <= largest  # one shape is compiled once
        assert span.start == 0 or span.first - span.start >= MARGIN
        assert span.stop == padded or span.stop - span.last >= MARGIN
    assert (kept == 1).all()
    assert cut[0].start == 0
    assert cut[-1].stop == padded  # both ends are the image's own, padded as the network pads it


def test_an_image_that_fits_is_one_tile():
    [tile] = tiles(500, 640, 1408, MARGIN)
    assert tile == ((0, 512, 0, 500), (0, 640, 0, 640))


def test_tiles_are_no_larger_than_they_must_be():
    # Four tiles of 4096 pixels overlap three times by 448: (4096 + 3 * 448) / 4 = 1360, and 1376 on the grid.
    assert [(span.start, span.stop) for span in spans(4096, 1408, MARGIN)] == [
        *((0, 1376), (928, 2304), (1856, 3232)),
        (2720, 4096),
    ]


def test_a_tile_that_is_all_margin_is_refused():
    with pytest.raises(ConfigError, match="tile=448: must be at least 480"):
        spans(1000, 448, MARGIN)


def test_the_overlap_is_that_of_the_receptive_field():
    assert overlap(7, VGG16Encoder(1 / 64).reach) == MARGIN  # 218 pixels: see below


@pytest.mark.parametrize("stride", [32, 8, 2])
def test_a_network_looks_exactly_as_far_as_the_overlap_is_derived(stride):
    """All weights are positive, so that any pixel in the receptive field changes the logit.

    The operators are stock ones, since the rounding of Winograd's convolution reaches beyond the receptive field.
    """
    ms.set_context(mode=ms.PYNATIVE_MODE)
    with stock_operators():
        network = FCN(stride, 2, 1 / 64, norm="none")
    for parameter in network.trainable_params():
        if parameter.name.endswith("weight"):
            parameter.set_data(Tensor(np.abs(parameter.asnumpy()) + np.float32(1e-2)))
    first = 256  # a multiple of 32, where the kept part of the second tile begins
    plain = np.full((1, 3, 32, 640), 0.5, np.float32)

    def changes(column):
        image = plain.copy()
        image[..., column] += 10
        difference = network(Tensor(image)).asnumpy() - network(Tensor(plain)).asnumpy()
        return np.abs(difference[0, :, :, first]).max() > 0

    assert changes(first - 218)
    assert not changes(first - 219)
