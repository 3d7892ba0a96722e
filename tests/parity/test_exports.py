"""Exported programs beside the networks they were made of, run by ONNX Runtime and by torch without this package."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from export_stand_ins import EVERYTHING, small_checkpoint

import alexnet
from alexnet.data.resample import to_square
from alexnet.errors import RunError
from alexnet.evaluation.inputs import open_inputs
from alexnet.exporting import native_norm, program
from alexnet.exporting.verification import drawn_photographs
from alexnet.models import ARCHITECTURES, build_network
from alexnet.models.architecture import BatchNorm, Dropout, ResponseNorm, SpatialNorm
from alexnet.ops.response_norm import response_norm_reference
from alexnet.training.checkpoint import build_model

LIMIT = 1e-4
ROOT = Path(__file__).resolve().parents[2]
_drawn = {}


@pytest.fixture(autouse=True)
def _photographs_drawn_once(monkeypatch):
    def draw(size):
        if size not in _drawn:
            _drawn[size] = drawn_photographs(size)
        return _drawn[size]

    monkeypatch.setattr(program, "drawn_photographs", draw)


def session_of(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_every_variant_exports_to_onnx_with_one_lrn_node_a_norm(name, tmp_path):
    checkpoint = small_checkpoint(name)
    report = alexnet.export(checkpoint, tmp_path / "net.onnx", logits=True)
    assert report.verification.largest < 1e-5 and report.verification.batch_sizes == (1, 3, 64)
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    counts = Counter(node.op_type for node in model.graph.node)
    layers = checkpoint.architecture.layers
    assert counts["LRN"] == sum(isinstance(layer, ResponseNorm) for layer in layers)
    assert counts["Pow"] == sum(isinstance(layer, SpatialNorm) for layer in layers)
    # Layers are found under their own names, and so are their outputs; the last one's is the model's.
    folded = {layer.name for layer, following in pairwise(layers) if isinstance(following, BatchNorm)}
    wanted = [layer.name for layer in layers if not isinstance(layer, Dropout) and layer.name not in folded]
    assert set(wanted) <= {node.name for node in model.graph.node}
    assert set(wanted[:-1]) <= {output for node in model.graph.node for output in node.output}


@pytest.mark.parametrize("name", ["as_run", "cifar_11pct"])
def test_variants_export_to_a_program_of_torch(name, tmp_path):
    report = alexnet.export(small_checkpoint(name), tmp_path / "net.pt2", logits=True)
    assert report.verification.largest < 1e-5
    nodes = torch.export.load(tmp_path / "net.pt2").graph.nodes
    called = {str(node.target) for node in nodes if node.op == "call_function"}
    assert called and not [target for target in called if "alexnet" in target]


@pytest.mark.parametrize(
    ("suffix", "weights"), [("onnx", "float16"), ("onnx", "int8"), ("pt2", "float32"), ("pt2", "int8")]
)
def test_every_kind_of_layer(suffix, weights, tmp_path):
    checkpoint = small_checkpoint(EVERYTHING)
    report = alexnet.export(checkpoint, tmp_path / f"net.{suffix}", weights=weights, logits=True)
    assert report.verification.largest < 1e-5
    assert report.num_bytes == (tmp_path / f"net.{suffix}").stat().st_size
    assert str(ROOT).encode() not in (tmp_path / f"net.{suffix}").read_bytes(), "a path of this machine is in the file"
    if suffix == "onnx":
        assert report.notes == [
            "norm1: one LRN node each.",
            "norm2: in plain operations, since its window is of even size, which no LRN node has.",
            "cnorm2: in plain operations, since its window lies within a map, which no LRN node has.",
        ]
        assert report.details["operators"]["LRN"] == 1


def test_probabilities_are_those_of_predict(tmp_path):
    """Past all of this package's own comparison: the file run by hand, on images that `predict` is given too."""
    checkpoint = small_checkpoint("caffe")
    alexnet.export(checkpoint, tmp_path / "net.onnx")
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (5, 9, 9, 3), dtype=np.uint8)
    images = [to_square(image, checkpoint.preprocessing.image_size) for image in coarse]
    (found,) = session_of(tmp_path / "net.onnx").run(None, {"images": np.stack(images)})
    for row, prediction in zip(found, alexnet.predict(checkpoint, images, top=7), strict=True):
        guesses = {guess.class_id: guess.probability for guess in prediction.guesses}
        assert row == pytest.approx([guesses[each] for each in checkpoint.classes], abs=LIMIT)
        assert row.argmax() == checkpoint.classes.index(prediction.guesses[0].class_id)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of torch about itself
@pytest.mark.parametrize(("convention", "towers"), [("mean", 1), ("sum", 2)])
def test_an_lrn_node_is_the_formula(convention, towers, tmp_path):
    record = ResponseNorm("norm", size=5, alpha=0.3, beta=0.75, k=2.0, alpha_convention=convention, towers=towers)
    norm = native_norm.NativeNorm(record).eval()
    exported = torch.onnx.export(
        norm,
        (torch.randn(2, 12, 3, 4),),
        dynamo=True,
        verbose=False,
        opset_version=18,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        custom_translation_table=native_norm.translations(),
    )
    exported.save(tmp_path / "norm.onnx")
    maps = torch.randn(3, 12, 3, 4) * 3
    expected = response_norm_reference(
        maps.double(), 5, 0.3, 0.75, 2.0, alpha_convention=convention, towers=towers
    ).numpy()
    session = session_of(tmp_path / "norm.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: maps.numpy()})
    assert np.abs(found - expected).max() < 1e-6
    assert np.abs(norm(maps).numpy() - expected).max() < 1e-6


def test_a_wrong_file_is_not_kept(tmp_path, monkeypatch):
    """The mistake that is easily made: the record's alpha in a node that divides it by the window."""
    monkeypatch.setattr(
        native_norm,
        "norm_across_maps",
        lambda size, alpha, beta, k, **_: native_norm_of_scale(size, alpha / size / size, beta, k),
    )
    target = tmp_path / "net.onnx"
    target.write_bytes(b"what was there")
    with pytest.raises(RunError, match="does not compute what the network does"):
        alexnet.export(small_checkpoint("caffe"), target)
    assert target.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [target]


def native_norm_of_scale(size, scale, beta, k):
    from alexnet.ops.chunked_norm import Norm

    return Norm(size, scale, beta, k, 1)


def test_what_the_file_says_about_itself(tmp_path):
    checkpoint = small_checkpoint("cifar_quick")
    alexnet.export(checkpoint, tmp_path / "net.onnx", weights="int8")
    alexnet.export(checkpoint, tmp_path / "net.pt2", weights="int8")
    session = session_of(tmp_path / "net.onnx")
    about = session.get_modelmeta().custom_metadata_map
    extra = {"alexnet.json": ""}
    torch.export.load(tmp_path / "net.pt2", extra_files=extra)
    in_program = json.loads(extra["alexnet.json"])
    assert {key: value if isinstance(in_program[key], str) else json.loads(value) for key, value in about.items()} == (
        in_program
    )
    assert in_program["class_names"] == list(checkpoint.class_names)
    assert in_program["classes"] == list(checkpoint.classes)
    assert in_program["metrics"]["views"] == "ten_crop"
    assert in_program["weights"] == "int8" and in_program["model"] == "cifar_quick"
    (images,) = session.get_inputs()
    assert (images.name, images.type) == ("images", "tensor(uint8)")
    assert images.shape == in_program["input"]["shape"] == ["batch", 37, 37, 3]


WITHOUT_THIS_PACKAGE = """
import sys
sys.modules["alexnet"] = None  # any import of it fails
import numpy as np, torch
program = torch.export.load(sys.argv[1])
(probabilities,) = program.module()(torch.from_numpy(np.load(sys.argv[2])))
np.save(sys.argv[3], probabilities.numpy())
"""


def test_a_program_of_torch_runs_without_this_package(tmp_path):
    checkpoint = small_checkpoint("as_run")
    alexnet.export(checkpoint, tmp_path / "net.pt2")
    side, crop = checkpoint.preprocessing.image_size, checkpoint.preprocessing.crop_size
    squares = drawn_photographs(side).squares[:5]
    np.save(tmp_path / "in.npy", squares)
    arguments = [str(tmp_path / name) for name in ("net.pt2", "in.npy", "out.npy")]
    subprocess.run([sys.executable, "-c", WITHOUT_THIS_PACKAGE, *arguments], check=True, timeout=120)
    start = (side - crop) // 2
    crops = torch.from_numpy(squares[:, start : start + crop, start : start + crop].copy())
    expected = build_model(checkpoint)(checkpoint.preprocessing.normalize(crops)).softmax(1)
    assert np.abs(np.load(tmp_path / "out.npy") - expected.detach().numpy()).max() < LIMIT


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_the_whole_network_on_real_photographs(suffix, tmp_path, data_folder):
    """All 60,965,224 parameters, in batches of 1, 3 and 64."""
    photographs = data_folder / "imagenet-photos"
    if not photographs.is_dir():
        pytest.skip(f"no real photographs: looked for {photographs}")
    small = small_checkpoint("as_run", image_size=224)
    network = build_network("as_run", 1000)
    names = tuple(str(number) for number in range(1000))
    checkpoint = replace(
        small,
        architecture=network.architecture,
        num_classes=1000,
        classes=names,
        class_names=names,
        model_state=network.state_dict(),
    )
    path = tmp_path / f"net.{suffix}"
    report = alexnet.export(checkpoint, path, logits=True, images=[photographs])
    result = report.verification
    assert result.images.startswith("40 images of") and result.batch_sizes == (1, 3, 64)
    assert max(result.probabilities, result.log_probabilities, result.logits) < LIMIT
    if suffix == "onnx":
        # Once more past the package's own comparison, against the layers one by one in plain torch.
        pixels = [to_square(image.read(), 229) for image in list(open_inputs([photographs]))[:3]]
        outputs = session_of(path).run(["logits"], {"images": np.stack(pixels)})[0]
        crops = torch.from_numpy(np.stack(pixels)[:, 2:226, 2:226].copy())
        model = build_model(checkpoint)
        with torch.inference_mode():
            expected = model.activations(checkpoint.preprocessing.normalize(crops))["fc8"].numpy()
        assert np.abs(outputs - expected).max() < LIMIT
