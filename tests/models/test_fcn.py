import mindspore as ms
import numpy as np
import pytest
from conftest import MODES
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import Tensor

from fcnlab.core.errors import ConfigError
from fcnlab.losses import CrossEntropy
from fcnlab.models import FCN, build_model, fcn

NARROW = 1 / 64
STRIDES = (32, 16, 8, 4, 2)


def weights(network):
    return {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}


def with_random_scores(network, seed=0):
    """Replace the zeros of the score layers, so that logits depend on the image."""
    generator = np.random.default_rng(seed)
    for parameter in network.trainable_params():
        if "score" in parameter.name:
            parameter.set_data(Tensor(generator.standard_normal(parameter.shape).astype(np.float32)))
    return network


def images(height, width, batch=1, seed=0):
    generator = np.random.default_rng(seed)
    return Tensor(generator.standard_normal((batch, 3, height, width)).astype(np.float32))


# The weights of the thirteen convolutions and, for batch norm, a scale and a shift for each of their channels.
CONVOLUTIONS = (
    (9 * 3 * 64)
    + (9 * 64 * 64)
    + (9 * 64 * 128)
    + (9 * 128 * 128)
    + (9 * 128 * 256)
    + 2 * (9 * 256 * 256)
    + (9 * 256 * 512)
    + 5 * (9 * 512 * 512)
)
CONVOLUTION_CHANNELS = 2 * 64 + 2 * 128 + 3 * 256 + 6 * 512
HEAD = (49 * 512 * 4096 + 4096) + (4096 * 4096 + 4096) + (4096 * 21 + 21)
# A fusion has a 4x4 transposed convolution of 21 x 21 and a 1x1 score of the pool; the last is 2s x 2s of 21 x 21.
FUSION = {pool: 16 * 21 * 21 + channels * 21 + 21 for pool, channels in ((4, 512), (3, 256), (2, 128), (1, 64))}
TAIL = {
    32: 64 * 64 * 21 * 21,
    16: FUSION[4] + 32 * 32 * 21 * 21,
    8: FUSION[4] + FUSION[3] + 16 * 16 * 21 * 21,
    4: FUSION[4] + FUSION[3] + FUSION[2] + 8 * 8 * 21 * 21,
    2: FUSION[4] + FUSION[3] + FUSION[2] + FUSION[1] + 4 * 4 * 21 * 21,
}


def test_hand_worked_counts_are_those_of_vgg():
    assert CONVOLUTIONS + CONVOLUTION_CHANNELS == 14_714_688  # torchvision's vgg16().features
    assert HEAD == 119_631_893
    assert TAIL == {32: 1_806_336, 16: 469_413, 8: 143_178, 4: 68_271, 2: 55_524}


@pytest.mark.parametrize("stride", STRIDES)
def test_parameter_count_at_full_width(monkeypatch, stride):
    # Drawing 134 million numbers takes seconds; zeros cost nothing.
    monkeypatch.setattr(fcn, "initialise", lambda network, seed: None)
    normalised = FCN(stride, num_classes=21)
    assert sum(parameter.size for parameter in normalised.trainable_params()) == (
        CONVOLUTIONS + 2 * CONVOLUTION_CHANNELS + HEAD + TAIL[stride]
    )
    published = FCN(stride, num_classes=21, norm="none")
    assert sum(parameter.size for parameter in published.get_parameters()) == (
        CONVOLUTIONS + CONVOLUTION_CHANNELS + HEAD + TAIL[stride]
    )


def test_names_are_the_vocabulary_of_checkpoints():
    names = [parameter.name for parameter in FCN(2, 3, NARROW).trainable_params()]
    assert {"encoder.block1.conv1.weight", "encoder.block1.norm1.gamma", "encoder.block5.norm3.beta"} < set(names)
    pools = [
        f"{layer}_pool{pool}.{kind}"
        for pool in (4, 3, 2, 1)
        for layer, kind in (("score", "weight"), ("score", "bias"), ("upsample", "weight"))
    ]
    head = ["fc6.weight", "fc6.bias", "fc7.weight", "fc7.bias", "score.weight", "score.bias"]
    assert [name for name in names if not name.startswith("encoder.")] == [*head, *pools, "upsample.weight"]


@pytest.mark.parametrize(("stride", "pools"), [(32, []), (16, [4]), (8, [4, 3]), (4, [4, 3, 2]), (2, [4, 3, 2, 1])])
def test_a_stride_scores_the_pools_down_to_it(stride, pools):
    names = weights(FCN(stride, 3, NARROW))
    assert [pool for pool in (4, 3, 2, 1) if f"score_pool{pool}.weight" in names] == pools
    assert names["upsample.weight"].shape == (3, 3, 2 * stride, 2 * stride)


@pytest.fixture(scope="module")
def dynamic():
    """A network for each stride, compiled once for all image sizes."""
    ms.set_context(mode=ms.GRAPH_MODE)
    networks = {}
    for stride in STRIDES:
        networks[stride] = with_random_scores(FCN(stride, 3, NARROW))
        networks[stride].set_inputs(Tensor(shape=[None, 3, None, None], dtype=ms.float32))
    return networks


@pytest.mark.parametrize(
    "stride", [stride if stride in (32, 2) else pytest.param(stride, marks=pytest.mark.slow) for stride in STRIDES]
)
@settings(max_examples=12, deadline=None)
@given(height=st.integers(32, 150), width=st.integers(32, 150), batch=st.integers(1, 2))
def test_logits_are_as_large_as_the_image(dynamic, stride, height, width, batch):
    ms.set_context(mode=ms.GRAPH_MODE)
    logits = dynamic[stride](images(height, width, batch))
    assert logits.shape == (batch, 3, height, width)
    assert logits.dtype == ms.float32


@pytest.mark.parametrize(("height", "width"), [pytest.param(64, 96, marks=pytest.mark.slow), (33, 70)])
def test_modes_and_dynamic_shapes_agree(dynamic, height, width):
    ms.set_context(mode=ms.GRAPH_MODE)
    expected = dynamic[8](images(height, width)).asnumpy()
    static = with_random_scores(FCN(8, 3, NARROW))
    np.testing.assert_allclose(static(images(height, width)).asnumpy(), expected, atol=1e-4)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    np.testing.assert_allclose(static(images(height, width)).asnumpy(), expected, atol=1e-4)


def test_padding_by_hand_gives_the_same_logits():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = with_random_scores(FCN(8, 3, NARROW))
    image = images(40, 70)
    padded = np.pad(image.asnumpy(), ((0, 0), (0, 0), (0, 24), (0, 26)))
    np.testing.assert_allclose(
        network(image).asnumpy(), network(Tensor(padded)).asnumpy()[:, :, :40, :70], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(("height", "width"), [(31, 64), (64, 31)])
def test_refuses_a_smaller_image(height, width):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    with pytest.raises(ValueError, match=f"at least 32 x 32 pixels, not {height} x {width}"):
        FCN(32, 2, NARROW)(images(height, width))


def test_the_seed_is_all_that_weights_depend_on():
    ms.set_seed(1)
    first = weights(FCN(8, 3, NARROW, seed=5))
    ms.set_seed(2)
    second = weights(FCN(8, 3, NARROW, seed=5))
    other = weights(FCN(8, 3, NARROW, seed=6))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert not np.array_equal(first["fc6.weight"], other["fc6.weight"])


def test_weights_of_a_seed_stay_what_they_are():
    # If this fails, earlier experiments cannot be repeated.
    weight = weights(FCN(32, 2, NARROW, seed=0))["encoder.block1.conv1.weight"]
    expected = np.random.default_rng(0).standard_normal((1, 3, 3, 3), dtype=np.float32) * np.float32(np.sqrt(2 / 27))
    np.testing.assert_allclose(weight, expected, rtol=1e-6)


def test_every_stride_starts_from_the_same_encoder_and_head():
    reference = weights(FCN(32, 3, NARROW, seed=5))
    shared = [name for name in reference if name.startswith(("encoder.", "fc6.", "fc7.", "score."))]
    for stride in STRIDES[1:]:
        other = weights(FCN(stride, 3, NARROW, seed=5))
        for name in shared:
            np.testing.assert_array_equal(reference[name], other[name])


def test_scale_of_the_initial_weights():
    initial = weights(FCN(8, 3, 1 / 4))
    assert initial["fc6.weight"].std() == pytest.approx(np.sqrt(2 / (128 * 49)), rel=0.01)
    assert initial["encoder.block5.conv1.weight"].std() == pytest.approx(np.sqrt(2 / (128 * 9)), rel=0.01)
    for name, values in initial.items():
        if "score" in name.partition(".")[0] or name.endswith((".bias", ".beta", ".moving_mean")):
            assert not values.any(), name


@pytest.mark.parametrize("stride", STRIDES)
def test_initial_loss_is_that_of_guessing(stride):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = FCN(stride, 5, NARROW)
    labels = Tensor(np.random.default_rng(0).integers(0, 5, (1, 40, 40)).astype(np.int32))
    loss = CrossEntropy(255, 5)(network(images(40, 40)), labels)
    assert float(loss.asnumpy()) == pytest.approx(np.log(5), rel=1e-5)


@MODES
def test_every_parameter_learns(mode):
    ms.set_context(mode=mode)
    network = with_random_scores(FCN(2, 3, NARROW, norm="none", dropout=0.0, seed=3))
    loss = CrossEntropy(255, 3)
    labels = Tensor(np.random.default_rng(0).integers(0, 3, (2, 50, 70)).astype(np.int32))
    for parameter in network.trainable_params():
        # With a single channel, a ReLU of the narrow network may never be active.
        if parameter.name.endswith("weight") and "score" not in parameter.name:
            parameter.set_data(Tensor(np.abs(parameter.asnumpy())))
        elif parameter.name.endswith("bias"):
            parameter.set_data(Tensor(np.ones(parameter.shape, np.float32)))

    def forward(image, label):
        return loss(network(image), label)

    parameters = network.trainable_params()
    _, gradients = ms.value_and_grad(forward, None, parameters)(images(50, 70, 2), labels)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        assert np.isfinite(gradient.asnumpy()).all(), parameter.name
        assert np.abs(gradient.asnumpy()).max() > 0, parameter.name


def test_dropout_acts_in_training_only():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = with_random_scores(FCN(32, 2, 1 / 16, norm="none"))
    image = images(64, 64)
    evaluated = [network(image).asnumpy() for _ in range(2)]
    np.testing.assert_array_equal(*evaluated)
    network.set_train()
    trained = [network(image).asnumpy() for _ in range(2)]
    assert not np.array_equal(*trained)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stride": 64}, "arch.stride must be one of 32, 16, 8, 4, 2, not 64"),
        ({"num_classes": 1}, "dataset.num_classes must be an integer of at least 2, not 1"),
        ({"num_classes": 2.5}, "dataset.num_classes must be an integer of at least 2, not 2.5"),
        ({"width": 0}, "arch.width must be a number above 0, not 0"),
        ({"width": float("nan")}, "arch.width must be a number above 0, not nan"),
        ({"norm": "layer"}, "arch.norm must be one of batch, sync_batch, group, none, not 'layer'"),
        ({"dropout": 1.0}, "arch.dropout must be a number from 0 to below 1, not 1.0"),
        ({"in_channels": 0}, "dataset.channels must be an integer of at least 1, not 0"),
        ({"seed": -1}, "seed must be an integer of at least 0, not -1"),
    ],
)
def test_refuses_wrong_arguments(arguments, message):
    with pytest.raises(ConfigError) as caught:
        FCN(**{"stride": 8, "num_classes": 2, "width": NARROW, **arguments})
    assert str(caught.value) == message


@pytest.mark.parametrize("stride", STRIDES)
def test_build_model_finds_each_stride(stride):
    network = build_model(f"fcn{stride}s", num_classes=3, width=NARROW, norm="none", dropout=0.1, seed=4)
    assert isinstance(network, FCN)
    assert (network.stride, network.num_classes) == (stride, 3)
    assert "encoder.block1.conv1.bias" in weights(network)


def test_build_model_suggests_a_name():
    with pytest.raises(ConfigError, match="did you mean 'fcn8s'"):
        build_model("fcn8", num_classes=3)


def test_dropout_masks_come_from_the_generator_alone_and_keep_their_share():
    network = build_model("fcn32s", num_classes=2, width=1 / 16, dropout=0.3)
    shape = (4, 3, 70, 64)
    one, again, other = (network.dropout_masks(shape, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == (2, 4, 256, 3, 2)
    np.testing.assert_array_equal(one, again)
    assert (one == other).mean() == pytest.approx(0.7**2 + 0.3**2, abs=0.02)
    assert one.mean() == pytest.approx(0.7, abs=0.02)
    assert build_model("fcn32s", num_classes=2, width=1 / 16, dropout=0).dropout_masks(shape, None) is None


def test_masks_act_as_dropout_does():
    """If all are kept, the features are scaled by 1 / (1 - dropout) twice; if none is, only biases are left."""
    network = build_model("fcn32s", num_classes=2, width=1 / 32, norm="none", dropout=0.5).set_train()
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(network.score.weight.shape, dtype=np.float32)
    network.score.weight.set_data(Tensor(weight))
    images = Tensor(rng.standard_normal((1, 3, 32, 32), dtype=np.float32))
    shape = network.dropout_masks(images.shape, rng).shape
    whole, nothing = (network(images, Tensor(np.full(shape, value))).asnumpy() for value in (True, False))
    network.set_train(False)
    np.testing.assert_allclose(whole, 4 * network(images).asnumpy(), rtol=1e-4)
    assert np.abs(whole).max() > 0
    assert (nothing == 0).all()
