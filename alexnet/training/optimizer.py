"""The update rule of the paper (section 5), and the parameter groups that recipes give their own rates and decay."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from inspect import unwrap
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from typing_extensions import override

from alexnet.config import OptimizerConfig, ScheduleConfig
from alexnet.errors import UserError
from alexnet.ops import native, triton_update
from alexnet.ops.working_copy import note_working_copy, working_copy
from alexnet.runtime.distributed import held_here
from alexnet.training.schedules import Progress, rate_factor, warmup_factor

MomentumRule = Literal["krizhevsky_2012", "sgd"]
Rule = MomentumRule | Literal["lars"]

_CHUNK = 1 << 19
"""Elements updated at a time: a chunk of weight, velocity and gradient (6 MB) stays in cache for all operations."""


class MomentumSGD(torch.optim.Optimizer):
    """SGD with momentum, by one of three rules. krizhevsky_2012 is the paper's, section 5 (S src/weights.cu:146-196)::

        v <- momentum * v - weight_decay * lr * w - lr * gradient
        w <- w + v

    sgd is that of torch.optim.SGD, which multiplies by lr when it applies the velocity instead of when it builds it::

        v <- momentum * v - weight_decay * w - gradient
        w <- w + lr * v

    The two agree while lr is constant; after a drop, the paper's velocity still carries steps of the old size (paper.md
    3.4). lars is the paper's rule with a rate of its own for each parameter, so that large batches can have large rates
    (You, Gitman and Ginsburg 2017, arXiv:1708.03888; their solver has the same until 2017-12-12, and no weight decay in
    the denominator after that)::

        lr of a parameter = lr * lars_eta * |w| / (|gradient| + weight_decay * |w|)

    A parameter of zeros, such as a bias at its beginning, has lr * lars_eta (lr in their solver). A parameter whose lr
    is 0 is frozen: neither it nor its velocity is touched.
    """

    # torch wraps these to keep its compiler away, which it imports first: most of a second of every start.
    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)
    _load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        rule: Rule = "krizhevsky_2012",
        lars_eta: float = 0.001,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.rule: Rule = rule
        self.lars_eta = lars_eta

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, with every velocity laid out as its weight: the ways of sharing lay kernels out differently."""
        self._load_state_dict(state_dict)
        for parameter, state in self.state.items():
            weight, velocity = held_here(parameter), state.get("velocity")
            if velocity is not None and velocity.stride() != weight.stride():
                state["velocity"] = torch.empty_like(weight).copy_(velocity)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply the gradients in `.grad` once."""
        for group in self.param_groups:
            if group["lr"] == 0:
                continue
            rates = {key: group[key] for key in ("lr", "momentum", "weight_decay")}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                weight, gradient = held_here(parameter), held_here(parameter.grad)
                if "velocity" not in state:
                    state["velocity"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
                if self.rule == "lars":
                    _update_by_lars(weight, state["velocity"], gradient, self.lars_eta, **rates)
                else:
                    _update(weight, state["velocity"], gradient, self.rule, **rates)


class _Factors(NamedTuple):
    """v <- momentum * v - decay * w - rate * gradient; w <- w + step * v."""

    momentum: float
    decay: float
    rate: float
    step: float


def _factors(rule: MomentumRule, lr: float, momentum: float, weight_decay: float) -> _Factors:
    if rule == "krizhevsky_2012":
        return _Factors(momentum, decay=weight_decay * lr, rate=lr, step=1.0)
    return _Factors(momentum, decay=weight_decay, rate=1.0, step=lr)


def _update(
    weight: torch.Tensor, velocity: torch.Tensor, gradient: torch.Tensor, rule: MomentumRule, **rates: float
) -> None:
    """Update weight and velocity, and the weight's working copy where it has one."""
    copy = working_copy(weight, torch.bfloat16)
    if native.updates(weight, velocity, gradient):
        native.update(weight, velocity, gradient, copy, *_factors(rule, **rates))
        torch.autograd.graph.increment_version((weight, velocity))
    elif weight.device.type == "cuda" and triton_update.supports(weight):
        triton_update.update_parameter(weight, velocity, gradient, rule=rule, shadow=copy, **rates)
        torch.autograd.graph.increment_version((weight, velocity))
    else:
        factors = _factors(rule, **rates)
        for w, v, g in zip(*_chunks(weight, velocity, gradient), strict=True):
            v.mul_(factors.momentum).add_(g, alpha=-factors.rate)
            if factors.decay:
                v.add_(w, alpha=-factors.decay)
            w.add_(v, alpha=factors.step)
        if copy is not None:
            copy.copy_(weight)
    if copy is not None:
        note_working_copy(weight, copy)


def _update_by_lars(
    weight: torch.Tensor,
    velocity: torch.Tensor,
    gradient: torch.Tensor,
    eta: float,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
) -> None:
    """As `_update`. The norms stay on the device: nothing waits for them."""
    copy = working_copy(weight, torch.bfloat16)
    gradient = gradient.to(weight.dtype)
    weight_norm, gradient_norm = weight.norm(), gradient.norm()
    known = (weight_norm > 0) & (gradient_norm > 0)
    # The gradient of a bias before a batch norm is rounding noise. Without weight decay in the denominator the rate
    # would be in the millions, and the decay alone would break the bias.
    rate = lr * eta * torch.where(known, weight_norm / (gradient_norm + weight_decay * weight_norm), 1.0)
    velocity.mul_(momentum).sub_(rate * torch.add(gradient, weight, alpha=weight_decay))
    weight.add_(velocity)
    if copy is not None:
        note_working_copy(weight, copy.copy_(weight))


def _chunks(*tensors: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
    """Views of the same elements of each tensor: each number then moves through memory once, not four times.

    Only the fully connected layers are large, and they are contiguous; convolutions may be channels-last.
    """
    if all(tensor.is_contiguous() for tensor in tensors) and tensors[0].numel() > _CHUNK:
        return [tensor.view(-1).split(_CHUNK) for tensor in tensors]
    return [(tensor,) for tensor in tensors]


def parameter_groups(model: nn.Module, config: OptimizerConfig, copied: Collection[str] = ()) -> list[dict[str, Any]]:
    """One group a parameter, with its `name`, `layer`, `is_bias`, its `base_lr` and its weight decay.

    Biases have a rate of their own (2x in the 2012 source) and no decay unless asked (S src/weights.cu; paper.md 1.4).
    copied: layers that begin with a trained network's weights, and learn at copied_lr_factor of the rate.
    """
    groups = []
    layers = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    for layer in config.layers:
        if layer not in layers:
            raise UserError(
                f"optimizer.layers.{layer}: the model has no such layer; it has {', '.join(sorted(layers))}."
            )
    for name, parameter in model.named_parameters():
        layer, _, kind = name.rpartition(".")
        own = config.layers.get(layer)
        # Batch norm's scale is one-dimensional too; like a bias it is not decayed.
        is_bias = kind == "bias"
        decayed = config.decay_biases or (not is_bias and parameter.dim() > 1)
        decay = config.weight_decay if own is None or own.weight_decay is None else own.weight_decay
        factor = (1.0 if own is None else own.lr_factor) * (config.copied_lr_factor if layer in copied else 1.0)
        base_lr = config.lr * (config.bias_lr_factor if is_bias else 1.0) * factor
        groups.append(
            {
                "params": [parameter],
                "name": name,
                "layer": layer,
                "is_bias": is_bias,
                "base_lr": base_lr,
                "lr": base_lr,
                "weight_decay": decay if decayed else 0.0,
            }
        )
    return groups


def build_optimizer(model: nn.Module, config: OptimizerConfig, copied: Collection[str] = ()) -> MomentumSGD:
    """The optimiser of a recipe, one parameter group a parameter; see `parameter_groups`."""
    groups = parameter_groups(model, config, copied)
    return MomentumSGD(groups, config.lr, config.momentum, config.weight_decay, config.rule, config.lars_eta)


def set_learning_rates(
    optimizer: torch.optim.Optimizer, schedule: ScheduleConfig, progress: Progress, epochs_per_step: float
) -> float:
    """Give every group its rate for one step; returns the factor of the layers without a schedule of their own."""
    warmup = warmup_factor(schedule, progress, epochs_per_step)
    for group in optimizer.param_groups:
        factor = rate_factor(schedule.layers.get(group["layer"], schedule), progress)
        if group["is_bias"] and schedule.bias is not None and factor > 0:
            # S layer-params-145.cfg: the biases keep a rate of their own until their layer is frozen.
            factor = rate_factor(schedule.bias.layers.get(group["layer"], schedule.bias), progress)
        group["lr"] = group["base_lr"] * factor * warmup
    return rate_factor(schedule, progress) * warmup
