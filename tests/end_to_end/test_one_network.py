"""A run's folder is one network: every command uses the weights that its final evaluation measures, and says so."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import alexnet as package
from alexnet.commands.evaluate import evaluate
from alexnet.evaluation.predictor import load_predictor, predict
from alexnet.reporting.report import write_report
from alexnet.reporting.run_record import read_run
from alexnet.training.checkpoint import load_checkpoint, save_checkpoint
from alexnet.training.initial_weights import open_initial_weights
from alexnet.training.run import train

TINY = ["train.epochs=1", "train.batch_size=16", "data.max_train_images=64", "runtime.num_threads=1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    return train("cifar-quick", "shapes:32", folder, overrides=TINY, progress="silent")


@pytest.fixture(params=["last", "best"])
def run(request, trained):
    """(folder, weights of the final evaluation, other weights) where the best weights are far from the last ones."""
    folder = trained.output
    last = load_checkpoint(folder / "checkpoints" / "last.pt")
    other = {name: torch.flip(value, dims=(0,)) * 3 for name, value in last.model_state.items()}
    best = replace(last, model_state=other, step=1, training_state=None, selection="best")
    save_checkpoint(folder / "checkpoints" / "best.pt", best)
    summary = {**trained.values, "checkpoint": request.param}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder, *((last, best) if request.param == "last" else (best, last))


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "one.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)).save(path)
    return path


def same(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


def record_of(alexnet, *arguments):
    outcome = alexnet(*arguments, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def assert_says(record, folder, network):
    assert record["checkpoint"] == network.selection and record["step"] == network.step
    assert record["path"] == str(folder / "checkpoints" / f"{network.selection}.pt")


def test_python(run, trained, image):
    folder, network, other = run
    assert trained.checkpoint == folder / "checkpoints" / f"{network.selection}.pt"
    assert same(load_checkpoint(folder).model_state, network.model_state)
    assert same(package.load_model(folder).state_dict(), network.model_state)
    (expected,), (wrong,) = predict(network, image), predict(other, image)
    assert predict(folder, image)[0].guesses == expected.guesses != wrong.guesses


def test_predict(alexnet, run, image):
    folder, network, _ = run
    record = record_of(alexnet, "predict", folder, image)
    assert_says(record, folder, network)
    (expected,) = predict(load_predictor(network), image)
    assert record["predictions"][0]["guesses"] == expected.to_dict()["guesses"]
    header, first, *_ = alexnet("predict", folder, image).out.splitlines()
    assert header.endswith(f", {network.selection} weights") and first == str(image)
    by_path = record_of(alexnet, "predict", folder / "checkpoints" / "best.pt", image)
    assert by_path["checkpoint"] == "best"


def test_evaluate(alexnet, run, trained):
    folder, network, other = run
    record = record_of(alexnet, "evaluate", folder, "--quiet")
    assert_says(record["checkpoints"][0], folder, network)
    assert record["loss"] == pytest.approx(evaluate(network).loss)
    assert record["loss"] != pytest.approx(evaluate(other).loss)
    if network.selection == "last":
        assert record["top1_error"] == trained.values["top1_error"]
    assert f", {network.selection} weights" in alexnet("evaluate", folder, "--quiet").out


def test_features_neighbours_and_pictures(alexnet, run, image, tmp_path):
    folder, network, _ = run
    table = tmp_path / "features.npz"
    record = record_of(alexnet, "features", folder, image, "--output", table, "--quiet")
    assert_says(record, folder, network)
    assert np.array_equal(package.features(folder, image).values, package.features(network, image).values)
    assert package.features(folder, image).about["checkpoint"] == network.selection
    assert_says(record_of(alexnet, "neighbours", folder, image, "--among", table, "--quiet"), folder, network)
    options = ("gradcam", image, "--output", tmp_path / "seen.png", "--quiet")
    drawn = record_of(alexnet, "visualize", folder, *options)
    assert_says(drawn, folder, network)
    of_file = record_of(alexnet, "visualize", drawn["path"], *options)
    assert drawn == of_file


def test_info_and_the_report(alexnet, run):
    folder, network, _ = run
    card = record_of(alexnet, "info", folder)
    assert_says(card, folder, network)
    assert f"{network.selection} weights" in card["final"]
    kernels = read_run(folder).kernels
    assert (kernels.selection, kernels.step) == (network.selection, network.step)
    assert np.array_equal(kernels.weights, network.model_state["conv1.weight"].numpy())
    assert f"{network.selection} weights" in write_report(folder).read_text(encoding="utf-8")


def test_export(alexnet, run, tmp_path):
    folder, network, _ = run
    record = record_of(alexnet, "export", folder, "--output", tmp_path / "net.safetensors", "--quiet")
    assert record["checkpoint"] == network.selection and f"{network.selection} weights" in record["network"]
    written = load_checkpoint(tmp_path / "net.safetensors")
    assert same(written.model_state, network.model_state) and written.selection == network.selection


def test_push(alexnet, run, tmp_path):
    pytest.importorskip("huggingface_hub")
    folder, network, _ = run
    record = record_of(alexnet, "push", folder, "--output", tmp_path / "files", "--quiet")
    assert (record["checkpoint"], record["step"]) == (network.selection, network.step)
    pushed = load_checkpoint(tmp_path / "files")
    assert same(pushed.model_state, network.model_state) and pushed.selection == network.selection
    card = (tmp_path / "files" / "README.md").read_text(encoding="utf-8")
    assert f"Of the {network.selection} weights, after step {network.step}" in card
    assert ("flatters" in card) == (network.selection == "best")


def test_serve(run):
    pytest.importorskip("fastapi")
    from alexnet.serve.cards import network_card
    from alexnet.serve.networks import load_networks

    folder, network, _ = run
    (served,) = load_networks([folder], device="cpu")
    assert same(served.model.state_dict(), network.model_state)
    assert served.checkpoint.training_state is None, "as large as the weights, and of no use here"
    card = network_card(served)
    assert (card.checkpoint, card.file, card.step) == (network.selection, f"{network.selection}.pt", network.step)


def test_a_training_that_begins_with_it(run):
    folder, network, other = run
    config = package.load_recipe("transfer", [f'model.init="{folder}"']).model
    begun = open_initial_weights(config)
    assert same(begun.checkpoint.model_state, network.model_state)
    # Earlier versions took the best weights; a run that began with them finds them by their SHA-256.
    was = open_initial_weights(
        config.model_copy(update={"init": str(folder / "checkpoints" / f"{other.selection}.pt")})
    )
    again = open_initial_weights(config.model_copy(update={"init_sha256": was.sha256}))
    assert same(again.checkpoint.model_state, other.model_state) and again.sha256 == was.sha256
    with pytest.raises(package.UserError):
        open_initial_weights(config.model_copy(update={"init_sha256": "0" * 64}))
