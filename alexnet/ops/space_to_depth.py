"""A strided convolution as an unstrided one over blocks of pixels: exact, and kinder to matrix hardware.

conv1 (11 x 11, stride 4, 3 channels) leaves most lanes of a tensor core empty. Every 4 x 4 block of pixels as one pixel
of 48 channels, and the kernel with its last row and column filled up with zeros to 12 x 12 likewise, make it a 3 x 3
convolution of stride 1 with the same sums.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def conv2d_by_space_to_depth(
    images: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int = 0
) -> Tensor:
    """`F.conv2d(images, weight, bias, stride, padding)` for square kernels: (N, C, H, W) -> (N, channels, H', W').

    The weight keeps its shape (channels, C, k, k), and its gradient too.
    """
    kernel = weight.shape[-1]
    blocks = -(-kernel // stride)  # side of the kernel in blocks
    extra = blocks * stride - kernel
    # What the last window needs, beyond it nothing: crops where the stride leaves pixels over.
    fill = []
    for side in (images.shape[3], images.shape[2]):
        windows = (side + 2 * padding - kernel) // stride + 1
        fill += [padding, (windows - 1) * stride + blocks * stride - side - padding]
    images = F.pixel_unshuffle(F.pad(images, fill), stride).contiguous(memory_format=torch.channels_last)
    weight = F.pixel_unshuffle(F.pad(weight, (0, extra, 0, extra)), stride)
    return F.conv2d(images, weight.contiguous(memory_format=torch.channels_last), bias)
