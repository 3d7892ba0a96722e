"""The torchvision variant against torchvision's own model, where torchvision is installed: weights both ways."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision_here import torchvision_models

from alexnet import create_model, import_weights
from alexnet.models import AlexNet
from alexnet.training.checkpoint import build_model
from alexnet.weights.names import TORCHVISION, to_torchvision
from alexnet.weights.torchvision_file import write_torchvision

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize("image_size", [224, 127])
def test_equal_weights_give_equal_logits(image_size: int) -> None:
    models = torchvision_models()
    ours = create_model("torchvision", 10, image_size=image_size, seed=2).eval()
    theirs = models.alexnet(num_classes=10).eval()
    theirs.load_state_dict({to_torchvision(name): value for name, value in ours.state_dict().items()})
    images = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def both_ways(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, AlexNet, torch.nn.Module]:
    """torchvision's model with random weights, ours imported from its file, and theirs loaded from the export."""
    models = torchvision_models()
    folder = tmp_path_factory.mktemp("torchvision")
    torch.manual_seed(3)
    theirs = models.alexnet(num_classes=7).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():  # torch's defaults make all logits nearly alike
            parameter.mul_(2)
    torch.save(theirs.state_dict(), folder / "theirs.pth")
    checkpoint = import_weights(folder / "theirs.pth")
    (folder / "theirs.pth").unlink()
    write_torchvision(checkpoint, folder / "back.pth")
    again = models.alexnet(num_classes=7).eval()
    again.load_state_dict(torch.load(folder / "back.pth", weights_only=True), strict=True)
    (folder / "back.pth").unlink()
    return theirs, build_model(checkpoint), again


def test_features_logits_and_gradients_agree_after_import_and_export(both_ways, tmp_path: Path) -> None:
    theirs, ours, again = both_ways
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    weight = torch.randn(2, 7, generator=torch.Generator().manual_seed(2))
    results = []
    for model in (theirs, ours, again):
        model.zero_grad()
        given = images.clone().requires_grad_()
        features = model.activations(given, ["pool5", "relu7"]) if model is ours else seen(model, given)
        logits = model(given)
        (logits * weight).sum().backward()
        gradients = {name: value.grad for name, value in model.named_parameters()}
        results.append((features, logits, given.grad, gradients))
    assert float(results[0][1].detach().abs().max()) > 0.1, "logits of nothing prove nothing"
    (their_features, their_logits, their_input_gradient, their_gradients), our_result, again_result = results
    for features, logits, input_gradient, gradients in (our_result, again_result):
        for name in ("pool5", "relu7"):
            torch.testing.assert_close(features[name], their_features[name], **TOLERANCE)
        torch.testing.assert_close(logits, their_logits, **TOLERANCE)
        torch.testing.assert_close(input_gradient, their_input_gradient, **TOLERANCE)
        for layer in TORCHVISION:
            for part in ("weight", "bias"):
                name = f"{layer}.{part}" if gradients is our_result[3] else to_torchvision(f"{layer}.{part}")
                theirs_ = their_gradients[to_torchvision(f"{layer}.{part}")]
                torch.testing.assert_close(gradients[name], theirs_, **TOLERANCE)


def seen(model: torch.nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """torchvision's activations after the last pool and after fc7's ReLU, by our names."""
    pool5 = model.features(images)
    return {"pool5": pool5, "relu7": model.classifier[:6](model.avgpool(pool5).flatten(1))}
