import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from seeing_stand_ins import give, write_checkpoint, write_data_set

import alexnet
from alexnet.data.shapes import CLASSES, draw_shape
from alexnet.errors import UserError
from alexnet.evaluation.feature_files import read_table
from alexnet.evaluation.views import view_crops
from alexnet.training.checkpoint import build_model, load_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("network") / "small.pt")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data") / "shapes")


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index in range(3):
        Image.fromarray(draw_shape("val", index, 28)).save(folder / f"{index}.png")
    return folder


def by_hand(checkpoint, pixels, layer, views="center"):
    """The mean over the views of one image's outputs, one forward pass a view."""
    model = build_model(load_checkpoint(checkpoint))
    outputs = []
    for view in view_crops(views, 28, 24):
        crop = pixels[view.top : view.top + 24, view.left : view.left + 24]
        crop = crop[:, ::-1] if view.flipped else crop
        inputs = torch.from_numpy(crop.astype(np.float32) - 120).permute(2, 0, 1)[None]
        with torch.no_grad():
            outputs.append(model.activations(inputs, [layer])[layer].flatten())
    return torch.stack(outputs).mean(dim=0).numpy()


@pytest.mark.parametrize(("layer", "views"), [("relu7", "center"), ("conv2", "flip"), ("fc8", "ten_crop")])
def test_features_are_the_mean_over_the_views(checkpoint, photographs, layer, views):
    table = alexnet.features(checkpoint, photographs, layer=layer, views=views, batch_size=7)
    assert len(table) == 3 and table.about["layer"] == layer and table.about["views"] == views
    assert np.prod(table.about["shape"]) == table.values.shape[1]
    for index in range(3):
        expected = by_hand(checkpoint, draw_shape("val", index, 28), layer, views)
        assert table.values[index] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_a_data_set_is_written_with_both_splits_and_its_classes(checkpoint, shapes, tmp_path, capsys):
    path = tmp_path / "shapes.npz"
    assert give("features", checkpoint, shapes, "--output", path, "--json", "--quiet") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["num_images"] == 60 and record["layer"] == "relu7" and record["width"] == 16
    table = read_table(path)
    # All training images, though the recipe took only five of them.
    assert [table.splits.count(split) for split in ("train", "val")] == [20, 40]
    assert table.classes == tuple(sorted(CLASSES)) and table.class_name(20) == "blue_disk"
    assert table.about["images"] == [str(shapes)] and table.about["model"] == "small"
    row = table.keys.index("val/dotted_square/013.png")
    assert table.class_name(row) == "dotted_square" and table.splits[row] == "val"
    expected = by_hand(checkpoint, draw_shape("val", 13, 28), "relu7")
    assert table.values[row] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_what_is_written_is_what_is_returned(checkpoint, shapes, tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra parquet)")
    in_memory = alexnet.features(checkpoint, shapes, split="val", precision="float16")
    for kind in ("npz", "parquet"):
        written = alexnet.features(
            checkpoint, shapes, split="val", precision="float16", output=tmp_path / f"f.{kind}", batch_size=16
        )
        assert np.allclose(written.values, in_memory.values, rtol=2e-3)
        assert (written.keys, written.splits) == (in_memory.keys, in_memory.splits)
        assert np.array_equal(written.labels, in_memory.labels)


def test_unreadable_images_are_named_and_left_out(checkpoint, photographs, tmp_path, capsys):
    (photographs / "1.png").write_bytes(b"no image")
    path = tmp_path / "f.npz"
    assert give("features", checkpoint, photographs, "--output", path) == 0
    told = capsys.readouterr()
    assert "1.png is unreadable and left out: not an image in a known format." in told.err
    assert "relu7 (16) of 2 images, centre crops, float32" in told.out and "1 images could not be read" in told.out
    assert [key.rpartition("/")[2] for key in read_table(path).keys] == ["0.png", "2.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--layer", "fc9"], r"small has no layer 'fc9'; its layers are conv1, relu1"),
        (["--views", "nine"], r"the views are center, flip, ten_crop, not 'nine'"),
        (["--precision", "int8"], r"the precision of features is float32 or float16, not 'int8'"),
        (["--split", "test"], r"the split is one of train, val, all, not 'test'"),
    ],
)
def test_mistakes_are_told_and_leave_no_file(checkpoint, tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        give("features", checkpoint, "shapes:28", "--output", tmp_path / "f.npz", *words)
    assert list(tmp_path.iterdir()) == []


def test_without_pyarrow_the_extra_is_named(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'alexnet\[parquet\]'"):
        give("features", checkpoint, "shapes:28", "--output", tmp_path / "f.parquet")


# ---------------------------------------------------------------- neighbours


def test_the_nearest_of_a_data_set_are_found_and_drawn(checkpoint, shapes, photographs, tmp_path, capsys):
    picture = tmp_path / "nearest.png"
    given = [photographs / "0.png", photographs / "2.png"]
    words = ["--among", shapes, "--count", 3, "--output", picture, "--json", "--quiet"]
    assert give("neighbours", checkpoint, *given, *words) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["num_images"] == 60 and record["layer"] == "relu7"
    table = alexnet.features(checkpoint, shapes)
    for query, index in zip(record["queries"], (0, 2), strict=True):
        own = by_hand(checkpoint, draw_shape("val", index, 28), "relu7")
        distances = np.linalg.norm(table.values.astype(np.float64) - own, axis=1)
        found = [entry["distance"] for entry in query["neighbours"]]
        assert found == pytest.approx(sorted(distances)[:3], abs=1e-2)
        # The photograph is itself one of the validation images.
        nearest = query["neighbours"][0]
        assert nearest["key"] == f"val/{CLASSES[index]}/{index:03}.png" and nearest["class"] == CLASSES[index]
    with Image.open(picture) as image:
        assert image.format == "PNG" and image.width > 700
    # The same from a file of features.
    path = tmp_path / "f.npz"
    give("features", checkpoint, shapes, "--output", path, "--quiet")
    capsys.readouterr()
    words[1] = path
    assert give("neighbours", checkpoint, *given, *words) == 0
    again = json.loads(capsys.readouterr().out)
    for one, other in zip(record["queries"], again["queries"], strict=True):
        assert [entry["key"] for entry in one["neighbours"]] == [entry["key"] for entry in other["neighbours"]]


def test_a_query_that_cannot_be_read_is_told_and_the_others_go_on(checkpoint, shapes, photographs, capsys):
    (photographs / "1.png").write_bytes(b"no image")
    assert give("neighbours", checkpoint, photographs, "--among", shapes, "--split", "val", "--quiet") == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: ") and "1.png: not an image in a known format" in told.err
    assert "Nearest of 40 images by relu7" in told.out and "0.png" in told.out and "2.png" in told.out


def test_features_of_another_network_or_layer_are_refused(checkpoint, photographs, tmp_path):
    path = tmp_path / "f.npz"
    give("features", checkpoint, photographs, "--output", path, "--quiet")
    other = write_checkpoint(tmp_path / "other.pt", seed=1)
    with pytest.raises(UserError, match=r"f\.npz were made by another network \(small after step 7\); make them again"):
        give("neighbours", other, photographs, "--among", path)
    with pytest.raises(UserError, match="has features of relu7, not of fc8; leave out --layer"):
        give("neighbours", checkpoint, photographs, "--among", path, "--layer", "fc8")
    with pytest.raises(UserError, match="--split needs a data set"):
        give("neighbours", checkpoint, photographs, "--among", path, "--split", "val")
    photographs.rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"the images of .*f\.npz cannot be drawn|is no longer among the images"):
        give("neighbours", checkpoint, tmp_path / "moved", "--among", path, "--output", tmp_path / "x.png")
