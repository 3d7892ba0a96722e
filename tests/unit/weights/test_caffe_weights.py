"""Caffe's files: both generations are read, what they describe is recognised, and hostile ones end quickly."""

from __future__ import annotations

import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import caffe_files as caffe
import numpy as np
import pytest
import torch
from caffe_files import blob, data, layer, net_of, number, real, varint, write
from small_networks import small

from alexnet import UserError, create_model, import_weights
from alexnet.models import get_architecture
from alexnet.models.architecture import AveragePool, MaxPool, SpatialNorm, Tanh
from alexnet.models.changes import changed_layers
from alexnet.training.checkpoint import build_model
from alexnet.weights.caffe_file import read_binaryproto, read_caffemodel
from alexnet.weights.caffe_network import find_caffe_weights


@pytest.fixture
def model():
    return create_model(small("caffe"), 5, seed=1).eval()


def logits_of(model, seed=0):
    images = 50 * torch.randn(2, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model(images)


@pytest.mark.parametrize("variant", ["caffe", "caffenet"])
@pytest.mark.parametrize(("old", "double"), [(False, False), (True, False), (False, True)])
def test_every_form_gives_the_weights_bit_for_bit(variant, old, double, tmp_path: Path) -> None:
    model = create_model(small(variant), 5, seed=1).eval()
    path = write(tmp_path / "net.caffemodel", net_of(model, old=old, double=double))
    checkpoint = import_weights(path)
    assert checkpoint.architecture.name == variant
    assert checkpoint.architecture.layers == model.architecture.layers
    for name, value in model.state_dict().items():
        assert torch.equal(checkpoint.model_state[name], value), name
    assert torch.equal(logits_of(build_model(checkpoint)), logits_of(model))
    assert checkpoint.imported is not None and checkpoint.imported["names"]["fc8.bias"] == "fc8[1]"


def test_the_order_of_norm_and_pool_tells_the_two_networks_apart(tmp_path: Path) -> None:
    for variant in ("caffe", "caffenet"):
        path = write(tmp_path / "n.caffemodel", skeleton(get_architecture(variant)))
        assert find_caffe_weights(path).architecture == get_architecture(variant)


def skeleton(architecture, *, norm: bytes = b"", pool: int = 0, pooling: bytes = b"") -> bytes:
    """The layers without their numbers. norm, pooling: more fields of these layers; pool: the kind of the pools."""
    parts, bottom = [], "data"
    for record in architecture.layers:
        kind, parameters = caffe.describe(record, 5)
        if kind == "LRN":
            parameters += norm
        if kind == "Pooling":
            parameters = number(1, pool) + parameters[2:] + pooling
        field = data(caffe.PARAMETERS[kind][0], parameters) if parameters else b""
        parts.append(layer(record.name, kind, bottom, record.name, [], field, old=False))
        bottom = record.name
    return b"".join(parts)


def test_names_of_layers_do_not_matter_their_places_do(model, tmp_path: Path) -> None:
    renamed = {"fc8": "fc8_flickr", "conv1": "first", "norm2": "lrn"}
    checkpoint = import_weights(write(tmp_path / "n.caffemodel", net_of(model, renamed=renamed)))
    assert torch.equal(checkpoint.model_state["fc8.weight"], model.state_dict()["fc8.weight"])
    assert checkpoint.imported["names"]["fc8.weight"] == "fc8_flickr[0]"


def test_what_a_network_has_otherwise_is_kept_and_said(tmp_path: Path) -> None:
    base = small("caffenet")
    layers = changed_layers(base.layers, norm1=replace(base.layers[3], k=2.0, size=3))
    model = create_model(replace(base, layers=layers), 5, seed=1).eval()
    checkpoint = import_weights(write(tmp_path / "mine.caffemodel", net_of(model)))
    assert next(row for row in checkpoint.architecture.layers if row.name == "norm1").k == 2.0
    assert "Changed, as mine.caffemodel has it: conv1 channels: 8 instead of 96" in checkpoint.architecture.summary
    assert torch.equal(logits_of(build_model(checkpoint)), logits_of(model))


def test_the_file_says_crop_mean_and_scale(model, tmp_path: Path) -> None:
    transform = number(3, 227) + real(5, 104) + real(5, 117) + real(5, 123) + real(1, 0.5)
    checkpoint = import_weights(write(tmp_path / "n.caffemodel", net_of(model, transform=transform)))
    preprocessing = checkpoint.preprocessing
    assert preprocessing.mean_mode == "channel" and preprocessing.channel_order == "bgr"
    assert preprocessing.mean_image[0, 0].tolist() == [123.0, 117.0, 104.0]
    assert torch.equal(checkpoint.model_state["conv1.weight"], 0.5 * model.state_dict()["conv1.weight"])
    assert any("multiplied by 0.5" in note for note in checkpoint.imported["notes"])
    # Caffe: scale * (pixels - mean), with blue first.
    pixels = torch.randint(0, 256, (1, 227, 227, 3), dtype=torch.uint8)
    blue_first = pixels.flip(-1).permute(0, 3, 1, 2).float() - torch.tensor([104.0, 117.0, 123.0])[:, None, None]
    with torch.no_grad():
        theirs, ours = model(0.5 * blue_first), build_model(checkpoint)(preprocessing.normalize(pixels))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_other_layers_that_have_a_counterpart(tmp_path: Path) -> None:
    def kinds_in(contents: bytes, prefix: str) -> set[type]:
        record = find_caffe_weights(write(tmp_path / "n.caffemodel", contents)).architecture
        return {type(row) for row in record.layers if row.name.startswith(prefix)}

    record = small("caffe")
    assert kinds_in(skeleton(record).replace(data(2, "ReLU"), data(2, "TanH")), "relu") == {Tanh}
    assert kinds_in(skeleton(record, norm=number(4, 1)), "norm") == {SpatialNorm}
    assert kinds_in(skeleton(record, pool=1), "pool") == {AveragePool}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts: parts[:-4], "instead of conv1, conv2, conv3, conv4, conv5, fc6, fc7, fc8"),
        (lambda parts: [*parts, layer("x", "Deconvolution", "fc8", "x", [], b"", old=False)], "type Deconvolution"),
        (lambda parts: [*parts, layer("p", "PReLU", "fc8", "p", [], b"", old=False)], "type PReLU"),
        (lambda parts: [*parts[:3], layer("b", "ReLU", "conv1", "b", [], b"", old=False), *parts[3:]], "no chain"),
        (lambda parts: [*parts, layer("r", "ReLU", "fc8", "r", [], data(123, real(1, 0.1)), old=False)], "slope = 0.1"),
        (lambda parts: [layer("c", "Convolution", "data", "data", [],
                              data(106, number(1, 4) + number(4, 3) + number(18, 2)), old=False), *parts], "dilation"),
        (lambda parts: [layer("c", "Convolution", "data", "data", [],
                              data(106, number(1, 4) + number(11, 3) + number(12, 5)), old=False), *parts], "3 and 5"),
        (lambda parts: [layer("c", "Convolution", "data", "data", [],
                              data(106, number(1, 4) + number(4, 2**40)), old=False), *parts], "conv1 has kernel ="),
        (lambda parts: [layer("c", "Convolution", "data", "data", [],
                              data(106, number(1, 4) + number(4, 3) + number(6, 0)), old=False), *parts], "stride = 0"),
        (lambda parts: [*parts, layer("p", "Pooling", "fc8", "p", [],
                                      data(121, number(1, 2) + number(2, 3)), old=False)], "pools at random"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_named(change, message, tmp_path: Path) -> None:
    parts = split_layers(skeleton(small("caffe")))
    with pytest.raises(UserError, match="no AlexNet that can be imported") as caught:
        import_weights(write(tmp_path / "n.caffemodel", b"".join(change(parts))))
    assert message in str(caught.value)


def split_layers(contents: bytes) -> list[bytes]:
    """The fields of a message whose fields are all layers of the new format."""
    parts, position = [], 0
    while position < len(contents):
        start = position
        position += 2  # the key of field 100
        length = shift = 0
        while True:
            byte = contents[position]
            position += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        position += length
        parts.append(contents[start:position])
    return parts


def test_weights_of_another_shape_than_the_file_states_are_refused(model, tmp_path: Path) -> None:
    other = create_model(replace(small("caffe"), layers=model.architecture.layers), 5).eval()
    other.conv3.weight = torch.nn.Parameter(torch.zeros(8, 12, 5, 5))
    path = write(tmp_path / "n.caffemodel", net_of(other))
    with pytest.raises(UserError, match=r"conv3\.weight is 8 x 12 x 5 x 5 instead of 8 x 12 x 3 x 3"):
        import_weights(path)


def test_a_variant_that_the_file_contradicts_is_refused(model, tmp_path: Path) -> None:
    path = write(tmp_path / "n.caffemodel", net_of(model))
    with pytest.raises(UserError, match=r"describes its network itself, and it is no caffenet: caffe\."):
        import_weights(path, variant="caffenet")


# ---------------------------------------------------------------- the mean


def test_a_mean_image_is_turned_to_red_first_and_moves_with_the_crop(model, tmp_path: Path) -> None:
    blue_first = np.random.default_rng(0).uniform(90, 130, (3, 256, 256)).astype(np.float32)
    for name, contents in (("old", blob(blue_first[None], old=True)), ("new", blob(blue_first))):
        mean = write(tmp_path / f"{name}.binaryproto", contents)
        np.testing.assert_array_equal(read_binaryproto(mean), blue_first)
        path = write(tmp_path / "n.caffemodel", net_of(model))
        preprocessing = import_weights(path, mean=mean).preprocessing
        assert preprocessing.mean_mode == "at_crop" and preprocessing.image_size == 256
        np.testing.assert_array_equal(preprocessing.mean_image.numpy(), blue_first[::-1].transpose(1, 2, 0))
    np.save(tmp_path / "mean.npy", blue_first)
    again = import_weights(path, mean=str(tmp_path / "mean.npy")).preprocessing
    assert torch.equal(again.mean_image, preprocessing.mean_image)
    pixels = torch.randint(0, 256, (1, 227, 227, 3), dtype=torch.uint8)
    offsets = torch.tensor([[3, 20]])
    expected = pixels[0].numpy()[:, :, ::-1].transpose(2, 0, 1) - blue_first[:, 3:230, 20:247]
    np.testing.assert_allclose(preprocessing.normalize(pixels, offsets)[0].numpy(), expected, atol=1e-4)


def test_without_a_mean_imagenets_colour_is_taken_and_said(model, tmp_path: Path) -> None:
    checkpoint = import_weights(write(tmp_path / "n.caffemodel", net_of(model)))
    assert checkpoint.preprocessing.mean_image[0, 0].tolist() == pytest.approx([122.679, 116.669, 104.007], abs=1e-3)
    notes = " ".join(checkpoint.imported["notes"])
    assert "ImageNet's mean colour is taken" in notes and "mean file imagenet_mean.binaryproto" in notes
    given = import_weights(tmp_path / "n.caffemodel", mean="104,117,123").preprocessing
    assert given.mean_image[0, 0].tolist() == [123.0, 117.0, 104.0]  # given in the network's order, blue first


@pytest.mark.parametrize(
    ("mean", "message"),
    [
        (np.zeros((4, 256, 256), np.float32), "is an array of 4 x 256 x 256"),
        (np.zeros((3, 256, 200), np.float32), "is an array of 3 x 256 x 200"),
        (np.full((3, 8, 8), np.nan, np.float32), "not finite"),
        (np.zeros((3, 100, 100), np.float32), "smaller than the network's input of 227"),
    ],
)
def test_a_mean_that_is_none_is_refused(mean, message, model, tmp_path: Path) -> None:
    path = write(tmp_path / "n.caffemodel", net_of(model))
    with pytest.raises(UserError, match=message):
        import_weights(path, mean=write(tmp_path / "m.binaryproto", blob(mean)))


def test_a_pool_that_drops_what_is_left_over_is_read_as_such(tmp_path: Path) -> None:
    contents = skeleton(get_architecture("caffe"), pooling=number(13, 1))  # round_mode: FLOOR
    layers = find_caffe_weights(write(tmp_path / "n.caffemodel", contents)).architecture.layers
    assert [row.ceil_mode for row in layers if isinstance(row, MaxPool)] == [False, False, False]
    plain = find_caffe_weights(write(tmp_path / "n.caffemodel", skeleton(get_architecture("caffe")))).architecture
    assert all(row.ceil_mode for row in plain.layers if isinstance(row, MaxPool))


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (real(5, 1.0) + real(5, 2.0), "2 mean values"),
        (real(5, float("nan")), "should be finite"),
        (real(1, float("inf")), "scale = inf"),
    ],
)
def test_inputs_that_cannot_be_are_refused(transform, message, model, tmp_path: Path) -> None:
    path = write(tmp_path / "n.caffemodel", net_of(model, transform=number(3, 227) + transform))
    with pytest.raises(UserError, match=message):
        import_weights(path)


def test_a_network_without_numbers_is_refused_whatever_its_data_layer_says(tmp_path: Path) -> None:
    source = layer("data", "Data", "", "data", [], data(100, real(1, 0.5) + data(3, b"")), old=False)
    path = write(tmp_path / "n.caffemodel", source + skeleton(get_architecture("caffe")))
    with pytest.raises(UserError, match=r"do not fit caffe: conv1\.weight is missing"):
        import_weights(path)


# ---------------------------------------------------------------- hostile files


def conv(blobs: bytes) -> bytes:
    return data(100, data(1, "conv1") + data(2, "Convolution") + data(7, blobs))


HOSTILE = {
    "a length beyond the file": data(1, "n") + varint(100 << 3 | 2) + varint(2**40) + b"abc",
    "a length of 64 bits": varint(100 << 3 | 2) + varint(2**64 - 1),
    "a number without end": b"\x0a" + b"\xff" * 30,
    "a number cut off": data(1, "n") + b"\xa2\x06\xff",
    "a group": data(1, "n") + varint(100 << 3 | 3) + b"\x00" * 20,
    "field 0": data(1, "n") + b"\x02\x00",
    "an array of more than it has": conv(data(7, data(1, varint(2**40) * 3)) + data(5, b"\0" * 8)),
    "an array of negative sizes": conv(
        number(1, -1) + number(2, -1) + number(3, 1) + number(4, 1) + data(5, b"\0" * 4)
    ),
    "an array of many dimensions": conv(data(7, data(1, varint(1) * 4000)) + data(5, b"\0" * 4)),
    "numbers of 3 bytes": conv(number(1, 1) + data(5, b"\0\0\0")),
    "text in the place of layers": number(100, 5),
    "a number in the place of a name": data(100, number(1, 5)),
    "no layers": data(1, "just a name"),
    "the first format": data(2, data(1, data(1, "conv1"))),
}


@pytest.mark.parametrize("contents", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_end_in_one_sentence(contents, tmp_path: Path) -> None:
    path = write(tmp_path / "n.caffemodel", contents)
    with pytest.raises(UserError, match=r"cannot be read as a Caffe model: .*\."):
        read_caffemodel(path)


@pytest.mark.parametrize(
    "contents",
    [
        b"\x20\x01" * 105_000,  # two bytes a field
        data(100, b"\xa0\x01\x01" * 105_000),
        data(100, data(117, b"\x08\x01" * 105_000)),
        data(100, data(106, data(4, b"\x01" * 105_000))),  # packed, a byte a number
        conv(data(7, data(1, b"\x01" * 105_000))),
        conv(b"\x2d\0\0\0\0" * 105_000),  # numbers that are not packed
        data(100, data(3, "a") * 105_000),
    ],
    ids=["in the net", "in a layer", "in parameters", "packed", "in a shape", "numbers", "names"],
)
def test_millions_of_fields_are_refused_before_they_take_memory(contents, tmp_path: Path) -> None:
    path = write(tmp_path / "n.caffemodel", contents)
    del contents
    tracemalloc.start()
    with pytest.raises(UserError, match="more than 100,000 fields"):
        read_caffemodel(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_every_truncation_is_an_error_or_a_smaller_network(model, tmp_path: Path) -> None:
    contents = net_of(model)
    ends = [*range(1, 400), *range(400, len(contents), max(1, len(contents) // 150)), len(contents) - 1]
    for end in ends:
        with pytest.raises(UserError):
            import_weights(write(tmp_path / "n.caffemodel", contents[:end]))


def test_random_bytes_never_escape_as_another_error(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    model_bytes = np.frombuffer(skeleton(small("caffe")), np.uint8)
    for _ in range(150):
        noisy = model_bytes.copy()
        places = generator.integers(0, len(noisy), generator.integers(1, 8))
        noisy[places] = generator.integers(0, 256, len(places))
        path = write(tmp_path / "n.caffemodel", noisy.tobytes())
        with pytest.raises(UserError):
            import_weights(path)


def test_numbers_in_several_parts_and_one_by_one(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32)
    singles = b"".join(varint(5 << 3 | 5) + struct.pack("<f", value) for value in values[4:])
    contents = data(7, data(1, varint(6))) + data(5, values[:4].tobytes()) + singles
    np.testing.assert_array_equal(read_binaryproto(write(tmp_path / "m.binaryproto", contents)), values)
