"""Time one configuration of fcnlab against another way to compute the same, by turns in one go.

Each is timed in processes of its own, so that neither inherits the other's memory or a slow minute of the machine::

    python experiments/benchmarks/train_step.py --against pytorch
    python experiments/benchmarks/train_step.py --against pytorch:compile+channels_last --what inference
    python experiments/benchmarks/train_step.py --against stock --width 0.25 --batch 8
    python experiments/benchmarks/train_step.py --against product:.venv-newest/bin/python
    python experiments/benchmarks/train_step.py --against pytorch:eager+channels_last --amp bf16

``pytorch`` is the same network on the product's own weights, ``stock`` the product with MindSpore's operators alone
(``FCNLAB_KERNELS=0``), ``reference`` the plainest way to write it in MindSpore. After a colon, ``product`` and
``stock`` take the Python of another environment, such as one with another version of MindSpore. With ``--amp bf16``,
steps are those of ``trainer.amp=bf16`` and of PyTorch's autocast.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

NUM_CLASSES = 2
LEARNING_RATE = 1e-4
PRODUCT = "product"


@dataclass(frozen=True)
class Configuration:
    """What is timed.

    Attributes:
        what: ``"step"`` or ``"inference"``.
        stride: The stride of the network: 32, 16 or 8.
        width: The factor on the channels.
        batch: The images of a batch.
        size: The side of an image in pixels.
        steps: The timed steps of a process.
        warmup: The steps before the clock counts.
        amp: ``"O0"`` or, for steps, ``"bf16"``.
    """

    what: str = "step"
    stride: int = 8
    width: float = 1.0
    batch: int = 2
    size: int = 256
    steps: int = 5
    warmup: int = 2
    amp: str = "O0"

    def __str__(self) -> str:
        what = self.what if self.amp == "O0" else f"{self.what} in {self.amp}"
        return f"FCN-{self.stride}s {what}, width {self.width:g}, {self.batch} x {self.size} x {self.size}"


class Timing(NamedTuple):
    """The measurements of one or more processes."""

    seconds: list[float]
    first: float  # seconds of the first call, compilation included
    memory: float  # GiB, largest resident size of a process
    losses: list[float]
    parameters: int

    @property
    def median(self) -> float:
        """The median of all timed steps, in seconds."""
        return statistics.median(self.seconds)


class Subject(NamedTuple):
    """A network to time: ``step`` takes images and labels and returns the loss; ``inference`` waits for the logits."""

    step: Callable[[np.ndarray, np.ndarray], float]
    inference: Callable[[np.ndarray], object]
    parameters: int


def product(configuration: Configuration) -> Subject:
    """Build the network, loss, optimizer and step that ``python -m fcnlab.train`` uses."""
    import mindspore as ms

    from fcnlab.losses import CrossEntropy
    from fcnlab.training.mixed_precision import MixedPrecision
    from fcnlab.training.optimizers import Adam
    from fcnlab.training.step import TrainStep

    network = _network(configuration)
    loss = CrossEntropy(ignore_index=255, num_classes=NUM_CLASSES)
    trained = network if configuration.amp == "O0" else MixedPrecision(network, configuration.amp)
    return _mindspore_subject(
        network,
        lambda: TrainStep(trained, loss, Adam(network.trainable_params())),
        (ms.Tensor(LEARNING_RATE, ms.float32),),
    )


def reference(configuration: Configuration) -> Subject:
    """Build the same layers of stock MindSpore parts, which is possible for FCN-8s alone."""
    from reference import FCN8s, build_step

    network = FCN8s(NUM_CLASSES, configuration.width)
    return _mindspore_subject(network, lambda: build_step(network, LEARNING_RATE), ())


def _mindspore_subject(network: Any, make_step: Callable[[], Any], extra: tuple) -> Subject:
    from mindspore import Tensor

    made: list[Any] = []

    def step(images: np.ndarray, labels: np.ndarray) -> float:
        if not made:
            made.append(make_step())
        return float(made[0](Tensor(images), Tensor(labels), *extra).asnumpy())

    parameters = sum(parameter.size for parameter in network.trainable_params())
    return Subject(step, lambda images: network.set_train(False)(Tensor(images)).asnumpy(), parameters)


def pytorch(configuration: Configuration, variant_name: str) -> Subject:
    """Build the same network with the same weights in PyTorch."""
    import torch
    from pytorch import FCN, Variant, build_step, prepare

    variant = Variant.parse(variant_name)
    network = FCN(configuration.stride, NUM_CLASSES, configuration.width)
    weights = {parameter.name: parameter.asnumpy() for parameter in _network(configuration).trainable_params()}
    network.copy_weights(weights)
    step = build_step(network, LEARNING_RATE, variant, autocast=configuration.amp == "bf16")
    called, arrange = prepare(network, variant)

    def inference(images: np.ndarray) -> object:
        network.eval()
        with torch.inference_mode():
            return called(arrange(torch.from_numpy(images))).numpy()

    return Subject(
        lambda images, labels: step(torch.from_numpy(images), torch.from_numpy(labels).long()),
        inference,
        sum(parameter.numel() for parameter in network.parameters()),
    )


def _network(configuration: Configuration) -> Any:
    from fcnlab.models import build_model

    return build_model(f"fcn{configuration.stride}s", NUM_CLASSES, width=configuration.width, dropout=0.0)


def measure(subject_name: str, configuration: Configuration) -> Timing:
    """Time a subject in this process."""
    from fcnlab.core import device

    device.configure("cpu")
    generator = np.random.default_rng(0)
    shape = (configuration.batch, 3, configuration.size, configuration.size)
    images = generator.standard_normal(shape, dtype=np.float32)
    labels = generator.integers(0, NUM_CLASSES, (shape[0], *shape[2:])).astype(np.int32)
    name, _, variant = subject_name.partition(":")
    if name == "pytorch":
        subject = pytorch(configuration, variant)
    else:
        subject = reference(configuration) if name == "reference" else product(configuration)
    seconds, losses = [], []
    for _ in range(configuration.warmup + configuration.steps):
        start = time.perf_counter()
        if configuration.what == "step":
            losses.append(subject.step(images, labels))
        else:
            subject.inference(images)
        seconds.append(time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return Timing(seconds[configuration.warmup :], seconds[0], memory, losses, subject.parameters)


def by_turns(subjects: list[str], configuration: Configuration, rounds: int) -> dict[str, Timing]:
    """Time the subjects in processes of their own, one after the other, ``rounds`` times.

    Raises:
        RuntimeError: If a process fails, or the subjects are not the same network.
    """
    found: dict[str, list[Timing]] = {subject: [] for subject in subjects}
    for _ in range(rounds):
        for subject in subjects:
            flags = [f"--{key}={value}" for key, value in asdict(configuration).items()]
            name, _, variant = subject.partition(":")
            environment = os.environ | ({"FCNLAB_KERNELS": "0"} if name == "stock" else {})
            python = variant if variant and name in (PRODUCT, "stock") else sys.executable
            done = subprocess.run(
                [python, __file__, f"--subject={subject}", *flags],
                capture_output=True,
                text=True,
                check=False,
                env=environment,
            )
            if done.returncode != 0:
                raise RuntimeError(f"{subject}, {configuration}: {(done.stderr.strip() or 'killed').splitlines()[-1]}")
            found[subject].append(Timing(*json.loads(done.stdout.splitlines()[-1])))
    if len({runs[0].parameters for runs in found.values()}) > 1:
        raise RuntimeError(f"not the same network: {[runs[0].parameters for runs in found.values()]} parameters")
    return {
        subject: Timing(
            [second for run in runs for second in run.seconds],
            min(run.first for run in runs),
            max(run.memory for run in runs),
            runs[0].losses,
            runs[0].parameters,
        )
        for subject, runs in found.items()
    }


def compare(against: str, configuration: Configuration, rounds: int) -> None:
    """Run both by turns and print the table."""
    timings = by_turns([against, PRODUCT], configuration, rounds)
    print(f"{configuration}, {rounds} processes of {configuration.steps} each")
    print(f"{'seconds':<16}{'min':>8}{'median':>8}{'max':>8}{'first':>8}{'peak GiB':>10}")
    for subject, timing in timings.items():
        row = (min(timing.seconds), timing.median, max(timing.seconds), timing.first)
        print(f"{subject[-16:]:<16}" + "".join(f"{number:8.3f}" for number in row) + f"{timing.memory:10.2f}")
    own, other = timings[PRODUCT], timings[against]
    minima = min(own.seconds) / min(other.seconds)
    print(f"{PRODUCT} / {against}: {own.median / other.median:.3f} (medians), {minima:.3f} (minima)")
    if configuration.what == "step" and against != "reference":
        losses = [" ".join(f"{loss:.6f}" for loss in timing.losses[:3]) for timing in (other, own)]
        print(f"losses of the first three steps: {losses[0]} ({against}), {losses[1]} ({PRODUCT})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    against = "pytorch[:variant], stock[:python], product:python or reference"
    parser.add_argument("--against", default="pytorch", help=against)
    parser.add_argument("--what", choices=("step", "inference"), default="step", help="what to time")
    parser.add_argument("--stride", type=int, choices=(32, 16, 8), default=8, help="stride of the network")
    parser.add_argument("--width", type=float, default=1.0, help="factor on the channels")
    parser.add_argument("--batch", type=int, default=2, help="images a step")
    parser.add_argument("--size", type=int, default=256, help="side of an image in pixels")
    parser.add_argument("--steps", type=int, default=5, help="timed steps a process")
    parser.add_argument("--warmup", type=int, default=2, help="steps before the clock counts, at least 1")
    parser.add_argument("--amp", choices=("O0", "bf16"), default="O0", help="precision of a step's products")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each of the two")
    parser.add_argument("--subject", help="time only this subject, in this process, and print JSON")
    arguments = vars(parser.parse_args())
    subject, against, rounds = (arguments.pop(key) for key in ("subject", "against", "rounds"))
    configuration = Configuration(**arguments)
    if configuration.what == "inference" and configuration.amp != "O0":
        parser.error("--amp: inference is float32; leave it out, or time --what step")
    if against.partition(":")[0] == "reference" and configuration.amp != "O0":
        parser.error("--amp: the reference is float32; choose another one for --against")
    if subject:
        print(json.dumps(measure(subject, configuration)))
    else:
        compare(against, configuration, rounds)


if __name__ == "__main__":
    main()
