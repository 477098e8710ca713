"""The loop: with the real network where its numbers matter, with a scripted one where only the order of events does."""

import math

import numpy as np
import pytest
from scripted_training import Loader, Recorder, Scripted, Step, make

import fcnlab
from fcnlab.core.errors import ConfigError
from fcnlab.models import build_model


def test_evaluates_every_k_epochs_and_at_the_end(tmp_path):
    trainer, recorder = make(tmp_path, Scripted([10] * 9), epochs=5, eval_every=2)
    trainer.fit()
    assert [event.epoch for event in recorder.evaluations] == [2, 4, 5]
    assert [event.step for event in recorder.steps] == list(range(1, 11))
    assert recorder.events[0] == "start"
    assert recorder.events[-1] == "finished"


def test_max_steps_ends_within_an_epoch_and_may_pass_the_epochs(tmp_path):
    trainer, recorder = make(tmp_path, Scripted([10] * 9), epochs=1, max_steps=5, eval_every=9)
    assert trainer.fit().steps == 5
    assert [event.epoch for event in recorder.evaluations] == [3]


def test_a_loss_is_better_when_lower(tmp_path):
    evaluator = Scripted([8, 16, 18], losses=[0.5, 0.3, 0.4])
    trainer, _ = make(tmp_path, evaluator, epochs=3, eval_every=1, monitor="val/loss")
    assert trainer.fit().best.epoch == 2


def test_an_unknown_metric_to_monitor_lists_the_known(tmp_path):
    with pytest.raises(ConfigError, match=r"trainer.monitor=val/iou/cat: choose one of val/loss.*val/iou/b"):
        make(tmp_path, Scripted([]), monitor="val/iou/cat")


def test_early_stopping_waits_for_its_patience(tmp_path):
    trainer, recorder = make(tmp_path, Scripted([8, 16, 12, 15, 18]), epochs=5, eval_every=1, patience=2)
    result = trainer.fit()
    assert result.stopped_early
    assert [event.epoch for event in recorder.evaluations] == [1, 2, 3, 4]


def test_the_learning_rate_is_the_schedules(tmp_path):
    step = Step()
    trainer, recorder = make(
        tmp_path, Scripted([10]), step=step, epochs=2, eval_every=9, rate=lambda step, total: (step + 1) / total
    )
    trainer.fit()
    assert step.rates == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert [event.learning_rate for event in recorder.steps] == [0.25, 0.5, 0.75, 1.0]


def test_ctrl_c_is_told_to_the_callbacks(tmp_path):
    class Interrupting(Recorder):
        def on_step(self, event):
            raise KeyboardInterrupt

    trainer, recorder = make(tmp_path, Scripted([10]), recorder=Interrupting(), epochs=1)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert recorder.events[-1] == "killed"


@pytest.mark.slow  # the loss falls below
def test_a_network_learns_what_the_class_shares_do_not_tell(tiny):
    config = tiny(
        "tracking=none", "arch=fcn8s", "trainer.mode=graph", "trainer.epochs=25", "trainer.eval_every=25",
        "arch.width=0.0625", "arch.dropout=0", "dataset.crop_size=64", "optimizer.lr=0.003", "augment=none",
    )  # fmt: skip
    result = fcnlab.train(config)
    pixels = result.best.evaluation.confusion.counts.sum(axis=1)
    share = pixels / pixels.sum()
    assert np.mean(result.losses[-5:]) < 0.8 * -(share * np.log(share)).sum()


def learning(tiny, mode):
    """Train where dropout and augmentation hide nothing, and return the losses.

    The epsilon is so large that the rounding of a gradient near zero does not reverse Adam's step.
    """
    words = ("tracking=none", "optimizer.epsilon=0.01", "optimizer.lr=0.01", "arch.dropout=0", "augment=none")
    return fcnlab.train(tiny(*words, f"trainer.mode={mode}")).losses


def test_the_loss_falls(tiny):
    losses = learning(tiny, "pynative")
    assert losses[-1] < losses[0]


@pytest.mark.slow  # steps, networks and evaluations are compared one by one, and a command trains in graph mode
def test_both_modes_give_the_same_curve(tiny):
    np.testing.assert_allclose(learning(tiny, "graph"), learning(tiny, "pynative"), rtol=1e-4)


def test_the_same_seed_gives_the_same_curve_with_any_number_of_workers_and_another_does_not(tiny):
    words = ("tracking=none", "trainer.eval_every=2")
    curves = [fcnlab.train(tiny(*words, "seed=1", f"dataset.num_workers={workers}")).losses for workers in (1, 3)]
    assert curves[0] == curves[1]
    another = fcnlab.train(tiny(*words, "seed=2", "trainer.max_steps=2")).losses
    assert not np.allclose(curves[0][:2], another, rtol=1e-3)


def test_clipping_bounds_the_update(tiny):
    config = ("tracking=none", "optimizer=sgd", "optimizer.momentum=0", "optimizer.weight_decay=0",
              "optimizer.lr=1", "schedule=constant", "trainer.max_steps=1", "arch.norm=none")  # fmt: skip
    before = build_model("fcn32s", num_classes=2, width=0.03125, norm="none", seed=0).parameters_dict()
    norms = []
    for clip in ("null", "0.01"):
        result = fcnlab.train(tiny(*config, f"trainer.clip_norm={clip}"))
        after = fcnlab.load(result.last_checkpoint).parameters_dict()
        norms.append(
            math.sqrt(sum(float(((after[name].asnumpy() - before[name].asnumpy()) ** 2).sum()) for name in before))
        )
    assert norms[1] == pytest.approx(0.01, rel=1e-3)
    assert norms[0] > 0.02


def test_every_callback_hears_the_end_even_if_one_fails(tmp_path):
    class Failing(Recorder):
        def on_end(self, status):
            raise OSError("no space")

    recorder = Recorder()
    trainer, _ = make(tmp_path, Scripted([10]), recorder=Failing(), epochs=1, eval_every=1)
    trainer.callbacks.append(recorder)
    with pytest.raises(OSError, match="no space"):
        trainer.fit()
    assert recorder.events[-1] == "finished"


def test_a_batch_without_a_pixel_that_counts_changes_nothing(tmp_path):
    class Void(Loader):
        def epoch(self, number, start_step=0):
            for batch in super().epoch(number, start_step):
                batch.labels[:] = 255 if number == 1 else 1
                yield batch

    step = Step()
    trainer, _ = make(tmp_path, Scripted([10] * 9), step=step, epochs=3, eval_every=9)
    trainer.loader = Void()
    assert trainer.fit().losses == [1, 1, 0, 0, 1, 1]
    assert len(step.rates) == 4  # the other two steps made no update at all
