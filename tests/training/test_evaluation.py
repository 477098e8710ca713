"""The evaluator against the same network, image by image."""

import mindspore as ms
import numpy as np
import pytest
from conftest import MODES
from mindspore import Tensor, nn

from fcnlab.data import Dataset, EvalLoader, Sample
from fcnlab.losses import Combined, CrossEntropy
from fcnlab.metrics.confusion import ConfusionMatrix
from fcnlab.models import build_model
from fcnlab.training import evaluation as evaluation_module
from fcnlab.training.evaluation import Evaluator

PIXELS = {"mean": [0.5] * 3, "std": [0.25] * 3}


class Mixed(Dataset):
    """Images of several sizes, some of their pixels void."""

    sizes = ((40, 64), (33, 97), (64, 40), (40, 64))

    @property
    def names(self):
        return [f"{height}x{width}-{index}" for index, (height, width) in enumerate(self.sizes)]

    def __getitem__(self, index):
        generator = np.random.default_rng(index)
        label = generator.choice([0, 1, 2, 255], self.sizes[index], p=[0.4, 0.3, 0.2, 0.1]).astype(np.uint8)
        return Sample(generator.integers(0, 256, (*label.shape, 3), dtype=np.uint8), label, self.names[index])


@pytest.fixture
def network():
    network = build_model("fcn8s", num_classes=3, width=1 / 64, dropout=0.5)
    generator = np.random.default_rng(0)
    for name in ("score", "score_pool4", "score_pool3"):  # zero at first, which would predict class 0 everywhere
        weight = network.parameters_dict()[f"{name}.weight"]
        weight.set_data(Tensor(generator.normal(size=weight.shape).astype(np.float32)))
    return network


@MODES
def test_it_adds_up_over_images_of_any_size(network, mode):
    ms.set_context(mode=mode, device_target="CPU")
    loss = CrossEntropy(ignore_index=255, num_classes=3)
    loader = EvalLoader(Mixed(), **PIXELS)
    names = ["a", "b", "c"]
    evaluator = Evaluator(network, loss, loader, num_classes=3, ignore_index=255, class_names=names, keep=2)
    network.set_train(True)
    evaluation = evaluator()
    assert network.training

    ms.set_context(mode=ms.PYNATIVE_MODE)
    network.set_train(False)
    expected, losses, counts, predictions = ConfusionMatrix(3, 255), [], [], []
    for batch in loader:
        logits = network(Tensor(batch.images)).asnumpy()
        predictions.append(logits.argmax(axis=1)[0])
        expected.update(batch.labels, logits.argmax(axis=1))
        valid = batch.labels != 255
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_softmax = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        chosen = np.take_along_axis(log_softmax, np.where(valid, batch.labels, 0)[:, None], axis=1)[:, 0]
        losses.append(-chosen[valid].sum())
        counts.append(valid.sum())

    differ = np.abs(evaluation.confusion.counts - expected.counts).sum()
    assert differ <= 1e-3 * expected.counts.sum()  # rounding may decide between two classes
    assert len(np.unique(np.concatenate([array.ravel() for array in predictions]))) > 1
    assert evaluation.loss == pytest.approx(sum(losses) / sum(counts), rel=1e-4)
    assert [sample.name for sample, _ in evaluation.samples] == Mixed().names[:2]
    assert (evaluation.samples[1][1] == predictions[1]).mean() > 0.999
    assert evaluation.metrics["val/iou/b"] == pytest.approx(evaluation.confusion.iou[1])

    alone = [ConfusionMatrix(3, 255) for _ in predictions]
    for matrix, prediction, batch in zip(alone, predictions, loader, strict=True):
        matrix.update(batch.labels[0], prediction)
    values = [matrix.mean_iou for matrix in alone]
    assert [one.role for one in evaluation.ranked] == ["worst", "median", "best"]
    for one, value in zip(evaluation.ranked, (min(values), sorted(values)[1], max(values)), strict=True):
        assert one.mean_iou == pytest.approx(value, rel=1e-2)
        assert one.prediction.shape == one.sample.label.shape  # it is small enough to be kept whole
    assert evaluation.ranked[0].sample.name == Mixed().names[int(np.argmin(values))]


def logits_of(network, loader):
    """Return each image's logits, computed without the evaluator, and its labels."""
    network.set_train(False)
    return [(network(Tensor(batch.images)), batch.labels) for batch in loader]


def evaluator_of(network, loss):
    loader = EvalLoader(Mixed(), **PIXELS)
    return Evaluator(network, loss, loader, num_classes=3, ignore_index=255, class_names=["a", "b", "c"])


def test_the_loss_is_that_of_all_images_as_one_batch(network):
    """The expected value is computed in float64 from all pixels, whichever image they are in."""
    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
    weights = np.array([0.5, 4.0, 1.0])
    evaluator = evaluator_of(network, Combined(ignore_index=255, num_classes=3, class_weights=weights, dice=0.25))
    found = evaluator().loss

    ms.set_context(mode=ms.PYNATIVE_MODE)
    pairs = logits_of(network, evaluator.loader)
    logits = np.concatenate([array.asnumpy()[0].reshape(3, -1).T for array, _ in pairs]).astype(np.float64)
    labels = np.concatenate([array.ravel() for _, array in pairs])
    logits, labels = logits[labels != 255], labels[labels != 255]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    one_hot = np.eye(3)[labels]
    cross_entropy = np.average(-np.log(probabilities[np.arange(len(labels)), labels]), weights=weights[labels])
    coefficients = 2 * (probabilities * one_hot).sum(0) / ((probabilities**2).sum(0) + one_hot.sum(0))
    expected = 0.75 * cross_entropy + 0.25 * np.average(1 - coefficients, weights=weights)
    assert found == pytest.approx(expected, rel=1e-4)


class Square(nn.Cell):
    """A loss of another package, which knows nothing of sums."""

    def construct(self, logits, labels):
        return (logits * logits).mean()


@pytest.mark.parametrize("largest", [4 * 3 * 3 * 8, 4 * 3 * 3 * 8 - 1])
def test_any_other_loss_is_the_mean_of_the_images_by_their_pixels(network, monkeypatch, caplog, largest):
    """Counts of images that would take too much memory are only added up."""
    monkeypatch.setattr(evaluation_module, "LARGEST_COUNTS", largest)
    caplog.set_level("INFO")
    ms.set_context(mode=ms.PYNATIVE_MODE, device_target="CPU")
    evaluator = evaluator_of(network, Square())
    evaluation = evaluator()
    found = evaluation.loss
    assert evaluation.confusion.counts.sum() == sum((sample.label != 255).sum() for sample in Mixed())
    assert (evaluation.images is None) == ("4 images with 3 classes" in caplog.text) == (largest < 4 * 3 * 3 * 8)
    if evaluation.images is not None:
        np.testing.assert_array_equal(evaluation.images.total, evaluation.confusion.counts)
    pairs = logits_of(network, evaluator.loader)
    losses = [np.mean(logits.asnumpy().astype(np.float64) ** 2) for logits, _ in pairs]
    counted = [np.count_nonzero(labels != 255) for _, labels in pairs]
    assert found == pytest.approx(np.average(losses, weights=counted), rel=1e-4)
