"""The network of a run: the recipe's at its beginning, the run's own when it is continued."""

from dataclasses import replace

import pytest

from alexnet.config_io import from_toml_text, to_toml
from alexnet.errors import UserError
from alexnet.models import create_model, get_architecture
from alexnet.models.architecture import Linear
from alexnet.models.changes import changed_layers
from alexnet.training.checkpoint import save_checkpoint
from alexnet.training.network import begin_network
from alexnet.training.run_folder import RunFolder

CLASSES = ["cat", "cow", "dog", "hen"]
RECIPE = from_toml_text("[model]\nname = 'cifar_quick'\n[data]\nimage_size = 32")


@pytest.fixture
def folder(tmp_path, checkpoint):
    """A run of an earlier version, whose cifar_quick had 7 units in fc64."""
    earlier = get_architecture("cifar_quick")
    earlier = replace(earlier, layers=changed_layers(earlier.layers, fc64=Linear("fc64", 7)))
    folder = RunFolder(tmp_path / "run")
    folder.last_checkpoint.parent.mkdir(parents=True)
    folder.config.write_text(to_toml(RECIPE))
    state = create_model(earlier, 4).state_dict()
    save_checkpoint(
        folder.last_checkpoint, replace(checkpoint, architecture=earlier, image_size=32, model_state=state), keep=2
    )
    return folder


def features(recipe, folder):
    _, network = begin_network(recipe, folder, CLASSES)
    return network.model.fc64.out_features


def test_a_continued_run_keeps_the_network_of_its_checkpoint(folder):
    assert features(RECIPE, folder) == 7
    folder.last_checkpoint.rename(folder.last_checkpoint.with_name("last-1.pt"))
    assert features(RECIPE, folder) == 7
    folder.last_checkpoint.write_bytes(b"damaged")
    assert features(RECIPE, folder) == 7


def test_a_run_without_a_checkpoint_has_the_recipes_network(folder, tmp_path):
    folder.last_checkpoint.unlink()
    assert features(RECIPE, folder) == 64
    assert features(RECIPE, RunFolder(tmp_path / "new")) == 64


def test_another_recipe_has_its_own_network(folder):
    assert features(from_toml_text(to_toml(RECIPE), ["model.activation=tanh"]), folder) == 64


def test_a_recipe_is_refused_where_its_pools_do_not_fit_its_images(tmp_path):
    recipe = from_toml_text("[model]\nname = 'half'\npooling = 'non_overlapping'", ["model.image_size=112"])
    with pytest.raises(UserError, match=r"99 or 120"):
        begin_network(recipe, RunFolder(tmp_path / "new"), CLASSES)
