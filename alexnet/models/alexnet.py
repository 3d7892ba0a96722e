"""AlexNet: one module that reads an architecture record.

The network in the paper's order of thought is the record `AS_RUN` in `variants.py`, with the paper's sections beside
each layer. This module turns any record into layers and runs images through them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet.errors import UserError
from alexnet.models.architecture import INPUT_CHANNELS, Architecture, LayerShapes, layer_shapes, minimum_image_size
from alexnet.models.architecture import Dropout as DropoutRecord
from alexnet.models.changes import Activation, Pooling, change_architecture
from alexnet.models.initialization import initialize
from alexnet.models.layers import Convolution, Dropout, build_layer
from alexnet.models.stages import plan_stages
from alexnet.models.variants import ARCHITECTURES, get_architecture
from alexnet.ops.block import apply_block


class AlexNet(nn.Module):
    """The network of an architecture record, for square images of one size.

    Its layers are attributes under the record's names: conv1 ... fc8, norm1, pool1; weights are conv1.weight and so
    on. Weights are float32; the computation runs in the dtype of the images. Neighbouring layers run as one operator
    (`stages`), unless one of them has a hook. Its parameters still have to be initialised or loaded: `create_model`
    does that.
    """

    def __init__(self, architecture: Architecture, num_classes: int = 1000, image_size: int | None = None) -> None:
        """image_size: side of the input in pixels, None for the architecture's own.

        Raises UserError for an image size the layers cannot be built for.
        """
        super().__init__()
        self.architecture = architecture
        self.num_classes = num_classes
        self.image_size = architecture.image_size if image_size is None else image_size
        rows = _shapes(architecture, num_classes, self.image_size)
        for row in rows:
            self.add_module(row.layer.name, build_layer(row))
        self.stages = plan_stages([(row.layer, row.inputs) for row in rows])

    @property
    def dropout_layers(self) -> dict[str, int]:
        """Name of each dropout layer that drops anything -> number of features of its masks."""
        return {
            row.layer.name: math.prod(row.inputs)
            for row in layer_shapes(self.architecture, self.num_classes, self.image_size)
            if isinstance(row.layer, DropoutRecord) and row.layer.rate > 0
        }

    def set_conv1_form(self, form: Literal["direct", "space_to_depth"]) -> None:
        """How the first convolution is computed; both forms give the same sums (ops/space_to_depth.py)."""
        conv1 = dict(self.named_children()).get("conv1")
        if isinstance(conv1, Convolution):  # a network without conv1 is nobody's, but can be asked for
            conv1.form = form

    def forward(self, images: Tensor, dropout_masks: Mapping[str, Tensor] | None = None) -> Tensor:
        """Logits (N, num_classes), in the images' dtype.

        images: (N, 3, H, W) float32 or bfloat16 with H = W = image_size, preprocessed as `architecture` says
        (input_scale, channel_order), contiguous or channels-last. dropout_masks: dropout layer -> (N, features), bool
        or uint8, 1 = keep; layers that are not named draw from torch's generator. In evaluation masks are ignored.
        Raises ValueError for images of another size.
        """
        masks = dropout_masks or {}
        activations = self._padded(images)
        for names, block in self.stages:
            layers = [self.get_submodule(name) for name in names]
            if block is None or any(_is_observed(layer) for layer in layers):
                for name, layer in zip(names, layers, strict=True):
                    activations = _apply(layer, activations, masks.get(name))
            else:
                activations = apply_block(activations, block)
        return activations

    def output_of(self, name: str, images: Tensor) -> Tensor:
        """The output of one layer, computed as `forward` does it and no further; images as in `forward`.

        Raises UserError for a name that is no layer.
        """
        self.check_layers([name])
        activations = self._padded(images)
        for names, block in self.stages:
            if block is None or name in names or any(_is_observed(self.get_submodule(inner)) for inner in names):
                for inner in names:
                    activations = _apply(self.get_submodule(inner), activations, None)
                    if inner == name:
                        return activations
            else:
                activations = apply_block(activations, block)
        raise AssertionError(f"{name} is a layer, but in no stage")

    def logits_after(self, name: str, outputs: Tensor) -> Tensor:
        """Logits (N, num_classes) from the outputs of one layer, as `output_of` gives them: the layers that follow it.

        Layer by layer, differentiable. Raises UserError for a name that is no layer.
        """
        self.check_layers([name])
        layers = list(self.named_children())
        position = [own for own, _ in layers].index(name)
        for _, layer in layers[position + 1 :]:
            outputs = _apply(layer, outputs, None)
        return outputs

    def activations(self, images: Tensor, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """The outputs of the named layers (None: of all), by name in the network's order; images as in `forward`.

        Raises UserError for a name that is no layer.
        """
        wanted = set(dict(self.named_children()) if names is None else names)
        self.check_layers(wanted)
        outputs = {}
        activations = self._padded(images)
        for name, layer in self.named_children():
            activations = _apply(layer, activations, None)
            if name in wanted:
                outputs[name] = activations
            if len(outputs) == len(wanted):
                break
        return outputs

    def check_layers(self, names: Iterable[str]) -> None:
        """Raises UserError, which lists the layers, for a name that is none of them."""
        layers = list(dict(self.named_children()))
        unknown = sorted(set(names) - set(layers))
        if unknown:
            raise UserError(
                f"{self.architecture.name} has no layer {unknown[0]!r}; its layers are {', '.join(layers)}."
            )

    def _padded(self, images: Tensor) -> Tensor:
        expected = (INPUT_CHANNELS, self.image_size, self.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"This {self.architecture.name} takes images (N, {', '.join(map(str, expected))}), not "
                f"{tuple(images.shape)}: crop or resize them, or build the model with image_size={images.shape[-1]}."
            )
        padding = self.architecture.pad_right_bottom
        return F.pad(images, (0, padding, 0, padding)) if padding else images


def _is_observed(layer: nn.Module) -> bool:
    """Whether somebody hooked into the layer: then it has to run by itself."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks)


def _apply(layer: nn.Module, activations: Tensor, mask: Tensor | None) -> Tensor:
    return layer(activations, mask) if isinstance(layer, Dropout) else layer(activations)


def _shapes(architecture: Architecture, num_classes: int, image_size: int) -> list[LayerShapes]:
    try:
        return layer_shapes(architecture, num_classes, image_size)
    except UserError as error:
        if image_size >= minimum_image_size(architecture):
            raise
        fitting = [other.name for other in ARCHITECTURES.values() if minimum_image_size(other) <= image_size]
        hint = f" Models for {image_size} px: {', '.join(fitting)}." if fitting else ""
        raise UserError(f"{error}{hint}") from None


def create_model(
    name: str | Architecture = "as_run",
    num_classes: int = 1000,
    *,
    image_size: int | None = None,
    initialization: str | None = None,
    dropout: float | None = None,
    input_scale: Literal["pixels", "unit"] | None = None,
    activation: Activation | None = None,
    pooling: Pooling = "overlapping",
    without: Sequence[str] = (),
    seed: int = 0,
    weights: str | None = None,
    progress: bool = True,
) -> AlexNet:
    """Build and initialise a network, or load published weights into it.

    name: a variant (see `alexnet.models.ARCHITECTURES`) or a record. image_size: side of the input in pixels.
    initialization: a scheme of `alexnet.models.initialization.SCHEMES`. dropout: probability of dropping a unit, for
    all dropout layers. input_scale: what kind of images it is meant for. activation: instead of every ReLU. None takes
    the variant's own. pooling: "overlapping" is the variant's own, "non_overlapping" the paper's other one (3.4), which
    is refused at image sizes where the last maps would change their size. without: names of layers to leave out; a
    convolution goes together with its activation. Equal arguments give equal weights.

    weights: the name of published ones instead of initial ones, "IMAGENET1K_V1" for `torchvision`, "bvlc_alexnet" for
    `caffe`, "bvlc_reference_caffenet" for `caffenet`, or "DEFAULT" for what there is. They are fetched once, checked,
    and kept where torch.hub keeps its own; progress: show the download on standard error. `alexnet.import_weights`
    makes a checkpoint of them, with classes and preprocessing, and of weights in a file.

    Raises UserError for an unknown name or scheme, for sizes and rates that cannot be, where layers that are left out
    were needed by others, and for weights that are not there or do not fit.
    """
    architecture = get_architecture(name) if isinstance(name, str) else name
    if num_classes < 1:
        raise UserError(f"num_classes = {num_classes}; a network needs at least one class.")
    architecture = change_architecture(
        architecture,
        initialization=initialization,
        dropout=dropout,
        input_scale=input_scale,
        activation=activation,
        pooling=pooling,
        without=without,
        image_size=image_size,
    )
    # Without memory first: torch's own initialisation would take longer than ours, and be thrown away.
    with torch.device("meta"):
        model = AlexNet(architecture, num_classes, image_size)
    if weights is not None:
        return _with_published_weights(model, weights, progress)
    # to_empty does the same by way of sympy, whose import takes half a second.
    model._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))
    initialize(model, architecture.initialization, seed)
    return model


def _with_published_weights(model: AlexNet, weights: str, progress: bool) -> AlexNet:
    """The network, which may have no memory yet, with published weights. Raises UserError where they do not fit."""
    from alexnet.weights.published import published_state

    state = published_state(model.architecture, weights, progress="auto" if progress else "silent")
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    for name, value in state.items():
        if shapes.get(name) != tuple(value.shape):
            raise UserError(
                f"the published weights {weights} do not fit: {name} is {tuple(value.shape)}, and the network has "
                f"{shapes.get(name)}. They have 1000 classes; to learn others from them, train from their checkpoint."
            )
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(True)
