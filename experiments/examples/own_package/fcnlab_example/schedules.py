"""A schedule with a key of its own."""

from dataclasses import dataclass


@dataclass
class StepsConfig:
    """The keys of the schedule, in a class that derives from none and has no warm-up."""

    factor: float = 0.5


def steps(step: int, total_steps: int, *, factor: float) -> float:
    """Return the full rate in the first half of the training, and a fraction of it in the second."""
    return 1.0 if step < total_steps / 2 else factor


steps.Config = StepsConfig
