"""What is written for other programs: safetensors that describe themselves, and torchvision's file."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from alexnet import UserError, create_model, import_weights
from alexnet.data.preprocessing import Preprocessing
from alexnet.models import get_architecture
from alexnet.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from alexnet.weights.fit import expected_shapes
from alexnet.weights.names import to_torchvision
from alexnet.weights.safetensors_file import write_safetensors
from alexnet.weights.torchvision_file import write_torchvision


def checkpoint_of(variant: str, *, mean: torch.Tensor | None = None, input_scale: str = "pixels") -> Checkpoint:
    """A trained checkpoint of a small network, with everything that one has."""
    model = create_model(variant, 3, seed=5)
    size = model.image_size
    if mean is None:
        mean = torch.rand(size, size, 3, generator=torch.Generator().manual_seed(1)) * 255
    preprocessing = Preprocessing(size, size, input_scale, "rgb", "at_crop", mean)
    return Checkpoint(
        architecture=model.architecture,
        num_classes=3,
        image_size=size,
        classes=("a", "b", "n03"),
        class_names=("ape", "bee", "cat"),
        preprocessing=preprocessing,
        recipe={"seed": 5, "model": {"name": variant}, "schedule": {"milestones": [1.5, 2.0]}},
        data="somewhere",
        step=17,
        epoch=2.5,
        metrics={"top1_error": 0.25, "top5_error": 0.0, "num_images": 40, "views": "center"},
        model_state=dict(model.state_dict()),
        training_state={"momentum": torch.zeros(3)},
        environment={"alexnet": "0.1.0", "cores": 2},
    )


@pytest.mark.parametrize("is_constant", [False, True])
def test_a_safetensors_file_comes_back_as_the_checkpoint_it_was(is_constant: bool, tmp_path: Path) -> None:
    mean = torch.tensor([120.5, 110.25, 100.125]).expand(32, 32, 3).contiguous() if is_constant else None
    checkpoint = checkpoint_of("cifar_quick", mean=mean)
    path = tmp_path / "q.safetensors"
    write_safetensors(checkpoint, path)
    again = import_weights(path)
    for name in Checkpoint.__dataclass_fields__:
        if name not in ("model_state", "preprocessing", "training_state"):
            assert getattr(again, name) == getattr(checkpoint, name), name
    assert again.training_state is None, "what training goes on with is left out"
    assert all(torch.equal(again.model_state[name], value) for name, value in checkpoint.model_state.items())
    first, second = again.preprocessing.to_dict(), checkpoint.preprocessing.to_dict()
    assert torch.equal(first.pop("mean_image"), second.pop("mean_image")) and first == second
    save_checkpoint(tmp_path / "q.pt", again)
    assert load_checkpoint(tmp_path / "q.pt").classes == checkpoint.classes


def test_others_can_read_what_is_written(tmp_path: Path) -> None:
    checkpoint = checkpoint_of("cifar_quick", mean=torch.full((32, 32, 3), 100.0))
    write_safetensors(checkpoint, tmp_path / "q.safetensors")
    tensors = load_file(tmp_path / "q.safetensors")
    create_model("cifar_quick", 3).load_state_dict(tensors, strict=True)
    with safe_open(tmp_path / "q.safetensors", "pt") as file:
        header = file.metadata()
    assert header["format"] == "pt" and json.loads(header["alexnet"])["class_names"] == ["ape", "bee", "cat"]


def test_a_file_that_describes_itself_is_not_contradicted(tmp_path: Path) -> None:
    write_safetensors(checkpoint_of("cifar_quick"), tmp_path / "q.safetensors")
    with pytest.raises(UserError, match="describes itself; leave out what is said"):
        import_weights(tmp_path / "q.safetensors", variant="cifar_quick")


def test_safetensors_of_others_are_recognised_by_names_and_shapes(tmp_path: Path) -> None:
    state = create_model("cifar_19pct", 10, seed=1).state_dict()
    save_file({f"model.{name}": value for name, value in state.items()}, tmp_path / "c.safetensors")
    checkpoint = import_weights(tmp_path / "c.safetensors", variant="cifar_19pct")
    assert torch.equal(checkpoint.model_state["fc10.weight"], state["fc10.weight"])
    assert checkpoint.imported["form"] == "a safetensors file with this package's names"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d["architecture"]["layers"][0].update(channels=33),
            r"conv1\.weight is 32 x 3 x 5 x 5 instead of 33 x",
        ),
        (lambda d: d["architecture"]["layers"][0].update(channels=0), "conv1: channels = 0"),
        (
            lambda d: d["architecture"]["layers"][0].update(kernel="5"),
            "description is damaged|describes another network",
        ),
        (lambda d: d["classes"].append("dog"), "classes are not 3 names"),
        (lambda d: d["class_names"].pop(), "class_names are not 3 names"),
        (lambda d: d["class_names"].__setitem__(0, 7), "class_names are not 3 names"),
        (lambda d: d.update(num_classes=2, classes=["a", "b"], class_names=["a", "b"]), "it names 2 classes"),
        (lambda d: d.update(num_classes="3"), "num_classes is of the type str"),
        (lambda d: d.update(step="1"), "step is of the type str"),
        (lambda d: d.update(environment=[]), "environment is of the type list"),
        (lambda d: d.update(environment={"imported": {"names": 3}}), r"imported\.names is of the type int"),
        (lambda d: d.update(recipe={"runtime": 3}), r"recipe\.runtime is of the type int"),
        (lambda d: d["preprocessing"].update(image_size=float("inf")), "cannot convert float infinity"),
        (lambda d: d["preprocessing"].update(crop_size=10**6), "crops of 1000000 px from squares of 32"),
        (lambda d: d["preprocessing"].update(mean_mode="other"), "mean_mode is 'other'"),
        (lambda d: d.update(image_size=10**12), "larger than"),
        (lambda d: d["preprocessing"].update(image_size=10**6), "squares of 1,000,000 pixels"),
        (lambda d: d.pop("metrics"), "its description is damaged"),
        (lambda d: d["architecture"]["layers"][0].update(kind="Program"), "unknown kind of layer"),
    ],
)
def test_a_description_that_is_not_of_the_weights_is_refused(change, message, tmp_path: Path) -> None:
    write_safetensors(checkpoint_of("cifar_quick", mean=torch.full((32, 32, 3), 1.0)), tmp_path / "q.safetensors")
    with safe_open(tmp_path / "q.safetensors", "pt") as file:
        description = json.loads(file.metadata()["alexnet"])
    change(description)
    tensors = load_file(tmp_path / "q.safetensors")
    save_file(tensors, tmp_path / "changed.safetensors", metadata={"alexnet": json.dumps(description)})
    with pytest.raises(UserError, match=message):
        import_weights(tmp_path / "changed.safetensors")


def test_a_description_without_end_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "deep.safetensors", metadata={"alexnet": "[" * 100_000})
    with pytest.raises(UserError, match="description is damaged"):
        import_weights(tmp_path / "deep.safetensors")


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


DAMAGED = {
    "a header beyond the file": header(b"{}" + b" " * 50, 2**50),
    "a header that is none": header(b'{"a": [1, 2' + b" " * 20),
    "a tensor beyond the file": header(b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'),
    "a shape that does not fit": header(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}') + b"\0" * 4,
    "a description that is none": header(b'{"__metadata__":{"alexnet":"not JSON"}}'),
    "a description of something else": header(
        b'{"__metadata__":{"alexnet":"{\\"format\\": \\"x\\", \\"version\\": 1}"}}'
    ),
    "a description without fields": header(
        b'{"__metadata__":{"alexnet":"{\\"format\\": \\"alexnet-weights\\", \\"version\\": 1}"}}'
    ),
}


@pytest.mark.parametrize("contents", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files_end_in_one_sentence(contents: bytes, tmp_path: Path) -> None:
    (tmp_path / "d.safetensors").write_bytes(contents)
    with pytest.raises(UserError, match=r"damaged|is of no kind|cannot be read"):
        import_weights(tmp_path / "d.safetensors")


def test_torchvisions_file_has_its_names_and_nothing_else(tmp_path: Path) -> None:
    shapes = expected_shapes(get_architecture("torchvision"), 3, 224)
    checkpoint = checkpoint_of("cifar_quick")
    state = {name: torch.tensor([1.0]).expand(shape) for name, shape in shapes.items() if name != "fc6.weight"}
    state["fc6.weight"] = torch.arange(4096.0)[:, None].expand(4096, 9216)
    architecture = create_dropped("torchvision", 0.2)
    write_torchvision(replace(checkpoint, architecture=architecture, model_state=state), tmp_path / "t.pth")
    written = torch.load(tmp_path / "t.pth", weights_only=True)
    assert {name: tuple(value.shape) for name, value in written.items()} == {
        to_torchvision(name): shape for name, shape in shapes.items()
    }
    assert written["classifier.1.weight"][7, 0] == 7.0


def create_dropped(variant: str, rate: float):
    from alexnet.models.changes import with_dropout

    return with_dropout(get_architecture(variant), rate)


def test_a_network_that_torchvision_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"torchvision has no cifar_quick: .*Export to safetensors"):
        write_torchvision(checkpoint_of("cifar_quick"), tmp_path / "t.pth")
    assert not (tmp_path / "t.pth").exists()
