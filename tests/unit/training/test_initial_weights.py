"""A training that begins with a trained network: what is copied, what is refused, how images are shown to it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import alexnet.training.run as run_module
from alexnet.config import ModelConfig
from alexnet.config_io import from_toml_text, load_recipe
from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import UserError
from alexnet.models import AlexNet, build_network, get_architecture
from alexnet.models.architecture import BatchNorm
from alexnet.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from alexnet.training.initial_weights import (
    InitialWeights,
    adapt_preprocessing,
    copy_weights,
    dropout_difference,
    open_initial_weights,
    recipe_with_init,
    size_difference,
    values_of_network,
)
from alexnet.training.network import start_network
from alexnet.training.run import train

CLASSES = ("cat", "dog", "hen")


def checkpoint_of(model, classes=CLASSES, mean=100.0, **fields):
    """As if a network had been trained; squares of 36 px for the CIFAR nets, an eighth more than the crops."""
    size = model.image_size * 9 // 8
    values = {
        "architecture": model.architecture,
        "num_classes": model.num_classes,
        "image_size": model.image_size,
        "classes": classes,
        "class_names": classes,
        "preprocessing": Preprocessing(
            size,
            model.image_size,
            model.architecture.input_scale,
            model.architecture.channel_order,
            "center_crop",
            torch.full((size, size, 3), mean),
        ),
        "recipe": {"model": {"name": model.architecture.name}},
        "data": "pets",
        "step": 70,
        "epoch": 3.0,
        "metrics": {},
        "model_state": model.state_dict(),
        "training_state": None,
        "environment": {},
    }
    return Checkpoint(**{**values, **fields})


def initial_of(model, **fields):
    return InitialWeights("pets.pt", "0" * 64, checkpoint_of(model, **fields))


@pytest.fixture(scope="module")
def trained():
    return build_network("cifar_quick", 3, seed=5)


def begin(name, initial, classes=("a", "b"), **options):
    """A new network of some variant with the copied weights, and what was copied."""
    config = ModelConfig(name=name, **options)
    model = build_network(name, len(classes), image_size=config.image_size, activation=config.activation, seed=9)
    return model, copy_weights(model, initial, classes, config)


def test_all_but_the_last_layer_is_copied_for_other_classes(trained):
    model, layers = begin("cifar_quick", initial_of(trained))
    assert layers == (("conv1", "conv2", "conv3", "fc64"), ("fc10",))
    fresh = build_network("cifar_quick", 2, seed=9)
    for name, parameter in model.named_parameters():
        source = fresh if name.startswith("fc10") else trained
        assert torch.equal(parameter, source.get_parameter(name)), name


@pytest.mark.parametrize(
    ("classes", "new"),
    [(CLASSES, ()), (("cat", "dog", "owl"), ("fc10",)), (("dog", "cat", "hen"), ("fc10",))],
)
def test_the_last_layer_is_copied_only_for_the_same_classes_in_the_same_order(trained, classes, new):
    model, layers = begin("cifar_quick", initial_of(trained), classes)
    assert layers.new == new
    assert torch.equal(model.fc10.weight, trained.fc10.weight) is (not new)


def test_layers_may_be_left_at_random(trained):
    model, layers = begin("cifar_quick", initial_of(trained), init_without=("conv3", "fc64"))
    assert layers.new == ("conv3", "fc64", "fc10")
    assert torch.equal(model.conv2.weight, trained.conv2.weight)
    assert not torch.equal(model.conv3.weight, trained.conv3.weight)


def test_the_statistics_of_batch_norms_come_along(tiny_model):
    layers = tiny_model.architecture.layers
    normed = replace(tiny_model.architecture, layers=(layers[0], BatchNorm("bn1", 1e-5, 0.1), *layers[1:]))
    trained, model = build_network(normed, 3), build_network(normed, 2)
    trained.bn1.running_mean.fill_(3.0)
    trained.bn1.num_batches_tracked.fill_(12)
    assert "bn1" in copy_weights(model, initial_of(trained), ("a", "b"), ModelConfig()).copied
    assert model.bn1.running_mean.tolist() == [3.0] * 8 and model.bn1.num_batches_tracked == 12


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("cifar_18pct", {}, [r"fc64: Linear there, none here", r'model\.name="cifar_quick"']),
        ("cifar_quick", {"activation": "tanh"}, ["relu1: ReLU there, Tanh here", r"model\.activation=none"]),
        ("cifar_quick", {"image_size": 24}, [r"fc64\.weight: 64 x 1024 there, 64 x 576 here", r"image_size=32",
                                             r'model\.init_without=\["fc64"\]']),
        ("cifar_quick", {"init_without": ("fc9",)}, ["'fc9' is no layer with weights", "conv1, conv2"]),
    ],
)  # fmt: skip
def test_a_network_that_is_another_is_refused_by_its_layers(trained, name, options, words):
    with pytest.raises(UserError) as refusal:
        begin(name, initial_of(trained), **options)
    for word in words:
        assert refusal.match(word)


def test_networks_of_the_same_shapes_that_compute_other_things_are_refused():
    """Caffe's weights fit into as_run; its channels are BGR, its norms and pools are in another order."""
    with torch.device("meta"):
        caffe, as_run = (AlexNet(get_architecture(name), 2, image_size=67) for name in ("caffe", "as_run"))
    with pytest.raises(UserError, match=r"pad_right_bottom: 0 there, 3 here; input channel_order: bgr there, rgb"):
        copy_weights(as_run, initial_of(caffe), ("a", "b"), ModelConfig())


def test_weights_that_are_not_finite_are_refused(trained):
    state = {**trained.state_dict(), "conv2.bias": torch.full((32,), float("nan"))}
    with pytest.raises(UserError, match=r"conv2\.bias holds nan"):
        begin("cifar_quick", initial_of(trained, model_state=state))


def test_another_size_is_fine_for_layers_that_do_not_depend_on_it(trained):
    _, layers = begin("cifar_quick", initial_of(trained), image_size=24, init_without=("fc64",))
    assert layers.copied == ("conv1", "conv2", "conv3")


def test_another_dropout_is_let_through_and_told(tiny_model):
    model = build_network(tiny_model.architecture, 2, dropout=0.2)
    assert copy_weights(model, initial_of(tiny_model), ("a", "b"), ModelConfig()).new == ("fc8",)
    told = dropout_difference(checkpoint_of(tiny_model), model)
    assert told is not None and "0.5 there and is 0.2 here" in told and "1.6 times" in told
    assert dropout_difference(checkpoint_of(tiny_model), tiny_model) is None


# ---------------------------------------------------------------- the images


def test_images_are_shown_as_the_checkpoint_saw_them():
    before = Preprocessing(
        16, 12, "pixels", "bgr", "at_crop", torch.rand(16, 16, 3) * 255, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    )
    recipe = from_toml_text("[data]\nimage_size = 16\n[augment]\nmean = 'at_crop'")
    after = adapt_preprocessing(before, recipe, 12)
    assert torch.equal(after.mean_image, before.mean_image)
    assert {**after.to_dict(), "mean_image": 0} == {**before.to_dict(), "mean_image": 0}


def test_a_mean_image_of_another_size_is_resampled():
    ramp = torch.arange(32, dtype=torch.float32)[None, :, None].expand(32, 32, 3).contiguous() * 4
    before = Preprocessing(32, 24, "pixels", "rgb", "at_crop", ramp)
    after = adapt_preprocessing(before, from_toml_text("[data]\nimage_size = 48"), 40)
    assert after.mean_image.shape == (48, 48, 3) and (after.image_size, after.crop_size) == (48, 40)
    assert after.mean_image.mean() == pytest.approx(float(ramp.mean()), abs=0.01)
    inner = after.mean_image[24, 2:-2, 0].diff()
    assert torch.allclose(inner, torch.full_like(inner, 4 * 32 / 48), atol=1e-3)  # the same ramp, over more pixels


def test_features_are_those_of_the_checkpoint_before_the_first_step(trained):
    """On images of another tint: with their own mean in place of the checkpoint's they would be others."""
    checkpoint = checkpoint_of(trained)
    model, _ = begin("cifar_quick", InitialWeights("pets.pt", "", checkpoint))
    adapted = adapt_preprocessing(checkpoint.preprocessing, from_toml_text("[data]\nimage_size = 36"), 32)
    crops = torch.randint(0, 90, (4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = model.eval().output_of("fc64", adapted.normalize(crops))
        theirs = trained.eval().output_of("fc64", checkpoint.preprocessing.normalize(crops))
        own_mean = replace(adapted, mean_image=torch.full((36, 36, 3), float(crops.float().mean())))
        assert torch.equal(ours, theirs)
        assert not torch.allclose(model.output_of("fc64", own_mean.normalize(crops)), theirs, rtol=0.05)


def test_other_sizes_are_told_with_what_they_mean(trained):
    checkpoint = checkpoint_of(trained)
    assert size_difference(checkpoint, from_toml_text("[data]\nimage_size = 36"), 32) is None
    larger = size_difference(checkpoint, from_toml_text("[data]\nimage_size = 72"), 64)
    assert (
        larger is not None and "36 px, cropped to 32; here they have 72 px" in larger and "2 times as large" in larger
    )
    same_scale = size_difference(checkpoint, from_toml_text("[data]\nimage_size = 36"), 24)
    assert same_scale is not None and "times as large" not in same_scale


# ---------------------------------------------------------------- the recipe


def test_the_checkpoints_network_takes_the_place_of_the_recipes(trained, tmp_path):
    save_checkpoint(tmp_path / "pets.pt", checkpoint_of(trained))
    recipe, told = recipe_with_init("transfer", ["optimizer.lr=0.5"], str(tmp_path / "pets.pt"))
    assert recipe.model.name == "cifar_quick" and recipe.data.image_size == 36 and recipe.augment.mean == "center_crop"
    assert recipe.model.image_size is None and recipe.optimizer.lr == 0.5
    assert "model.name = cifar_quick in place of as_run" in told and "data.image_size = 36 in place of 256" in told
    own, _ = recipe_with_init("transfer", ["data.image_size=40", "augment.mean=at_crop"], str(tmp_path / "pets.pt"))
    assert own.data.image_size == 40 and own.augment.mean == "at_crop"  # the person has the last word


def test_changes_to_a_variant_are_taken_over():
    with torch.device("meta"):
        model = AlexNet(get_architecture("as_run"), 2, image_size=67)
    trained = {"name": "as_run", "activation": "tanh", "without": ["norm1", "norm2"], "image_size": 67}
    values = values_of_network(checkpoint_of(model, recipe={"model": trained}))
    assert values["model.activation"] == "tanh" and values["model.without"] == ("norm1", "norm2")
    assert values["model.image_size"] == 67 and values["model.pooling"] == "overlapping"


def test_a_checkpoint_from_elsewhere_has_no_recipe_to_go_by():
    with torch.device("meta"):
        model = AlexNet(get_architecture("caffe"), 2, image_size=67)
    values = values_of_network(checkpoint_of(model, recipe={}))
    assert values["model.name"] == "caffe" and values["model.image_size"] == 67 and values["model.without"] == ()


def test_a_network_that_no_recipe_can_name_is_refused(tiny_model):
    with pytest.raises(UserError, match="'tiny', is none of the variants"):
        values_of_network(checkpoint_of(tiny_model))


def test_what_is_no_checkpoint_is_refused_with_the_option(tmp_path):
    (tmp_path / "photo.pt").write_bytes(b"x")
    for name, words in (("missing.pt", "no file"), ("photo.pt", "is not a checkpoint"), (".", "folder without")):
        with pytest.raises(UserError, match=rf"model\.init = .*{words}.*--init CHECKPOINT"):
            open_initial_weights(ModelConfig(init=str(tmp_path / name)))


def test_a_file_with_other_contents_is_refused(trained, tmp_path):
    save_checkpoint(tmp_path / "pets.pt", checkpoint_of(trained))
    with pytest.raises(UserError, match="other contents"):
        open_initial_weights(ModelConfig(init=str(tmp_path / "pets.pt"), init_sha256="0" * 64))


# ---------------------------------------------------------------- whole runs

SHORT = [
    "train.epochs=1",
    "train.min_steps=4",
    "train.batch_size=8",
    "train.evaluate_every_epochs=1",
    "schedule.warmup_epochs=0",
    "evaluate.views=center",
    "runtime.precision=float32",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(2)
    for split, count in (("train", 8), ("val", 3)):
        for name in ("mouse", "owl"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 120, (40, 44, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture
def run(photos, tmp_path, trained, monkeypatch):
    """Trains on the photographs, beginning with pets.pt."""
    monkeypatch.setattr(run_module, "write_report", lambda folder: folder / "report.html")
    save_checkpoint(tmp_path / "pets.pt", checkpoint_of(trained))

    def run(output="run", *overrides, init=tmp_path / "pets.pt", recipe="transfer"):
        settings = [*SHORT, *overrides]
        return train(recipe, str(photos), tmp_path / output, overrides=settings, init=init, progress="silent")

    return run


def state_of(folder, name="last"):
    return load_checkpoint(folder / "checkpoints" / f"{name}.pt")


def test_a_run_says_what_it_began_with(run, tmp_path):
    run("run", "optimizer.layers.conv1.lr_factor=0")
    digest = open_initial_weights(ModelConfig(init=str(tmp_path / "pets.pt"))).sha256
    config = load_recipe(tmp_path / "run" / "config.toml")
    assert config.model.init == str(tmp_path / "pets.pt") and config.model.init_sha256 == digest
    record = json.loads((tmp_path / "run" / "environment.json").read_text())["init"]
    assert record["sha256"] == digest and record["new"] == ["fc10"] and record["frozen"] == ["conv1"]
    last = state_of(tmp_path / "run")
    assert last.recipe["model"]["init_sha256"] == digest and last.environment["init"] == record


def test_a_run_subtracts_the_checkpoints_mean_and_not_its_own(run, tmp_path):
    run()
    preprocessing = state_of(tmp_path / "run").preprocessing
    assert preprocessing.mean_image.unique().tolist() == [100.0]
    with np.load(tmp_path / "run" / "statistics.npz") as own:
        assert abs(float(own["mean_image"].mean()) - 100.0) > 30


def test_frozen_layers_of_a_run_stay_those_of_the_checkpoint(run, tmp_path, trained):
    run("run", "optimizer.copied_lr_factor=0")
    state = state_of(tmp_path / "run").model_state
    for name, parameter in trained.named_parameters():
        if not name.startswith("fc10"):
            assert torch.equal(state[name], parameter), name
    fresh = build_network("cifar_quick", 2, seed=0)
    assert not torch.equal(state["fc10.weight"], fresh.fc10.weight)


def test_copied_layers_learn_more_slowly_than_new_ones(run, tmp_path, trained):
    run("run", "optimizer.lr=1e-4", "train.min_steps=1", "optimizer.weight_decay=0")
    groups = state_of(tmp_path / "run").training_state["optimizer"]["param_groups"]
    rates = {group["name"]: group["base_lr"] for group in groups}
    assert rates["conv1.weight"] == pytest.approx(1e-5) and rates["fc10.weight"] == pytest.approx(1e-4)
    moved = (state_of(tmp_path / "run").model_state["conv1.weight"] - trained.conv1.weight).abs().max()
    assert moved > 0


def test_another_checkpoint_on_the_same_folder_is_refused(run, tmp_path, trained):
    run()
    other = checkpoint_of(trained, step=71)
    save_checkpoint(tmp_path / "other.pt", other)
    with pytest.raises(UserError, match=r"holds another run: model\.init = .*pets\.pt' there, .*other\.pt' now"):
        run(init=tmp_path / "other.pt")
    save_checkpoint(tmp_path / "pets.pt", other)  # the same name, other contents
    with pytest.raises(UserError, match=r"model\.init_sha256 = "):
        run()


def test_the_same_checkpoint_elsewhere_is_the_same_run(run, tmp_path):
    run()
    (tmp_path / "moved").mkdir()
    shutil.move(tmp_path / "pets.pt", tmp_path / "moved" / "pets.pt")
    assert run(init=tmp_path / "moved" / "pets.pt").finished


def test_a_run_goes_on_without_the_file_it_began_with(run, tmp_path):
    run("whole")
    run("run")
    (tmp_path / "run" / "summary.json").unlink()
    (tmp_path / "pets.pt").unlink()
    assert run("run").finished  # by the option
    (tmp_path / "run" / "summary.json").unlink()
    assert run("run", init=None, recipe=tmp_path / "run").finished  # by the run's own recipe
    whole, again = (state_of(tmp_path / name).model_state for name in ("whole", "run"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    with pytest.raises(UserError, match="no file"):
        run("new")


def test_nothing_to_learn_is_refused_before_anything_is_written(run, tmp_path):
    with pytest.raises(UserError, match="every layer is frozen"):
        run("run", "optimizer.copied_lr_factor=0", "optimizer.layers.fc10.lr_factor=0")
    assert not (tmp_path / "run").exists()


def test_the_recipe_transfer_asks_for_a_checkpoint(run):
    with pytest.raises(UserError, match=r"model\.init = CHECKPOINT: .*--init CHECKPOINT"):
        run(init=None)


def test_init_goes_with_a_recipes_name(photos, tmp_path):
    with pytest.raises(UserError, match="init belong to a recipe's name"):
        train(from_toml_text(""), str(photos), tmp_path / "run", init="pets.pt")


@pytest.mark.parametrize("said", ["optimizer.copied_lr_factor=0", 'model.init_without=["fc8"]'])
def test_what_is_said_of_copied_layers_needs_some(said):
    with pytest.raises(UserError, match=rf"^{said.split('=')[0]} is for layers that are copied .* give it by --init"):
        start_network(load_recipe("folder", [said]), None, CLASSES)
