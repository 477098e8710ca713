"""Blocks whose activations are not kept for the backward pass but computed again in it.

The backward pass of a training step needs the activations of the forward pass. With recomputation, only those between
blocks are kept; the others of a block are computed again when its turn comes, so that they exist for one block at a
time. It costs the forward pass of the encoder once more, and changes no bit: MindSpore repeats the operators of a block
whose results the backward pass needs, and the updates of moving statistics are not among these.

Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", section 3.
"""

from __future__ import annotations

from mindspore import nn

from fcnlab.core.errors import ConfigError

_DRAWING = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def recompute_blocks(network: nn.Cell) -> list[nn.Cell]:
    """Let a compiled training step compute the activations of the encoder's blocks again in the backward pass.

    Args:
        network: The network, whose attribute ``encoder`` is the encoder; its blocks are changed.

    Returns:
        The blocks: the children of the encoder or, where these are chains of larger units as in a ResNet, the units.

    Raises:
        ConfigError: If there is no encoder, or a block draws random numbers, which would be others the second time.
    """
    encoder = getattr(network, "encoder", None)
    blocks = [] if encoder is None else [block for child in encoder.cells() for block in _units(child)]
    if not blocks:
        raise ConfigError(
            f"trainer.recompute=blocks: {type(network).__name__} has no encoder with cells to compute again; use "
            "trainer.recompute=none"
        )
    for block in blocks:
        for name, cell in block.cells_and_names():
            if isinstance(cell, _DRAWING):
                raise ConfigError(
                    f"trainer.recompute=blocks: {type(cell).__name__} ({name}) in the encoder would drop other "
                    "activations the second time; use trainer.recompute=none"
                )
    for block in blocks:
        block.recompute()
    return blocks


def _units(child: nn.Cell) -> list[nn.Cell]:
    parts = list(child.cells()) if isinstance(child, nn.SequentialCell) else []
    units = [part for part in parts if sum(bool(cell.trainable_params()) for cell in part.cells()) > 1]
    return units or ([child] if list(child.get_parameters()) else [])
