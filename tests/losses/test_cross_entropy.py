import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from fcnlab import kernels
from fcnlab.core.errors import ConfigError
from fcnlab.losses import CrossEntropy

VOID = 255
MODES = pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
CLASS_WEIGHTS = pytest.mark.parametrize("class_weights", [None, [1.0, 2.5, 0.0, 0.5]], ids=["alike", "weighted"])


def batch(ignore_index=VOID, seed=0):
    """Logits and labels of 4 classes, 2 images of 5 x 7, about a third void."""
    generator = np.random.default_rng(seed)
    logits = (3 * generator.standard_normal((2, 4, 5, 7))).astype(np.float32)
    labels = generator.integers(0, 4, (2, 5, 7)).astype(np.int32)
    labels[generator.random(labels.shape) < 0.3] = ignore_index
    return logits, labels


def value_and_gradient(loss, logits, labels):
    value, gradient = ms.value_and_grad(loss, 0)(Tensor(logits), Tensor(labels))
    return float(value.asnumpy()), gradient.asnumpy()


def by_formula(logits, labels, ignore_index, class_weights):
    """Return, in float64, the weighted mean of -log softmax, and (softmax - one-hot) * weight / total."""
    exponentials = np.exp(logits.astype(np.float64))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    total, losses, gradient = 0.0, 0.0, np.zeros(logits.shape)
    for image, row, column in np.ndindex(labels.shape):
        label = labels[image, row, column]
        if label == ignore_index:
            continue
        weight = class_weights[label] if class_weights else 1.0
        total += weight
        losses -= weight * np.log(probabilities[image, label, row, column])
        gradient[image, :, row, column] = weight * probabilities[image, :, row, column]
        gradient[image, label, row, column] -= weight
    return losses / total, gradient / total


@MODES
@CLASS_WEIGHTS
@pytest.mark.parametrize("ignore_index", [VOID, 3, 0])
def test_value_and_gradient_follow_the_formula(mode, class_weights, ignore_index):
    ms.set_context(mode=mode)
    logits, labels = batch(ignore_index)
    value, gradient = value_and_gradient(CrossEntropy(ignore_index, 4, class_weights), logits, labels)
    expected_value, expected_gradient = by_formula(logits, labels, ignore_index, class_weights)
    assert value == pytest.approx(expected_value, rel=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


@CLASS_WEIGHTS
def test_mindspores_operators_follow_the_formula(class_weights):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    logits, labels = batch()
    with kernels.stock_operators():
        loss = CrossEntropy(VOID, 4, class_weights)
    value, gradient = value_and_gradient(loss, logits, labels)
    expected_value, expected_gradient = by_formula(logits, labels, VOID, class_weights)
    assert value == pytest.approx(expected_value, rel=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


@MODES
@CLASS_WEIGHTS
def test_value_and_gradient_are_pytorchs(mode, class_weights):
    torch = pytest.importorskip("torch")
    ms.set_context(mode=mode)
    logits, labels = batch()
    reference = torch.from_numpy(logits).requires_grad_()
    weight = None if class_weights is None else torch.tensor(class_weights)
    expected = torch.nn.functional.cross_entropy(
        reference, torch.from_numpy(labels).long(), weight=weight, ignore_index=VOID
    )
    expected.backward()
    value, gradient = value_and_gradient(CrossEntropy(VOID, 4, class_weights), logits, labels)
    assert value == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, reference.grad.numpy(), atol=1e-6)


@MODES
@CLASS_WEIGHTS
def test_only_void_is_zero_with_zero_gradient(mode, class_weights):
    ms.set_context(mode=mode)
    logits, labels = batch()
    value, gradient = value_and_gradient(CrossEntropy(VOID, 4, class_weights), logits, np.full_like(labels, VOID))
    assert value == 0
    assert not gradient.any()


def test_only_a_class_of_weight_0_is_zero_with_zero_gradient():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    logits, labels = batch()
    loss = CrossEntropy(VOID, 4, [1.0, 1.0, 0.0, 1.0])
    value, gradient = value_and_gradient(loss, logits, np.full_like(labels, 2))
    assert value == 0
    assert not gradient.any()


@MODES
def test_large_logits_do_not_overflow(mode):
    ms.set_context(mode=mode)
    logits = np.zeros((1, 2, 1, 2), np.float32)
    logits[0, 0] = [1e4, -1e4]
    value, gradient = value_and_gradient(CrossEntropy(VOID, 2), logits, np.zeros((1, 1, 2), np.int32))
    assert value == pytest.approx(5e3)  # the mean of 0 and 1e4
    np.testing.assert_allclose(gradient[0, :, 0], [[0, -0.5], [0, 0.5]], atol=1e-7)


@MODES
def test_constant_logits_cost_the_logarithm_of_the_classes(mode):
    ms.set_context(mode=mode)
    _, labels = batch()
    value, _ = value_and_gradient(CrossEntropy(VOID, 4), np.full((2, 4, 5, 7), -7, np.float32), labels)
    assert value == pytest.approx(np.log(4), rel=1e-5)


def test_one_compilation_serves_every_image_size():
    ms.set_context(mode=ms.GRAPH_MODE)
    loss = CrossEntropy(VOID, 4)
    loss.set_inputs(
        Tensor(shape=[None, 4, None, None], dtype=ms.float32), Tensor(shape=[None, None, None], dtype=ms.int32)
    )
    logits, labels = batch()
    for height, width in ((5, 7), (4, 7), (2, 3)):
        cropped = logits[:, :, :height, :width], labels[:, :height, :width]
        value = float(loss(*(Tensor(np.ascontiguousarray(array)) for array in cropped)).asnumpy())
        assert value == pytest.approx(by_formula(*cropped, VOID, None)[0], rel=1e-5)


WITHIN = ": give numbers from 1e-15 to 1e+15, or 0 for classes that do not count, but not for all"


@pytest.mark.parametrize(
    ("class_weights", "message"),
    [
        ([1.0, 2.0], "loss.class_weights must have one weight for each of 3 classes, not 2"),
        ([1.0, -1.0, 1.0], f"loss.class_weights=[1.0, -1.0, 1.0]{WITHIN}"),
        ([0, 0, 0], f"loss.class_weights=[0, 0, 0]{WITHIN}"),
        ([1.0, float("nan"), 1.0], f"loss.class_weights=[1.0, nan, 1.0]{WITHIN}"),
        ([1e38, 1.0, 1.0], f"loss.class_weights=[1e+38, 1.0, 1.0]{WITHIN}"),  # infinite when summed over an image
        ([1e-46, 0.0, 0.0], f"loss.class_weights=[1e-46, 0.0, 0.0]{WITHIN}"),  # 0 as float32
    ],
)
def test_refuses_class_weights_without_a_mean(class_weights, message):
    with pytest.raises(ConfigError) as caught:
        CrossEntropy(VOID, 3, class_weights)
    assert str(caught.value) == message
