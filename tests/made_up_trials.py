"""Makes up trainings in memory, for tests of comparisons."""

from fcnlab.comparison.trials import Trial

BASE = {"arch.name": "fcn8s", "arch.stride": "8", "optimizer.name": "adam", "optimizer.lr": "0.001", "seed": "0"}


def trial(value=None, *, tags=None, digest="d", status="FINISHED", **params):
    params = {**BASE, **{key.replace("__", "."): str(text) for key, text in params.items()}}
    if "arch__stride" not in params:
        params["arch.stride"] = params["arch.name"].strip("fcns")
    metrics = {} if value is None else {"val/mean_iou": value, "val/iou/cell": value / 2}
    name = "-".join(params.values())
    return Trial(f"id-{name}", name, status, params, metrics, validation_digest=digest, tags=tags or {})


def by_seed(values):
    """Make up trainings from a dictionary of architectures to dictionaries of seeds to values."""
    return [trial(value, arch__name=arch, seed=seed) for arch, found in values.items() for seed, value in found.items()]


def by_arch(values):
    """Make up trainings from a dictionary of architectures to the values of seeds 0, 1, ..."""
    return [
        trial(value, arch__name=arch, seed=seed) for arch, found in values.items() for seed, value in enumerate(found)
    ]
