"""AlexNet: one module that reads an architecture record.

The network in the paper's order of thought is the record `AS_RUN` in `variants.py`, with the paper's sections beside
each layer. This module turns any record into layers and runs images through them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.jit._trace import is_tracing
from torch.nn import functional as F

from alexnet.errors import UserError
from alexnet.models.architecture import (
    INPUT_CHANNELS,
    Architecture,
    LayerShapes,
    check_architecture,
    layer_shapes,
    minimum_image_size,
)
from alexnet.models.architecture import Linear as LinearRecord
from alexnet.models.changes import Activation, Pooling, change_architecture
from alexnet.models.initialization import initialize
from alexnet.models.layer_calls import call_layer
from alexnet.models.layers import Dropout, build_layer
from alexnet.models.plain import to_plain
from alexnet.models.stages import Stage, plan_stages
from alexnet.models.variants import ARCHITECTURES, get_architecture
from alexnet.ops.block import apply_block
from alexnet.ops.chunked_norm import needs_torch_operations


class AlexNet(nn.Module):
    """The network of an architecture record, for square images of one size.

    Its layers are attributes under the record's names: conv1 ... fc8, norm1, pool1; weights are conv1.weight and so
    on. They are torch's own layers where torch has them, and may be replaced, changed and hooked like those of any
    module: each call runs the layers as they are then. Neighboring layers that are as they were built run as one
    fused operator. Weights are float32; the computation runs in the dtype of the images. The parameters still have to
    be initialized or loaded: `build_network` does that.

    torch.jit, torch.export, torch.fx and torch.func see torch's own operations only; `alexnet.to_plain` returns a
    network of these.
    """

    def __init__(self, architecture: Architecture, num_classes: int = 1000, image_size: int | None = None) -> None:
        """Build the layers of a record.

        Args:
            architecture: the record.
            num_classes: the number of outputs.
            image_size: side of the input in pixels; None takes the architecture's own.

        Raises:
            UserError: If the record is impossible, or its layers cannot be built for this image size.
        """
        super().__init__()
        if not isinstance(architecture, Architecture):
            raise UserError(f"a network is built of an Architecture, not of {type(architecture).__name__}.")
        try:
            check_architecture(architecture)
        except ValueError as error:
            raise UserError(f"{error}.") from None
        self.architecture = architecture
        self.image_size = architecture.image_size if image_size is None else image_size
        self.conv1_form: Literal["direct", "space_to_depth"] = "direct"
        """How the first convolution is computed; both forms give the same sums (ops/space_to_depth.py)."""
        rows = _shapes(architecture, num_classes, self.image_size)
        for row in rows:
            if hasattr(AlexNet, row.layer.name) or row.layer.name in vars(self):
                raise UserError(f"a layer cannot be named {row.layer.name}: a network has that attribute already.")
            self.add_module(row.layer.name, build_layer(row))
        self._built_classes = num_classes
        self._takes_vectors = frozenset(row.layer.name for row in rows if isinstance(row.layer, LinearRecord))

    @property
    def num_classes(self) -> int:
        """Number of outputs, also of a head that replaced the last layer.

        Raises:
            ValueError: If the last layer is a module that does not say how many outputs it has.
        """
        heads = [x.name for x in self.architecture.layers if isinstance(x, LinearRecord) and x.features is None]
        if not heads:  # a part of a network, which has its share of the outputs
            return self._built_classes
        head = self.layer(heads[-1])
        for module in reversed(list(head.modules())):
            features = getattr(module, "out_features", None)
            if isinstance(features, int):
                return features
        raise ValueError(f"{heads[-1]} is a {type(head).__name__}, which does not say how many outputs it has")

    @property
    def dropout_layers(self) -> dict[str, int]:
        """Name of each dropout layer that drops anything -> number of features of its masks."""
        sizes = {
            row.layer.name: math.prod(row.inputs)
            for row in layer_shapes(self.architecture, self._built_classes, self.image_size)
        }
        return {name: sizes[name] for name, layer in self.layers() if isinstance(layer, Dropout) and layer.p > 0}

    def layer(self, name: str) -> nn.Module:
        """Return a layer of the record by name, as it is now.

        Raises:
            ValueError: If the layer was deleted or set to None.
        """
        module = self._modules.get(name)
        if module is None:
            raise ValueError(f"the layer {name} was removed; put nn.Identity() in its place to leave it out")
        return module

    def layers(self) -> list[tuple[str, nn.Module]]:
        """Return (name, layer) of the record's layers in order, as they are now."""
        return [(name, self.layer(name)) for name in self._names]

    def stages(self) -> list[Stage]:
        """Return how the layers would run now: several as one fused operator, or each by itself."""
        return plan_stages(self.layers())

    def changed_layers(self) -> list[str]:
        """Return the names of layers that are no longer what the architecture's record says."""
        with torch.device("meta"):
            built = {
                row.layer.name: build_layer(row)
                for row in layer_shapes(self.architecture, self._built_classes, self.image_size)
            }
        return [name for name, layer in built.items() if _settings(layer) != _settings(self._modules.get(name))]

    def forward(self, images: Tensor, dropout_masks: Mapping[str, Tensor] | None = None) -> Tensor:
        """Compute the logits.

        Args:
            images: (N, 3, H, W), floating point, with H = W = image_size, preprocessed as `architecture` says
                (input_scale, channel_order), contiguous or channels-last.
            dropout_masks: name of a dropout layer -> (N, features), bool or uint8, 1 = keep. Layers that are not named
                draw from torch's generator. Masks are ignored in evaluation.

        Returns:
            (N, num_classes) in the dtype of `images`.

        Raises:
            TypeError: If the images are not a floating-point tensor.
            ValueError: If the images have another shape, or a mask is for a layer that takes none.
        """
        masks = self._checked(dropout_masks)
        activations = self._padded(images)
        for names, block in self._stages_for(images):
            if block is not None:
                activations = apply_block(activations, block)
            else:
                activations = self.apply_layer(names[0], activations, masks.get(names[0]))
        return activations

    def apply_layer(self, name: str, activations: Tensor, mask: Tensor | None = None) -> Tensor:
        """Run one layer on the activations (N, ...) before it; `mask` is for a dropout layer."""
        if name in self._takes_vectors:
            activations = activations.flatten(1)  # in the order channel, row, column
        layer = self.layer(name)
        if mask is not None:
            return layer(activations, mask)
        return call_layer(layer, activations, space_to_depth=name == "conv1" and self.conv1_form == "space_to_depth")

    def output_of(self, name: str, images: Tensor) -> Tensor:
        """Return the output of one layer, computed as `forward` does it and no further; images as in `forward`.

        Raises:
            UserError: If there is no such layer.
        """
        self.check_layers([name])
        activations = self._padded(images)
        for names, block in self._stages_for(images):
            if block is not None and name not in names:
                activations = apply_block(activations, block)
                continue
            for inner in names:
                activations = self.apply_layer(inner, activations)
                if inner == name:
                    return activations
        raise AssertionError(f"{name} is a layer, but in no stage")

    def logits_after(self, name: str, outputs: Tensor) -> Tensor:
        """Return the logits (N, num_classes) for the outputs of one layer, as `output_of` gives them.

        The layers after it run one by one, differentiably.

        Raises:
            UserError: If there is no such layer.
        """
        self.check_layers([name])
        names = self._names
        for following in names[names.index(name) + 1 :]:
            outputs = self.apply_layer(following, outputs)
        return outputs

    def activations(self, images: Tensor, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Return the outputs of the named layers (None: of all), by name in the network's order.

        Raises:
            UserError: If there is no such layer.
        """
        wanted = set(self._names if names is None else names)
        self.check_layers(wanted)
        outputs = {}
        activations = self._padded(images)
        for name in self._names:
            activations = self.apply_layer(name, activations)
            if name in wanted:
                outputs[name] = activations
            if len(outputs) == len(wanted):
                break
        return outputs

    def check_layers(self, names: Iterable[str]) -> None:
        """Raise UserError, which lists the layers, for a name that is none of them."""
        unknown = sorted(set(names) - set(self._names))
        if unknown:
            raise UserError(
                f"{self.architecture.name} has no layer {unknown[0]!r}; its layers are {', '.join(self._names)}."
            )

    def __prepare_scriptable__(self) -> nn.Module:
        """What torch.jit.script compiles in place of this module."""
        for name, layer in self.named_modules():
            if layer._forward_hooks or layer._forward_pre_hooks:
                raise ValueError(
                    f"torch.jit.script cannot take the hooks of {name or 'the network'}; remove them first"
                )
        return to_plain(self)

    @property
    def _names(self) -> list[str]:
        return [record.name for record in self.architecture.layers]

    def _stages_for(self, images: Tensor) -> list[Stage]:
        """The stages for these images: single layers where a transformation of torch looks at each operation."""
        if needs_torch_operations(images):
            return [Stage((name,), None) for name in self._names]
        return self.stages()

    def _checked(self, masks: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
        if isinstance(masks, torch.fx.Proxy):  # torch.fx traces every argument
            is_none = masks.tracer.create_proxy("call_function", operator.is_, (masks, None), {})
            torch._assert(is_none, "a traced network takes no dropout_masks")
            return {}
        for name in masks or ():
            if not isinstance(self._modules.get(name), Dropout):
                raise ValueError(f"dropout_masks has {name!r}, which is not a dropout layer of this network")
        return masks or {}

    def _padded(self, images: Tensor) -> Tensor:
        if isinstance(images, torch.fx.Proxy):
            pass  # torch.fx traces without values
        elif not isinstance(images, Tensor):
            raise TypeError(
                f"images are a {type(images).__name__}; pass a tensor (N, 3, {self.image_size}, {self.image_size}), or "
                "let alexnet.predict read and preprocess them"
            )
        elif not is_tracing():  # to torch.jit.trace a shape is data
            self._check(images)
        padding = self.architecture.pad_right_bottom
        return F.pad(images, (0, padding, 0, padding)) if padding else images

    def _check(self, images: Tensor) -> None:
        name, shape, side = self.architecture.name, tuple(images.shape), self.image_size
        expected = f"{name} takes images (N, {INPUT_CHANNELS}, {side}, {side})"
        if not images.is_floating_point():
            scale = "0 to 255, minus the mean" if self.architecture.input_scale == "pixels" else "0 to 1, standardized"
            raise TypeError(
                f"{name} takes floating-point images ({scale}), not {images.dtype}; convert them with .float() and "
                "preprocess them as its checkpoint says, or let alexnet.predict do both"
            )
        if images.ndim == 3 and INPUT_CHANNELS in (shape[0], shape[2]):
            order = ".permute(2, 0, 1)" if shape[0] != INPUT_CHANNELS else ""
            raise ValueError(f"{expected}, not one image {shape}; pass images{order}[None]")
        if images.ndim != 4:
            raise ValueError(f"{expected}, not {images.ndim} dimensions {shape}")
        if shape[1] != INPUT_CHANNELS:
            if shape[3] == INPUT_CHANNELS:
                raise ValueError(f"{expected}, not channels last {shape}; pass images.permute(0, 3, 1, 2)")
            raise ValueError(f"{expected}, not {shape[1]} channels {shape}; convert the images to RGB")
        if shape[2:] != (side, side):
            raise ValueError(f"{expected}, not {shape}; crop or resize them, or build the model for that size")


def _settings(layer: nn.Module | None) -> object:
    """Everything that decides what a layer computes, but for the values of its weights."""
    if layer is None:
        return None
    # A patched forward is in `vars`; whether a ReLU works in place changes no value.
    own = {key: value for key, value in vars(layer).items() if key not in ("training", "inplace") and key[0] != "_"}
    shapes = {name: tuple(value.shape) for name, value in layer.state_dict().items()}
    return type(layer), own, "_conv_forward" in vars(layer), shapes


def _shapes(architecture: Architecture, num_classes: int, image_size: int) -> list[LayerShapes]:
    try:
        return layer_shapes(architecture, num_classes, image_size)
    except UserError as error:
        if image_size >= minimum_image_size(architecture):
            raise
        fitting = [other.name for other in ARCHITECTURES.values() if minimum_image_size(other) <= image_size]
        hint = f" Models for {image_size} px: {', '.join(fitting)}." if fitting else ""
        raise UserError(f"{error}{hint}") from None


def build_network(
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
) -> AlexNet:
    """Build and initialize a network; `alexnet.create_model` also loads published weights into it.

    name: a variant (see `alexnet.models.ARCHITECTURES`) or a record. image_size: side of the input in pixels.
    initialization: a scheme of `alexnet.models.initialization.SCHEMES`. dropout: probability of dropping a unit, for
    all dropout layers. input_scale: what kind of images it is meant for. activation: instead of every ReLU. None takes
    the variant's own. pooling: "overlapping" is the variant's own, "non_overlapping" the paper's other one (3.4), which
    is refused at image sizes where the last maps would change their size. without: names of layers to leave out; a
    convolution goes together with its activation. Equal arguments give equal weights.

    Raises UserError for an unknown name or scheme, for sizes and rates that cannot be, and where layers that are left
    out were needed by others.
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
    # to_empty does the same by way of sympy, whose import takes half a second.
    model._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))
    initialize(model, architecture.initialization, seed)
    return model
