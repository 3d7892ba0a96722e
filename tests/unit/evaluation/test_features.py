from dataclasses import replace

import numpy as np
import pytest
import shapes_network
import torch
from evaluation_stand_ins import preprocessing, random_images

from alexnet.errors import RunError, UserError
from alexnet.evaluation.features import (
    last_hidden_layer,
    network_digest,
    open_features,
    stream_features,
    write_features,
)
from alexnet.models import ARCHITECTURES, build_network, get_architecture
from alexnet.training.checkpoint import load_checkpoint

LAYERS = ("conv1", "norm1", "relu1", "relu2", "cnorm2", "pool5", "fc6", "relu7", "drop7", "fc8")


@pytest.fixture(scope="module")
def model():
    return build_network("as_run", 3, image_size=67)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layers_output_is_that_of_running_layer_by_layer(model, layer):
    model.eval()
    images = torch.randn(2, 3, 67, 67, generator=torch.Generator().manual_seed(0)) * 60
    with torch.inference_mode():
        expected = model.activations(images, [layer])[layer]
        output = model.output_of(layer, images)
    assert torch.allclose(output, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_name_that_is_no_layer_is_refused(model):
    with pytest.raises(UserError, match=r"as_run has no layer 'fc9'; its layers are conv1"):
        model.output_of("fc9", torch.zeros(1, 3, 67, 67))


def test_features_are_those_of_the_centre_crops_in_evaluation(model):
    images = random_images(5, 72, 3)
    model.train()
    batches = list(stream_features(model, preprocessing(72, 67), images, "relu7", batch_size=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert model.training and model.get_submodule("drop7").training
    model.eval()
    crops = torch.from_numpy(images.array[:, 2:69, 2:69].astype(np.float32)).permute(0, 3, 1, 2)
    expected = model.activations(crops, ["relu7"])["relu7"]
    assert torch.allclose(torch.cat(batches), expected, rtol=1e-4, atol=1e-4)
    maps = torch.cat(list(stream_features(model, preprocessing(72, 67), images, "pool5", batch_size=5)))
    # In the order (channel, row, column), however the maps lie in memory.
    assert torch.allclose(maps, model.activations(crops, ["pool5"])["pool5"].flatten(1), rtol=1e-4, atol=1e-3)


def test_the_digest_of_a_network_has_what_is_done_to_the_pixels(tmp_path):
    checkpoint = load_checkpoint(shapes_network.write_checkpoint(tmp_path / "a.pt"))
    other = replace(checkpoint.preprocessing, mean_image=checkpoint.preprocessing.mean_image + 1)
    changed = [replace(checkpoint, preprocessing=other), replace(checkpoint, architecture=get_architecture("paper"))]
    digests = [network_digest(item) for item in (checkpoint, replace(checkpoint, step=9), *changed)]
    assert digests[0] == digests[1] and len(set(digests)) == 3


def test_a_file_of_features_is_read_back_as_it_was_written(tmp_path):
    batches = [torch.randn(3, 4), torch.randn(2, 4)]
    path = tmp_path / "features.npy"
    write_features(path, iter(batches), 5)
    features = open_features(path)
    assert isinstance(features, np.memmap) and features.dtype == np.float16
    assert np.array_equal(features, torch.cat(batches).half().numpy())
    write_features(path, iter(batches), 5, "float32")
    assert np.array_equal(open_features(path), torch.cat(batches).numpy())


def test_values_that_do_not_fit_leave_no_file(tmp_path):
    path = tmp_path / "features.npy"
    with pytest.raises(RunError, match="from row 3 on are not finite or too large for float16"):
        write_features(path, iter([torch.ones(3, 4), torch.full((2, 4), 1e6)]), 5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_last_hidden_layer_is_what_the_classifier_reads(name):
    layers = {layer.name: type(layer).__name__ for layer in get_architecture(name).layers}
    layer = last_hidden_layer(get_architecture(name))
    assert layer == ("relu7" if "fc7" in layers else layer)
    assert layers[layer] not in ("Dropout", "Linear")
