"""The network as one big filter: its fully-connected layers as convolutions, on images larger than its own input.

What it then says at each place is what it says of the window of the image there, except that near the edges of a
window the convolutions see the neighbouring pixels, where the classifier sees the zeros of its paddings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet.errors import UserError
from alexnet.evaluation.evaluator import evaluation_mode
from alexnet.models import AlexNet
from alexnet.models.architecture import AdaptiveAveragePool, LayerShapes, Linear, Local, layer_shapes
from alexnet.models.receptive_field import ReceptiveField, receptive_fields
from alexnet.visualize.subjects import map_layers


def window_field(model: AlexNet) -> ReceptiveField:
    """The windows that `dense_logits` speaks of: of the size of the network's input, one every `stride` pixels."""
    last = map_layers(model.architecture)[-1]
    stride = receptive_fields(model.architecture, model.image_size)[last].stride
    return ReceptiveField(model.image_size, stride, 0)


def dense_logits(model: AlexNet, inputs: Tensor) -> Tensor:
    """The logits for every window of larger images: (N, classes, rows, columns) in the inputs' dtype.

    inputs: (N, 3, H, W), both sides at least the network's own. Row i, column j is the window whose corner is at
    (i * stride, j * stride), see `window_field`; only windows inside the image are given. For an image of the
    network's own size it is the classifier's output. Raises UserError for smaller images, and for a network whose
    layers are tied to their positions.
    """
    size = model.image_size
    if min(inputs.shape[2:]) < size:
        raise UserError(f"{model.architecture.name} needs images of at least {size} pixels, not {tuple(inputs.shape)}.")
    rows = {row.layer.name: row for row in layer_shapes(model.architecture, model.num_classes, size)}
    padding = model.architecture.pad_right_bottom
    with evaluation_mode([model]), torch.inference_mode():
        maps = F.pad(inputs, (0, padding, 0, padding))
        for name, layer in model.named_children():
            maps = _apply(layer, rows[name], maps)
    stride = window_field(model).stride
    height, width = ((side - size) // stride + 1 for side in inputs.shape[2:])
    return maps[:, :, :height, :width]


def _apply(layer: nn.Module, row: LayerShapes, maps: Tensor) -> Tensor:
    """The layer on maps of any size; `row` has the shapes that it was built for."""
    if isinstance(row.layer, Local):
        raise UserError(
            f"{row.layer.name} has weights of its own for every position, so this network cannot be run on larger "
            "images; use gradcam, gradients or occlusion."
        )
    if isinstance(row.layer, AdaptiveAveragePool):
        step, rest = divmod(row.inputs[1], row.layer.size)
        if rest or not step:
            raise UserError(f"{row.layer.name} stretches its maps at this image size; there is no dense form of that.")
        return F.avg_pool2d(maps, step, step)
    if isinstance(row.layer, Linear):
        side = row.inputs[1] if len(row.inputs) == 3 else 1
        # The inputs of a unit are flattened as (channel, row, column): a kernel over the whole of the native maps.
        assert isinstance(layer.weight, Tensor) and isinstance(layer.bias, Tensor)
        kernels = layer.weight.unflatten(1, (-1, side, side)).to(maps.dtype)
        return F.conv2d(maps, kernels, layer.bias.to(maps.dtype), groups=row.layer.groups)
    return layer(maps)
