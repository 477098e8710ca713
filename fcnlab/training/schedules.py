"""Learning-rate schedules as pure functions of the step.

Each returns the factor on ``optimizer.lr`` for step 0, 1, ... ``total_steps - 1``. It rises linearly to 1 in the first
``warmup_steps``; the schedule itself runs over the remaining steps.
"""

from __future__ import annotations

import math


def constant(step: int, total_steps: int, *, warmup_steps: int = 0) -> float:
    """Return 1 after the warm-up."""
    return _warmup(step, warmup_steps)


def poly(step: int, total_steps: int, *, warmup_steps: int = 0, power: float = 0.9) -> float:
    """Return ``(1 - progress) ** power``, the schedule of DeepLab (Chen et al. 2017, section 4.1)."""
    return _warmup(step, warmup_steps) * (1 - _progress(step, total_steps, warmup_steps)) ** power


def cosine(step: int, total_steps: int, *, warmup_steps: int = 0, final: float = 0.0) -> float:
    """Return half a cosine from 1 to ``final`` (Loshchilov & Hutter 2017, equation 5, without restarts)."""
    half = (1 + math.cos(math.pi * _progress(step, total_steps, warmup_steps))) / 2
    return _warmup(step, warmup_steps) * (final + (1 - final) * half)


def _warmup(step: int, warmup_steps: int) -> float:
    return (step + 1) / warmup_steps if step < warmup_steps else 1.0


def _progress(step: int, total_steps: int, warmup_steps: int) -> float:
    """Return 0 until the warm-up ends, and then rise linearly to 1, which the step after the last would reach."""
    return min(max(step - warmup_steps, 0) / max(total_steps - warmup_steps, 1), 1.0)
