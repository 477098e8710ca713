"""Layers that MindSpore lacks or computes slowly: 3x3 convolution, normalisation, a large convolution, upsampling."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import initializer

from fcnlab import kernels
from fcnlab.core import workers


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution whose output is as large as its input; a compiled operator where `fcnlab.kernels` has one.

    Args:
        in_channels: The number of channels of the input.
        out_channels: The number of channels of the output.
        has_bias: Whether there is a bias.

    Inputs:
        N x in_channels x H x W, float32.

    Outputs:
        N x out_channels x H x W, float32.
    """

    def __init__(self, in_channels: int, out_channels: int, has_bias: bool) -> None:
        # `fcnlab.models.fcn.initialise` draws the weights; zeros cost nothing and do not change MindSpore's random
        # state.
        super().__init__(
            in_channels,
            out_channels,
            3,
            pad_mode="pad",
            padding=1,
            has_bias=has_bias,
            weight_init="zeros",
            bias_init="zeros",
        )
        self.conv2d = kernels.convolution3x3() or self.conv2d


def plain_convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int,
    padding: int,
    *,
    dilation: int = 1,
    group: int = 1,
    has_bias: bool = False,
) -> nn.Conv2d:
    """Return a convolution of MindSpore's, whose weights `fcnlab.models.fcn.initialise` draws."""
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride,
        pad_mode="pad",
        padding=padding,
        dilation=dilation,
        group=group,
        has_bias=has_bias,
        weight_init="zeros",
        bias_init="zeros",
    )


class NormRelu(nn.BatchNorm2d):
    """Batch normalisation, ReLU and perhaps 2x2 max-pooling; compiled operators where `fcnlab.kernels` has them.

    Training normalises with the batch's statistics, evaluation with running means: each step takes 0.9 of the old and
    0.1 of the batch's, with the unbiased variance. Where the attribute ``use_batch_statistics`` is False, training
    normalises with the running means, too, and does not change them.

    Args:
        channels: The number of channels C.
        pool: Whether to pool.

    Inputs:
        N x C x H x W, float32.

    Outputs:
        N x C x H x W, or N x C x H/2 x W/2 with pooling, float32.
    """

    def __init__(self, channels: int, pool: bool) -> None:
        # MindSpore's momentum is the weight of the old statistics (PyTorch's is that of the new: 0.1).
        super().__init__(channels, eps=1e-5, momentum=0.9)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2) if pool else None
        operators = kernels.norm_relu(pool)
        self.stock = operators is None
        if operators is not None:
            self.statistics, self.by_batch, self.by_constants = operators
            self.with_convolution = kernels.convolution3x3_norm_relu(pool)

    def construct(self, features: Tensor) -> Tensor:
        """Normalise, rectify and, if asked for, pool."""
        if self.stock:
            features = self.relu(super().construct(features))
            return features if self.pool is None else self.pool(features)
        if not self.training or self.use_batch_statistics is False:  # frozen layers have the latter
            return self.by_constants(features, self.running_statistics(), self.gamma, self.beta)
        statistics = ops.stop_gradient(self.statistics(features))
        batch, _, height, width = features.shape
        count = batch * height * width
        unbiased = count / max(count - 1, 1)
        ops.assign(self.moving_mean, 0.9 * self.moving_mean + 0.1 * statistics[0])
        ops.assign(self.moving_variance, 0.9 * self.moving_variance + (0.1 * unbiased) * statistics[1])
        return self.by_batch(features, statistics, self.gamma, self.beta)

    def of_convolution(self, features: Tensor, weight: Tensor) -> Tensor:
        """Return what the cell makes of a 3x3 convolution's output in evaluation, by one operator of `fcnlab.kernels`.

        Args:
            features: The input of the convolution, N x I x H x W.
            weight: The weight of the convolution, C x I x 3 x 3.
        """
        return self.with_convolution(features, weight, self.running_statistics(), self.gamma, self.beta)

    def running_statistics(self) -> Tensor:
        """Return the running mean and variance of each channel, 2 x C."""
        return ops.stack((self.moving_mean, self.moving_variance))


class ConvolutionBlock(nn.SequentialCell):
    """Cells one after the other; in evaluation, a 3x3 convolution and the `NormRelu` after it are one operator.

    That reads and writes each map once rather than twice. Other blocks and those of stock operators are computed
    cell by cell.

    Args:
        cells: The cells by their names.

    Inputs and outputs are those of the first and of the last cell.
    """

    def __init__(self, cells: OrderedDict[str, nn.Cell]) -> None:
        super().__init__(cells)
        members = list(cells.values())
        self.is_of_pairs = len(members) % 2 == 0 and all(
            isinstance(first, Conv3x3) and not first.has_bias and isinstance(second, NormRelu) and not second.stock
            for first, second in zip(members[::2], members[1::2], strict=False)
        )

    def construct(self, features: Tensor) -> Tensor:
        """Pass the features through all cells."""
        if self.training or not self.is_of_pairs:
            return super().construct(features)
        for index in range(0, len(self.cell_list), 2):
            features = self.cell_list[index + 1].of_convolution(features, self.cell_list[index].weight)
        return features


MAX_GROUPS = 32
"""The number of groups of group normalisation, the default of its paper, where the channels are many enough."""


def group_count(channels: int) -> int:
    """Return into how many groups group normalisation divides channels.

    It is the largest divisor of the channels that is at most 32 and leaves two channels to each group: with groups of
    one, nothing would be left of a map of a single cell. It is 1 where there is no such divisor.

    Args:
        channels: The number of channels.
    """
    return max(count for count in range(1, MAX_GROUPS + 1) if channels % count == 0 and count <= max(channels // 2, 1))


class GroupNorm(nn.Cell):
    """Group normalisation, which computes the same in training and in evaluation, whatever the other images are.

    Each group of channels of an image loses its mean and is divided by its standard deviation over all positions; each
    channel is then scaled by gamma and shifted by beta. Since positions take part from the whole map, the result
    depends on the whole image.

    Source: Wu & He, ECCV 2018, equations 1, 2, 6 and 7, with an epsilon of 1e-5.

    Args:
        channels: The number of channels C; `group_count` gives the number of groups.

    Inputs:
        N x C x H x W, float32, of any sizes.

    Outputs:
        N x C x H x W, float32.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.groups = group_count(channels)
        self.gamma = Parameter(initializer("ones", (channels,), mstype.float32), name="gamma")
        self.beta = Parameter(initializer("zeros", (channels,), mstype.float32), name="beta")

    def construct(self, features: Tensor) -> Tensor:
        """Normalise."""
        batch, channels, height, width = features.shape
        grouped = features.reshape(batch, self.groups, channels // self.groups * height * width)
        centred = grouped - grouped.mean(axis=2, keep_dims=True)
        variance = (centred * centred).mean(axis=2, keep_dims=True)
        normal = (centred * ops.rsqrt(variance + 1e-5)).reshape(batch, channels, height, width)
        return normal * self.gamma.reshape(1, -1, 1, 1) + self.beta.reshape(1, -1, 1, 1)


class GroupNormRelu(GroupNorm):
    """Group normalisation, ReLU and perhaps 2x2 max-pooling: the counterpart of `NormRelu`.

    Args:
        channels: The number of channels C.
        pool: Whether to pool.

    Inputs:
        N x C x H x W, float32.

    Outputs:
        N x C x H x W, or N x C x H/2 x W/2 with pooling, float32.
    """

    def __init__(self, channels: int, pool: bool) -> None:
        super().__init__(channels)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2) if pool else None

    def construct(self, features: Tensor) -> Tensor:
        """Normalise, rectify and, if asked for, pool."""
        features = self.relu(super().construct(features))
        return features if self.pool is None else self.pool(features)


SYNCHRONISED = "sync_batch"
"""The normalisation whose statistics are those of the batches of all workers; that of one process is ``"batch"``."""


def norm_relu(norm: str, channels: int, pool: bool = False) -> nn.Cell:
    """Return a normalisation, ``"batch"``, ``"sync_batch"`` or ``"group"``, with ReLU and perhaps 2x2 max-pooling."""
    if norm == SYNCHRONISED and workers.current().count > 1:
        return SynchronisedNormRelu(channels, pool)
    return GroupNormRelu(channels, pool) if norm == "group" else NormRelu(channels, pool)


def norm_alone(norm: str, channels: int) -> nn.Cell:
    """Return a normalisation, ``"batch"``, ``"sync_batch"`` or ``"group"``, without ReLU."""
    if norm == SYNCHRONISED and workers.current().count > 1:
        return SynchronisedNorm(channels)
    return GroupNorm(channels) if norm == "group" else nn.BatchNorm2d(channels, eps=1e-5, momentum=0.9)


class _WorkersNorm(nn.Cell):
    """Normalise by the mean and the variance of each channel over the batches of all workers.

    Inputs:
        N x C x H x W, float32, where N may differ between workers.

    Outputs:
        The normalised features; the mean and the biased variance of each channel, 2 x C; and the number of values that
        each of them is of, a scalar. Automatic differentiation goes through the sums over the workers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.all_reduce = ops.AllReduce()

    def construct(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        own = features.shape[0] * features.shape[2] * features.shape[3]
        sums = features.sum((0, 2, 3))
        total = self.all_reduce(ops.concat((sums, ops.fill(sums.dtype, (1,), own))))
        count = ops.stop_gradient(total[-1])
        mean = total[:-1] / count
        centred = features - mean.reshape(1, -1, 1, 1)
        variance = self.all_reduce((centred * centred).sum((0, 2, 3))) / count
        normal = centred * ops.rsqrt(variance + 1e-5).reshape(1, -1, 1, 1)
        return normal, ops.stop_gradient(ops.stack((mean, variance))), count


class SynchronisedNorm(nn.BatchNorm2d):
    """Batch normalisation whose statistics in training are those of the batches of all workers.

    Args:
        channels: The number of channels C.

    Inputs:
        N x C x H x W, float32.

    Outputs:
        N x C x H x W, float32.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-5, momentum=0.9)
        self.by_workers = _WorkersNorm()

    def construct(self, features: Tensor) -> Tensor:
        """Normalise."""
        if not self.training or self.use_batch_statistics is False:
            return super().construct(features)
        normal, statistics, count = self.by_workers(features)
        ops.assign(self.moving_mean, 0.9 * self.moving_mean + 0.1 * statistics[0])
        ops.assign(self.moving_variance, 0.9 * self.moving_variance + 0.1 * statistics[1] * (count / (count - 1)))
        return normal * self.gamma.reshape(1, -1, 1, 1) + self.beta.reshape(1, -1, 1, 1)


class SynchronisedNormRelu(NormRelu):
    """A `NormRelu` whose statistics in training are those of the batches of all workers.

    Args:
        channels: The number of channels C.
        pool: Whether to pool.

    Inputs and outputs are those of `NormRelu`.
    """

    def __init__(self, channels: int, pool: bool) -> None:
        super().__init__(channels, pool)
        self.by_workers = _WorkersNorm() if self.stock else kernels.norm_relu_of_workers(pool)
        self.all_gather = None if self.stock else ops.AllGather()
        self.count = workers.current().count

    def construct(self, features: Tensor) -> Tensor:
        """Normalise, rectify and, if asked for, pool."""
        if not self.training or self.use_batch_statistics is False:
            return super().construct(features)
        if self.stock:
            normal, statistics, total = self.by_workers(features)
            output = self.relu(normal * self.gamma.reshape(1, -1, 1, 1) + self.beta.reshape(1, -1, 1, 1))
            output = output if self.pool is None else self.pool(output)
        else:
            statistics, total = self.merged(features)
            output = self.by_workers(features, statistics, self.gamma, self.beta)
        ops.assign(self.moving_mean, 0.9 * self.moving_mean + 0.1 * statistics[0])
        ops.assign(self.moving_variance, 0.9 * self.moving_variance + 0.1 * statistics[1] * (total / (total - 1)))
        return output

    def merged(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the statistics over all workers, 2 x C, from those of each (Chan et al. 1979), and their count."""
        own = self.statistics(features)
        pixels = features.shape[0] * features.shape[2] * features.shape[3]
        row = ops.concat((own.reshape(-1), ops.fill(own.dtype, (1,), pixels)))
        rows = ops.stop_gradient(self.all_gather(row)).reshape(self.count, -1)
        channels = features.shape[1]
        counts = rows[:, 2 * channels :]
        total = counts.sum()
        mean = (rows[:, :channels] * counts).sum(0) / total
        apart = rows[:, :channels] - mean
        variance = ((rows[:, channels : 2 * channels] + apart * apart) * counts).sum(0) / total
        return ops.stack((mean, variance)), total


def is_synchronised(cell: nn.Cell) -> bool:
    """Return whether a cell's moving statistics are alike in all workers."""
    return isinstance(cell, SynchronisedNorm | SynchronisedNormRelu)


def zero_pad(before: int, after: int, channels: int = 0) -> ops.Pad:
    """Return a padding with zeros of an N x C x H x W map.

    ``ops.pad`` is not for training: from the third step on, its CPU kernel for a size that is known when the graph is
    compiled does not return.

    Args:
        before: The rows above and the columns on the left.
        after: The rows below and the columns on the right.
        channels: The channels on either side.
    """
    return ops.Pad(((0, 0), (channels, channels), (before, after), (before, after)))


class CeilMaxPool2d(nn.Cell):
    """Max-pooling of stride 2 whose last windows may reach beyond the map, as in Caffe.

    Args:
        kernel_size: The side of a window, 2 or 3.

    Inputs:
        N x C x H x W, float32, none of it negative.

    Outputs:
        N x C x (H - kernel_size + 1) / 2 + 1 x (W - kernel_size + 1) / 2 + 1, rounded down.
    """

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.pad = zero_pad(0, 1)
        self.pool = nn.MaxPool2d(kernel_size=kernel_size, stride=2)

    def construct(self, features: Tensor) -> Tensor:
        """Pool."""
        # One row and one column of zeros are part of a window only where the last one would reach beyond the map.
        return self.pool(self.pad(features))


class HeadConv2d(nn.Cell):
    """A convolution of fc6 or fc7: of stride 1, with bias, and perhaps with a large kernel.

    It is a compiled operator where `fcnlab.kernels` has one, else im2col and one matrix product; its parameters are
    those of an ordinary convolution. It exists for fc6: MindSpore 2.8's CPU kernel for the weight gradient of a
    512 -> 4096, 7x7 convolution exceeds oneDNN's scratchpad and falls back to a reference loop of 15 to 43 s, while the
    same mathematics as a matrix product takes about 1 s.

    Without the operator, the patches take ``kernel_size**2`` times the input's memory, which suits coarse maps (1/32 of
    the image) and not early layers.

    Args:
        in_channels: The number of channels of the input.
        out_channels: The number of channels of the output.
        kernel_size: The side of the kernel.
        padded: Whether the input is padded with zeros, so that the output is as large; an even kernel is padded by one
            row and one column more below and on the right. Without padding, the output has ``kernel_size - 1`` fewer
            rows and columns.

    Inputs:
        N x in_channels x H x W, float32.

    Outputs:
        N x out_channels x H x W, or less without padding, float32.

    Raises:
        ValueError: If ``kernel_size`` is not positive.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, padded: bool = True) -> None:
        super().__init__()
        if kernel_size < 1:
            raise ValueError(f"kernel_size must be positive, not {kernel_size}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.patch_size = in_channels * kernel_size * kernel_size
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = Parameter(initializer("zeros", shape, mstype.float32), name="weight")
        self.bias = Parameter(initializer("zeros", (out_channels,), mstype.float32), name="bias")
        self.padding = kernel_size // 2 if padded and kernel_size % 2 else 0
        # `ops.unfold` pads all sides alike.
        self.uneven = zero_pad(kernel_size // 2 - 1, kernel_size // 2) if padded and kernel_size % 2 == 0 else None
        self.lost = 0 if padded else kernel_size - 1
        self.direct = kernels.direct_convolution() if self.lost == 0 and self.uneven is None else None
        # The gradient of `ops.matmul` would transpose the weight in memory: half of a training step at width 1.
        self.matmul = ops.MatMul()

    def construct(self, features: Tensor) -> Tensor:
        """Convolve."""
        if self.direct is not None:
            return self.direct(features, self.weight, self.bias)
        batch, _, height, width = features.shape
        patches = features if self.uneven is None else self.uneven(features)
        if self.kernel_size > 1:
            patches = ops.unfold(patches, self.kernel_size, 1, self.padding, 1)
            height, width = height - self.lost, width - self.lost
        # The patches of all images lie side by side: one large product is faster than a batch of small ones, and a
        # batched product would copy the weight for each image.
        patches = patches.reshape(batch, self.patch_size, height * width)
        patches = patches.transpose(1, 0, 2).reshape(self.patch_size, batch * height * width)
        product = self.matmul(self.weight.reshape(self.out_channels, self.patch_size), patches)
        output = product.reshape(self.out_channels, batch, height, width).transpose(1, 0, 2, 3)
        return output + self.bias.reshape(1, self.out_channels, 1, 1)


def bilinear_kernel(channels: int, stride: int, size: int | None = None) -> np.ndarray:
    """Return the weight with which a transposed convolution of stride s interpolates bilinearly.

    Every channel is upsampled by itself, so that the kernel is zero off the diagonal of the channel axes.

    Source: Long, Shelhamer & Darrell, CVPR 2015, section 3.3.

    Args:
        channels: The number of channels C of both input and output.
        stride: The upsampling factor s, even.
        size: The side k of the kernel: 2s, the default, or 2s - 1, which is centred on a pixel.

    Returns:
        C x C x k x k, float32.
    """
    size = size or 2 * stride
    distance = np.abs(np.arange(size) - (size - 1) / 2) / stride
    profile = 1 - distance
    kernel = np.zeros((channels, channels, size, size), dtype=np.float32)
    kernel[range(channels), range(channels)] = np.outer(profile, profile)
    return kernel


class BilinearUpsampling(nn.Conv2dTranspose):
    """Learnable s-fold upsampling: a transposed convolution of stride s without bias, bilinear at first.

    It is a compiled operator where `fcnlab.kernels` has one. All C x C kernels are learnable, so that training may mix
    the classes' maps. The padding of s/2 centres the result; with a kernel of 2s, it makes the output exactly s times
    as large as the input, and with one of 2s - 1 smaller by one row and one column.

    Source: Long, Shelhamer & Darrell, CVPR 2015, sections 3.3 and 4.2.

    Args:
        channels: The number of channels C of both input and output.
        stride: The upsampling factor s, even.
        kernel_size: The side of the kernel: 2s, the default, or 2s - 1.

    Inputs:
        N x C x H x W, float32.

    Outputs:
        N x C x sH x sW, or N x C x sH - 1 x sW - 1 with the smaller kernel, float32.

    Raises:
        ValueError: If ``stride`` is odd or not positive.
    """

    def __init__(self, channels: int, stride: int, kernel_size: int | None = None) -> None:
        if stride < 2 or stride % 2:
            raise ValueError(f"stride must be even and positive, not {stride}")
        super().__init__(
            channels,
            channels,
            kernel_size=kernel_size or 2 * stride,
            stride=stride,
            pad_mode="pad",
            padding=stride // 2,
            has_bias=False,
            weight_init=Tensor(bilinear_kernel(channels, stride, kernel_size)),
        )
        self.by_blocks = kernels.upsampling() if kernel_size in (None, 2 * stride) else None

    def construct(self, features: Tensor) -> Tensor:
        """Upsample."""
        return super().construct(features) if self.by_blocks is None else self.by_blocks(features, self.weight)
