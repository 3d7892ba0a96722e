"""The networks of the 2012 configuration files, computed as the 2012 code computes them, are ours."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from cfg_interpreter import Row, num_parameters, read, run, shapes_of
from configs_2012 import CONFIGS

from alexnet.config_io import load_recipe
from alexnet.models import AlexNet, build_network, get_architecture
from alexnet.models.changes import change_architecture
from alexnet.models.initialization import SCHEMES
from alexnet.training.schedules import Progress, rate_factor

NUM_CLASSES = 7
TOLERANCE = 1e-12
"""Share of the largest output of a layer. Measured: see `largest_difference`."""


class Case(NamedTuple):
    """The network and the recipe of ours for a configuration."""

    model: str
    recipe: str | None
    changes: dict[str, Any]
    image_size: int | None


# At 68 px, and with pools of 2 x 2 at 88, the last window of conv1 and of every pool reaches over the edge of its map.
CASES = {
    "145": Case("as_run", "as-run-2012", {}, 68),
    "145-half": Case("half", "as-run-2010-half", {}, 68),
    "146": Case("conv6", None, {}, 68),
    "147": Case("as_run", "as-run-2012-non-overlapping-pools", {"pooling": "non_overlapping"}, 88),
    "148": Case("as_run", "as-run-2012-no-lrn", {"without": ("norm1", "norm2", "cnorm2")}, 68),
    "150": Case("no_communication", "as-run-2012-no-communication", {}, 68),
    "80sec": Case("cifar_quick", "cifar-quick", {}, None),
    "19pct": Case("cifar_19pct", "cifar-19pct", {}, None),
    "18pct": Case("cifar_18pct", "cifar-18pct", {}, None),
    "13pct": Case("cifar_13pct", "cifar-13pct", {}, None),
    "11pct": Case("cifar_11pct", "cifar-11pct", {}, None),
}

# Our names for those in the files (without towers): of the layer with these weights, and of the one with these outputs.
WEIGHTS = {"fc2048": "fc6", "fc4096": "fc6", "fc2048b": "fc7", "fc4096b": "fc7", "fc1000": "fc8"}
OUTPUTS = {
    "conv6 relu": "relu_conv6",
    "pool3 relu": "pool5",  # ours comes after relu5: max and ReLU commute
    "fc2048 relu": "relu6",
    "fc4096 relu": "relu6",
    "hs1": "drop6",
    "fc2048b relu": "relu7",
    "fc4096b relu": "relu7",
    "hs2": "drop7",
    "fc1000": "fc8",
}


def stem(name: str) -> str:
    """A layer's name without its tower."""
    return re.sub("[ab]$", "", name)


def weights_name(row: Row) -> str:
    return WEIGHTS.get(stem(row.name), stem(row.name))


def outputs_name(row: Row) -> str:
    own = stem(row.name).replace("rnorm", "norm")
    return OUTPUTS.get(f"{own} relu", re.sub("^[a-z]+", "relu", own)) if row.relu else OUTPUTS.get(own, own)


def weighted(config: str) -> list[Row]:
    return [row for row in read(CONFIGS[config].lines) if "w" in row.numbers]


def on_meta(case: Case, num_classes: int) -> AlexNet:
    """The network at its own image size, without memory."""
    with torch.device("meta"):
        return AlexNet(change_architecture(get_architecture(case.model), **case.changes), num_classes)


def towers(rows: list[Row], name: str) -> list[str]:
    """The layers that have the place of `name` in each tower."""
    return sorted(row.name for row in rows if stem(row.name) == stem(name)) or [name]


def parameters_of(rows: list[Row], model: AlexNet) -> dict[str, tuple[list[np.ndarray], np.ndarray]]:
    """Our weights, cut into towers and inputs as the file has them. Asserts that nothing of ours is left over."""
    result, taken = {}, 0
    shapes = shapes_of(rows, model.image_size, NUM_CLASSES)
    for row in rows:
        if "w" not in row.numbers:
            continue
        layer = model.get_submodule(weights_name(row))
        own = towers(rows, row.name)
        axis = 1 if row.kind == "local" else 0
        weight, biases = (
            np.split(tensor.detach().numpy(), len(own), axis)[own.index(row.name)].astype(np.float64)
            for tensor in (layer.weight, layer.bias)
        )
        cut = []
        for name in row.inputs:
            sources = towers(rows, name)
            if getattr(layer, "groups", 1) > 1:
                assert (layer.groups, own.index(row.name)) == (len(sources), sources.index(name)), "another wiring"
                cut.append(weight)
            else:
                cut.append(np.split(weight, len(sources), axis + 1)[sources.index(name)])
        weights = [part.reshape(shape) for part, shape in zip(cut, shapes[row.name].weights, strict=True)]
        assert biases.shape == shapes[row.name].biases
        taken += biases.size + sum(part.size for part in weights)
        result[row.name] = (weights, biases)
    assert taken == sum(parameter.numel() for parameter in model.parameters())
    return result


def largest_difference(config: str, image_size: int | None, num_images: int) -> float:
    """The largest difference of an output of any layer, over the largest output of that layer.

    Measured: 4e-15 at most, in all configurations and at 68, 88 and 224 px.
    """
    case, rows = CASES[config], read(CONFIGS[config].lines)
    model = build_network(case.model, NUM_CLASSES, image_size=image_size, seed=3, **case.changes).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # many begin at zero
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        if case.model.startswith("cifar"):  # begins so small that its outputs would be little else than biases
            model.conv1.weight *= 100
        shape = (num_images, 3, model.image_size, model.image_size)
        images = 70 * torch.randn(shape, generator=generator, dtype=torch.float64)
        ours = {name: value.numpy() for name, value in model.activations(images).items()}
        logits = model(images).numpy()
    theirs = run(rows, images.numpy(), parameters_of(rows, model))
    differences = [relative(logits, theirs[rows[-1].name])]
    for row in rows:
        expected = np.concatenate([theirs[name] for name in towers(rows, row.name)], 1)
        differences.append(relative(ours[outputs_name(row)], expected))
    return max(differences)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape and found.dtype == np.float64
    assert np.std(expected) > 0
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("config", CASES)
def test_every_layer_gives_what_the_2012_code_gives(config: str) -> None:
    assert largest_difference(config, CASES[config].image_size, 2) < TOLERANCE


@pytest.mark.parametrize("config", ["145", "150"])
def test_at_224_px_too(config: str) -> None:
    assert largest_difference(config, 224, 1) < TOLERANCE


@pytest.mark.parametrize("config", CASES)
def test_parameters_are_as_many(config: str) -> None:
    num_classes = 10 if CASES[config].model.startswith("cifar") else 1000
    model = on_meta(CASES[config], num_classes)
    expected = num_parameters(read(CONFIGS[config].lines), model.image_size, num_classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_the_network_without_communication_has_60_million_parameters() -> None:
    rows = read(CONFIGS["150"].lines)
    assert num_parameters(rows, 224, 1000) == 60_714_408
    assert shapes_of(rows, 224, 1000)["fc2048bb"].output == (2048,)


@pytest.mark.parametrize("config", CASES)
def test_initial_weights_are_those_of_the_file(config: str) -> None:
    scheme = SCHEMES[on_meta(CASES[config], NUM_CLASSES).architecture.initialization]
    assert scheme is not None
    for row in weighted(config):
        assert scheme[weights_name(row)] == (row["w"], row["b"])


@pytest.mark.parametrize("config", [config for config, case in CASES.items() if case.recipe])
def test_recipes_have_the_weight_decay_of_the_file(config: str) -> None:
    optimizer = load_recipe(CASES[config].recipe).optimizer
    assert optimizer.momentum == 0.9 and not optimizer.decay_biases
    for row in weighted(config):
        own = optimizer.layers.get(weights_name(row))
        assert row["wc"] == (optimizer.weight_decay if own is None else own.weight_decay)


# The runs of 145-half and 147 ended with other rates of the biases than those whose schedules their recipes have.
@pytest.mark.parametrize("config", [config for config in CASES if config not in ("145-half", "146", "147")])
def test_recipes_have_the_rates_of_the_file(config: str) -> None:
    recipe, theirs = load_recipe(CASES[config].recipe), CONFIGS[config]
    epoch = 0.0 if CASES[config].model.startswith("cifar") else float(recipe.train.epochs)
    for row in weighted(config):
        layer = weights_name(row)
        schedule = recipe.schedule.layers.get(layer, recipe.schedule)
        factor = rate_factor(schedule, Progress(epoch, 1.0))
        # A layer whose weights are frozen has frozen biases.
        bias_factor = rate_factor(recipe.schedule.bias or schedule, Progress(epoch, 1.0)) if factor else 0.0
        rates = recipe.optimizer.lr * factor, recipe.optimizer.lr * recipe.optimizer.bias_lr_factor * bias_factor
        assert rates == pytest.approx(theirs.exceptions.get(layer, theirs.rates))
