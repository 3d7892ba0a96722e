"""The .npy dictionaries of the old TensorFlow ports, as Python 2 and 3 wrote them."""

from __future__ import annotations

import collections
import io
import pickle
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import small
from torch.nn import functional as F

from alexnet import UserError, create_model, import_weights
from alexnet.models import AlexNet, get_architecture
from alexnet.weights.fit import choose_network, expected_shapes
from alexnet.weights.plain_pickle import PlainPickleError, load_plain
from alexnet.weights.tensorflow_npy import find_npy_weights


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes as Python 2's str, and arrays under the module of the numpy of then."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_string(self, text) -> None:
        data = text.encode("latin1") if isinstance(text, str) else text
        if len(data) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_string

    def save_global(self, thing, name=None) -> None:
        module, name = thing.__module__.replace("numpy._core", "numpy.core"), name or thing.__qualname__
        self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        self.memoize(thing)


def write_python2(path: Path, contents: object) -> Path:
    """np.save(path, contents) as Python 2 did it."""
    array = np.empty((), object)
    array[()] = contents
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        Python2Pickler(file, 2).dump(array)
    return path


def as_tensorflow(model: AlexNet, side: int) -> dict[str, list[np.ndarray]]:
    """The weights as caffe-tensorflow wrote them: HWIO, (inputs, outputs), those of fc6 as (row, column, channel)."""
    contents = {}
    for name, layer in model.named_children():
        if not hasattr(layer, "weight"):
            continue
        weight = layer.weight.detach().numpy()
        if weight.ndim == 4:
            weight = weight.transpose(2, 3, 1, 0)
        elif name == "fc6":
            weight = weight.reshape(len(weight), -1, side, side).transpose(2, 3, 1, 0).reshape(-1, len(weight))
        else:
            weight = weight.T
        contents[name] = [np.ascontiguousarray(weight), layer.bias.detach().numpy()]
    return contents


def test_bvlc_alexnet_npy_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model = create_model("caffe", 3, seed=2)
    np.save(tmp_path / "bvlc_alexnet.npy", as_tensorflow(model, 6), allow_pickle=True)
    checkpoint = import_weights(tmp_path / "bvlc_alexnet.npy", allow_pickle=True)
    (tmp_path / "bvlc_alexnet.npy").unlink()
    assert checkpoint.architecture.name == "caffe" and checkpoint.preprocessing.channel_order == "bgr"
    for name, value in model.state_dict().items():
        assert torch.equal(checkpoint.model_state[name], value), name


def narrow() -> dict[str, list[np.ndarray]]:
    return as_tensorflow(create_model(small("caffe"), 3, seed=2), 6)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.save(tmp_path / "bvlc_alexnet.npy", narrow(), allow_pickle=True)
    return tmp_path / "bvlc_alexnet.npy"


def test_fc6_reads_tensorflows_order_of_the_maps(path: Path) -> None:
    found = find_npy_weights(path, allow_pickle=True)
    maps = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    weights, biases = narrow()["fc6"]
    # As the ports do it: reshape(pool5 in NHWC) times weights.
    theirs = maps.permute(0, 2, 3, 1).reshape(2, -1).numpy() @ weights + biases
    ours = F.linear(maps.flatten(1), found.tensors["fc6.weight"], found.tensors["fc6.bias"])
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-6)
    as_convolution = weights.reshape(6, 6, 4, -1)
    np.save(path, {**narrow(), "fc6": [as_convolution, biases]}, allow_pickle=True)
    assert torch.equal(find_npy_weights(path, allow_pickle=True).tensors["fc6.weight"], found.tensors["fc6.weight"])


def test_the_pickle_is_read_only_where_that_is_asked_for(path: Path) -> None:
    with pytest.raises(
        UserError, match=r"pickled dictionary, which numpy would run as a program\. Give --allow-pickle"
    ):
        import_weights(path)


def test_python_2_wrote_text_and_numbers_as_bytes(tmp_path: Path) -> None:
    contents = narrow()
    found = find_npy_weights(write_python2(tmp_path / "alexnet.npy", contents), allow_pickle=True)
    np.testing.assert_array_equal(found.tensors["fc8.bias"].numpy(), contents["fc8"][1])
    np.testing.assert_array_equal(found.tensors["conv2.weight"].numpy(), contents["conv2"][0].transpose(3, 2, 0, 1))
    assert len(found.tensors) == 16


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_every_protocol_and_both_ways_to_name_the_parts(protocol: int, tmp_path: Path) -> None:
    contents = collections.OrderedDict(
        (layer, {"weights": np.asfortranarray(weights), "biases": biases.astype(">f8")})
        for layer, (weights, biases) in narrow().items()
    )
    path = tmp_path / "caffenet.npy"
    array = np.empty((), object)
    array[()] = contents
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(array, file, protocol=protocol)
    found = find_npy_weights(path, allow_pickle=True)
    assert found.variants == ("caffenet",)
    np.testing.assert_array_equal(found.tensors["fc7.weight"].numpy(), contents["fc7"]["weights"].T)
    np.testing.assert_array_equal(found.tensors["fc7.bias"].numpy(), contents["fc7"]["biases"].astype(np.float32))


def test_a_name_that_does_not_tell_asks_which_of_caffes_two_it_is(path: Path) -> None:
    other = path.rename(path.with_name("weights.npy"))
    found = find_npy_weights(other, allow_pickle=True)
    assert found.variants == ("caffe", "caffenet")
    shapes = expected_shapes(get_architecture("caffe"), 3, 227)
    found = replace(found, tensors={name: torch.zeros(()).expand(shape) for name, shape in shapes.items()})
    with pytest.raises(UserError, match="fit caffe and caffenet, which differ in what is between"):
        choose_network(found, "weights.npy", None, None)
    assert choose_network(found, "weights.npy", "caffenet", None).architecture.name == "caffenet"
    with pytest.raises(UserError, match="can be caffe or caffenet, and not as_run"):
        choose_network(found, "weights.npy", "as_run", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {**c, "res5": c["fc8"]}, "has a layer 'res5'"),
        (lambda c: {**c, "conv1": [c["conv1"][0]]}, "something else than weights and biases for conv1"),
        (lambda c: {**c, "conv1": [c["conv1"][0], "text"]}, "something else than weights and biases for conv1"),
        (lambda c: {**c, "conv1": [c["conv1"][0].astype(int), c["conv1"][1]]}, "for conv1, which are none"),
        (lambda c: {**c, "conv1": [np.zeros((0, 4), np.float32), c["conv1"][1]]}, "for conv1, which are none"),
        (lambda c: {**c, "fc6": [c["fc6"][0][:-1], c["fc6"][1]]}, "no square maps of conv5's 4 channels"),
        (lambda c: [1, 2], "objects, and no dictionary"),
    ],
)
def test_dictionaries_that_are_none_of_an_alexnet_are_refused(change, message, tmp_path: Path) -> None:
    contents = change(narrow())
    array = np.empty(len(contents) if isinstance(contents, list) else (), object)
    array[...] = contents
    np.save(tmp_path / "alexnet.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=message):
        find_npy_weights(tmp_path / "alexnet.npy", allow_pickle=True)


def test_an_array_of_numbers_is_no_dictionary(tmp_path: Path) -> None:
    np.save(tmp_path / "mean.npy", np.zeros((3, 8, 8)))
    with pytest.raises(UserError, match="holds one array, and no dictionary of layers: it is a mean image"):
        find_npy_weights(tmp_path / "mean.npy", allow_pickle=False)


class Program:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_program_in_an_npy_is_run_even_with_allow_pickle(tmp_path: Path) -> None:
    witness = tmp_path / "it ran"
    np.save(tmp_path / "alexnet.npy", {**narrow(), "fc9": Program(witness)}, allow_pickle=True)
    with pytest.raises(UserError, match=r"is not read: it asks for .*, and plain data never do"):
        find_npy_weights(tmp_path / "alexnet.npy", allow_pickle=True)
    assert not witness.exists()


def pickled(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


HOSTILE = {
    "text of 4 GB": pickled(b"X\xff\xff\xff\xff"),
    "bytes of 2**60": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b".",
    "a frame of 2**60": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b".",
    "millions of lists": pickled(b"]" * 2_000_000),
    "lists in lists in lists": pickled(b"]" + b"".join(b"q" + bytes([i]) + b"(" + b"h" + bytes([i]) + b"h" + bytes([i])
                                                       + b"l" for i in range(200))),
    "a list in itself": pickled(b"]q\0h\0a"),
    "a persistent object": pickled(b"K\x01Q"),
    "an extension": pickled(b"\x82\x01"),
    # Three copies of three copies of ...: to hash it takes 3**60 steps.
    "tuples for a name": pickled(b"}K\x01", b"22\x87" * 60, b"K\x01s"),
    "tuples for a name, all at once": pickled(b"(K\x01", b"22\x87" * 60, b"K\x01d"),
    "tuples for a name in order": pickled(b"ccollections\nOrderedDict\n]]K\x01", b"22\x87" * 60, b"aK\x02aa\x85R"),
    "a set of tuples": b"\x80\x04\x8f(K\x01" + b"22\x87" * 60 + b"\x90.",
    "a fixed set of tuples": b"\x80\x04(K\x01" + b"22\x87" * 60 + b"\x91.",
    "nothing": b"",
}  # fmt: skip


def test_a_large_index_takes_no_memory() -> None:
    contents = pickled(b"]r" + struct.pack("<I", 2**31 - 1))
    assert load_plain(io.BytesIO(contents), len(contents)) == []


@pytest.mark.parametrize("contents", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_pickles_end_in_one_sentence(contents: bytes) -> None:
    with pytest.raises(PlainPickleError):
        load_plain(io.BytesIO(contents), len(contents))


def test_every_truncation_is_one_sentence(tmp_path: Path) -> None:
    np.save(tmp_path / "alexnet.npy", narrow(), allow_pickle=True)
    whole = (tmp_path / "alexnet.npy").read_bytes()
    for end in [*range(1, 300, 7), *range(300, len(whole), max(1, len(whole) // 60))]:
        (tmp_path / "cut.npy").write_bytes(whole[:end])
        with pytest.raises(UserError):
            import_weights(tmp_path / "cut.npy", allow_pickle=True)
