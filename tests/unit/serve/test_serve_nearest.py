"""The nearest images: of a data set, of images without classes, of features that were made before."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from serving_stand_ins import SQUARE, color_checkpoint, color_folder, picture, running_server

import alexnet
from alexnet.commands.serve import _open_data
from alexnet.data.decode import decode_image
from alexnet.data.squares import to_square
from alexnet.errors import UserError
from alexnet.serve.networks import load_networks
from alexnet.training.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def network(checkpoints):
    return load_networks(checkpoints[:1], device="cpu")[0]


def prepared(data, networks):
    """A neighbourhood as `alexnet serve` opens it, after looking at every image; and what was told meanwhile."""
    neighbourhood, examples = _open_data(str(data), [network.checkpoint for network in networks])
    told = []
    with ThreadPoolExecutor(1) as executor:
        neighbourhood.prepare(networks, executor, told.append)
    return SimpleNamespace(images=neighbourhood, examples=examples, told=told)


def nearest(neighbourhood, network, color, count=4):
    square = torch.from_numpy(to_square(decode_image(picture(color)), SQUARE)).unsqueeze(0)
    features = network.features(square, *neighbourhood.layer_and_views(network))
    return neighbourhood.nearest(network, features, count)


def test_only_the_training_images_of_a_data_set_are_looked_through(folder, network):
    found = prepared(folder, [network])
    assert len(found.images.images) == 12 and set(found.images.images.splits) == {"train"}
    assert found.images.is_ready and "12 images of colours are ready" in found.told[-1]
    assert {one.class_name for one in nearest(found.images, network, "red")} == {"n0"}
    assert len(found.examples) == 8 and {example.class_id for example in found.examples} == {"n0", "n1", "n2"}


def test_features_that_were_made_before_give_the_same_without_looking(folder, network, checkpoints, tmp_path):
    table = tmp_path / "colours.npz"
    alexnet.features(checkpoints[0], str(folder), split="train", output=table, device="cpu")
    before, now = prepared(folder, [network]), prepared(table, [network])
    assert now.images.num_done == 0
    for color in ("green", "blue"):
        fresh, kept = (nearest(one.images, network, color) for one in (before, now))
        assert [one.key for one in kept] == [one.key for one in fresh]
        assert np.allclose([one.distance for one in kept], [one.distance for one in fresh], atol=0.1)  # float16
        shown = now.images.picture(kept[0].position, 16)
        assert np.allclose(shown, before.images.picture(fresh[0].position, 16))


def test_what_is_wrong_with_a_file_of_features_is_said(checkpoints, tmp_path):
    folder = color_folder(tmp_path / "colours", per_class=1)
    table = tmp_path / "colours.npz"
    alexnet.features(checkpoints[0], str(folder), output=table, device="cpu")
    first, second = map(load_checkpoint, checkpoints)
    with pytest.raises(UserError, match="made by another network"):
        _open_data(str(table), [second])
    with pytest.raises(UserError, match="features of one network"):
        _open_data(str(table), [first, second])
    (folder / "train" / "n1" / "green-0.png").unlink()
    (folder / "train" / "n1" / "other.png").write_bytes(picture("green"))
    with pytest.raises(UserError, match=r"1 images of the file of features are no longer there.*green-0\.png"):
        _open_data(str(table), [first])


def test_images_need_no_classes_and_some_may_be_unreadable(network, tmp_path):
    for name in ("red", "blue", "green"):
        (tmp_path / f"{name}.png").write_bytes(picture(name))
    (tmp_path / "a-broken.png").write_bytes(picture("red")[:60])
    found = prepared(tmp_path, [network])
    assert any("a-broken.png is unreadable" in line for line in found.told)
    first = nearest(found.images, network, "blue", 1)[0]
    assert (first.key, first.class_name) == ("blue.png", None), "where it lies is nobody's business"
    assert np.allclose(found.images.picture(first.position, 8), (20, 20, 230))
    assert found.images.picture(0, 8) is None and found.images.picture(99, 8) is None
    assert [example.class_name for example in found.examples] == [None] * 3


def test_a_set_of_which_nothing_can_be_read_is_said_to_be_so(checkpoints, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"broken")
    networks = load_networks(checkpoints[:1], device="cpu")
    found = prepared(tmp_path, networks)
    assert not found.images.is_ready and "terminal says why" in found.images.failure
    assert found.told[-1].startswith("Nearest images are not available: ") and "cannot be read" in found.told[-1]


def test_a_server_without_data_says_how_to_give_some(checkpoints):
    with running_server(checkpoints[:1]) as server:
        answer = server.post("/api/nearest", picture("red"))
        assert answer.status == 404 and "--data DATA" in answer.json["error"]
        assert server.get("/api/description").json["data"] is None


def test_stopping_does_not_wait_for_the_whole_set(network, folder):
    neighbourhood, _ = _open_data(str(folder), [network.checkpoint])
    neighbourhood.stop()
    with ThreadPoolExecutor(1) as executor:
        neighbourhood.prepare([network], executor, lambda message: None)
    assert not neighbourhood.is_ready and neighbourhood.failure is None


def test_a_network_of_nonsense_is_refused(tmp_path):
    path = color_checkpoint(tmp_path / "nonsense.pt")
    contents = torch.load(path, weights_only=True)
    contents["model_state"]["fc8.bias"].fill_(torch.nan)
    torch.save(contents, path)
    with pytest.raises(alexnet.errors.RunError, match=r"nonsense\.pt are not finite"):
        load_networks([path], device="cpu")
