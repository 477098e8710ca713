"""The loop's decisions, with the real network where its numbers matter and a scripted one where only the order does."""

import math
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

import fcnlab
from fcnlab.config.schema import TrainerConfig
from fcnlab.core.errors import ConfigError, TrainingError
from fcnlab.losses import CrossEntropy
from fcnlab.metrics.confusion import ConfusionMatrix
from fcnlab.models import build_model
from fcnlab.models.checkpoint import read_weights, save_parameters
from fcnlab.training.callbacks import Callback
from fcnlab.training.evaluation import Evaluation
from fcnlab.training.optimizers import Adam
from fcnlab.training.state import StateFolder
from fcnlab.training.step import TrainStep
from fcnlab.training.trainer import Trainer

UNCOMPILED = ("tracking=none", "trainer.mode=pynative")
"""The overrides of trainings whose graph is not under test, since compiling it takes longer than training."""

METADATA = {"arch": {}, "ignore_index": 255, "class_names": ["a", "b"]}


class Recorder(Callback):
    def __init__(self):
        self.events = []
        self.steps = []
        self.evaluations = []

    def on_start(self, plan):
        self.events.append("start")
        self.plan = plan

    def on_step(self, event):
        self.steps.append(event)

    def on_evaluation(self, event):
        self.evaluations.append(event)

    def on_checkpoint(self, kind, path):
        self.events.append((kind, path.name))

    def on_end(self, status):
        self.events.append(status)


class Loader:
    batch_size = 2
    steps_per_epoch = 2

    def epoch(self, number, start_step=0):
        for step in range(start_step, self.steps_per_epoch):
            yield SimpleNamespace(
                images=np.zeros((2, 3, 32, 32)), labels=np.zeros((2, 32, 32)), names=(f"e{number}s{step}", "b")
            )


class Step:
    """A step with scripted losses and a real network, from which checkpoints are written."""

    network = build_model("fcn32s", num_classes=2, width=1 / 64)
    parameters_dict = state = network.parameters_dict

    def __init__(self, losses=None):
        self.losses = iter(losses or [])
        self.rates = []

    def statistics(self):
        return {}

    def set_statistics(self, statistics):
        assert statistics == {}

    def __call__(self, images, labels, learning_rate, *masks):
        self.rates.append(float(learning_rate.asnumpy()))
        return Tensor(np.float32(next(self.losses, 1.0)))


class Scripted:
    """Evaluations whose mean IoU and loss follow a script."""

    class_names = ("a", "b")
    ignore_index = 255

    def __init__(self, hits, losses=None):
        self.hits = iter(hits)
        self.losses = iter(losses or [])

    def __call__(self):
        confusion = ConfusionMatrix(2, 255)
        hits = next(self.hits)
        labels = np.array([0] * 10 + [1] * 10)
        predictions = labels.copy()
        predictions[hits // 2 : 10] = 1
        predictions[10 + hits // 2 :] = 0
        confusion.update(labels, predictions)
        return Evaluation(next(self.losses, 0.5), confusion, self.class_names, [])


def make(tmp_path, evaluator, *, step=None, recorder=None, rate=lambda step, total: 0.1, **config):
    recorder = recorder or Recorder()
    trainer = Trainer(
        step or Step(), Loader(), evaluator, rate, TrainerConfig(**config), tmp_path, METADATA, [recorder]
    )
    return trainer, recorder


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


def test_best_last_and_kept_checkpoints(tmp_path):
    trainer, _ = make(tmp_path, Scripted([8, 16, 12, 14]), epochs=4, eval_every=1, save_every=2)
    result = trainer.fit()
    assert result.best.epoch == 2
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        *("best.safetensors", "last.safetensors", "best.ckpt", "last.ckpt"),
        *("epoch_0002.safetensors", "epoch_0004.safetensors"),
        *("state_00000004.safetensors", "state_00000008.safetensors"),
    }
    for name in ("best", "last"):
        (weights, _), (ckpt, _) = (read_weights(tmp_path / f"{name}.{kind}") for kind in ("safetensors", "ckpt"))
        assert weights.keys() == ckpt.keys()
        for key, array in weights.items():
            np.testing.assert_array_equal(ckpt[key], array)
    assert result.best_checkpoint == tmp_path / "best.safetensors"


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


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_and_says_where(tmp_path, bad):
    trainer, recorder = make(tmp_path, Scripted([10] * 9), step=Step([1, 1, 1, bad]), epochs=3, eval_every=1)
    with pytest.raises(TrainingError) as caught:
        trainer.fit()
    text = str(caught.value)
    assert text.startswith("the loss is inf at" if math.isinf(bad) else "the loss or a gradient is nan at")
    assert "step 4" in text
    assert "e1s1, b" in text
    assert "optimizer.lr" in text
    assert "state_00000002.safetensors" in text
    assert recorder.events[-1] == "failed"


def test_ctrl_c_is_told_to_the_callbacks(tmp_path):
    class Interrupting(Recorder):
        def on_step(self, event):
            raise KeyboardInterrupt

    trainer, recorder = make(tmp_path, Scripted([10]), recorder=Interrupting(), epochs=1)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert recorder.events[-1] == "killed"


def test_a_network_learns_what_the_class_shares_do_not_tell(tiny):
    config = tiny(
        "tracking=none", "trainer.epochs=25", "trainer.eval_every=25", "arch.width=0.0625", "arch.dropout=0",
        "dataset.crop_size=64", "optimizer.lr=0.003", "augment=none",
    )  # fmt: skip
    result = fcnlab.train(config)
    pixels = result.best.evaluation.confusion.counts.sum(axis=1)
    share = pixels / pixels.sum()
    assert np.mean(result.losses[-5:]) < 0.8 * -(share * np.log(share)).sum()


def test_both_modes_give_the_same_curve(tiny):
    """The epsilon is so large that the rounding of a gradient near zero does not reverse Adam's step."""
    words = ("tracking=none", "optimizer.epsilon=0.01", "optimizer.lr=0.01")
    curves = [fcnlab.train(tiny(*words, f"trainer.mode={mode}")).losses for mode in ("graph", "pynative")]
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-4)


def test_the_same_seed_gives_the_same_curve_and_another_does_not(tiny):
    curves = [fcnlab.train(tiny("tracking=none", "seed=1")).losses for _ in range(2)]
    assert curves[0] == curves[1]
    another = fcnlab.train(tiny(*UNCOMPILED, "seed=2")).losses  # both modes give the same curve: see above
    assert not np.allclose(curves[0], another, rtol=1e-3)


def test_the_number_of_workers_changes_nothing(tiny):
    curves = [fcnlab.train(tiny(*UNCOMPILED, f"dataset.num_workers={workers}")).losses for workers in (1, 3)]
    assert curves[0] == curves[1]


def test_clipping_bounds_the_update(tiny):
    config = (*UNCOMPILED, "optimizer=sgd", "optimizer.momentum=0", "optimizer.weight_decay=0",
              "optimizer.lr=1", "schedule=constant", "trainer.max_steps=1", "arch.norm=none")  # fmt: skip
    before = build_model("fcn8s", num_classes=2, width=0.03125, norm="none", seed=0).parameters_dict()
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


def test_a_state_is_saved_every_n_epochs_and_every_m_minutes_also_within_an_epoch(tmp_path):
    def states(folder, **config):
        trainer, recorder = make(folder, Scripted([10] * 9), epochs=4, eval_every=9, ckpt=False, **config)
        trainer.fit()
        return [int(name[6:14]) for kind, name in recorder.events[1:-1] if kind == "state"]

    assert states(tmp_path / "end", checkpoint_minutes=None) == [8]
    assert states(tmp_path / "epochs", checkpoint_minutes=None, checkpoint_epochs=2) == [4, 8]
    assert states(tmp_path / "minutes", checkpoint_minutes=0) == [*range(1, 9), 8]  # the last one evaluated
    assert len(list((tmp_path / "minutes").glob("state_*"))) == 2


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


def test_batches_with_a_loss_that_is_no_number_are_skipped_up_to_a_limit(tmp_path, caplog):
    losses = [1, math.nan, 1, math.inf, 1, math.nan]
    trainer, _ = make(tmp_path, Scripted([10] * 9), step=Step(losses), epochs=3, eval_every=1, skip_nonfinite=2)
    with pytest.raises(TrainingError, match=r"nan at step 6 on e2s1, b, after 2 skipped ones: .*state_00000002"):
        trainer.fit()
    assert "the loss or a gradient is nan at step 2 on e0s1, b: batch skipped (1 of at most 2)" in caplog.text
    trainer, _ = make(tmp_path, Scripted([10] * 9), step=Step(losses), epochs=3, eval_every=1, skip_nonfinite=3)
    result = trainer.fit()
    assert result.skipped == 3
    assert result.steps == 6


@pytest.mark.parametrize("mode", ["GRAPH_MODE", "PYNATIVE_MODE"])
def test_a_skipped_batch_changes_neither_weights_nor_statistics_nor_moments(mode):
    ms.set_context(mode=getattr(ms, mode), device_target="CPU")
    network = build_model("fcn32s", num_classes=2, width=1 / 64, dropout=0)
    step = TrainStep(network, CrossEntropy(255, 2), Adam(network.trainable_params()), clip_norm=1.0, guarded=True)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((1, 3, 32, 32), dtype=np.float32)
    labels = Tensor(rng.integers(0, 2, (1, 32, 32)).astype(np.int32))

    def values():
        return {name: parameter.asnumpy().copy() for name, parameter in step.parameters_dict().items()}

    before = values()
    assert math.isfinite(float(step(Tensor(images), labels, Tensor(0.1, ms.float32)).asnumpy()))
    good = values()
    assert any((good[name] != before[name]).any() for name in before)
    statistics = step.statistics()
    assert len(statistics) == 26  # mean and variance of 13 layers
    images[0, 0, 0, 0] = np.nan
    assert not math.isfinite(float(step(Tensor(images), labels, Tensor(0.1, ms.float32)).asnumpy()))
    step.set_statistics(statistics)
    for name, array in values().items():
        np.testing.assert_array_equal(array, good[name], err_msg=name)


class Images(Loader):
    """Noise that a real network can be trained on."""

    def epoch(self, number, start_step=0):
        for step in range(start_step, self.steps_per_epoch):
            generator = np.random.default_rng([number, step])
            yield SimpleNamespace(
                images=generator.standard_normal((2, 3, 32, 32), dtype=np.float32),
                labels=generator.integers(0, 2, (2, 32, 32)).astype(np.int32),
                names=(f"e{number}s{step}", "b"),
            )


class Poison(Recorder):
    """Plants a NaN in a parameter after the third step, and interrupts the training if asked to."""

    def __init__(self, step, name, interrupt=False):
        super().__init__()
        self.parameter = step.parameters_dict()[name]
        self.interrupt = interrupt

    def on_step(self, event):
        if event.step == 3:
            array = self.parameter.asnumpy().copy()
            array.flat[0] = np.nan
            self.parameter.set_data(Tensor(array))
            if self.interrupt:
                raise KeyboardInterrupt


def poisoned(folder, norm, name, interrupt=False, **config):
    """Return a training whose every evaluation is better than the one before, and so would be kept as the best."""
    ms.set_context(mode=ms.PYNATIVE_MODE, device_target="CPU")
    network = build_model("fcn32s", num_classes=2, width=1 / 64, norm=norm, dropout=0)
    guarded = config.get("skip_nonfinite", 0) > 0
    step = TrainStep(network, CrossEntropy(255, 2), Adam(network.trainable_params()), guarded=guarded)
    trainer, recorder = make(
        folder, Scripted([8, 10, 12, 14, 16]), step=step, recorder=Poison(step, name, interrupt), rate=lambda *_: 1e-3,
        epochs=4, eval_every=1, ckpt=False, **config,
    )  # fmt: skip
    trainer.loader = Images()
    return trainer, recorder


def assert_all_on_disk_is_good(folder, best_step):
    paths = list(folder.glob("*.safetensors"))
    assert {"best.safetensors", f"state_{best_step:08d}.safetensors"} <= {path.name for path in paths}
    for path in paths:
        arrays, document = read_weights(path)
        assert document["step"] <= 3
        for key, array in arrays.items():
            assert np.isfinite(array).all(), (path, key)
    assert read_weights(folder / "best.safetensors")[1]["step"] == best_step


FIRST, DEEP = "encoder.block1.conv1", "encoder.block3.conv2"
PLANTED = [
    *(("batch", 0, name) for name in (f"{FIRST}.weight", f"{DEEP}.weight", "encoder.block2.norm1.gamma")),
    *(("none", 0, name) for name in (f"{FIRST}.weight", f"{DEEP}.weight", f"{FIRST}.bias")),
    *((norm, 0, f"optimizer.{moment}.{DEEP}.weight") for norm in ("batch", "none") for moment in ("first", "second")),
    ("none", 0, f"optimizer.second.{FIRST}.weight"),
    *(("batch", 0, f"encoder.block1.norm1.moving_{moment}") for moment in ("mean", "variance")),
    ("batch", 3, f"{DEEP}.weight"),
    ("none", 3, f"optimizer.first.{FIRST}.weight"),
    ("batch", 3, "encoder.block1.norm1.moving_mean"),
]
"""(normalisation, ``trainer.skip_nonfinite``, parameter) triples."""


@pytest.mark.parametrize(("norm", "skip_nonfinite", "name"), PLANTED)
def test_a_parameter_that_is_no_number_ends_the_training_and_is_never_saved(tmp_path, norm, skip_nonfinite, name):
    trainer, recorder = poisoned(tmp_path, norm, name, skip_nonfinite=skip_nonfinite)
    with pytest.raises(
        TrainingError, match=r"(NaN or infinity after step|gradient is nan at step) \d.*state_0"
    ) as caught:
        trainer.fit()
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "state_00000002.safetensors") in str(caught.value)
    assert recorder.events[-1] == "failed"
    assert trainer.result().best.step == 2
    assert_all_on_disk_is_good(tmp_path, 2)


def test_the_parameter_the_step_and_the_way_out_are_named(tmp_path):
    name = "encoder.block1.norm1.moving_mean"
    trainer, _ = poisoned(tmp_path, "batch", name, checkpoint_minutes=0)
    text = rf"^{name} holds NaN or infinity after step 3: lower optimizer\.lr.* checkpoint is .*state_00000002"
    with pytest.raises(TrainingError, match=text):
        trainer.fit()  # at the save that follows each step here, not at the next evaluation
    assert_all_on_disk_is_good(tmp_path, 2)


def test_interrupted_it_saves_no_parameter_that_is_no_number(tmp_path, caplog):
    trainer, recorder = poisoned(tmp_path, "batch", f"optimizer.first.{DEEP}.weight", interrupt=True)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert recorder.events[-1] == "killed"
    assert f"the state is not saved: optimizer.first.{DEEP}.weight holds NaN or infinity after step 3" in caplog.text
    assert "state_00000002.safetensors" in caplog.text
    assert_all_on_disk_is_good(tmp_path, 2)


@pytest.mark.parametrize("monitor", ["val/mean_iou", "val/loss"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_evaluation_whose_loss_is_no_number_is_never_the_best(tmp_path, caplog, monitor, bad):
    evaluator = Scripted([16, 8, 18, 10], losses=[bad, 0.5, bad, 0.4])
    trainer, recorder = make(tmp_path, evaluator, epochs=4, eval_every=1, monitor=monitor)
    assert trainer.fit().best.epoch == 4
    assert [event.improved for event in recorder.evaluations] == [False, True, False, True]
    assert caplog.text.count(f"val/loss is {bad} after step") == 2


def test_without_any_good_evaluation_there_is_no_best_checkpoint(tmp_path):
    trainer, _ = make(tmp_path, Scripted([16, 8]), epochs=2, eval_every=1)
    trainer.evaluator.losses = iter([math.nan] * 2)
    result = trainer.fit()
    assert (result.best, result.best_checkpoint) == (None, None)
    assert not (tmp_path / "best.safetensors").exists()


def test_a_best_checkpoint_that_holds_no_numbers_is_not_believed(tmp_path, caplog):
    """An earlier version may have written it."""
    trainer, _ = make(tmp_path, Scripted([16]), epochs=1, eval_every=1)
    trainer.fit()
    arrays, document = read_weights(tmp_path / "best.safetensors")
    arrays["fc6.weight"] = np.full_like(arrays["fc6.weight"], np.nan)
    save_parameters(tmp_path / "best.safetensors", {}, document, arrays)
    resumed, _ = make(tmp_path, Scripted([10]), epochs=2, eval_every=1)
    resumed.restore(StateFolder(tmp_path).newest())
    assert resumed.fit().best.step == 4
    assert "fc6.weight holds NaN or infinity; the next evaluation counts as the best" in caplog.text
    assert np.isfinite(read_weights(tmp_path / "best.safetensors")[0]["fc6.weight"]).all()
