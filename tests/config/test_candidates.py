"""What a word of a command line may become: every candidate is what Hydra composes."""

import pytest

from fcnlab import compose
from fcnlab import config as configuration
from fcnlab.config.candidates import candidates
from fcnlab.config.schema import COMMANDS, Config, leaves


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["optimizer=s"], ["optimizer=sgd"]),
        (["hydra/sweeper="], [f"hydra/sweeper={name}" for name in ("search", "stages", "verdict")]),
        (["arch=paper/fcn8"], ["arch=paper/fcn8s", "arch=paper/fcn8s_atonce"]),
        (["-m", "arch=fcn32s,fcn4"], ["arch=fcn32s,fcn4s"]),
        (["trainer.device="], ["trainer.device=ascend", "trainer.device=auto", "trainer.device=cpu"]),
        (["dataset=folder", "dataset.turned="], [f"dataset.turned={value}" for value in ("false", "true")]),
        (["tracking.uri="], ["tracking.uri=null"]),
        (["optimizer.m"], []),
        (["optimizer=sgd", "optimizer.m"], ["optimizer.momentum="]),
        (["optimizer=adam,sgd", "optimizer.m"], ["optimizer.momentum="]),
        (["loss=focal", "loss.ga"], ["loss.gamma="]),
        (["data"], ["dataset.", "dataset="]),
        (["see"], ["seed="]),
        (["hydra.run.d"], ["hydra.run.dir="]),
        (["arch.encoder=resnet1"], ["arch.encoder=resnet101", "arch.encoder=resnet18"]),
        (["--mu"], ["--multirun"]),
        (["nothing"], []),
        (["init_from=weights/"], []),
    ],
)
def test_the_last_word_is_completed_by_what_stands_before_it(words, found):
    assert candidates("train", words) == found


def test_every_key_of_a_configuration_can_be_reached():
    config = compose([])
    for key, *_ in leaves(config):
        word = key[:-1]
        assert f"{key}=" in candidates("train", [word]), key
    assert {found.rstrip("=.") for found in candidates("train", [""])} >= set(Config.__dataclass_fields__)


@pytest.mark.parametrize("group", ["arch", "augment", "experiment", "loss", "schedule", "tracking", "hydra/launcher"])
def test_what_is_offered_for_a_group_composes(group):
    offered = candidates("train", [f"{group}="])
    assert len(offered) > 1
    for word in offered[::4]:
        if not group.startswith("hydra/"):
            compose([word, "dataset.root=x"])


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"train"}))
def test_the_keys_of_every_command_are_known(command):
    offered = candidates(command, [""])
    for name in COMMANDS[command].__dataclass_fields__:
        assert {f"{name}=", f"{name}."} & set(offered), name
    assert "--multirun" not in candidates(command, ["--"])
    if command == "evaluate":
        assert "dataset=voc2012" in candidates(command, ["dataset="])
        assert configuration.compose(["dataset=cells", "checkpoint=x", "split=all"], "evaluate").split == "all"
