"""`to_plain`: every variant as torch's own modules, with the same logits and gradients, for every tool."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import alexnet
from alexnet.config import MODEL_NAMES
from alexnet.models import AlexNet, build_network, layer_table, to_plain

TORCHS = ("torch.nn.", "torch.fx.")


def small(name: str) -> AlexNet:
    return build_network(name, 5, image_size=None if name.startswith("cifar") else 67, seed=3).eval()


def images_of(model: AlexNet, count: int = 2) -> Tensor:
    scale = 60.0 if model.architecture.input_scale == "pixels" else 1.0
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, model.image_size, model.image_size, generator=generator) * scale


@pytest.fixture(scope="module", params=MODEL_NAMES)
def pair(request: pytest.FixtureRequest) -> tuple[AlexNet, torch.fx.GraphModule]:
    model = small(request.param)
    return model, to_plain(model)


def test_it_has_the_weights_logits_and_gradients(pair: tuple[AlexNet, torch.fx.GraphModule]) -> None:
    model, plain = pair
    modules = {type(module) for module in plain.modules()} - {type(plain)}
    assert all((kind.__module__ + ".").startswith(TORCHS) for kind in modules), modules
    assert isinstance(plain, torch.fx.GraphModule) and "alexnet" not in plain.code
    own, copied = model.state_dict(), plain.state_dict()
    assert set(own) == set(copied) and all(torch.equal(own[name], copied[name]) for name in own)
    assert not {weight.data_ptr() for weight in model.parameters()} & {w.data_ptr() for w in plain.parameters()}
    results = []
    for network in (model, plain):
        images = images_of(model).requires_grad_()
        logits = network(images)
        loss = F.cross_entropy(logits, torch.tensor([1, 2]))
        results.append([logits, *torch.autograd.grad(loss, [images, *network.parameters()])])
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_it_scripts_traces_and_exports(pair: tuple[AlexNet, torch.fx.GraphModule], tmp_path: Path) -> None:
    model, plain = pair
    images, more = images_of(model), images_of(model, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forms = {
            "scripted": torch.jit.script(model),
            "scripted plain": torch.jit.script(plain),
            "traced": torch.jit.trace(model, images),
            "traced plain": torch.jit.trace(plain, images),
        }
        torch.jit.save(forms["scripted"], tmp_path / "scripted.pt")
        torch.jit.save(forms["traced"], tmp_path / "traced.pt")
    with torch.no_grad():
        expected = model(more)
        for name, form in forms.items():
            torch.testing.assert_close(form(more), expected, rtol=1e-4, atol=1e-5, msg=name)
        for network in (model, plain):
            exported = torch.export.export(network, (images,)).module()
            torch.testing.assert_close(exported(images), model(images), rtol=1e-4, atol=1e-5)
        symbolic = torch.fx.symbolic_trace(model)
        torch.testing.assert_close(symbolic(more), expected, rtol=1e-4, atol=1e-5)


READER = """
import sys, warnings
warnings.simplefilter("ignore")
sys.modules["alexnet"] = None  # as where it is not installed
import torch
for name in ("scripted.pt", "traced.pt", "whole.pt", "graph.pt2"):
    path = f"{sys.argv[1]}/{name}"
    if name == "whole.pt":
        network = torch.load(path, weights_only=False)
    elif name == "graph.pt2":
        network = torch.export.load(path).module()
    else:
        network = torch.jit.load(path)
    images, expected = torch.load(f"{sys.argv[1]}/expected.pt")
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)
    print(name)
"""


@pytest.mark.parametrize("name", ["as_run", "no_communication", "cifar_11pct"])
def test_its_files_load_without_this_package(name: str, tmp_path: Path) -> None:
    model = small(name)
    images = images_of(model)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(model), tmp_path / "scripted.pt")
        torch.jit.save(torch.jit.trace(model, images), tmp_path / "traced.pt")
        torch.save(to_plain(model), tmp_path / "whole.pt")
        torch.export.save(torch.export.export(to_plain(model), (images,)), tmp_path / "graph.pt2")
        torch.save((images, model(images)), tmp_path / "expected.pt")
    done = subprocess.run(
        [sys.executable, "-c", READER, tmp_path], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.stdout.split() == ["scripted.pt", "traced.pt", "whole.pt", "graph.pt2"], done.stderr


@pytest.mark.parametrize(("name", "in_evaluation", "in_training"), [("half", 0.5, 1.0), ("torchvision", 1.0, 2.0)])
def test_it_follows_train_and_eval_with_either_dropout(name: str, in_evaluation: float, in_training: float) -> None:
    model = small(name)
    plain = to_plain(model)
    assert not plain.training and to_plain(model.train()).get_submodule("drop6").training
    values: list[Tensor] = []
    for layer in ("relu6", "fc7"):  # before and after drop6
        plain.get_submodule(layer).register_forward_pre_hook(lambda module, inputs: values.append(inputs[0]))
    plain(images_of(model))
    before, after = values
    torch.testing.assert_close(after, before.relu() * in_evaluation)
    values.clear()
    plain.train()(images_of(model))
    before, after = values
    kept = after != 0
    assert 0.4 < kept.sum() / (before > 0).sum() < 0.6
    torch.testing.assert_close(after[kept], before[kept] * in_training)


def test_it_has_the_changes_and_none_of_the_hooks() -> None:
    model = small("cifar_18pct")
    model.relu1 = nn.LeakyReLU(0.5)
    model.norm2 = nn.Identity()
    calls: list[int] = []
    model.conv1.register_forward_hook(lambda *_: calls.append(1))
    plain = to_plain(model)
    images = images_of(model)
    torch.testing.assert_close(plain(images), model(images), rtol=1e-4, atol=1e-5)
    assert len(calls) == 1 and isinstance(plain.get_submodule("relu1"), nn.LeakyReLU)


def test_tools_that_look_for_torchs_classes_find_them() -> None:
    model = small("as_run")
    kinds = {name: type(layer) for name, layer in model.layers()}
    assert kinds["conv3"] is nn.Conv2d and kinds["fc7"] is nn.Linear and kinds["pool5"] is nn.MaxPool2d
    assert issubclass(kinds["drop6"], nn.Dropout)
    images = images_of(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for network in (model, to_plain(model)):
            quantized = torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, dtype=torch.qint8)
            assert not [name for name, layer in quantized.named_modules() if type(layer) is nn.Linear]
            error = (quantized(images) - model(images)).norm() / model(images).norm()
            assert 0 < error < 0.1


def test_operation_counters_see_every_multiplication() -> None:
    model = small("as_run")
    multiply_adds = sum(row.macs for row in layer_table(model.architecture, 5, 67))
    with FlopCounterMode(display=False) as counter:
        model(images_of(model, 1))
    assert counter.get_total_flops() == 2 * multiply_adds


def test_torchvisions_feature_extractor_takes_the_network() -> None:
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    model = small("as_run")
    images = images_of(model)
    outputs = extraction.create_feature_extractor(model, {"relu5": "maps"})(images)
    torch.testing.assert_close(outputs["maps"], model.output_of("relu5", images), rtol=1e-4, atol=1e-5)


def test_it_is_public() -> None:
    assert alexnet.to_plain is to_plain
