"""A network whose parameters are divided among processes: the paper's towers, a sharded classifier, sharded weights."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import override

from alexnet.models import AlexNet
from alexnet.models.architecture import share_of_rows
from alexnet.models.exchange import Exchange
from alexnet.models.parts import Cut, Part, own_rows, part_of
from alexnet.runtime.device import Execution
from alexnet.runtime.distributed import World, held_here
from alexnet.training.replicas import OneProcess, example_of, replicate, share_buffers, without_sync

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class _Divided(OneProcess):
    """Every process has its share of the first dimension of some parameters, the outputs of a layer."""

    def __init__(self, model: AlexNet, trained: nn.Module, world: World, mesh: DeviceMesh) -> None:
        super().__init__(model)
        self.world, self.mesh = world, mesh
        self.trained = self.network = trained

    def divides(self, name: str) -> bool:
        """Whether this process has only its share of the parameter or buffer of that name."""
        raise NotImplementedError

    @override
    def gather(self) -> None:
        share_buffers(buffer for name, buffer in self.trained.named_buffers() if not self.divides(name))
        whole = self.model.state_dict()
        for name, own in self.trained.state_dict().items():
            whole[name].copy_(self._whole(own, whole[name].shape) if self.divides(name) else own)

    @override
    def scatter(self) -> None:
        whole = self.model.state_dict()
        for name, own in self.trained.state_dict().items():
            held_here(own).copy_(self._own(whole[name]) if self.divides(name) else whole[name])

    @override
    def gather_optimizer(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        state = optimizer.state_dict()
        shapes = {name: parameter.shape for name, parameter in self.model.named_parameters()}
        velocities = {
            index: {**held, "velocity": self._whole(held["velocity"], shapes[name])}
            for index, held, name in self._velocities(optimizer, state)
        }
        return {**state, "state": {**state["state"], **velocities}}

    @override
    def scatter_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        velocities = {
            index: {**held, "velocity": self._own(held["velocity"])}
            for index, held, _ in self._velocities(optimizer, state)
        }
        optimizer.load_state_dict({**state, "state": {**state["state"], **velocities}})

    def _velocities(
        self, optimizer: torch.optim.Optimizer, state: dict[str, Any]
    ) -> Iterable[tuple[int, dict[str, Any], str]]:
        """(number, state, name) of the parameters that are divided, in the same order everywhere."""
        names = {id(parameter): name for name, parameter in self.trained.named_parameters()}
        ordered = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
        return [(i, held, ordered[i]) for i, held in sorted(state["state"].items()) if self.divides(ordered[i])]

    def _own(self, whole: Tensor) -> Tensor:
        return own_rows(whole, self.world.size, self.world.rank)

    def _whole(self, own: Tensor, shape: torch.Size) -> Tensor:
        from torch.distributed.tensor import DTensor, Shard

        if own.ndim == 0:  # a number is everybody's, as for `own_rows`
            return own
        stride = torch.empty(shape, device="meta").stride()
        share = DTensor.from_local(
            held_here(own).contiguous(), self.mesh, [Shard(0)], run_check=False, shape=shape, stride=stride
        )
        return cast(Tensor, share.full_tensor())


class Towers(_Divided):
    """The paper's own way (3.2): each process has one tower, and all images; they talk before conv3, fc6, fc7, fc8."""

    def __init__(self, model: AlexNet, world: World, execution: Execution) -> None:
        mesh = _mesh(world, execution)
        self.part, network = _build_part(model, "towers", world, mesh)
        super().__init__(model, network, world, mesh)
        self.scatter()

    @override
    def divides(self, name: str) -> bool:
        return self.part.cuts(name)

    @override
    def answered(self, rows: slice) -> slice:
        own = share_of_rows(rows.stop - rows.start, self.world.size, self.world.rank)
        return slice(rows.start + own.start, rows.start + own.stop)

    @override
    def own_masks(self, masks: Mapping[str, Tensor], rows: range) -> dict[str, Tensor]:
        return {name: _own_units(mask, self.world) for name, mask in masks.items()}


class ShardedClassifier(_Divided):
    """Whole convolutions on a part of the images, and a part of the fully-connected layers for all images.

    Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (2014): of the two, the one that is
    small travels. Convolutions exchange gradients (9 MB), fully-connected layers activations.
    """

    sums_gradients = True

    def __init__(self, model: AlexNet, world: World, execution: Execution) -> None:
        mesh = _mesh(world, execution)
        self.part, network = _build_part(model, "classifier", world, mesh)
        super().__init__(model, network, world, mesh)
        self.scatter()
        self._example = example_of(model, execution)
        self._rows = _GatheredRows(network)
        divided = [name for name, _ in self._rows.named_parameters() if self.divides(name.removeprefix("part."))]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self._rows, divided)
        self.frozen_changed()

    @override
    def divides(self, name: str) -> bool:
        return self.part.cuts(name)

    @override
    def frozen_changed(self) -> None:
        self.network = self._rows
        gc.collect()
        shared = (weight for name, weight in self.trained.named_parameters() if not self.divides(name))
        if any(weight.requires_grad for weight in shared):
            self.network = replicate(self._rows, self._example)

    @override
    def apart(self) -> AbstractContextManager[object]:
        return without_sync(self.network)

    @override
    def own_masks(self, masks: Mapping[str, Tensor], rows: range) -> dict[str, Tensor]:
        own = {}
        for name, mask in masks.items():
            if name in self.part.cut_layers:
                # (own rows, processes, own units): a slice of rows has those of the other processes beside them.
                own[name] = _own_units(mask, self.world).unflatten(0, (self.world.size, -1)).transpose(0, 1)
            else:
                own[name] = mask[rows.start : rows.stop]
        return own


class _GatheredRows(nn.Module):
    """A part whose divided layers see the images of all processes; it turns their masks over accordingly."""

    def __init__(self, part: AlexNet) -> None:
        super().__init__()
        self.part = part

    def forward(self, images: Tensor, dropout_masks: Mapping[str, Tensor] | None = None) -> Tensor:
        """As `AlexNet.forward`; masks (N, F), or (N, processes, F) of layers that see the images of all."""
        masks = {
            name: mask.transpose(0, 1).flatten(0, 1) if mask.ndim == 3 else mask
            for name, mask in (dropout_masks or {}).items()
        }
        return self.part(images, masks)


class ShardedWeights(_Divided):
    """FSDP2: the weights, gradients and velocities of every layer are divided; a layer is put together for its turn."""

    def __init__(self, model: AlexNet, world: World, execution: Execution) -> None:
        from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

        mesh = _mesh(world, execution)
        # FSDP takes no other layout; the kernels of convolutions are laid out anew for every use.
        network = copy.deepcopy(model).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        policy = MixedPrecisionPolicy(execution.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for layer in network.children():
            if any(True for _ in layer.parameters()):
                fully_shard(layer, mesh=mesh, mp_policy=policy)
        fully_shard(network, mesh=mesh, mp_policy=policy)
        for module in network.modules():
            if isinstance(module, FSDPModule):
                # The loss is divided by the whole batch already, so that gradients are summed, not averaged.
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)  # gloo cannot multiply while it sums
        super().__init__(model, network, world, mesh)
        self._divided = {name for name, parameter in network.named_parameters() if hasattr(parameter, "to_local")}

    @override
    def divides(self, name: str) -> bool:
        return name in self._divided

    @override
    @contextmanager
    def apart(self) -> Iterator[None]:
        network = cast(Any, self.network)
        network.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            network.set_requires_gradient_sync(True)


def _build_part(model: AlexNet, cut: Cut, world: World, mesh: DeviceMesh) -> tuple[Part, AlexNet]:
    """This process's part of a network, on its device, with weights that have no values yet."""
    part = part_of(model.architecture, model.num_classes, model.image_size, cut, world.size, world.rank)
    device = next(model.parameters()).device
    with torch.device("meta"):
        network = AlexNet(part.architecture, model.num_classes, model.image_size)
    network.to_empty(device=device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.conv1_form = model.conv1_form
    for layer in network.modules():
        if isinstance(layer, Exchange):
            layer.mesh = mesh
    return part, network


def _mesh(world: World, execution: Execution) -> DeviceMesh:
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(execution.device.type, (world.size,))


def _own_units(mask: Tensor, world: World) -> Tensor:
    return mask[:, share_of_rows(mask.shape[1], world.size, world.rank)]
