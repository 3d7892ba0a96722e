"""The step of step.py as one CUDA graph: the same numbers, one launch, and no wait for the device.

Everything a step depends on is an input that is copied to the device: bytes, labels, dropout masks, learning rates.
What a step leaves behind is in the weights, the velocities in the optimiser's state and batch norm's statistics, as
after `train_step`; so checkpoints are the same, and a resumed run continues bit for bit where the kernels are
deterministic. bfloat16 copies of the weights are kept beside them so that no forward pass has to make them; they are
derived from the weights, and made again whenever something else has changed those.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from alexnet.data.loader import Batch
from alexnet.data.preprocessing import Preprocessing
from alexnet.ops import triton_update
from alexnet.ops.triton_input import InputMaker
from alexnet.ops.triton_update import update_parameter, update_parameter_reference
from alexnet.runtime.cuda_graph import CaptureError, CudaRunner, GraphedCall, Runner
from alexnet.training.optimizer import MomentumSGD
from alexnet.training.step import StepResult, backward, train_step

_MASK = "mask/"


class GraphedStep:
    """Called like `train_step`; replays a graph where that is possible, else calls `train_step`.

    The first steps, and those after a change of shapes or of the set of frozen parameters, run eagerly.
    """

    def __init__(self, runner: Runner | None = None, *, on_fallback: Callable[[str], None] | None = None) -> None:
        """runner: how to capture; None takes CUDA. on_fallback: is told once, in a line, why there is no graph."""
        self.reason: str | None = None
        """Why steps are not graphed; None while they are."""
        self._runner = runner
        self._on_fallback = on_fallback
        self._bound: _BoundStep | None = None
        self._call: GraphedCall | None = None

    @property
    def is_captured(self) -> bool:
        """Whether the last step was a replay."""
        return self._call is not None and self._call.is_captured

    def __call__(
        self,
        model: nn.Module,
        optimizer: MomentumSGD,
        batch: Batch,
        *,
        preprocessing: Preprocessing,
        dropout_masks: Mapping[str, Tensor],
        micro_batch_size: int,
        label_smoothing: float,
        device: torch.device,
        dtype: torch.dtype,
    ) -> StepResult:
        """Update the weights once on a batch; arguments and result as of `train_step`."""
        if self.reason is None and (reason := self._obstacle(optimizer, device)) is not None:
            self._fall_back(reason)
        if self.reason is None:
            bound = _BoundStep(model, optimizer, preprocessing, micro_batch_size, label_smoothing, device, dtype)
            call = self._bind(bound, device)
            try:
                assert self._bound is not None
                loss, num_wrong = call(self._bound.inputs(batch, dropout_masks), self._bound.prepare(batch))
                # Copies: the next replay overwrites its results.
                return StepResult(loss.clone(), num_wrong.clone())
            except CaptureError as error:
                self._fall_back(f"the step cannot be captured: {error}")
            finally:
                if self._bound is not None:
                    self._bound.note_versions()
        return train_step(
            model,
            optimizer,
            batch,
            preprocessing=preprocessing,
            dropout_masks=dropout_masks,
            micro_batch_size=micro_batch_size,
            label_smoothing=label_smoothing,
            device=device,
            dtype=dtype,
        )

    def _obstacle(self, optimizer: torch.optim.Optimizer, device: torch.device) -> str | None:
        """What is in the way before anything is tried, in a line."""
        if self._runner is None and device.type != "cuda":
            return f"CUDA graphs need a CUDA device, and this is {device.type}"
        if not isinstance(optimizer, MomentumSGD):
            return f"{type(optimizer).__name__} has no update with rates on the device"
        if optimizer.rule == "lars":
            return "lars has its own update, in operations of torch"
        return None

    def _bind(self, bound: _BoundStep, device: torch.device) -> GraphedCall:
        """The call for these settings: the last one, or a new one with new buffers."""
        if self._call is None or self._bound is None or self._bound.settings != bound.settings:
            self._runner = self._runner or CudaRunner(device)
            self._bound = bound
            bound.set_up()
            self._call = GraphedCall(bound.run, self._runner, device)
        return self._call

    def _fall_back(self, reason: str) -> None:
        if self._bound is not None:
            self._bound.clear_gradients()
        self.reason, self._bound, self._call = reason, None, None
        if self._on_fallback is not None:
            self._on_fallback(reason)


class _BoundStep:
    """A step of one model with one optimiser and fixed settings, as a function of tensors."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: MomentumSGD,
        preprocessing: Preprocessing,
        micro_batch_size: int,
        label_smoothing: float,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.model, self.optimizer, self.preprocessing = model, optimizer, preprocessing
        self.micro_batch_size, self.label_smoothing = micro_batch_size, label_smoothing
        self.device, self.dtype = device, dtype
        # Objects by their identity: a Preprocessing holds a tensor, which has no truth of equality.
        self.settings = (id(model), id(optimizer), id(preprocessing), micro_batch_size, label_smoothing, device, dtype)
        self.shadows: dict[str, Tensor] = {}

    def set_up(self) -> None:
        """What is made once: constants on the device, and the list of parameters."""
        self.make_images = InputMaker(self.preprocessing, self.device)
        self.parameters = dict(self.model.named_parameters())
        self.names = {id(parameter): name for name, parameter in self.parameters.items()}
        self.versions: dict[str, int] = {}

    def inputs(self, batch: Batch, dropout_masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All that the step reads, besides weights and velocities."""
        inputs = {"crops": batch.crops, "labels": batch.labels, "flips": batch.flips}
        if batch.offsets is not None:
            inputs["offsets"] = batch.offsets
        # Without a shift there is one of zeros, and without a divisor 1: they are exact, and need no second graph.
        no_shift = torch.zeros(len(batch.labels), 3)
        inputs["color_shift"] = self._pinned(no_shift) if batch.color_shift is None else batch.color_shift
        inputs["divisor"] = self._pinned(torch.tensor([batch.divisor], dtype=torch.float32))
        rates = [group["lr"] for group in self.optimizer.param_groups]
        inputs["rates"] = self._pinned(torch.tensor(rates, dtype=torch.float32))
        return inputs | {f"{_MASK}{name}": mask for name, mask in dropout_masks.items()}

    def _pinned(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def prepare(self, batch: Batch) -> Hashable:
        """Make what the coming step needs; returns all that a graph of it would hold fast, besides shapes."""
        self._refresh_shadows(len(batch.labels))
        updated = tuple(
            (number, group["momentum"], group["weight_decay"])
            for number, group in enumerate(self.optimizer.param_groups)
            if group["lr"] != 0  # at a rate of 0 a parameter and its velocity are left alone
        )
        addresses = tuple(
            (parameter.data_ptr(), self._velocity(parameter).data_ptr())
            for number, _, _ in updated
            for parameter in self.optimizer.param_groups[number]["params"]
        )
        shadows = tuple(shadow.data_ptr() for shadow in self.shadows.values())
        return updated, addresses, shadows, self.model.training

    def _velocity(self, parameter: Tensor) -> Tensor:
        """The optimiser's own, made as it would make it."""
        state = self.optimizer.state[parameter]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state["velocity"]

    def _refresh_shadows(self, batch_size: int) -> None:
        """Make the bfloat16 copies, or renew those whose weights were written by other hands."""
        # Gradients of several micro-batches are summed in float32, in the weights' own .grad.
        if self.dtype != torch.bfloat16 or batch_size > self.micro_batch_size:
            self.shadows = {}
            return
        kept_in_float32 = {name for name, module in self.model.named_modules() if isinstance(module, _BatchNorm)}
        for name, parameter in self.parameters.items():
            if name.rpartition(".")[0] in kept_in_float32:
                continue
            shadow = self.shadows.get(name)
            is_fresh = shadow is not None and self.versions.get(name) == parameter._version
            if shadow is None:
                shadow = torch.empty_like(parameter, dtype=torch.bfloat16, memory_format=torch.preserve_format)
                self.shadows[name] = shadow
            shadow.requires_grad_(parameter.requires_grad)  # a frozen layer costs no gradient
            if not is_fresh:
                with torch.no_grad():
                    shadow.copy_(parameter)

    def note_versions(self) -> None:
        """Tell torch that a step has changed the weights, which a graph does not, and remember them as it left them."""
        torch.autograd.graph.increment_version(self.parameters.values())
        self.versions = {name: parameter._version for name, parameter in self.parameters.items()}

    def clear_gradients(self) -> None:
        """Let go of gradients, which may lie in a graph's memory."""
        for leaf in (*self.parameters.values(), *self.shadows.values()):
            leaf.grad = None

    def run(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(mean loss, number of wrong guesses), and the update: what is captured."""
        self.clear_gradients()
        whole = ("rates", "divisor")

        def logits_of(rows: slice) -> Tensor:
            return self._forward({name: t if name in whole else t[rows] for name, t in inputs.items()})

        result = backward(logits_of, inputs["labels"], self.micro_batch_size, self.label_smoothing)
        self._update(inputs["rates"])
        return result.loss, result.num_wrong

    def _forward(self, inputs: dict[str, Tensor]) -> Tensor:
        images = self.make_images(
            inputs["crops"],
            dtype=self.dtype,
            offsets=inputs.get("offsets"),
            flips=inputs["flips"],
            color_shift=inputs["color_shift"],
            divisor=inputs["divisor"],
        )
        masks = {name.removeprefix(_MASK): mask for name, mask in inputs.items() if name.startswith(_MASK)}
        return torch.func.functional_call(self.model, self.shadows, (images, masks))

    @torch.no_grad()
    def _update(self, rates: Tensor) -> None:
        rule = cast("triton_update.Rule", self.optimizer.rule)
        for number, group in enumerate(self.optimizer.param_groups):
            if group["lr"] == 0:
                continue
            for parameter in group["params"]:
                shadow = self.shadows.get(self.names[id(parameter)])
                gradient = parameter.grad if shadow is None else shadow.grad
                if gradient is None:
                    continue
                update = update_parameter if triton_update.supports(parameter) else update_parameter_reference
                update(
                    parameter,
                    self._velocity(parameter),
                    gradient,
                    lr=rates[number : number + 1],
                    momentum=group["momentum"],
                    weight_decay=group["weight_decay"],
                    rule=rule,
                    shadow=shadow,
                )
