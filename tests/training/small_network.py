"""Two blocks of the encoder and a score layer at a quarter of the resolution, which compile within seconds."""

import numpy as np
from mindspore import Tensor, nn

from fcnlab.models.vgg import vgg_block


class Small(nn.Cell):
    """A network from N x 3 x 4H x 4W images to the logits of two classes, N x 2 x H x W."""

    def __init__(self, norm="batch"):
        super().__init__()
        self.block1 = vgg_block(3, 4, 1, norm)
        self.block2 = vgg_block(4, 4, 1, norm)
        self.score = nn.Conv2d(4, 2, 1, has_bias=True, bias_init="zeros")

    def construct(self, images):
        return self.score(self.block2(self.block1(images)))


def small_network(norm="batch"):
    """Return a network whose weights let gradients through every layer."""
    made = Small(norm)
    generator = np.random.default_rng(1)
    for parameter in made.trainable_params():
        if parameter.ndim == 4:
            parameter.set_data(Tensor(generator.standard_normal(parameter.shape, dtype=np.float32)))
    return made
