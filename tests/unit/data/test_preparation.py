"""Preparing: every layout of one set gives the same bytes; options, refusals, statistics, reading back."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from layouts_of_imagenet import WNIDS, WORDS, SmallImageNet, add, colour_of, write
from PIL import Image

from alexnet.commands.prepare import prepare
from alexnet.config import DataConfig
from alexnet.data.prepared import load_statistics, open_prepared, verify_prepared
from alexnet.data.sources import open_source
from alexnet.data.squares import load_images, to_square
from alexnet.data.statistics import compute_statistics
from alexnet.doctor.data import inspect_data
from alexnet.errors import RunError, UserError

LAYOUTS = (
    "archives", "sorted_folders", "flat_validation", "kaggle", "kaggle_zip", "tar_of_folders", "parquet", "webdataset",
    "table", "caffe_lists",
)  # fmt: skip
SMALL = {"image_size": 32, "images_per_shard": 10, "progress": "silent", "num_workers": 2}


def files_of(folder: Path) -> dict[str, str]:
    """The checksums of all files but dataset.json, which says where the data came from."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "dataset.json"
    }


def class_folders(root: Path, names: tuple[str, ...] = ("cat", "dog"), count: int = 12) -> Path:
    for label, name in enumerate(names):
        for i in range(count):
            pixels = np.random.RandomState(50 * label + i).randint(0, 256, (40, 50, 3), np.uint8)
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def imagenet() -> SmallImageNet:
    return SmallImageNet()


@pytest.fixture(scope="module")
def from_archives(imagenet: SmallImageNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archives")
    prepare(imagenet.archives(root / "source"), root / "prepared", **SMALL)
    return root / "prepared"


# ---------------------------------------------------------------- layouts and labels


def test_official_archives_have_every_label_right(from_archives: Path):
    source = open_prepared(from_archives)
    assert source.classes == tuple(sorted(WNIDS))
    assert source.class_names == tuple(WORDS[wnid].split(",")[0] for wnid in sorted(WNIDS))
    assert source.train is not None and (len(source.train), len(source.val)) == (24, 9)
    for split in (source.train, source.val):
        for i in range(len(split)):
            seen = split.read(i).reshape(-1, 3).mean(axis=0)
            wnid = source.classes[split.labels[i]]
            assert np.abs(seen - colour_of(wnid, WNIDS)).max() < 8, split.keys[i]
    assert all(
        key.startswith(source.classes[label]) for key, label in zip(source.train.keys, source.train.labels, strict=True)
    )
    assert sorted(source.val.keys) == list(source.val.keys) == [f"ILSVRC2012_val_{i:08d}" for i in range(1, 10)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_bytes(layout: str, imagenet: SmallImageNet, from_archives: Path, tmp_path: Path):
    if layout == "parquet":
        pytest.importorskip("pyarrow")
    record = prepare(getattr(imagenet, layout)(tmp_path / "source"), tmp_path / "prepared", **SMALL)
    assert files_of(tmp_path / "prepared") == files_of(from_archives)
    reference = json.loads((from_archives / "dataset.json").read_text())
    for key in ("classes", "class_names", "splits", "statistics", "skipped", "repaired"):
        assert record[key] == reference[key], key


def test_threads_do_not_change_the_bytes(from_archives: Path, tmp_path: Path):
    prepare(from_archives.parent / "source", tmp_path / "prepared", **{**SMALL, "num_workers": 0})
    assert files_of(tmp_path / "prepared") == files_of(from_archives)
    before = (from_archives / "dataset.json").read_bytes()
    assert (tmp_path / "prepared" / "dataset.json").read_bytes() == before, "no times, no paths of this machine"


def test_one_tar_a_class_is_the_release_of_all_classes(imagenet: SmallImageNet, tmp_path: Path):
    record = prepare(imagenet.class_tars(tmp_path / "winter"), tmp_path / "prepared", val_fraction=0.34, **SMALL)
    assert record["classes"] == sorted(WNIDS) and record["class_names"][0] == "tench"
    assert record["splits"]["train"]["class_counts"] == [4] * 4 and record["splits"]["val"]["class_counts"] == [2] * 4


def test_imagenet_2010_goes_by_the_same_code(imagenet: SmallImageNet, from_archives: Path, tmp_path: Path):
    root = imagenet.archives(tmp_path / "source")
    (root / "ILSVRC2012_img_train.tar").rename(root / "ILSVRC2010_images_train.tar")
    (root / "ILSVRC2012_img_val.tar").rename(root / "ILSVRC2010_images_val.tar")
    (root / "ILSVRC2012_devkit_t12.tar.gz").rename(root / "ILSVRC2010_devkit-1.0.tar.gz")
    record = prepare(root / "ILSVRC2010_images_train.tar", tmp_path / "prepared", **SMALL)
    assert record["name"] == "ILSVRC2010" and any("1,261,406" in note for note in record["notes"])
    assert files_of(tmp_path / "prepared") == files_of(from_archives)


def test_missing_labels_name_the_file_that_is_needed(imagenet: SmallImageNet, tmp_path: Path):
    root = imagenet.archives(tmp_path / "source")
    (root / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    with pytest.raises(UserError, match=r"Put ILSVRC2012_devkit_t12\.tar\.gz .* into .*source"):
        prepare(root, tmp_path / "prepared", **SMALL)
    write(root / "LOC_val_solution.csv", b"ImageId,PredictionString\nILSVRC2012_val_00000001,n02100735 1 2 3 4\n")
    with pytest.raises(UserError, match=r"no label for 8 of the 9 validation images"):
        prepare(root, tmp_path / "prepared", **SMALL)


def test_official_training_images_alone_are_not_split_unasked(imagenet: SmallImageNet, tmp_path: Path):
    root = imagenet.archives(tmp_path / "source")
    (root / "ILSVRC2012_img_val.tar").unlink()
    with pytest.raises(UserError, match=r"has no ILSVRC2012_img_val\.tar.*--val-fraction 0\.1"):
        prepare(root, tmp_path / "prepared", **SMALL)
    record = prepare(root, tmp_path / "prepared", val_fraction=0.2, **SMALL)
    assert record["splits"]["val"]["num_images"] == 4


def test_wrong_counts_and_checksums_are_explained(from_archives: Path):
    notes = " ".join(json.loads((from_archives / "dataset.json").read_text())["notes"])
    assert "24 training images, 1,281,143 fewer than the 1,281,167 of the official set" in notes
    assert "9 validation images, 49,991 fewer than the 50,000" in notes
    assert "ILSVRC2012_img_train.tar is not the official file: it has" in notes
    assert "ILSVRC2012_devkit_t12.tar.gz is not the official file: its md5 is" in notes


def test_an_official_file_that_was_damaged_is_refused(imagenet: SmallImageNet, tmp_path: Path, monkeypatch):
    from alexnet.data.originals.imagenet import OFFICIAL_FILES, OfficialFile

    root = imagenet.archives(tmp_path / "source")
    size = (root / "ILSVRC2012_img_val.tar").stat().st_size
    monkeypatch.setitem(OFFICIAL_FILES, "ILSVRC2012_img_val.tar", OfficialFile(size, "0" * 32))
    with pytest.raises(UserError, match=r"ILSVRC2012_img_val\.tar is not the official file.*right length.*damaged"):
        prepare(root, tmp_path / "prepared", **SMALL)
    prepare(root, tmp_path / "prepared", allow_damaged=True, **SMALL)


def test_a_finished_set_does_not_have_its_archives_read_for_checksums_again(
    imagenet: SmallImageNet, tmp_path: Path, monkeypatch
):
    root = imagenet.archives(tmp_path / "source")
    first = prepare(root, tmp_path / "out", **SMALL)
    monkeypatch.setattr("alexnet.data.downloads._digest", lambda *arguments: pytest.fail("150 GB are read"))
    assert prepare(root, tmp_path / "out", **SMALL) == first


def test_a_tar_that_is_cut_off_is_refused_unless_asked_for(imagenet: SmallImageNet, tmp_path: Path):
    root = imagenet.archives(tmp_path / "source")
    path = root / "ILSVRC2012_img_train.tar"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"ILSVRC2012_img_train\.tar is cut off in .*--allow-damaged"):
        prepare(root, tmp_path / "prepared", **SMALL)
    record = prepare(root, tmp_path / "prepared", allow_damaged=True, **SMALL)
    assert 0 < record["splits"]["train"]["num_images"] < 24
    assert any("cut off" in note for note in record["notes"])


def test_a_cut_that_leaves_one_class_is_told_as_a_cut(tmp_path: Path):
    with tarfile.open(tmp_path / "pets.tar", "w") as tar:
        tar.add(class_folders(tmp_path / "pets"), "pets")
    os.truncate(tmp_path / "pets.tar", 30_000)
    with pytest.raises(UserError, match=r"pets\.tar is cut off in .*Download it again.*of one class only"):
        prepare(tmp_path / "pets.tar", tmp_path / "out", **SMALL)


def test_a_pipe_and_an_empty_name_are_no_source(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(UserError, match="is no file and no folder"):
        prepare(tmp_path / "pipe.tar", tmp_path / "out", **SMALL)
    with pytest.raises(UserError, match="SOURCE is empty"):
        prepare("", tmp_path / "out", **SMALL)


def test_hostile_members_never_leave_the_archive(tmp_path: Path):
    path = tmp_path / "pets.tar"
    folder = class_folders(tmp_path / "pets")
    image = (folder / "cat" / "0.png").read_bytes()
    with tarfile.open(path, "w") as tar:
        tar.add(folder, "pets")
        add(tar, "pets/cat/../../../../escaped.png", image)
        link = tarfile.TarInfo("pets/cat/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    record = prepare(path, tmp_path / "prepared", **SMALL)
    assert sum(part["num_images"] for part in record["splits"].values()) == 24
    assert [item["reason"] for item in record["skipped"]] == [
        "its name leads out of the archive",
        "it is a link, not a file",
    ]
    assert not list(tmp_path.rglob("escaped*")) and any("wary" in note for note in record["notes"])


# ---------------------------------------------------------------- other sets


def test_class_folders_without_a_validation_split_get_one_by_content(tmp_path: Path):
    folder = class_folders(tmp_path / "pets")
    record = prepare(folder, tmp_path / "prepared", **SMALL)
    assert record["classes"] == ["cat", "dog"] and record["splits"]["val"]["class_counts"] == [1, 1]
    source = open_source(str(tmp_path / "prepared"), DataConfig(image_size=32))
    assert source.kind == "prepared" and source.train is not None
    by_key = {f"{name}_{i}": folder / name / f"{i}.png" for name in ("cat", "dog") for i in range(12)}
    for split in (source.train, source.val):
        for i, key in enumerate(split.keys):
            expected = to_square(np.array(Image.open(by_key[key])), 32).astype(int)
            # Noise is the worst that can happen to JPEG; the same picture is still near.
            assert np.abs(split.read(i).astype(int) - expected).mean() < 30
    assert len({*source.train.keys, *source.val.keys}) == 24


def test_images_named_for_their_wnid_need_no_folders(tmp_path: Path):
    for wnid in WNIDS[:2]:
        for i in range(3):
            write(
                tmp_path / "photos" / f"{wnid}_{i}_name.JPEG", SmallImageNet((wnid,), 1).train[wnid][f"{wnid}_7.JPEG"]
            )
    with pytest.raises(UserError, match="only one distinct image"):
        prepare(tmp_path / "photos", tmp_path / "prepared", **SMALL)


def test_a_csv_with_columns_of_its_own_names_the_line_that_is_wrong(tmp_path: Path):
    folder = class_folders(tmp_path / "pets")
    lines = ["filename;category;is_valid"] + [
        f"{name}/{i};{name};{i == 0}" for name in ("cat", "dog") for i in range(12)
    ]
    write(folder / "list.csv", "\n".join(lines).encode())
    record = prepare(folder / "list.csv", tmp_path / "prepared", **SMALL)
    assert record["splits"]["val"]["class_counts"] == [1, 1] and record["splits"]["train"]["class_counts"] == [11, 11]
    write(folder / "bad.csv", "\n".join([*lines, "cat/3;"]).encode())
    with pytest.raises(UserError, match=r"Line 26 of .*bad\.csv has no path or no label"):
        prepare(folder / "bad.csv", tmp_path / "other", **SMALL)
    write(folder / "bad.csv", "\n".join([*lines, "cat/3;dog;False"]).encode())
    with pytest.raises(UserError, match=r"lists cat/3 in the lines 5 and 26"):
        prepare(folder / "bad.csv", tmp_path / "other", **SMALL)
    write(folder / "bad.csv", b"a;b\n1;2\n")
    with pytest.raises(UserError, match="has the columns a, b; which are the paths"):
        prepare(folder / "bad.csv", tmp_path / "other", **SMALL)


def test_without_pyarrow_parquet_files_say_what_to_install(tmp_path: Path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    write(tmp_path / "data" / "train-00000-of-00001.parquet", b"PAR1")
    with pytest.raises(UserError, match=r"pip install 'alexnet\[parquet\]'"):
        prepare(tmp_path / "data", tmp_path / "prepared", **SMALL)


def test_a_damaged_parquet_file_is_refused(tmp_path: Path):
    pytest.importorskip("pyarrow")
    write(tmp_path / "data" / "train-00000-of-00001.parquet", b"PAR1 and nothing PAR1")
    with pytest.raises(UserError, match="cannot be read as a parquet file"):
        prepare(tmp_path / "data", tmp_path / "prepared", **SMALL)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tar.xz", b"", "cannot be read in place"),
        ("a.pdf", b"", "none of the files that can be prepared"),
        ("a.zip", b"PK\3\4", "cannot be read as a zip archive"),
        ("a.tar", b"x" * 2000, "no tar archive"),
        ("a.csv", b"", "is empty"),
    ],
)
def test_what_cannot_be_prepared_is_said_with_the_remedy(name: str, content: bytes, message: str, tmp_path: Path):
    write(tmp_path / name, content)
    with pytest.raises(UserError, match=message):
        prepare(tmp_path / name, tmp_path / "prepared", **SMALL)


def test_a_source_that_is_not_there_names_what_can_be_downloaded(tmp_path: Path):
    with pytest.raises(UserError, match=r"does not exist.*imagenette"):
        prepare(tmp_path / "nothing", tmp_path / "prepared", **SMALL)
    with pytest.raises(UserError, match=r"without an account at image-net\.org"):
        prepare("imagenet", tmp_path / "prepared", **SMALL)
    assert not (tmp_path / "prepared").exists(), "nothing came of it"


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
@pytest.mark.parametrize("as_archive", [True, False])
def test_cifar_is_prepared_from_its_archive_and_from_its_folder(kind: str, as_archive: bool, tmp_path: Path):
    flat = np.random.RandomState(0).randint(0, 256, (20, 3072), np.uint8)
    labels = [i % 4 for i in range(20)]
    is_ten = kind == "cifar10"
    names = {b"label_names" if is_ten else b"fine_label_names": [b"apple", b"bear", b"cat", b"dog"]}
    batch = {b"data": flat, b"labels" if is_ten else b"fine_labels": labels}
    folder = tmp_path / ("cifar-10-batches-py" if is_ten else "cifar-100-python")
    files = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"] if is_ten else ["train", "test"]
    for name in files:
        write(folder / name, pickle.dumps(batch, protocol=2))
    write(folder / ("batches.meta" if is_ten else "meta"), pickle.dumps(names, protocol=2))
    if as_archive:
        with tarfile.open(tmp_path / "cifar.tar.gz", "w:gz") as tar:
            tar.add(folder, folder.name)
    record = prepare(tmp_path / "cifar.tar.gz" if as_archive else folder, tmp_path / "out", progress="silent")
    assert record["kind"] == kind and record["classes"] == ["apple", "bear", "cat", "dog"]
    assert record["encoding"] == "raw" and record["image_size"] == 32
    assert record["splits"]["val"]["class_counts"] == [5] * 4
    val = open_prepared(tmp_path / "out").val
    pixels = flat.reshape(20, 3, 32, 32).transpose(0, 2, 3, 1)
    for i, key in enumerate(val.keys):
        at = int(key.rpartition("_")[2])
        assert (val.read(i) == pixels[at]).all() and val.labels[i] == labels[at]


# ---------------------------------------------------------------- forms of output


@pytest.mark.parametrize("encoding", ["jpeg", "raw", "original"])
def test_what_is_stored_is_what_is_read(encoding: str, tmp_path: Path):
    folder = class_folders(tmp_path / "pets")
    record = prepare(folder, tmp_path / encoding, encoding=encoding, **SMALL)  # type: ignore[arg-type]
    source = open_prepared(tmp_path / encoding)
    assert record["encoding"] == encoding and source.train is not None
    name = source.train.keys[0]
    class_id, _, number = name.partition("_")
    file = folder / class_id / f"{number}.png"
    read = source.train.read(0)
    with tarfile.open(tmp_path / encoding / "train" / "000000.tar") as tar:
        member = tar.next()
        assert member is not None
        payload = tar.extractfile(member)
        assert payload is not None
        data = payload.read()
        assert member.name == f"{name}.{ {'jpeg': 'jpg', 'raw': 'npy', 'original': 'png'}[encoding] }"
    square = to_square(np.array(Image.open(file)), 32)
    if encoding == "raw":
        assert (read == square).all() and (np.load(io.BytesIO(data)) == square).all()
    elif encoding == "original":
        assert data == file.read_bytes() and read.shape == (40, 50, 3)
    else:
        assert read.shape == (32, 32, 3) and (np.array(Image.open(io.BytesIO(data))) == read).all()


@pytest.mark.parametrize("encoding", ["jpeg", "raw", "original"])
def test_the_statistics_are_those_that_training_would_compute(encoding: str, tmp_path: Path):
    prepare(class_folders(tmp_path / "pets"), tmp_path / "out", encoding=encoding, **SMALL)  # type: ignore[arg-type]
    source = open_prepared(tmp_path / "out")
    assert source.train is not None
    images = load_images(source.train, 32, num_workers=0, max_unreadable=0, memory_limit_bytes=None)
    expected, given = compute_statistics(images), load_statistics(tmp_path / "out")
    for name in vars(expected):
        assert np.array_equal(getattr(given, name), getattr(expected, name)), name


def test_a_square_jpeg_of_the_right_size_is_not_encoded_again(tmp_path: Path):
    for i in range(8):
        pixels = np.random.RandomState(i).randint(0, 256, (32, 32, 3), np.uint8)
        (tmp_path / "pets" / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "pets" / f"class{i % 2}" / f"{i}.jpg", quality=60)
    prepare(tmp_path / "pets", tmp_path / "out", **SMALL)
    source = open_prepared(tmp_path / "out")
    assert source.train is not None
    for i, key in enumerate(source.train.keys):
        path = tmp_path / "pets" / f"class{int(key) % 2}" / f"{key}.jpg"
        assert (source.train.read(i) == np.array(Image.open(path))).all()


def test_odd_images_are_kept_or_left_out_by_name(tmp_path: Path):
    folder = class_folders(tmp_path / "pets")
    picture = Image.open(folder / "cat" / "0.png")
    picture.convert("CMYK").save(folder / "cat" / "ink.jpg")
    picture.save(folder / "dog" / "liar.jpg", "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "dog" / "turned.jpg", exif=exif)
    whole = io.BytesIO()
    picture.save(whole, "JPEG")
    write(folder / "dog" / "half.jpg", whole.getvalue()[: len(whole.getvalue()) // 2])
    write(folder / "dog" / "text.jpg", b"<html>404</html>")
    write(folder / "cat" / "empty.png", b"")
    record = prepare(folder, tmp_path / "out", **SMALL)
    repaired = {item["file"]: item["reason"] for item in record["repaired"]}
    assert set(repaired) == {"cat/ink.jpg", "dog/liar.jpg", "dog/turned.jpg"}
    assert (
        "CMYK" in repaired["cat/ink.jpg"] and "PNG" in repaired["dog/liar.jpg"] and "EXIF" in repaired["dog/turned.jpg"]
    )
    skipped = {item["file"]: item["reason"] for item in record["skipped"]}
    assert set(skipped) == {"dog/half.jpg", "dog/text.jpg", "cat/empty.png"}
    assert sum(part["num_images"] for part in record["splits"].values()) == 27


def test_a_decompression_bomb_is_left_out(tmp_path: Path, monkeypatch):
    import struct
    import zlib

    folder = class_folders(tmp_path / "pets")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    write(folder / "cat" / "bomb.png", bomb)
    record = prepare(folder, tmp_path / "out", **SMALL)
    assert [item["file"] for item in record["skipped"]] == ["cat/bomb.png"]
    assert "more" in record["skipped"][0]["reason"] and "limit" in record["skipped"][0]["reason"]


def test_a_set_of_unreadable_images_is_refused(tmp_path: Path):
    for name in ("cat", "dog"):
        for i in range(4):
            write(tmp_path / "pets" / name / f"{i}.jpg", b"not %d" % i)
    with pytest.raises(UserError, match=r"None of the .* images can be read; the first is (cat|dog)/\d\.jpg"):
        prepare(tmp_path / "pets", tmp_path / "out", **SMALL)


# ---------------------------------------------------------------- the folder


def test_a_finished_set_is_left_alone_and_other_options_are_refused(tmp_path: Path):
    folder = class_folders(tmp_path / "pets")
    first = prepare(folder, tmp_path / "out", **SMALL)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.tar")}
    assert prepare(folder, tmp_path / "out", **SMALL) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.tar")} == times
    with pytest.raises(UserError, match=r"image_size 32 there, 40 now.*--overwrite"):
        prepare(folder, tmp_path / "out", **{**SMALL, "image_size": 40})
    assert prepare(folder, tmp_path / "out", overwrite=True, **{**SMALL, "image_size": 40})["image_size"] == 40
    (folder / "cat" / "3.png").unlink()
    with pytest.raises(UserError, match="of other images"):
        prepare(folder, tmp_path / "out", **{**SMALL, "image_size": 40})


def test_a_folder_with_other_files_is_not_written_to(tmp_path: Path):
    folder = class_folders(tmp_path / "pets")
    write(tmp_path / "out" / "thesis.tex", b"precious")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"is not empty \(there is thesis\.tex\)"):
            prepare(folder, tmp_path / "out", overwrite=overwrite, **SMALL)
    assert (tmp_path / "out" / "thesis.tex").read_bytes() == b"precious"
    with pytest.raises(UserError, match="lies in"):
        prepare(folder, folder / "out", **SMALL)


def test_what_is_finished_is_not_done_again(tmp_path: Path, monkeypatch):
    folder = class_folders(tmp_path / "pets", count=24)
    prepare(folder, tmp_path / "whole", **SMALL)
    import alexnet.data.preparation as preparation

    real, calls = preparation.write_shard, []

    def fail_at_third(path: Path, *arguments):
        calls.append(path.name)
        if len(calls) == 3:
            raise RunError("The disk is full: cannot write it.")
        return real(path, *arguments)

    monkeypatch.setattr(preparation, "write_shard", fail_at_third)
    with pytest.raises(RunError, match=r"disk is full.*finished shards are kept; free some space"):
        prepare(folder, tmp_path / "out", **SMALL)
    with pytest.raises(UserError, match="is not finished"):
        open_source(str(tmp_path / "out"), DataConfig())
    monkeypatch.setattr(preparation, "write_shard", lambda path, *rest: (calls.append(path.name), real(path, *rest))[1])
    prepare(folder, tmp_path / "out", **SMALL)
    assert calls == ["000000.tar", "000001.tar", "000002.tar", "000002.tar", "000003.tar", "000004.tar", "000000.tar"]
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_too_little_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch):
    folder = class_folders(tmp_path / "pets")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5_000))
    with pytest.raises(UserError, match=r"About .* MB are needed in .*out, and 0\.0 MB are free"):
        prepare(folder, tmp_path / "out", **SMALL)
    assert not list((tmp_path / "out").rglob("*.tar"))


def test_a_changed_file_is_found(from_archives: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(from_archives, copy)
    assert verify_prepared(copy) == []
    path = copy / "train" / "000001.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 4
    path.write_bytes(data)
    assert verify_prepared(copy) == ["train/000001.tar"]


def test_a_set_of_another_version_or_without_its_files_is_refused(from_archives: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(from_archives, copy)
    record = json.loads((copy / "dataset.json").read_text())
    (copy / "dataset.json").write_text(json.dumps({**record, "version": 2}))
    with pytest.raises(UserError, match="version 2 of the format"):
        open_prepared(copy)
    (copy / "dataset.json").write_text(json.dumps({**record, "classes": record["classes"][:2]}))
    with pytest.raises(UserError, match="does not fit"):
        open_prepared(copy)
    (copy / "dataset.json").write_text(json.dumps(record))
    (copy / "val" / "000000.tar").unlink()
    with pytest.raises(UserError, match=r"000000\.tar cannot be used"):
        open_prepared(copy)


def test_a_statistics_file_that_was_changed_is_found(from_archives: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(from_archives, copy)
    data = bytearray((copy / "statistics.npz").read_bytes())
    data[-500] ^= 4
    (copy / "statistics.npz").write_bytes(data)
    assert verify_prepared(copy) == ["statistics.npz"]
    (copy / "val" / "index.npz").unlink()
    assert verify_prepared(copy) == ["val/index.npz", "statistics.npz"]


def test_the_doctor_compares_the_checksums_when_it_looks_at_all(from_archives: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(from_archives, copy)
    path = copy / "train" / "000000.tar"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # in the padding: no image is harmed
    path.write_bytes(data)
    assert not [item for item in inspect_data(str(copy), DataConfig(), full=False)[1] if item.id == "prepared-damaged"]
    (found,) = [item for item in inspect_data(str(copy), DataConfig(), full=True)[1] if item.id == "prepared-damaged"]
    assert found.evidence == ("train/000000.tar is not as it was written: its SHA-256 is another",)


# ---------------------------------------------------------------- replacing


def test_a_mistake_with_overwrite_takes_nothing_away(tmp_path: Path, monkeypatch):
    folder = class_folders(tmp_path / "pets")
    prepare(folder, tmp_path / "out", **SMALL)
    for source, options, message in (
        (tmp_path / "typo", {}, "does not exist"),
        (folder, {"val_fraction": 2.0}, "must lie between"),
        (folder, {"image_size": 10**6}, "must lie between 1 and 4096"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(source, tmp_path / "out", overwrite=True, **{**SMALL, **options})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(UserError, match="are needed in"):
        prepare(folder, tmp_path / "out", overwrite=True, **{**SMALL, "image_size": 400, "encoding": "raw"})
    assert verify_prepared(tmp_path / "out") == []


def test_what_replaces_a_set_may_use_its_room(tmp_path: Path, monkeypatch):
    folder = class_folders(tmp_path / "pets")
    prepare(folder, tmp_path / "out", **{**SMALL, "image_size": 200, "encoding": "raw"})
    size = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.tar"))
    real = shutil.disk_usage(tmp_path)

    def nearly_full(path: object) -> SimpleNamespace:
        there = sum(file.stat().st_size for file in (tmp_path / "out").rglob("*.tar"))
        return SimpleNamespace(free=5 * 10**6 + size - there, total=real.total)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    prepare(folder, tmp_path / "out", overwrite=True, **{**SMALL, "image_size": 190, "encoding": "raw"})


def test_the_same_command_with_overwrite_goes_on(tmp_path: Path, monkeypatch):
    import alexnet.data.preparation as preparation

    folder = class_folders(tmp_path / "pets")
    prepare(folder, tmp_path / "out", **{**SMALL, "image_size": 40})
    real, calls = preparation.write_shard, []

    def fail_at_second(path: Path, *arguments):
        calls.append(path.name)
        if len(calls) == 2:
            raise RunError("The disk is full: cannot write it.")
        return real(path, *arguments)

    monkeypatch.setattr(preparation, "write_shard", fail_at_second)
    with pytest.raises(RunError, match="disk is full"):
        prepare(folder, tmp_path / "out", overwrite=True, **SMALL)
    prepare(folder, tmp_path / "out", overwrite=True, **SMALL)
    assert calls == ["000000.tar", "000001.tar", "000001.tar", "000002.tar", "000000.tar"]
    assert verify_prepared(tmp_path / "out") == []
    prepare(folder, tmp_path / "out", overwrite=True, **SMALL)
    assert len(calls) == 9, "a finished set is made again"


def test_a_set_made_with_another_version_of_a_library_is_finished_all_the_same(tmp_path: Path):
    folder = class_folders(tmp_path / "pets")
    prepare(folder, tmp_path / "out", **SMALL)
    path = tmp_path / "out" / "dataset.json"
    record = json.loads(path.read_text())
    record["made_by"]["identity"]["pillow"] = "9.0"
    path.write_text(json.dumps(record))
    assert prepare(folder, tmp_path / "out", **SMALL) == record


def test_an_unfinished_set_of_another_version_is_not_gone_on_with(tmp_path: Path):
    folder = class_folders(tmp_path / "pets")
    with pytest.raises(RunError), pytest.MonkeyPatch.context() as patch:
        patch.setattr("alexnet.data.preparation.write_shard", raise_full)
        prepare(folder, tmp_path / "out", **SMALL)
    path = tmp_path / "out" / ".progress" / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pillow": "9.0"}))
    with pytest.raises(UserError, match=r"pillow '9\.0' there, .*the same options and versions.*--overwrite"):
        prepare(folder, tmp_path / "out", **SMALL)
    with pytest.raises(UserError, match="a prepared data set already, or one in the making"):
        prepare(tmp_path / "out", tmp_path / "other", **SMALL)


def raise_full(path: Path, *arguments: object) -> None:
    raise RunError("The disk is full: cannot write it.")


def test_images_that_were_mended_are_looked_at_by_the_next_call(tmp_path: Path):
    class_folders(tmp_path / "pets" / "train")
    good = class_folders(tmp_path / "good", count=2)
    for path in good.rglob("*.png"):
        write(tmp_path / "pets" / "val" / path.relative_to(good), b"not an image")
    with pytest.raises(UserError, match=r"None of the 4 val images .*the same command again"):
        prepare(tmp_path / "pets", tmp_path / "out", **SMALL)
    shutil.copytree(good, tmp_path / "pets" / "val", dirs_exist_ok=True)
    record = prepare(tmp_path / "pets", tmp_path / "out", **SMALL)
    assert record["splits"]["val"]["num_images"] == 4 and not record["skipped"]


def test_a_disk_without_locks_is_prepared_to(tmp_path: Path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def unsupported(*arguments: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    prepare(class_folders(tmp_path / "pets"), tmp_path / "out", **SMALL)


# ---------------------------------------------------------------- mistaken for something else


def test_years_of_imagenet_are_not_mixed(imagenet: SmallImageNet, tmp_path: Path):
    root = imagenet.archives(tmp_path / "source")
    kit = {name.replace("ILSVRC2012", "ILSVRC2010"): data for name, data in imagenet.kit().items()}
    other = imagenet.archives(tmp_path / "other", kit)
    shutil.copy(other / "ILSVRC2012_devkit_t12.tar.gz", root / "ILSVRC2010_devkit-1.0.tar.gz")
    shutil.copy(root / "ILSVRC2012_img_val.tar", root / "ILSVRC2010_images_val.tar")
    with pytest.raises(UserError, match="holds ILSVRC of 2010 and 2012; give an archive of the year"):
        prepare(root, tmp_path / "out", **SMALL)
    record = prepare(root / "ILSVRC2012_img_val.tar", tmp_path / "out", **SMALL)
    assert record["name"] == "ILSVRC2012" and set(record["made_by"]["source"]["archives"]) == {
        *("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"),
    }
    (root / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    with pytest.raises(UserError, match=r"images in .* are of 2012, and ILSVRC2010_devkit.* numbers those of 2010"):
        prepare(root / "ILSVRC2012_img_val.tar", tmp_path / "out", overwrite=True, **SMALL)


def test_the_release_of_all_classes_has_its_images_counted(imagenet: SmallImageNet, tmp_path: Path):
    root = imagenet.archives(tmp_path / "source")
    (root / "ILSVRC2012_img_train.tar").rename(tmp_path / "fall11_whole.tar")
    record = prepare(tmp_path / "fall11_whole.tar", tmp_path / "out", **SMALL)
    assert any("14,197,098 fewer than the 14,197,122" in note for note in record["notes"])


def test_an_archive_with_a_number_in_its_name_is_not_a_shard(tmp_path: Path):
    (tmp_path / "source").mkdir()
    with tarfile.open(tmp_path / "source" / "pets-102.tar", "w") as tar:
        tar.add(class_folders(tmp_path / "pets"), "pets")
    assert prepare(tmp_path / "source", tmp_path / "out", **SMALL)["kind"] == "folder"


def test_test_shards_are_not_mixed_into_the_validation_shards(imagenet: SmallImageNet, tmp_path: Path):
    root = imagenet.webdataset(tmp_path / "source")
    shutil.copy(root / "imagenet1k-train-0000.tar", root / "imagenet1k-test-00.tar")
    record = prepare(root, tmp_path / "out", **SMALL)
    assert record["splits"]["val"]["num_images"] == 9
    assert "The test shards are not used; the validation shards are." in record["notes"]


def test_shards_of_a_split_without_an_image_are_refused_by_its_name(imagenet: SmallImageNet, tmp_path: Path):
    root = imagenet.webdataset(tmp_path / "source")
    with tarfile.open(root / "imagenet1k-validation-00.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("readme.txt"))
    with pytest.raises(UserError, match=r"The val split of .*source has no images"):
        prepare(root, tmp_path / "out", **SMALL)


def test_a_pipe_in_a_list_does_not_hang(tmp_path: Path):
    folder = class_folders(tmp_path / "pets")
    os.mkfifo(folder / "cat" / "pipe.png")
    lines = [f"{name}/{i}.png {name}" for name in ("cat", "dog") for i in range(12)]
    write(folder / "list.txt", "\n".join([*lines, "cat/pipe.png cat", "/dev/zero dog"]).encode())
    record = prepare(folder / "list.txt", tmp_path / "out", **SMALL)
    assert sorted(item["reason"] for item in record["skipped"]) == ["it is not a plain file"] * 2


def test_a_quotation_mark_too_many_names_the_line(tmp_path: Path):
    lines = ["path,label", 'cat/1.png,"cat', *(f"cat/{i}.png,cat" for i in range(20_000))]
    write(tmp_path / "list.csv", "\n".join(lines).encode())
    with pytest.raises(UserError, match=r"list\.csv cannot be read as a table at line \d+.*quotation mark"):
        prepare(tmp_path / "list.csv", tmp_path / "out", **SMALL)


def test_a_large_set_is_parted_alike_in_every_layout(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("alexnet.data.prepare._MAX_HASHED_BYTES", 0)
    folder = class_folders(tmp_path / "pets")
    shutil.copytree(folder / "cat", tmp_path / "deep" / "cat" / "images")
    shutil.copytree(folder / "dog", tmp_path / "deep" / "dog" / "images")
    keys = []
    for name in ("pets", "deep"):
        prepare(tmp_path / name, tmp_path / f"{name}-out", **SMALL)
        keys.append(list(open_prepared(tmp_path / f"{name}-out").val.keys))
    assert keys[0] == keys[1]


def test_room_for_the_copies_of_parquet_files_is_asked_for_first(imagenet: SmallImageNet, tmp_path: Path, monkeypatch):
    pytest.importorskip("pyarrow")
    root = imagenet.parquet(tmp_path / "source")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"copied to .* GB are free\. Free some space"):
        prepare(root, tmp_path / "out", **SMALL)
