"""The test images are evaluated once, at the very end, with the weights that the validation chose."""

import numpy as np
import pytest
from mindspore import Tensor
from scripted_training import Recorder, Scripted, Step, make

from fcnlab.core.workers import Message, WorkerLostError, Workers
from fcnlab.models import build_model
from fcnlab.models.checkpoint import read_weights
from fcnlab.training.evaluation import Evaluation
from fcnlab.training.state import StateFolder


class Growing(Step):
    """A step after which one weight is the number of the steps."""

    def __init__(self):
        super().__init__()
        self.network = build_model("fcn32s", num_classes=2, width=1 / 64)
        self.parameters_dict = self.state = self.network.parameters_dict
        self.weight = self.network.parameters_dict()["score.bias"]
        self.count = 0

    def __call__(self, *inputs):
        self.count += 1
        self.weight.set_data(Tensor(np.full(self.weight.shape, self.count, np.float32)))
        return super().__call__(*inputs)


class Heard(Recorder):
    def on_test(self, event):
        self.events.append(("test", event.step, event.epoch, event.evaluation.stage))


def made(tmp_path, hits, evaluate=None, **config):
    step, seen = Growing(), []
    trainer, recorder = make(tmp_path, Scripted(hits), step=step, recorder=Heard(), eval_every=1, **config)

    def test():
        seen.append(float(step.weight.asnumpy()[0]))
        if evaluate is not None:
            evaluate()
        confusion = Scripted([20])().confusion
        return Evaluation(0.25, confusion, ["a", "b"], [], stage="test")

    trainer.test = test
    return trainer, recorder, step, seen


@pytest.mark.parametrize(("hits", "best"), [([8, 16, 12], 4), ([8, 12, 16], 6)])
def test_the_best_weights_are_tested_and_the_last_ones_stay(tmp_path, hits, best):
    trainer, recorder, step, seen = made(tmp_path, hits, epochs=3)
    result = trainer.fit()
    assert seen == [best]
    assert step.weight.asnumpy().tolist() == [6, 6]
    assert read_weights(result.last_checkpoint)[0]["score.bias"].tolist() == [6, 6]
    assert recorder.events[-3:] == [("last", "last.safetensors"), ("test", best, best // 2, "test"), "finished"]
    assert result.best.step == result.test.step == best
    assert result.test.evaluation.metrics["test/mean_iou"] == 1
    assert set(result.test.evaluation.metrics) == {
        *("test/loss", "test/pixel_accuracy", "test/mean_accuracy", "test/mean_iou", "test/frequency_weighted_iou"),
        *("test/iou/a", "test/iou/b"),
    }
    assert "test_mean_iou=1" in repr(result)
    assert "test mean iou" in result._repr_html_()


def test_an_interrupted_test_keeps_the_last_weights_and_is_made_up_for(tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    trainer, recorder, step, seen = made(tmp_path, [16, 8], interrupted, epochs=2)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert recorder.events[-1] == "killed"
    assert step.weight.asnumpy().tolist() == [4, 4]
    again, recorder, step, seen = made(tmp_path, [], epochs=2)
    again.restore(StateFolder(tmp_path).newest())
    assert again.done
    assert again.fit().test.step == 2
    assert seen == [2]
    assert step.weight.asnumpy().tolist() == [4, 4]


def test_nothing_is_tested_where_no_evaluation_is_the_best(tmp_path, caplog):
    trainer, recorder, _, seen = made(tmp_path, [8], epochs=1)
    trainer.evaluator.losses = iter([float("nan")])
    assert trainer.fit().test is None
    assert seen == []
    assert recorder.events[-1] == "finished"
    assert "the test images are not evaluated" in caplog.text


class LosingWorkers(Workers):
    """Two workers, the second of which ends while the random states after some step are exchanged."""

    count = 2

    def __init__(self, steps):
        self.steps = steps

    def exchange(self, content=None, *arrays):
        self.steps -= bool(arrays)
        if self.steps == 0:
            raise WorkerLostError("worker 1 of 2 has ended unexpectedly")
        return [Message(content, arrays)] * 2


def test_a_step_that_is_saved_is_recorded_also_where_a_worker_is_lost_after_it(tmp_path):
    trainer, recorder = make(tmp_path, Scripted([10, 10]), workers=LosingWorkers(3), epochs=4)
    with pytest.raises(WorkerLostError, match="worker 1 of 2"):
        trainer.fit()
    assert trainer.checkpoints.saved_steps == 3
    assert [event.step for event in recorder.steps] == [1, 2, 3]
