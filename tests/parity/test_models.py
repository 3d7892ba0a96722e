"""as_run and paper against the network written out in plain torch, as two towers that meet where the paper says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from alexnet.models import ARCHITECTURES, AlexNet, build_network
from alexnet.models.architecture import ResponseNorm

NUM_CLASSES = 7
Parameters = dict[str, Tensor]
Masks = dict[str, Tensor]


def _half(parameter: Tensor, tower: int) -> Tensor:
    return parameter.chunk(2)[tower]


def _two_towers(
    images: Tensor,
    p: Parameters,
    masks: Masks | None,
    first: Callable[[Tensor], Tensor],
    second: Callable[[Tensor], Tensor],
) -> Tensor:
    """`first` and `second`: what follows conv1 and conv2 in one tower, up to and with the pool."""
    images = F.pad(images, (0, 3, 0, 3))
    maps = [first(F.conv2d(images, _half(p["conv1.weight"], t), _half(p["conv1.bias"], t), stride=4)) for t in (0, 1)]
    maps = [
        second(F.conv2d(maps[t], _half(p["conv2.weight"], t), _half(p["conv2.bias"], t), padding=2)) for t in (0, 1)
    ]
    both = torch.cat(maps, dim=1)
    maps = [
        F.conv2d(both, _half(p["conv3.weight"], t), _half(p["conv3.bias"], t), padding=1).clamp(min=0) for t in (0, 1)
    ]
    for name in ("conv4", "conv5"):
        maps = [
            F.conv2d(maps[t], _half(p[f"{name}.weight"], t), _half(p[f"{name}.bias"], t), padding=1).clamp(min=0)
            for t in (0, 1)
        ]
    hidden = torch.cat([F.max_pool2d(m, 3, 2) for m in maps], dim=1).flatten(1)
    for name in ("6", "7"):
        hidden = (hidden @ p[f"fc{name}.weight"].T + p[f"fc{name}.bias"]).clamp(min=0)
        hidden = hidden * 0.5 if masks is None else hidden * masks[f"drop{name}"]
    return hidden @ p["fc8.weight"].T + p["fc8.bias"]


def plain_as_run(images: Tensor, parameters: Parameters, masks: Masks | None) -> Tensor:
    def norm(x: Tensor) -> Tensor:
        return F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=2.0)

    def first(x: Tensor) -> Tensor:
        return F.max_pool2d(norm(x), 3, 2).clamp(min=0)

    def second(x: Tensor) -> Tensor:
        x = norm(x.clamp(min=0))
        x = x / (1 + 1e-3 * F.avg_pool2d(x * x, 5, 1, 2, count_include_pad=True)) ** 0.75
        return F.max_pool2d(x, 3, 2)

    return _two_towers(images, parameters, masks, first, second)


def plain_paper(images: Tensor, parameters: Parameters, masks: Masks | None) -> Tensor:
    def block(x: Tensor) -> Tensor:
        # The printed formula: 1e-4 on the sum of five squares is 5e-4 on torch's mean.
        return F.max_pool2d(F.local_response_norm(x.clamp(min=0), 5, alpha=5e-4, beta=0.75, k=2.0), 3, 2)

    return _two_towers(images, parameters, masks, block, block)


PLAIN = {"as_run": plain_as_run, "paper": plain_paper}


class _ClosestDecision(TorchFunctionMode):
    """Notes how close a ReLU or a pool came to deciding otherwise: distance to it / rms of the layer.

    Where it is within rounding, two right implementations send a gradient to different places.
    """

    def __init__(self) -> None:
        super().__init__()
        self.margin = float("inf")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction(), torch.no_grad():
            rms = args[0].square().mean().sqrt() if isinstance(args[0], Tensor) else None
            if func is torch.Tensor.clamp:
                self._note(args[0][args[0] != 0].abs() / rms)
            elif func is torch.max_pool2d:
                first, second = args[0].unfold(2, 3, 2).unfold(3, 3, 2).flatten(4).topk(2).values.unbind(-1)
                # The ReLU before or after stops the gradient of what is not positive.
                self._note((first - second)[first > 0] / rms)
        return func(*args, **(kwargs or {}))

    def _note(self, margins: Tensor) -> None:
        self.margin = min(self.margin, margins.min().item())


class Case(NamedTuple):
    model: AlexNet
    plain: Callable[[Tensor, Parameters, Masks | None], Tensor]
    images: Tensor
    masks: Masks


@pytest.fixture(scope="module", params=["as_run", "paper"])
def case(request: pytest.FixtureRequest) -> Case:
    generator = torch.Generator().manual_seed(3)
    # With the std of 0.01 of `paper` hardly anything of the image would reach fc8.
    model = build_network(request.param, NUM_CLASSES, initialization="as_run", seed=1)
    masks = {name: torch.rand(1, width, generator=generator) < 0.5 for name, width in model.dropout_layers.items()}
    parameters = {name: parameter.detach().double() for name, parameter in model.named_parameters()}
    for _ in range(50):
        images = torch.randint(0, 256, (1, 3, 224, 224), generator=generator) - 120.0
        with _ClosestDecision() as closest, torch.no_grad():
            PLAIN[request.param](images.double(), parameters, masks)
        if closest.margin > 3e-6:
            return Case(model, PLAIN[request.param], images, masks)
    raise AssertionError("every image has a unit that rounding decides")


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


def _errors(case: Case, model: AlexNet, dtype: torch.dtype) -> dict[str, float]:
    """Relative errors of the logits, in training with given masks and in evaluation, and of every gradient."""
    parameters = {name: p.detach().to(dtype).clone().requires_grad_() for name, p in model.named_parameters()}
    images = case.images.to(dtype)
    labels = torch.tensor([2])
    expected = case.plain(images, parameters, case.masks)
    F.cross_entropy(expected, labels).backward()
    model.train().zero_grad()
    # Channels-last for ours, contiguous for the plain network.
    actual = model(images.to(memory_format=torch.channels_last), case.masks)
    F.cross_entropy(actual, labels).backward()
    errors = {"logits": _relative_error(actual.detach(), expected.detach())}
    for name, parameter in model.named_parameters():
        gradient, expected_gradient = parameter.grad, parameters[name].grad
        assert gradient is not None
        assert expected_gradient is not None
        assert expected_gradient.norm() > 0, name
        errors[name] = _relative_error(gradient, expected_gradient)
    with torch.no_grad():
        evaluated = model.eval()(images)
        errors["logits in evaluation"] = _relative_error(evaluated, case.plain(images, parameters, None))
    return errors


def test_logits_and_all_gradients_agree_with_plain_torch(case: Case) -> None:
    for name, error in _errors(case, case.model, torch.float32).items():
        assert error < 1e-5, f"{name}: {error}"


def test_the_other_alpha_convention_disagrees(case: Case) -> None:
    other = {"mean": "sum", "sum": "mean"}
    architecture = case.model.architecture
    layers = tuple(
        replace(layer, alpha_convention=other[layer.alpha_convention]) if isinstance(layer, ResponseNorm) else layer
        for layer in architecture.layers
    )
    with torch.device("meta"):
        flipped = AlexNet(replace(architecture, layers=layers), NUM_CLASSES)
    flipped.load_state_dict(case.model.state_dict(), assign=True)
    errors = _errors(case, flipped.requires_grad_(), torch.float32)
    assert errors["logits"] > 1e-3
    assert errors["conv1.weight"] > 1e-3


def test_the_other_variants_function_disagrees(case: Case) -> None:
    other = PLAIN["paper" if case.model.architecture.name == "as_run" else "as_run"]
    with torch.no_grad():
        actual = case.model.eval()(case.images)
        expected = other(case.images, dict(case.model.named_parameters()), None)
    assert _relative_error(actual, expected) > 1e-3


def test_one_tower_norms_see_all_maps() -> None:
    """one_tower is as_run's order without towers: written out with whole layers."""
    model = build_network("one_tower", NUM_CLASSES, seed=1).eval()
    p = dict(model.named_parameters())
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (1, 3, 224, 224), generator=generator) - 120.0
    with torch.no_grad():
        x = F.conv2d(F.pad(images, (0, 3, 0, 3)), p["conv1.weight"], p["conv1.bias"], stride=4)
        x = F.max_pool2d(F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=2.0), 3, 2).clamp(min=0)
        x = F.conv2d(x, p["conv2.weight"], p["conv2.bias"], padding=2).clamp(min=0)
        x = F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=2.0)
        x = F.max_pool2d(x / (1 + 1e-3 * F.avg_pool2d(x * x, 5, 1, 2)) ** 0.75, 3, 2)
        assert _relative_error(model.activations(images, ["pool2"])["pool2"], x) < 1e-5


@pytest.mark.parametrize("name", ["as_run", "paper", "conv6"])
def test_conv1_of_224_padded_is_conv1_of_227_with_zero_rows(name: str) -> None:
    model = build_network("half", NUM_CLASSES, seed=1)
    assert ARCHITECTURES[name].pad_right_bottom == model.architecture.pad_right_bottom == 3
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    extended = torch.zeros(1, 3, 227, 227)
    extended[:, :, :224, :224] = images
    with torch.no_grad():
        expected = F.conv2d(extended, model.conv1.weight, model.conv1.bias, stride=4)  # type: ignore[arg-type]
        assert torch.equal(model.activations(images, ["conv1"])["conv1"], expected)
