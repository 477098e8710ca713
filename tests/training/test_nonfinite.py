"""Nothing that is not finite is kept as if it were good."""

import math
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from conftest import MODES
from mindspore import Tensor
from scripted_training import Loader, Recorder, Scripted, Step, make

from fcnlab.core.errors import TrainingError
from fcnlab.losses import CrossEntropy
from fcnlab.models import build_model
from fcnlab.models.checkpoint import read_weights
from fcnlab.training.optimizers import Adam
from fcnlab.training.step import TrainStep


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


def test_batches_with_a_loss_that_is_no_number_are_skipped_up_to_a_limit(tmp_path, caplog):
    losses = [1, math.nan, 1, math.inf, 1, math.nan]
    trainer, _ = make(tmp_path, Scripted([10] * 9), step=Step(losses), epochs=3, eval_every=1, skip_nonfinite=2)
    with pytest.raises(TrainingError, match=r"nan at step 6 on e2s1, b, after 2 skipped ones: .*state_00000002"):
        trainer.fit()
    assert "the loss or a gradient is nan at step 2 on e0s1, b: step skipped (1 of at most 2)" in caplog.text
    trainer, _ = make(tmp_path, Scripted([10] * 9), step=Step(losses), epochs=3, eval_every=1, skip_nonfinite=3)
    result = trainer.fit()
    assert result.skipped == 3
    assert result.steps == 6


@MODES
def test_a_skipped_batch_changes_neither_weights_nor_statistics_nor_moments(mode):
    ms.set_context(mode=mode, device_target="CPU")
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
    ("batch", 0, f"{FIRST}.weight"),
    ("batch", 0, "encoder.block1.norm1.moving_mean"),
    ("none", 0, f"{FIRST}.bias"),
    ("none", 0, f"optimizer.second.{DEEP}.weight"),
]
"""(normalisation, ``trainer.skip_nonfinite``, parameter) triples, one for each way in which a NaN is found."""
MORE_PLANTED = [
    ("batch", 0, "encoder.block2.norm1.gamma"),
    ("batch", 3, f"{DEEP}.weight"),
    ("batch", 0, f"{DEEP}.weight"),
    *(("none", 0, name) for name in (f"{FIRST}.weight", f"{DEEP}.weight", f"optimizer.second.{FIRST}.weight")),
    *(("batch", 0, f"optimizer.{moment}.{DEEP}.weight") for moment in ("first", "second")),
    ("none", 0, f"optimizer.first.{DEEP}.weight"),
    ("batch", 0, "encoder.block1.norm1.moving_variance"),
    ("none", 3, f"optimizer.first.{FIRST}.weight"),
    ("batch", 3, "encoder.block1.norm1.moving_mean"),
]


@pytest.mark.parametrize(
    ("norm", "skip_nonfinite", "name"),
    [*PLANTED, *(pytest.param(*more, marks=pytest.mark.slow) for more in MORE_PLANTED)],
)
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
