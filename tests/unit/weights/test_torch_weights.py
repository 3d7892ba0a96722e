"""Files of torch.save: names under any wrapper, weights beside anything, and no code run."""

from __future__ import annotations

import argparse
import collections
import os
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from alexnet import UserError, create_model, import_weights
from alexnet.models import get_architecture
from alexnet.weights.fit import expected_shapes
from alexnet.weights.names import to_torchvision, unwrapped
from alexnet.weights.torch_file import find_torch_weights

OURS = expected_shapes(get_architecture("torchvision"), 7, 224)


def state(value: float = 0.0, rename=lambda name: name) -> dict[str, torch.Tensor]:
    """A state dict of torchvision's full size; each tensor is one number that is repeated, so its file is small."""
    return {rename(to_torchvision(name)): torch.tensor([value]).expand(shape) for name, shape in OURS.items()}


def saved(path: Path, contents: object, *, new: bool = True) -> Path:
    torch.save(contents, path, _use_new_zipfile_serialization=new)
    return path


WRAPPED = {
    "torchvision": lambda name: name,
    "DataParallel or DDP": lambda name: f"module.{name}",
    "DataParallel of the features only": lambda name: name.replace("features.", "features.module."),
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "torch.compile of DDP": lambda name: f"_orig_mod.module.{name}",
    "DDP of torch.compile": lambda name: f"module._orig_mod.{name}",
    "a module around it": lambda name: f"model.{name}",
    "two modules around it": lambda name: f"module.learner.backbone.{name}",
}


@pytest.mark.parametrize("rename", WRAPPED.values(), ids=WRAPPED.keys())
def test_names_are_found_under_every_wrapper(rename, tmp_path: Path) -> None:
    found = find_torch_weights(saved(tmp_path / "w.pth", state(rename=rename)), None)
    assert {name: tuple(value.shape) for name, value in found.tensors.items()} == OURS
    assert found.names["conv5.bias"] == rename("features.10.bias") and found.variants == ("torchvision",)


class Config(dict):
    """A dictionary of another class, as configurations are."""


class Counts(collections.defaultdict):
    """Another, made by a call."""


@pytest.mark.parametrize("new", [True, False], ids=["zip", "old format"])
@pytest.mark.parametrize("place", ["state_dict", "model", "model_state_dict", "net", "my_own_name"])
def test_weights_are_found_beside_anything(place, new, tmp_path: Path) -> None:
    contents = {
        "epoch": 3,
        "arch": "alexnet",
        "args": argparse.Namespace(lr=0.1, data=Path("somewhere")),
        "best_acc1": torch.tensor(56.5),
        "loss": np.float64(1.9),
        "history": Counts(int, {"epoch": 3}),
        "config": Config(lr=0.1, model=Config(name="alexnet")),
        place: state(rename=lambda name: f"module.{name}"),
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"weight_decay": 1e-4}]},
    }
    found = find_torch_weights(saved(tmp_path / "c.pth.tar", contents, new=new), None)
    assert len(found.tensors) == 16
    assert any("argparse.Namespace" in note for note in found.notes)


def test_of_several_sets_the_plain_one_is_taken_and_key_takes_another(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.pth", {"model_ema": state(2.0), "model": state(1.0)})
    found = find_torch_weights(path, None)
    assert float(found.tensors["conv1.bias"][0]) == 1.0
    assert any("model was taken. --key model_ema takes the other" in note for note in found.notes)
    assert float(find_torch_weights(path, "model_ema").tensors["conv1.bias"][0]) == 2.0
    with pytest.raises(UserError, match=r"no weights under 'ema'; it has 'model_ema', 'model'"):
        find_torch_weights(path, "ema")


class TorchvisionLike(nn.Module):
    """torchvision's modules in their order, without memory of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*(nn.Identity() for _ in range(13)))
        self.classifier = nn.Sequential(*(nn.Identity() for _ in range(7)))
        for name, shape in OURS.items():
            group, place, part = to_torchvision(name).split(".")
            weight = nn.Parameter(torch.tensor([1.5]).expand(shape), requires_grad=False)
            self.get_submodule(group)[int(place)].register_parameter(part, weight)


@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel, lambda model: {"model": model, "epoch": 1}])
def test_a_network_saved_whole_gives_its_weights_and_none_of_its_code(wrap, tmp_path: Path) -> None:
    found = find_torch_weights(saved(tmp_path / "whole.pth", wrap(TorchvisionLike())), None)
    assert {name: tuple(value.shape) for name, value in found.tensors.items()} == OURS
    assert float(found.tensors["fc8.weight"][0, 0]) == 1.5
    assert any("whole network as an object" in note for note in found.notes)


class Program:
    """What becomes a call when it is unpickled."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("new", [True, False], ids=["zip", "old format"])
@pytest.mark.parametrize("function", [os.system, subprocess.call, eval, exec, __import__], ids=lambda f: f.__name__)
def test_no_program_in_a_file_is_run(function, new, tmp_path: Path) -> None:
    witness = tmp_path / "it ran"
    argument = f"touch '{witness}'" if function in (os.system, subprocess.call) else f"open({str(witness)!r}, 'w')"
    contents = {"state_dict": state(), "extra": Program(function, argument)}
    with pytest.raises(UserError, match="made to run a program"):
        find_torch_weights(saved(tmp_path / "evil.pth", contents, new=new), None)
    assert not witness.exists()


def test_an_unknown_function_becomes_a_stand_in_and_is_not_called(tmp_path: Path) -> None:
    witness = tmp_path / "it ran"
    contents = {"state_dict": state(), "extra": Program(zipfile.ZipFile, str(witness), "w")}
    found = find_torch_weights(saved(tmp_path / "odd.pth", contents), None)
    assert len(found.tensors) == 16 and not witness.exists()
    with pytest.raises(UserError, match="something to be called that weights never need, and nothing in it was run"):
        find_torch_weights(saved(tmp_path / "odd.pth", {**state(), "extra": Program(Path.touch, witness)}), None)
    assert not witness.exists()


def test_what_is_no_file_of_weights_says_what_it_is(tmp_path: Path) -> None:
    whole = saved(tmp_path / "w.pth", state()).read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    program = tmp_path / "program.pt"
    with zipfile.ZipFile(program, "w") as archive:
        for entry in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"program/{entry}", "")
    packed = tmp_path / "packed.pth"
    with zipfile.ZipFile(tmp_path / "w.pth") as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        new.writestr("w/data/bomb", b"\0" * 10_000_000)
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    cases = {
        tmp_path / "cut.pth": "is damaged",
        program: "is a TorchScript program, and programs are not read. In torch",
        packed: "is compressed, which files of torch.save never are",
        other: "is a zip file, but none of torch.save",
        saved(tmp_path / "list.pth", [1, 2]): "without weights that could be found: it holds no dict",
        saved(tmp_path / "log.pth", {"epoch": 1, "loss": 2.0}): "it holds a dictionary of epoch, loss",
        saved(tmp_path / "resnet.pth", {"layer1.0.conv1.weight": torch.zeros(1), "fc.weight": torch.zeros(1)}):
            "neither torchvision's names",
        saved(tmp_path / "both.pth", {"module.features.0.weight": torch.zeros(1), "features.0.weight": torch.zeros(1)}):
            "The file has features.0.weight twice",
        saved(tmp_path / "old.pth", TorchvisionLike(), new=False): "cannot be read",
    }  # fmt: skip
    for path, message in cases.items():
        with pytest.raises(UserError) as caught:
            find_torch_weights(path, None)
        assert message in str(caught.value), caught.value


def test_every_truncation_of_an_old_file_is_one_sentence(tmp_path: Path) -> None:
    whole = saved(tmp_path / "w.pth", state(), new=False).read_bytes()
    for end in range(1, len(whole), max(1, len(whole) // 60)):
        (tmp_path / "cut.pth").write_bytes(whole[:end])
        with pytest.raises(UserError):
            import_weights(tmp_path / "cut.pth")


# ---------------------------------------------------------------- which network it is


def test_weights_with_our_names_that_fit_several_variants_ask_which(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = expected_shapes(get_architecture("caffe"), 4, 227)
    path = saved(tmp_path / "w.pt", {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()})
    with pytest.raises(UserError) as caught:
        import_weights(path)
    message = str(caught.value)
    assert "fit as_run, paper, caffe and caffenet, which differ in what is between" in message
    assert "norm1" in message and "--variant as_run" in message
    with pytest.raises(
        UserError, match=r"w\.pt do not fit torchvision: conv1\.weight is 96 x 3 x 11 x 11 instead of 64 x"
    ):
        import_weights(path, variant="torchvision")


def test_our_own_state_dict_is_imported_with_the_variant_that_is_said(tmp_path: Path) -> None:
    model = create_model("cifar_quick", 10, seed=4)
    path = saved(tmp_path / "q.pt", {f"module.{name}": value for name, value in model.state_dict().items()})
    checkpoint = import_weights(path)
    assert checkpoint.architecture.name == "cifar_quick" and checkpoint.preprocessing.crop_size == 32
    assert all(torch.equal(checkpoint.model_state[name], value) for name, value in model.state_dict().items())


def test_batch_norms_counters_and_averages_are_kept(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = expected_shapes(get_architecture("bn"), 3, 227)
    tensors = {name: torch.ones(()).expand(shape) for name, shape in shapes.items()}
    tensors["n_averaged"] = torch.tensor(4)
    found = find_torch_weights(saved(tmp_path / "bn.pt", tensors), None)
    assert set(found.tensors) == set(shapes) and "bn1.num_batches_tracked" in shapes


def test_the_size_of_the_images_is_asked_for_where_it_is_another(tmp_path: Path) -> None:
    model = create_model("cifar_quick", 10, image_size=48, seed=4)
    path = saved(tmp_path / "q.pt", model.state_dict())
    with pytest.raises(
        UserError, match=r"those of cifar_quick for images of 48 to 55 px, not of 32 px: .*--image-size"
    ):
        import_weights(path, variant="cifar_quick")
    checkpoint = import_weights(path, image_size=48)
    assert checkpoint.image_size == 48 and checkpoint.preprocessing.image_size == 55


def test_weights_that_fit_nothing_name_the_nearest_network(tmp_path: Path) -> None:
    wrong = state()
    wrong["features.3.weight"] = torch.zeros(1).expand(192, 64, 3, 3)
    del wrong["classifier.4.bias"]
    with pytest.raises(UserError) as caught:
        import_weights(saved(tmp_path / "w.pth", wrong))
    assert "conv2.weight is 192 x 64 x 3 x 3 instead of 192 x 64 x 5 x 5; fc7.bias is missing" in str(caught.value)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(32).to_sparse(), "is sparse_coo; only dense real numbers are read"),
        (torch.zeros(32, dtype=torch.complex64), "is complex64; only dense real numbers are read"),
    ],
)
def test_tensors_that_are_no_plain_numbers_are_refused(tensor, message, tmp_path: Path) -> None:
    contents = {**create_model("cifar_quick").state_dict(), "conv1.bias": tensor}
    with pytest.raises(UserError, match=message):
        import_weights(saved(tmp_path / "q.pt", contents))


def test_a_tensor_that_is_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"conv1\.weight of w\.pth repeats its numbers"):
        import_weights(saved(tmp_path / "w.pth", state()))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(UserError, match=r"pipe\.pth is no plain file"):
        import_weights(tmp_path / "pipe.pth")


def test_half_precision_becomes_float32_and_broken_numbers_are_said(tmp_path: Path) -> None:
    contents = {name: value.bfloat16() for name, value in create_model("cifar_quick").state_dict().items()}
    contents["fc10.bias"][0] = float("nan")
    checkpoint = import_weights(saved(tmp_path / "q.pt", contents))
    assert {value.dtype for value in checkpoint.model_state.values()} == {torch.float32}
    assert any("not finite are in fc10.bias" in note for note in checkpoint.imported["notes"])


def test_wrappers_are_taken_off_in_the_middle_too() -> None:
    plain, before = unwrapped({"a.features.module.0.weight": 1, "a.classifier._orig_mod.1.weight": 2})
    assert plain == {"features.0.weight": 1, "classifier.1.weight": 2}
    assert before["features.0.weight"] == "a.features.module.0.weight"
