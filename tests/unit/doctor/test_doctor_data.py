"""Data sets that are broken in the ways people break them, and sound ones."""

import shutil

import numpy as np
import pytest
from PIL import Image

from alexnet.config import DataConfig
from alexnet.data.prepare import Request, prepare_data_set
from alexnet.data.remote_files import FsspecFiles
from alexnet.data.sources import open_source
from alexnet.doctor import duplicates
from alexnet.doctor.data import inspect_data
from alexnet.doctor.examine import sort_things
from alexnet.doctor.findings import is_healthy
from alexnet.reporting.progress import Progress


@pytest.fixture
def look():
    return lambda path, full=False: inspect_data(str(path), DataConfig(), full=full)[1]


@pytest.mark.parametrize("spec", ["digits", "shapes", "shapes:48"])
def test_built_in_data_is_sound(look, spec):
    assert look(spec) == []


@pytest.mark.parametrize("splits", [True, False])
def test_sound_folders_are_sound(make_data, sound, look, splits, ids):
    folders = sound if splits else {"cat": 24, "dog": 24}
    assert set(ids(look(make_data(folders)))) <= {"small-validation"}


def test_shapes_as_folders_are_sound(tmp_path, look):
    source = open_source("shapes:32", DataConfig())
    for split, count in ((source.train, 500), (source.val, 200)):
        for index in range(count):
            folder = tmp_path / split.name / source.classes[split.labels[index]]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(split.read(index)).save(folder / f"{index}.png")
    assert look(tmp_path) == []


@pytest.mark.parametrize(
    ("folders", "expected", "severity", "words"),
    [
        ({"train/a": 4, "train/b": 4, "val": 5}, "flat-validation", "problem", "All 5 validation images"),
        ({"train/a": 4, "train/b": 4, "val/images": 5}, "flat-validation", "problem", "val/images"),
        ({"train/a": 4, "train/b": 4, "test": 5}, "flat-validation", "note", "held out instead"),
        ({".": 5}, "no-class-folders", "problem", "5 images and no class folders"),
        ({"photos/train/a": 4, "photos/train/b": 4}, "nested-too-deep", "problem", "nothing but photos"),
        ({"inner/a": 4, "inner/b": 4}, "nested-too-deep", "problem", "nothing but inner"),
        (
            {"train/train/a": 4, "train/train/b": 4, "train/c": 3, "val/a": 2},
            "split-inside-split",
            "problem",
            "train/train is a split inside",
        ),
        (
            {"train/a": 4, "train/b": 4, "val/a": 2, "val/b": 2, "val/train/a": 4, "val/train/b": 4},
            "split-inside-split",
            "problem",
            "val/train is a split inside",
        ),
        ({"train/a": 4, "train/b": 4, "val/a": 2, "val/B": 2}, "classes-only-in-val", "problem", "1 of 2 classes"),
        ({"train/a": 4, "train/b": 4, "val/a": 2}, "classes-missing-in-val", "warning", "1 of 2 classes"),
        ({"only": 5}, "one-class", "problem", "of one class, only"),
        ({"a": 4, "b": 4, "c": 0}, "empty-class", "warning", "1 class folders"),
        ({"a": 40, "b": 40, "c": 1}, "nearly-empty-class", "warning", "1 of 3 classes"),
        ({"a": 60, "b": 5}, "class-imbalance", "warning", "a has 54 training images (93% of all)"),
        ({"a": 4, "b": 4}, "few-images", "note", "at most 3 training"),
        ({str(i): 2 for i in range(11)}, "numbered-classes", "note", "numbers 0 to 10"),
        ({str(i): 2 for i in range(1, 121)}, "devkit-ids", "warning", "numbers 1 to 120"),
    ],
)
def test_broken_folders_are_named(make_data, look, folders, expected, severity, words):
    found = {item.id: item for item in look(make_data(folders, size=(20, 20)))}
    assert expected in found, found
    assert found[expected].severity == severity and words in found[expected].what
    if severity == "problem" and expected not in ("split-inside-split", "classes-only-in-val"):
        assert [item.id for item in found.values() if item.severity == "problem"] == [expected]


def test_the_name_in_other_letters_is_shown(make_data, look):
    findings = look(make_data({"train/a": 4, "train/b": 4, "val/a": 2, "val/B": 2}))
    assert findings[0].evidence == ("B (in train: b)",)


def test_the_list_with_the_labels_is_pointed_at(make_data, look):
    root = make_data({"train/a": 4, "train/b": 4, "val/images": 5})
    (root / "val" / "val_annotations.txt").write_text("000.png\ta\n")
    (finding,) = [item for item in look(root) if item.id == "flat-validation"]
    assert any("val_annotations.txt" in row for row in finding.evidence)


def test_thousand_numbers_look_like_devkit_ids(tmp_path, look):
    for label in range(1, 1001):
        folder = tmp_path / str(label)
        folder.mkdir()
        for name in "xy":
            (folder / f"{name}.jpg").write_bytes(f"{label}{name}".encode())
    (finding,) = [item for item in look(tmp_path) if item.id == "devkit-ids"]
    assert "ILSVRC's devkit ids" in finding.what
    assert "sorted as text: 1, 10, 100, 1000, 101" in finding.evidence[1]


def test_litter_and_other_files_are_notes(make_data, look, sound, ids):
    root = make_data(sound)
    (root / ".DS_Store").write_text("x")
    (root / "train" / "cat" / "Thumbs.db").write_text("x")
    (root / "train" / "cat" / "._000.png").write_text("x")
    (root / "readme.txt").write_text("x")
    findings = look(root)
    assert is_healthy(findings) and {"litter", "other-files"} <= set(ids(findings))
    (litter,) = [item for item in findings if item.id == "litter"]
    assert litter.what.startswith("3 files")


def test_images_that_are_not_read_are_named(make_data, look, sound, ids):
    root = make_data(sound)
    (root / "train" / "cat" / "phone.HEIC").write_text("x")
    shutil.copy(root / "train" / "cat" / "000.png", root / "train" / "loose.png")
    found = ids(look(root))
    assert found["unread-image-format"] == found["loose-images"] == "warning"


def test_what_cannot_be_opened_is_told_in_the_words_of_the_opening(tmp_path, look):
    (finding,) = look(tmp_path)
    assert finding.id == "data-refused" and "is empty" in finding.what


# ---------------------------------------------------------------- images


def pixels(seed=0, size=(40, 48), kind=np.uint8):
    return np.random.default_rng(seed).integers(0, 2 ** (8 * np.dtype(kind).itemsize) - 1, size, dtype=kind)


ODD = {
    "cmyk-images": lambda folder: Image.fromarray(pixels(1, (40, 48, 4)), "CMYK").save(folder / "odd.jpg"),
    "deep-images": lambda folder: Image.fromarray(pixels(1, kind=np.uint16)).save(folder / "odd.png"),
    "wrong-extension": lambda folder: Image.fromarray(pixels(1, (40, 48, 3))).save(folder / "odd.jpg", "PNG"),
    "animated-images": lambda folder: Image.fromarray(pixels(1)).save(
        folder / "odd.gif", save_all=True, append_images=[Image.fromarray(pixels(2))]
    ),
    "tiny-images": lambda folder: Image.fromarray(pixels(1, (8, 8, 3))).save(folder / "odd.png"),
    "extreme-aspect": lambda folder: Image.fromarray(pixels(1, (20, 300, 3))).save(folder / "odd.png"),
    "unreadable-images": lambda folder: (folder / "odd.jpg").write_bytes(b"\xff\xd8\xff nothing"),
}


@pytest.mark.filterwarnings("ignore:'mode' parameter")
@pytest.mark.parametrize("id", ODD)
def test_odd_images_are_named(make_data, look, sound, id):
    root = make_data(sound)
    ODD[id](root / "train" / "cat")
    (finding,) = [item for item in look(root) if item.id == id]
    assert any("train/cat/odd" in row for row in finding.evidence)
    notes = ("cmyk-images", "deep-images", "wrong-extension", "animated-images")
    expected = "problem" if id == "unreadable-images" else "note" if id in notes else "warning"
    assert finding.severity == expected


def test_a_sample_is_looked_at_and_all_on_request(make_data, look, sound, monkeypatch):
    root = make_data(sound)
    (root / "train" / "cat" / "005.png").write_bytes(b"no image")
    monkeypatch.setattr("alexnet.doctor.images.SAMPLE_SIZE", 4)
    assert not [item for item in look(root) if item.id == "unreadable-images"]
    (finding,) = [item for item in look(root, full=True) if item.id == "unreadable-images"]
    assert "1 of 48 train images" in finding.what


# ---------------------------------------------------------------- copies


def test_copies_across_splits_and_classes_are_named(make_data, look, sound, ids):
    root = make_data(sound)
    shutil.copy(root / "train" / "cat" / "003.png", root / "val" / "cat" / "copy.png")
    shutil.copy(root / "train" / "cat" / "004.png", root / "train" / "dog" / "copy.png")
    shutil.copy(root / "train" / "cat" / "006.png", root / "train" / "cat" / "copy.png")
    findings = look(root)
    found = ids(findings)
    assert found["duplicates-across-splits"] == "problem"  # one of 17 is more than a hundredth
    assert found["duplicates-across-classes"] == "warning" and found["duplicates-in-training"] == "note"
    (across,) = [item for item in findings if item.id == "duplicates-across-splits"]
    assert across.evidence == ("val/cat/copy.png = train/cat/003.png",) and "1 of 17" in across.what


def test_a_validation_set_taken_from_training_is_named(make_data, look, sound, ids):
    root = make_data(sound)
    shutil.rmtree(root / "val")
    for name in ("cat", "dog"):
        (root / "val" / name).mkdir(parents=True)
        for index in range(4):
            shutil.copy(root / "train" / name / f"{index:03}.png", root / "val" / name / f"v{index}.png")
    found = ids(look(root))
    assert found["validation-in-training"] == "problem" and "duplicates-across-splits" not in found


def test_a_cap_on_reading_is_told_and_full_lifts_it(make_data, look, sound, monkeypatch):
    root = make_data(sound)
    shutil.copy(root / "train" / "cat" / "003.png", root / "val" / "cat" / "copy.png")
    for index in range(12):  # pairs of one length that are no copies
        for split in ("train", "val"):
            (root / split / "cat" / f"z{index}.png").write_bytes(split[0].encode() * (50 + index))
    monkeypatch.setattr(duplicates, "MAX_HASHED", 6)
    ids_of_full = {item.id for item in look(root, full=True)}
    assert "duplicates-across-splits" in ids_of_full
    assert len(duplicates._hashed(root, list_splits(root), full=False)[0]) <= 12


def list_splits(root):
    source = open_source(str(root), DataConfig())
    return [source.train, source.val]


# ---------------------------------------------------------------- prepared sets


@pytest.fixture
def prepare(tmp_path):
    """prepare(folder) -> a prepared data set of squares of 32 pixels, in shards of ten."""

    def run(folder):
        with Progress("silent") as progress:
            request = Request(str(folder), tmp_path / "prepared", image_size=32, images_per_shard=10, num_workers=1)
            prepare_data_set(request, progress)
        return tmp_path / "prepared"

    return run


@pytest.fixture
def prepared(make_data, sound, prepare):
    return prepare(make_data(sound))


def test_a_sound_prepared_set_is_sound(prepared):
    facts, findings = inspect_data(str(prepared), DataConfig(), full=False)
    assert facts.classes == ("cat", "dog") and facts.image_size == 32 and facts.num_train == 48
    assert [item.id for item in findings] == ["small-validation"]


def test_an_unfinished_and_a_damaged_preparation_are_named(prepared, look, ids):
    shard = prepared / "train" / "000000.tar"
    size = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:600])
    (finding,) = [item for item in look(prepared) if item.severity == "problem"]
    assert finding.id == "prepared-damaged"
    assert finding.evidence == (f"train/000000.tar has 600 bytes, not {size:,}",)
    (prepared / "dataset.json").unlink()
    assert ids(look(prepared))["prepared-unfinished"] == "problem"


def test_a_prepared_set_that_cannot_be_opened_is_never_called_sound(prepared, look):
    (prepared / "train" / "index.npz").write_bytes(b"x")
    (finding,) = [item for item in look(prepared) if item.severity == "problem"]
    assert finding.id == "data-refused" and "index.npz is no index" in finding.what


def test_copies_in_a_prepared_set_are_found_by_the_index(make_data, sound, prepare, look, monkeypatch):
    root = make_data(sound)
    shutil.copy(root / "train" / "cat" / "003.png", root / "val" / "cat" / "copy.png")
    shutil.copy(root / "train" / "cat" / "004.png", root / "train" / "dog" / "copy.png")
    prepared = prepare(root)
    hashed, hash_pixels = [], duplicates._hash_pixels
    monkeypatch.setattr(duplicates, "_hash_pixels", lambda images: hashed.extend(images) or hash_pixels(images))
    found = {item.id: item for item in look(prepared)}
    assert (
        "1 of 17" in found["duplicates-across-splits"].what
        and "copy = " in found["duplicates-across-splits"].evidence[0]
    )
    assert "1 images" in found["duplicates-across-classes"].what and len(hashed) == 4


def test_a_prepared_set_on_the_network_is_looked_at_by_a_few_requests(prepared, look, ids, tmp_path, monkeypatch):
    memory = pytest.importorskip("fsspec").filesystem("memory")
    memory.put(str(prepared), "/doctor/set", recursive=True)
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("alexnet.doctor.images.SAMPLE_SIZE", 4)
    asked = []
    read = FsspecFiles.read
    monkeypatch.setattr(FsspecFiles, "read", lambda files, *part: asked.append(part) or read(files, *part))
    address = "memory://doctor/set"
    assert sort_things([address]).data == [address]
    assert ids(look(address)) == {"small-validation": "note"}
    assert len(asked) == 8 and not list((tmp_path / "cache").rglob("*.tar"))
