"""What the doctor says about a trained network that a recipe begins with."""

import pytest
import torch

from alexnet.data.preprocessing import Preprocessing
from alexnet.doctor import recipe as recipe_module
from alexnet.doctor.examine import examine, sort_things
from alexnet.errors import UserError
from alexnet.models import build_network
from alexnet.training.checkpoint import Checkpoint, save_checkpoint


@pytest.fixture(autouse=True)
def _enough_memory(monkeypatch):
    monkeypatch.setattr(recipe_module, "available_bytes", lambda device: 16 * 2**30)


@pytest.fixture
def pets(tmp_path):
    """A checkpoint of a network for three classes, squares of 4 px more; a small one of 32 px unless it is named."""

    def write(mean=127.0, step=70, name="cifar_quick", size=32):
        model = build_network(name, 3, image_size=size, seed=5)
        squares = size + 4
        preprocessing = Preprocessing(
            squares, size, "pixels", "rgb", "at_crop", torch.full((squares, squares, 3), mean)
        )
        checkpoint = Checkpoint(
            architecture=model.architecture,
            num_classes=3,
            image_size=size,
            classes=("a", "b", "c"),
            class_names=("a", "b", "c"),
            preprocessing=preprocessing,
            recipe={"model": {"name": name}},
            data="pets",
            step=step,
            epoch=3.0,
            metrics={},
            model_state=model.state_dict(),
            training_state=None,
            environment={},
        )
        save_checkpoint(tmp_path / "pets.pt", checkpoint)
        return str(tmp_path / "pets.pt")

    return write


def found(*arguments, init=None):
    return {item.id: item for item in examine(sort_things([str(item) for item in arguments], init=init))}


def test_what_fits_is_a_note(pets, make_data, sound):
    findings = found("transfer", make_data(sound), init=pets())
    assert "fc10 new (for 2 classes)" in findings["initial-weights"].what
    assert findings["signals"].severity == "note"
    assert not {"initial-image-size", "other-images", "lr-too-high", "recipe-refused"} & findings.keys()


def test_the_recipe_is_transfer_where_none_is_named(pets, make_data, sound):
    assert found(make_data(sound), init=pets())["initial-weights"].about == "transfer"


def test_other_sizes_and_other_images_are_told(pets, make_data, sound):
    findings = found("transfer", make_data(sound), "data.image_size=72", init=pets(mean=20.0))
    assert findings["initial-image-size"].severity == "warning"
    assert "2 times as large" in findings["initial-image-size"].what
    assert findings["other-images"].severity == "note"


def test_another_rate_of_dropout_is_told(pets, make_data, sound):
    named = pets(name="half", size=67)
    told = found("transfer", make_data(sound), "model.dropout=0.1", init=named)["initial-dropout"]
    assert "Dropout was 0.5 there and is 0.1 here" in told.what and "1.8 times as large" in told.what
    assert "initial-dropout" not in found("transfer", make_data(sound), init=named)


def test_an_untrained_network_is_no_start(pets, make_data, sound):
    assert "Step 0" in found("transfer", make_data(sound), init=pets(step=0))["untrained"].what


def test_a_recipe_that_describes_another_network_is_refused(pets, make_data, sound):
    refused = found("folder", make_data(sound), f"model.init={pets()}")["recipe-refused"]
    assert "conv1 channels: 32 there, 96 here" in refused.what and 'model.name="cifar_quick"' in refused.what


def test_a_missing_checkpoint_is_refused(make_data, sound):
    assert "--init CHECKPOINT" in found("transfer", make_data(sound))["recipe-refused"].what
    missing = found("transfer", make_data(sound, "more"), init="nowhere.pt")["recipe-refused"]
    assert "nowhere.pt" in missing.what


def test_frozen_layers_are_judged_by_their_weights(pets, make_data, sound):
    data = make_data(sound)
    frozen = "optimizer.layers.fc10.lr_factor=0"
    assert found("transfer", data, frozen, init=pets())["frozen-at-random"].what.startswith("fc10")
    assert "frozen-at-random" not in found("transfer", data, "optimizer.layers.conv1.lr_factor=0", init=pets())
    both = found("transfer", data, frozen, "optimizer.copied_lr_factor=0", init=pets())
    assert both["nothing-learns"].severity == "problem"
    scratch = found("cifar-quick", "optimizer.layers.conv1.lr_factor=0")
    assert scratch["frozen-at-random"].severity == "warning"


def test_the_rate_is_too_high_where_it_would_spoil_what_is_copied(pets, make_data, sound):
    data = make_data(sound)
    assert "lr-too-high" in found("transfer", data, "optimizer.copied_lr_factor=1", init=pets())
    assert "lr-too-high" not in found("transfer", data, init=pets())


def test_a_folder_for_the_hub_is_a_checkpoint(pets, tmp_path):
    pytest.importorskip("huggingface_hub", reason="the Hub's library is not installed")
    from alexnet.hub.model import HubAlexNet

    HubAlexNet.from_checkpoint(pets()).save_pretrained(tmp_path / "files")
    things = sort_things([str(tmp_path / "files"), "hf:ada/pets"])
    assert [str(path) for path in things.checkpoints] == [str(tmp_path / "files"), "hf:ada/pets"]
    assert examine(sort_things([str(tmp_path / "files")])) == []
    (tmp_path / "files" / "model.safetensors").write_bytes(b"x")
    (damaged,) = examine(sort_things([str(tmp_path / "files")]))
    assert damaged.severity == "problem" and "model.safetensors" in damaged.what


def test_init_alone_is_an_examination_of_the_recipe(pets):
    with pytest.raises(UserError, match="no path and no name"):
        sort_things(["nowhere"], init=pets())
    assert "initial-weights" in found(init=pets())
