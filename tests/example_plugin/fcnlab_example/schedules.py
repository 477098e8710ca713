"""A schedule with a key of its own."""

from dataclasses import dataclass


@dataclass
class StepsConfig:
    """It derives from nothing, and has no warm-up."""

    factor: float = 0.5


def steps(step: int, total_steps: int, *, factor: float) -> float:
    """The full rate in the first half of the training, and a fraction of it in the second."""
    return 1.0 if step < total_steps / 2 else factor


steps.Config = StepsConfig
