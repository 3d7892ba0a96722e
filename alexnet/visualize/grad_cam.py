"""Grad-CAM: where in the image a layer saw what speaks for a class (Selvaraju et al., ICCV 2017, equations 1 and 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from alexnet.evaluation.evaluator import evaluation_mode
from alexnet.models import AlexNet
from alexnet.models.receptive_field import receptive_fields
from alexnet.visualize.placement import spread_over_pixels
from alexnet.visualize.subjects import check_has_maps, classes_asked_for, last_maps, repeated


def grad_cam(
    model: AlexNet, inputs: Tensor, class_index: int | Sequence[int] | None = None, layer: str | None = None
) -> Tensor:
    """Where the network saw what speaks for a class: (K, h, w) float32, at least 0, for each class asked for.

    A map's weight is the mean of the logit's gradient over its positions; the weighted sum of the layer's maps, where
    it is positive, is laid over the pixels that its units look at. The values are not scaled: of one network and layer
    they can be compared between classes and images.

    inputs: (N, 3, h, w) as `center_crop` makes them; a single image may be asked for several classes. class_index: the
    position of the class in the outputs, for all images or one for each; None takes the best guess of each. layer: any
    layer with maps (those before the first fully-connected one); None takes `last_maps`. The model stays as it is, and
    gets no gradients. Raises UserError for a layer without maps and a class that does not exist.
    """
    layer = layer or last_maps(model.architecture)
    check_has_maps(model.architecture, layer)
    classes = classes_asked_for(model, inputs, class_index)
    with evaluation_mode([model]):
        with torch.no_grad():
            maps = model.output_of(layer, inputs)
        with torch.enable_grad():
            maps = repeated(maps, len(classes)).detach().requires_grad_()
            scores = model.logits_after(layer, maps).gather(1, classes[:, None])
            (gradients,) = torch.autograd.grad(scores.sum(), [maps])
    weights = gradients.float().mean(dim=(2, 3), keepdim=True)
    heat = (weights * maps.detach().float()).sum(dim=1).relu()
    field = receptive_fields(model.architecture, model.image_size)[layer]
    return spread_over_pixels(heat, field, (inputs.shape[2], inputs.shape[3]))
