"""Starts a network from a file of weights, and says of each parameter where it came from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mindspore import Parameter, Tensor, nn

from fcnlab.core.errors import CheckpointError
from fcnlab.core.files import sha256
from fcnlab.models.finite import is_finite
from fcnlab.models.foreign.input_convention import InputConvention
from fcnlab.models.foreign.layouts import (
    CONVERTED,
    FIRST,
    NORM_PARTS,
    Entry,
    Recognised,
    norm_of,
    recognise,
)
from fcnlab.models.foreign.reading import read
from fcnlab.models.foreign.weights_file import WeightsFile

INITIAL, NOT_USED = "initial", "not used"

ENCODER = "encoder."
HEADS = ("score", "upsample")
"""The layers whose shape depends on the classes or the stride."""

_EPSILON = 1e-5  # of batch norm, here and in every layout that is known
_NAMELESS = re.compile(r"class_\d+")
_LINE = 50  # characters of the names in a table


class Row(NamedTuple):
    """What became of a parameter, or of an array of the file that is not used.

    Attributes:
        name: The parameter, or the array.
        action: ``taken``, ``reshaped``, ``converted``, ``initial`` or ``not used``.
        sources: The names in the file that the parameter was made from.
    """

    name: str
    action: str
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Initialisation:
    """What a network started from.

    Attributes:
        path: The file.
        sha256: The digest of the file.
        description: The format and the layout of the file, for people.
        convention: The images that the weights expect; None if it is not known.
        mean: The mean that the network's images must be normalised with; None if it was not told.
        rows: A row for each parameter of the network, then one for each array that is not used.
    """

    path: Path
    sha256: str
    description: str
    convention: InputConvention | None
    mean: Sequence[float] | None
    rows: Sequence[Row]

    @property
    def converted_input(self) -> bool:
        """Whether the first convolution was converted for the network's images."""
        return Row(FIRST, CONVERTED) in [Row(row.name, row.action) for row in self.rows]

    @property
    def counts(self) -> dict[str, int]:
        """How many rows there are of each action."""
        return dict(Counter(row.action for row in self.rows))

    def table(self) -> str:
        """Return everything as text, for a log and for a run."""
        names = [_printable(row.name)[:_LINE] for row in self.rows]
        width = max(map(len, names))
        counts = ", ".join(f"{count} {action}" for action, count in self.counts.items())
        lines = [f"weights from {self.path}: {self.description}, SHA-256 {self.sha256}", counts]
        for name, row in zip(names, self.rows, strict=True):
            lines.append(f"{name:{width}}  {row.action:9}  {', '.join(map(_printable, row.sources))}".rstrip())
        return "\n".join(lines)


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # the result is checked
def initialise(
    network: nn.Cell,
    path: Path,
    source: str,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    take_mean: bool = False,
    class_names: Sequence[str] = (),
    partial: bool = False,
) -> Initialisation:
    """Start a network from a file of weights of any known format and layout.

    Score and upsampling layers of another shape keep their initial values, except for the classes that both sides
    name; so does the first convolution, where the images have another number of channels. Everything else must fit.

    Args:
        network: The network; only its parameters change.
        path: The file.
        source: How messages call the file.
        mean: The mean that the network's images are normalised with. The first convolution is converted for it where
            the layout tells which images the weights expect.
        std: The standard deviation, likewise.
        take_mean: Whether the network's images will have the mean that the weights expect in place of ``mean``, so that
            the converted network is exact at the border, too. Where that mean is not known, ``mean`` stays.
        class_names: The network's classes.
        partial: Whether the file may give less than the whole encoder, or layers of another shape.

    Raises:
        CheckpointError: If the file cannot be read, its layout is not known, an array that is needed is not finite, or
            the file does not fit. Nothing has changed then.
    """
    parameters = network.parameters_dict()
    file = read(path)
    found = recognise(file, source, parameters)
    entries = dict(found.entries)
    encoder = getattr(network, "encoder_name", "")
    if not partial:
        _refuse_another_encoder(found, encoder, source)
        _refuse_another_norm(entries, parameters, source, found)
    _leave_another_norm(entries, parameters)
    _fit_norms(entries, parameters, source)
    _fit_scales(entries, parameters)
    if found.convention is not None and _can_convert(entries, parameters, mean, std):
        mean = found.convention.exact_mean if take_mean else mean
        _convert_input(entries, parameters, found.convention, mean, std, None if partial else source)
    rows, values, unfit = _match(entries, parameters, found.class_names, class_names)
    if not partial:
        # The published AlexNet is wider than all other encoders, which begin with 64 channels.
        channels = 96 if not encoder and FIRST in parameters and parameters[FIRST].shape[-1] == 11 else 64
        _refuse_less(rows, entries, parameters, unfit, source, found, channels)
    if not values:
        raise CheckpointError(f"{source}: none of it fits this network ({found.layout}); it belongs to another network")
    for name, value in values.items():
        if not is_finite(value):
            raise CheckpointError(f"{source}: {name} holds NaN or infinity; start from another file")
        if name.endswith(".moving_variance") and (np.asarray(value) < 0).any():
            raise CheckpointError(f"{source}: {name} holds a variance below 0; start from another file")
    for name, value in values.items():
        parameters[name].set_data(Tensor(np.ascontiguousarray(value, dtype=np.float32)))
    used = {name for row in rows for name in row.sources}
    rows += [Row(name, NOT_USED) for name in file.arrays if name not in used]
    description = f"{file.kind}, {found.layout}{_place(file)}"
    return Initialisation(path, sha256(path), description, found.convention, mean, rows)


def _place(file: WeightsFile) -> str:
    """Say which of the networks in a checkpoint of PyTorch was taken; nothing of a file that holds one alone."""
    if "state_dict" not in file.metadata or file.kind != "PyTorch":
        return ""
    others = file.metadata.get("other_state_dicts", ())
    rather = f" and not its {', '.join(_printable(place) for place in others[:3])}" if others else ""
    return f", its {_printable(file.metadata['state_dict'])}{rather}"


def _refuse_another_encoder(found: Recognised, encoder: str, source: str) -> None:
    """Refuse weights that say that they belong to another encoder.

    Raises:
        CheckpointError: It names both.
    """
    if found.encoder and encoder and found.encoder != encoder:
        theirs = _printable(found.encoder)[:_LINE]
        raise CheckpointError(
            f"{source}: is of arch.encoder={theirs} ({found.layout}), and this network's is {encoder}; set "
            f"arch.encoder={theirs}, or init_partial=true to take the layers of the same names"
        )


def _norm_after(layer: str, names: Collection[str]) -> str:
    """Return the value of ``arch.norm`` for what follows a convolution among the names of parameters."""
    if f"{norm_of(layer)}.gamma" not in names:
        return "none"
    return "batch" if f"{norm_of(layer)}.moving_mean" in names else "group"


def _refuse_another_norm(
    entries: Mapping[str, Entry], parameters: Mapping[str, Parameter], source: str, found: Recognised
) -> None:
    """Refuse group normalisation on one side alone: unlike batch norm, nothing can make up for it.

    Raises:
        CheckpointError: It names the key.
    """
    layer = FIRST.removesuffix(".weight")
    theirs, ours = _norm_after(layer, entries), _norm_after(layer, parameters)
    if FIRST in entries and FIRST in parameters and theirs != ours and "group" in (theirs, ours):
        has = {"batch": "batch norm", "group": "group normalisation", "none": "no normalisation"}[theirs]
        raise CheckpointError(
            f"{source}: has {has} ({found.layout}), and with arch.norm={ours} the same convolutions compute something "
            f"else; set arch.norm={theirs}, or init_partial=true to start from the convolutions alone"
        )


def _leave_another_norm(entries: dict[str, Entry], parameters: Collection[str]) -> None:
    """Take nothing of batch norm into group normalisation, and nothing of group normalisation into batch norm."""
    for name in [name for name, entry in entries.items() if name.endswith(".weight") and entry.array.ndim == 4]:
        layer = name.removesuffix(".weight")
        theirs, ours = _norm_after(layer, entries), _norm_after(layer, parameters)
        if {theirs, ours} == {"batch", "group"}:
            for part in NORM_PARTS:
                entries.pop(f"{norm_of(layer)}.{part}", None)


def _fit_norms(entries: dict[str, Entry], parameters: Collection[str], source: str) -> None:
    """Fold batch norms that the network has not into convolutions, and biases that it has not into batch norms."""
    for name in [name for name, entry in entries.items() if name.endswith(".weight") and entry.array.ndim == 4]:
        layer = name.removesuffix(".weight")
        if name not in parameters:
            continue
        norm, bias = norm_of(layer), entries.get(f"{layer}.bias")
        parts = [entries.get(f"{norm}.{part}") for part in NORM_PARTS]
        for entry in (bias, *parts):
            if entry is not None and entry.array.shape != (entries[name].array.shape[0],):
                theirs = ", ".join(map(_printable, entry.sources))
                raise CheckpointError(f"{source}: {theirs} does not fit the convolution {name}")
        if f"{norm}.gamma" in parameters and f"{layer}.bias" not in parameters:
            if bias is not None:  # the mean of what a convolution gives without its bias is less by that
                _shift_mean(entries, norm, bias.array, bias.sources)
        elif f"{norm}.gamma" not in parameters and None not in parts:
            _fold_norm(entries, layer, norm)


def _shift_mean(entries: dict[str, Entry], norm: str, less: np.ndarray, sources: tuple[str, ...] = ()) -> None:
    mean = entries.get(f"{norm}.moving_mean", Entry(np.zeros_like(less), ()))
    entries[f"{norm}.moving_mean"] = Entry(mean.array - less, (*mean.sources, *sources), CONVERTED)


def _fold_norm(entries: dict[str, Entry], layer: str, norm: str) -> None:
    """Put a batch norm, as it computes in evaluation, into the convolution before it."""
    weight, bias = entries[f"{layer}.weight"], entries.get(f"{layer}.bias")
    parts = {part: entries.pop(f"{norm}.{part}") for part in NORM_PARTS}
    gamma, beta, mean, variance = (parts[part].array.astype(np.float64) for part in NORM_PARTS)
    factor = gamma / np.sqrt(variance + _EPSILON)
    kernel = (weight.array * factor[:, None, None, None]).astype(np.float32)
    grows = (beta + ((0 if bias is None else bias.array) - mean) * factor).astype(np.float32)
    scaling = (*parts["gamma"].sources, *parts["moving_variance"].sources)
    moving = tuple(name for part in NORM_PARTS for name in parts[part].sources)
    entries[f"{layer}.weight"] = Entry(kernel, (*weight.sources, *scaling), CONVERTED)
    entries[f"{layer}.bias"] = Entry(grows, (*(bias.sources if bias else ()), *moving), CONVERTED)


def _fit_scales(entries: dict[str, Entry], parameters: Collection[str]) -> None:
    """Fold factors on pooled maps that the network has not into what scores them."""
    for name in [name for name in entries if name.startswith("scale_pool") and name not in parameters]:
        score = f"score{name.removeprefix('scale')}.weight"
        weight, scale = entries.get(score), entries.pop(name)
        if weight is not None and weight.array.ndim == 4 and scale.array.shape == weight.array.shape[1:2]:
            array = weight.array * scale.array[:, None, None]
            entries[score] = Entry(array, (*weight.sources, *scale.sources), CONVERTED)


def _can_convert(
    entries: Mapping[str, Entry],
    parameters: Mapping[str, Parameter],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> bool:
    """Whether the file's first convolution can be converted: it, the network and its images have three channels."""
    first = entries.get(FIRST)
    if first is None or FIRST not in parameters or first.array.ndim != 4 or mean is None or std is None:
        return False
    return first.array.shape[1] == parameters[FIRST].shape[1] == len(mean) == len(std) == 3


def _convert_input(
    entries: dict[str, Entry],
    parameters: Mapping[str, Parameter],
    convention: InputConvention,
    mean: Sequence[float],
    std: Sequence[float],
    source: str | None,
) -> None:
    """Convert the first convolution for images of a mean and a standard deviation.

    Raises:
        CheckpointError: If that is impossible, and the weights are from a ``source`` that has to be taken exactly.
    """
    first = entries[FIRST]
    converted = convention.convert(first.array, mean, std)
    if converted is None:
        return
    kernel, grows = converted
    entries[FIRST] = Entry(kernel, first.sources, CONVERTED)
    layer = FIRST.removesuffix(".weight")
    if f"{layer}.bias" in parameters:
        bias = entries.get(f"{layer}.bias", Entry(np.zeros_like(grows), ()))
        entries[f"{layer}.bias"] = Entry(bias.array + grows, bias.sources, CONVERTED)
    elif _norm_after(layer, parameters) == "batch":
        _shift_mean(entries, norm_of(layer), grows)
    elif source is not None and np.abs(grows).max() > 1e-5:
        raise CheckpointError(
            f"{source}: expects images of another mean, which group normalisation without a bias cannot make up for; "
            f"set dataset.mean={convention.exact_mean}, or init_partial=true"
        )


def _match(
    entries: Mapping[str, Entry],
    parameters: Mapping[str, Parameter],
    their_classes: Sequence[str],
    our_classes: Sequence[str],
) -> tuple[list[Row], dict[str, np.ndarray], list[str]]:
    """Return the rows of the parameters, their new values, and the parameters that have another shape but should not.

    The network keeps its initial value of a parameter that has no new one.
    """
    rows, values, unfit = [], {}, []
    for name, parameter in parameters.items():
        entry = entries.get(name)
        row = Row(name, INITIAL)
        if entry is not None and entry.array.shape == parameter.shape:
            values[name], row = entry.array, Row(name, entry.action, entry.sources)
        elif entry is not None and name.startswith(HEADS):
            axes = 2 if name.startswith("upsample") else 1
            copied = _copy_classes(entry.array, parameter.asnumpy(), axes, their_classes, our_classes)
            if copied is not None:
                values[name], row = copied, Row(name, CONVERTED, entry.sources)
        elif entry is not None and not _is_of_other_images(name, entry.array, parameter):
            unfit.append(name)
        rows.append(row)
    return rows, values, unfit


def _copy_classes(
    theirs: np.ndarray, ours: np.ndarray, axes: int, their_classes: Sequence[str], our_classes: Sequence[str]
) -> np.ndarray | None:
    """Return our layer with what the file has for the classes that both name; None if there are none.

    Args:
        theirs: The layer of the file.
        ours: The layer of the network.
        axes: How many of the first axes are classes.
        their_classes: The names of the file's classes, in order.
        our_classes: The names of the network's classes, in order.
    """
    both = [name for name in our_classes if name in their_classes and not _NAMELESS.fullmatch(name)]
    fits = theirs.shape[:axes] == (len(their_classes),) * axes and ours.shape[:axes] == (len(our_classes),) * axes
    if not both or not fits or theirs.shape[axes:] != ours.shape[axes:]:
        return None
    copied = ours.copy()
    from_places, to_places = ([classes.index(name) for name in both] for classes in (their_classes, our_classes))
    copied[np.ix_(*[to_places] * axes)] = theirs[np.ix_(*[from_places] * axes)]
    return copied


def _is_of_other_images(name: str, array: np.ndarray, parameter: Parameter) -> bool:
    """Whether nothing but the number of the images' channels differs."""
    shapes = (array.shape, parameter.shape)
    return name == FIRST and len({(shape[:1], shape[2:]) for shape in shapes}) == 1


def _refuse_less(
    rows: Sequence[Row],
    entries: Mapping[str, Entry],
    parameters: Mapping[str, Parameter],
    unfit: Sequence[str],
    source: str,
    found: Recognised,
    channels: int,
) -> None:
    """Refuse weights that are of another encoder, or less than one.

    Args:
        rows: What became of each parameter.
        entries: What the file holds, by our names.
        parameters: The network's parameters.
        unfit: The parameters that have another shape in the file.
        source: How messages call the file.
        found: The file's layout.
        channels: The number of channels of the first convolution at width 1.

    Raises:
        CheckpointError: If a parameter does not fit; the message names the first one and the way out.
    """
    if unfit:
        raise CheckpointError(_other_shape(source, unfit[0], entries, parameters, channels))
    encoder = [name for name in parameters if name.startswith(ENCODER)]
    if not encoder:
        return
    beyond = [name for name, entry in entries.items()
              if name.startswith(ENCODER) and entry.array.ndim == 4 and name not in parameters]  # fmt: skip
    if beyond:
        raise CheckpointError(
            f"{source}: has {_printable(beyond[0])[:_LINE]} ({found.layout}), which this network has not; choose an "
            "encoder of the same depth, or set init_partial=true to take the layers of the same names"
        )
    initial = {row.name for row in rows if row.action == INITIAL}
    missing = [name for name in encoder if name in initial and not _may_miss(name, initial, entries)]
    if not missing:
        return
    if all(name.rpartition(".")[2] in NORM_PARTS for name in missing):
        raise CheckpointError(
            f"{source}: has no batch norm ({found.layout}), and arch.norm=batch puts one after each convolution, which "
            "would normalise away what these weights compute; set arch.norm=none, or init_partial=true to start from "
            "the convolutions alone"
        )
    raise CheckpointError(
        f"{source}: lacks {missing[0]} and {len(missing) - 1} more of the encoder's {len(encoder)} parameters "
        f"({found.layout}); set init_partial=true to start from the others"
    )


def _may_miss(name: str, initial: Collection[str], entries: Mapping[str, Entry]) -> bool:
    """Whether a parameter of the encoder may keep its initial value.

    The first convolution may, for other images than the file's, and a bias of 0 where the file's convolution has none.
    """
    if name == FIRST:
        return name in entries
    layer = name.removesuffix(".bias")
    return layer != name and name not in entries and f"{layer}.weight" not in initial


def _other_shape(
    source: str, name: str, entries: Mapping[str, Entry], parameters: Mapping[str, Parameter], channels: int
) -> str:
    hint = "use the arch.width, arch.norm and dataset.num_classes it was trained with"
    if FIRST in entries and FIRST in parameters:
        theirs, ours = entries[FIRST].array.shape, parameters[FIRST].shape
        if theirs[2:] != ours[2:]:
            hint = "it belongs to another encoder"
        elif theirs[0] != ours[0]:
            gamma = f"{norm_of(FIRST.removesuffix('.weight'))}.gamma"
            norm = " arch.norm=none" if gamma in parameters and gamma not in entries else ""
            hint = f"set arch.width={theirs[0] / channels:g}{norm}"
    return (
        f"{source}: {name} has shape {tuple(entries[name].array.shape)}, this network's has "
        f"{tuple(parameters[name].shape)}; {hint}"
    )


def _printable(name: str) -> str:
    """Return a name of a file without what could break a line or move a terminal's cursor."""
    return "".join(character if character.isprintable() else "?" for character in name)
