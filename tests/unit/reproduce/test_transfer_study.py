"""The study of transfer on a few drawn images: what is written, what is trained, what is reported."""

import pytest
from PIL import Image

import alexnet.training.run as run_module
from alexnet.config_io import load_recipe
from alexnet.errors import UserError
from alexnet.reporting.progress import Progress
from alexnet.reproduce import transfer
from alexnet.reproduce.workbench import Workbench

SHORT = ("train.epochs=1", "train.min_steps=2", "schedule.warmup_epochs=0", "runtime.num_threads=1")


@pytest.fixture
def shapes(tmp_path):
    """Four classes of 20 px, 6 training and 2 validation images of each."""
    for split, count in (("train", 6), ("val", 2)):
        for number, name in enumerate(("cone", "cube", "disc", "star")):
            (tmp_path / "shapes" / split / name).mkdir(parents=True)
            for index in range(count):
                color = (40 * number + index, 200 - 40 * number, 100)
                Image.new("RGB", (20, 20), color).save(tmp_path / "shapes" / split / name / f"{index}.png")
    return tmp_path / "shapes"


def bench_on(data, folder, seeds=(0, 1)):
    folder.mkdir(exist_ok=True)
    return Workbench(folder, str(data), seeds, (), "small", Progress("silent"))


def test_every_other_class_goes_to_the_first_training(shapes, tmp_path):
    bench = bench_on(shapes, tmp_path / "study")
    sets = transfer._write_sets(bench)
    files = sorted(str(path.relative_to(bench.folder / "images")) for path in sets.before.glob("*/*/*.png"))
    assert len(files) == 16 and all("cone" in name or "disc" in name for name in files)
    few = sets.few[5]
    assert len(list((few / "train" / "cube").iterdir())) == 5, "at most so many a class"
    assert len(list((few / "val" / "star").iterdir())) == 2, "all of them"
    assert sets.classes == (["cone", "disc"], ["cube", "star"])
    with Image.open(few / "train" / "cube" / "000006.png") as image:
        assert image.getpixel((0, 0)) == (40, 160, 100)


def test_the_images_of_another_data_set_are_not_taken(shapes, tmp_path):
    transfer._write_sets(bench_on(shapes, tmp_path / "study"))
    transfer._write_sets(bench_on(shapes, tmp_path / "study"))  # the same once more
    (shapes / "train" / "cube" / "0.png").unlink()
    with pytest.raises(UserError, match="another data set"):
        transfer._write_sets(bench_on(shapes, tmp_path / "study"))


def test_too_few_images_of_a_class_are_refused(shapes, tmp_path):
    for index in range(4):
        (shapes / "train" / "star" / f"{index}.png").unlink()
    with pytest.raises(UserError, match="a class of 2 training images; the study takes up to 5 of each"):
        transfer._write_sets(bench_on(shapes, tmp_path / "study"))


def test_an_image_that_cannot_be_read_is_named(shapes, tmp_path):
    (shapes / "train" / "cube" / "3.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"train image train/cube/3\.png of .* cannot be read"):
        transfer._write_sets(bench_on(shapes, tmp_path / "study"))


def test_too_few_classes_are_refused(tmp_path):
    for name in ("cube", "disc"):
        (tmp_path / "two" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (20, 20), (index, 0, 0)).save(tmp_path / "two" / name / f"{index}.png")
    with pytest.raises(UserError, match="at least two and two others"):
        transfer._write_sets(bench_on(tmp_path / "two", tmp_path / "study"))


@pytest.mark.slow
def test_three_ways_of_training_are_compared_seed_by_seed(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "write_report", lambda folder: folder / "report.html")
    monkeypatch.setattr(transfer, "_COMMON", (*transfer._COMMON, *SHORT))
    monkeypatch.setitem(transfer._FIRST_EPOCHS, "small", (1, 1))
    monkeypatch.setitem(transfer._RATES, "small", (1e-4, 1e-3))
    bench = bench_on(shapes, tmp_path / "study")
    outcome = transfer.run(bench)
    scratch, transferred, last, gain = (row.values for row in outcome.rows)
    assert set(scratch) == set(transferred) == set(last) == {0, 1}
    assert gain == {seed: scratch[seed] - transferred[seed] for seed in (0, 1)}
    assert (bench.folder / outcome.figures[0]).is_file()
    assert "4 images of 2 classes" in outcome.rows[0].protocol
    begun = load_recipe(bench.run_folder("transferred-5", 1) / "config.toml")
    assert begun.model.init == str(bench.run_folder("before", 1) / "checkpoints" / "last.pt")
    assert begun.model.name == "cifar_quick" and begun.data.image_size == 32
    assert load_recipe(bench.run_folder("last-layer-5", 0) / "config.toml").optimizer.copied_lr_factor == 0
    tried = sorted(path.name for path in (bench.folder / "runs" / "scratch-5").iterdir())
    assert tried == ["lr-0.0001", "lr-0.001"], "the first seed has tried both"
    chosen = [name for name in tried if bench.run_folder(f"scratch-5/{name}", 1).is_dir()]
    assert len(chosen) == 1 and f"{chosen[0].removeprefix('lr-')} for 5 images a class" in outcome.notes[1]
