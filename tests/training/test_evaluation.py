"""The evaluator against the same network, image by image."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from fcnlab.data import Dataset, EvalLoader, Sample
from fcnlab.losses import CrossEntropy
from fcnlab.metrics import ConfusionMatrix
from fcnlab.models import build_model
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


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
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

    np.testing.assert_array_equal(evaluation.confusion.counts, expected.counts)
    assert len(np.unique(np.concatenate([array.ravel() for array in predictions]))) > 1
    assert evaluation.loss == pytest.approx(sum(losses) / sum(counts), rel=1e-4)
    assert [sample.name for sample, _ in evaluation.samples] == Mixed().names[:2]
    np.testing.assert_array_equal(evaluation.samples[1][1], predictions[1])
    assert evaluation.metrics["val/iou/b"] == pytest.approx(expected.iou[1])
