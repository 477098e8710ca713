"""Which checkpoints a training writes, and when."""

import numpy as np
from scripted_training import Scripted, make

from fcnlab.models.checkpoint import read_weights, save_parameters
from fcnlab.training.state import StateFolder


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


def test_a_state_is_saved_every_n_epochs_and_every_m_minutes_also_within_an_epoch(tmp_path):
    def states(folder, **config):
        trainer, recorder = make(folder, Scripted([10] * 9), epochs=4, eval_every=9, ckpt=False, **config)
        trainer.fit()
        return [int(name[6:14]) for kind, name in recorder.events[1:-1] if kind == "state"]

    assert states(tmp_path / "end", checkpoint_minutes=None) == [8]
    assert states(tmp_path / "epochs", checkpoint_minutes=None, checkpoint_epochs=2) == [4, 8]
    assert states(tmp_path / "minutes", checkpoint_minutes=0) == [*range(1, 9), 8]  # the last one evaluated
    assert len(list((tmp_path / "minutes").glob("state_*"))) == 2


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
