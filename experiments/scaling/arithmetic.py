"""What a step of several workers takes, from what one worker computes and what its link carries.

    python experiments/scaling/arithmetic.py

The workers add up their gradients in a ring, as MindSpore's collective on a CPU and HCCL do: each worker sends and
receives ``2 (W - 1) / W`` of the gradients in ``2 (W - 1)`` messages (Patarasuk & Yuan, JPDC 2009, section 3).
"""

from __future__ import annotations

from typing import NamedTuple

WORKERS = (1, 2, 4, 8, 16, 32, 64)
BATCH = 64
"""The crops of 256 x 256 in the batch that all workers share, so that each of 64 workers has one."""


class Link(NamedTuple):
    """A link between two workers.

    Attributes:
        name: The name of the link.
        bytes_per_second: What it carries in each direction.
        latency: The time of an empty message, in seconds.
    """

    name: str
    bytes_per_second: float
    latency: float


LINKS = (
    Link("1 Gbit/s", 0.118e9, 100e-6),
    Link("10 Gbit/s", 1.18e9, 50e-6),
    Link("100 Gbit/s", 11.8e9, 10e-6),
)
"""Ethernet at 94 % of its rate, which is left for TCP's payload."""

BYTES = {0.25: 33.6e6, 0.5: 134.3e6, 1.0: 537e6}
"""The gradients of FCN-8s on VGG-16 by width, in bytes: four for each parameter."""


def exchange_seconds(gradients: float, workers: int, link: Link) -> float:
    """Return how long a ring takes to add up gradients.

    Args:
        gradients: The gradients of a worker, in bytes.
        workers: The number of workers W.
        link: The slowest link of the ring.
    """
    share = 2 * (workers - 1) / workers
    return share * gradients / link.bytes_per_second + 2 * (workers - 1) * link.latency


def step_seconds(compute: float, gradients: float, workers: int, link: Link, fixed_batch: bool = True) -> float:
    """Return how long a step takes whose exchange comes after the whole backward pass.

    Args:
        compute: How long one worker computes on the batch of one process, in seconds.
        gradients: The gradients of a worker, in bytes.
        workers: The number of workers W.
        link: The slowest link of the ring.
        fixed_batch: Whether the workers share that batch; else each has one as large.
    """
    return compute / (workers if fixed_batch else 1) + exchange_seconds(gradients, workers, link)


def dominated_from(compute: float, gradients: float, link: Link, limit: int = 4096) -> int | None:
    """Return the smallest number of workers whose exchange takes longer than their share of a fixed batch.

    Args:
        compute: How long one worker computes on the whole batch, in seconds.
        gradients: The gradients of a worker, in bytes.
        link: The slowest link of the ring.
        limit: The largest number of workers to look at.

    Returns:
        None if the exchange is the shorter one up to the limit.
    """
    for workers in range(2, limit + 1):
        if exchange_seconds(gradients, workers, link) > compute / workers:
            return workers
    return None


def table(compute: float, gradients: float) -> str:
    """Return the speed-up over one worker by number of workers and link, as Markdown."""
    rows = ["| link | " + " | ".join(map(str, WORKERS)) + " | exchange longer than compute |"]
    rows.append("|---|" + "--:|" * (len(WORKERS) + 1))
    for link in LINKS:
        faster = [compute / step_seconds(compute, gradients, workers, link) for workers in WORKERS]
        first = dominated_from(compute, gradients, link)
        rows.append(f"| {link.name} | " + " | ".join(f"{one:.1f}" for one in faster) + f" | from {first} workers |")
    return "\n".join(rows)


if __name__ == "__main__":
    for width, crop in ((0.25, 0.9 / 8), (1.0, 2.8 / 2)):  # seconds on two cores, from steps of 8 and of 2 crops
        compute = BATCH * crop
        print(
            f"\nwidth {width}, {BYTES[width] / 1e6:.1f} MB of gradients, {compute:.1f} s of computing in one process\n"
        )
        print(table(compute, BYTES[width]))
