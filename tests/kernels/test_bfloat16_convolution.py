"""The convolution by matrix instructions against the definition, in double precision, with rounded factors.

Where the processor has no such instructions (AMX), `amx_emulator.cpp` computes them, so that the operators' own machine
code is tested.
"""

import ctypes
import platform
from pathlib import Path

import convolution_definition
import mindspore as ms
import numpy as np
import pytest
from conftest import made_once
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import Tensor, nn
from native import TARGET, Native, assert_same_bits_on_any_number_of_threads
from rounding import bfloat16
from test_direct_convolution import example

from fcnlab.core.processor import cpu_flags
from fcnlab.experiment.graph_key import describe_cell
from fcnlab.kernels import build, selection
from fcnlab.kernels.compiler import BuildError, find_compiler
from fcnlab.models.layers import Conv3x3, HeadConv2d
from fcnlab.training.mixed_precision import MixedPrecision

SOURCES = ("bfloat16_convolution", "buffer", "channel_sums", "parallel")
SETS = ("-mamx-tile", "-mamx-bf16")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A library of these operators that takes the emulator's word for whether there is AMX."""
    if TARGET or platform.machine() != "x86_64":
        pytest.skip("AMX is for x86-64")
    compiler, here = find_compiler(), Path(build.__file__).parent
    try:
        compiler.run(*SETS, "-E", "-x", "c++", "/dev/null")
    except BuildError as error:
        pytest.skip(f"the compiler knows no AMX: {error}")

    def make(folder):
        sources = [*(here / f"{name}.cpp" for name in SOURCES), Path(__file__).with_name("amx_emulator.cpp")]
        output = folder / "library.so"
        compiler.run(*build.FLAGS, *SETS, "-shared", "-I", str(here), "-o", str(output), *map(str, sources))

    return made_once(tmp_path_factory, "amx", make) / "library.so"


@pytest.fixture(scope="module")
def native(library):
    return Native(library)


def all_three(native, images, weight, bias, gradient):
    return (
        native("bfloat16_convolution_with_bias", [images, weight, bias], gradient.shape),
        native("bfloat16_convolution_input_gradient", [gradient, weight], images.shape),
        native("bfloat16_convolution_weight_gradient", [images, gradient, weight], weight.shape),
    )


def assert_correct(native, images, weight, bias, gradient):
    found = all_three(native, images, weight, bias, gradient)
    images, weight, gradient = map(bfloat16, (images, weight, gradient))
    expected = convolution_definition.all_three(images, weight, bias, gradient)
    for one, exact in zip(found, expected, strict=True):
        assert np.abs(one - exact).max() <= 2e-5 * max(1.0, np.abs(exact).std())


SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 9), st.integers(1, 40))


@settings(max_examples=15, deadline=None)
@given(shape=SHAPES, outputs=st.integers(1, 70), size=st.sampled_from([1, 3, 5, 7]))
def test_any_shape(native, shape, outputs, size):
    assert_correct(native, *example(shape, outputs, size))


def test_few_channels_of_many_pixels(native):
    """The positions are divided into chunks and parts, whose sums are added up in the end."""
    assert_correct(native, *example((2, 3, 50, 45), 20, 3))


def test_many_channels_of_few_pixels(native):
    """There are as many blocks of channels as parts at most, so that there is a single part."""
    assert_correct(native, *example((1, 128, 3, 4), 130, 3))


def test_the_same_to_the_bit_on_any_number_of_threads(native):
    given = example((2, 35, 9, 29), 40, 3)
    assert_same_bits_on_any_number_of_threads(native, lambda: all_three(native, *given), (1, 2, 7, 16))


def test_without_bias(native):
    images, weight, bias, gradient = example((1, 5, 6, 7), 4, 3)
    with_bias = native("bfloat16_convolution_with_bias", [images, weight, np.zeros_like(bias)], gradient.shape)
    np.testing.assert_array_equal(native("bfloat16_convolution", [images, weight], gradient.shape), with_bias)


def test_no_image(native):
    images, weight, bias, gradient = example((0, 3, 4, 5), 2, 7)
    forward, of_input, of_weight = all_three(native, images, weight, bias, gradient)
    assert forward.shape == (0, 2, 4, 5)
    assert of_input.shape == images.shape
    np.testing.assert_array_equal(of_weight, 0)


def test_factors_are_rounded_as_their_bits_say(native):
    """A kernel of one tap that is 1 returns what it takes of a factor."""
    ties = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x3F817FFF, 0x80000000, 0x7F7F0000], np.uint32)
    random = np.random.default_rng(0).standard_normal(500, dtype=np.float32) * np.float32(1e3)
    values = np.concatenate((random, ties.view(np.float32)))
    image = values.reshape(1, 1, 2, -1)
    found = native("bfloat16_convolution", [image, np.ones((1, 1, 1, 1))], image.shape)
    np.testing.assert_array_equal(found, bfloat16(image))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.4e38])
def test_what_is_not_finite_stays_so(native, value):
    """The largest numbers are nearer to the infinite one than to a finite bfloat16."""
    images, weight, bias, gradient = example((1, 3, 6, 7), 4, 3)
    for array in (images, gradient):
        array[0, 1, 2, 3] = value
    forward, of_input, of_weight = all_three(native, images, weight, bias, gradient)
    near = np.zeros((6, 7), bool)
    near[1:4, 2:5] = True
    for found in (forward, of_input):
        assert (np.isfinite(found) == ~near).all()
    assert not np.isfinite(of_weight[:, 1]).any()
    assert not np.isfinite(of_weight[1]).any()


def test_a_processor_that_computes_otherwise_is_found(native, library, monkeypatch, caplog):
    if native.library.has_bfloat16_products() and "amx_bf16" in cpu_flags():
        pytest.skip("this processor's own instructions cannot be disturbed")
    monkeypatch.delenv("FCNLAB_KERNELS", raising=False)
    monkeypatch.setattr(selection, "_built", lambda: library)
    selection._has_bfloat16_products.cache_clear()
    try:
        native.library.disturb_amx(ctypes.c_int(1))
        assert not selection.has_bfloat16_products()
        assert "compute other convolutions than expected" in caplog.text
        selection._has_bfloat16_products.cache_clear()
        native.library.disturb_amx(ctypes.c_int(0))
        assert selection.has_bfloat16_products()
        assert selection.describe(bfloat16=True) == "compiled library with AMX"
        assert selection.describe() == "compiled library"  # float32 computes the same with and without it
    finally:
        native.library.disturb_amx(ctypes.c_int(0))
        selection._has_bfloat16_products.cache_clear()


def test_a_processor_whose_instructions_cannot_be_used_is_told_of(monkeypatch, caplog):
    if selection.has_bfloat16_products():
        pytest.skip("this processor's can be")
    selection._has_bfloat16_products.cache_clear()
    caplog.clear()
    monkeypatch.setattr(selection, "cpu_flags", lambda: {"amx_bf16"})
    monkeypatch.delenv("FCNLAB_KERNELS", raising=False)
    assert not selection.has_bfloat16_products()
    assert "(AMX) are not used: they need" in caplog.text
    selection._has_bfloat16_products.cache_clear()


class OneLayer(nn.Cell):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def construct(self, images):
        return self.layer(images)


LAYERS = {"3x3": lambda: Conv3x3(4, 8, has_bias=True), "dense": lambda: HeadConv2d(4, 8, 5)}


@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, ms.GRAPH_MODE])
@pytest.mark.parametrize("name", LAYERS)
def test_a_network_computes_by_them(library, monkeypatch, name, mode):
    """What it computes is what the rounded factors give in float32, with all gradients."""
    ms.set_context(mode=mode, device_target="CPU")
    monkeypatch.delenv("FCNLAB_KERNELS", raising=False)
    random = np.random.default_rng(0)
    weight, bias = random.standard_normal((8, 4, 5, 5), dtype=np.float32), random.standard_normal(8).astype(np.float32)
    images, gradient = (Tensor(random.standard_normal((2, size, 6, 9), dtype=np.float32)) for size in (4, 8))

    descriptions = []

    def computed():
        layer = LAYERS[name]()
        side = layer.weight.shape[-1]
        layer.weight.set_data(Tensor(np.ascontiguousarray(weight[..., :side, :side])))
        layer.bias.set_data(Tensor(bias))
        network = MixedPrecision(OneLayer(layer), "bf16")
        descriptions.append(describe_cell(network))
        operators = {cell.operator.name for _, cell in network.cells_and_names() if hasattr(cell, "operator")}

        def product(values):
            return (network(values) * gradient).sum(), network(values)

        backward = ms.value_and_grad(product, 0, ms.ParameterTuple(layer.trainable_params()), has_aux=True)
        (_, output), (of_images, of_parameters) = backward(images)
        return operators, [tensor.asnumpy() for tensor in (output, of_images, *of_parameters)]

    with monkeypatch.context() as rounding:
        rounding.setattr(selection, "has_bfloat16_products", lambda: False)
        rounding.setattr("fcnlab.kernels.operators.has_bfloat16_products", lambda: False)
        rounded, expected = computed()
    monkeypatch.setattr(selection, "_built", lambda: library)
    by_instructions, found = computed()
    assert rounded - by_instructions == {"Custom"}
    assert descriptions[0] != descriptions[1]  # so that neither finds the other's compiled graph
    for one, other in zip(found, expected, strict=True):
        # The gradient of the bias is no product: it is the sum of what is rounded in float32 alone.
        bound = 3e-2 if one.ndim == 1 else 2e-4
        np.testing.assert_allclose(one, other, atol=bound * max(1.0, float(np.abs(other).std())))
