"""Archives read in place: what is in them, what is refused, and what is said of damaged ones."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from layouts_of_imagenet import add

from alexnet.data.decode import UnreadableImage
from alexnet.data.originals.archives import index_archive
from alexnet.data.originals.containers import GzipFile
from alexnet.data.originals.listing import OriginalSplit, make_keys, shuffled, wnids_of_labels
from alexnet.data.originals.trees import open_tree, without_wrapper
from alexnet.errors import UserError


def contents(count: int = 30) -> dict[str, bytes]:
    random = np.random.RandomState(0)
    return {f"set/{i % 3}/{i}.jpg": random.bytes(50 + 3000 * i) for i in range(count)}


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            add(tar, name, data)
    return path


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "zip"])
def test_members_are_read_where_they_are_in_any_order_by_many_threads(tmp_path: Path, suffix: str):
    files = contents()
    path = tmp_path / f"a.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in files.items():
                file.writestr(name, data)
    else:
        write_tar(path, files, "w:gz" if suffix.endswith("gz") else "w")
    tree = open_tree(path)
    assert tree.paths == sorted(files)
    order = np.random.RandomState(1).permutation(len(tree))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(tree.read, order.tolist())) == [files[tree.paths[i]] for i in order]
    assert os.listdir(tmp_path) == [path.name], "nothing is unpacked"


def test_gzip_is_read_from_the_middle_and_over_the_joint_of_two_members(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("alexnet.data.originals.containers._MIN_SPACING", 70_000)
    random = np.random.RandomState(3)
    first, second = random.bytes(400_000), random.bytes(300_000)
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(first) + gzip.compress(second) + bytes(700))
    file, whole = GzipFile(path), first + second
    assert file.size == len(whole)
    for start, size in ((0, 10), (399_990, 20), (650_000, 5), (123_456, 300_000), (5, 70_000), (699_999, 50)):
        assert file.read(start, size) == whole[start : start + size]


def test_gzip_that_is_cut_off_or_damaged_is_refused(tmp_path: Path):
    data = gzip.compress(np.random.RandomState(0).bytes(300_000))
    path = tmp_path / "x.tar.gz"
    path.write_bytes(data[:-5000])
    with pytest.raises(UserError, match=r"x\.tar\.gz is cut off.*Download it again"):
        GzipFile(path)
    path.write_bytes(data[:50_000] + bytes(90) + data[50_090:])
    with pytest.raises(UserError, match=r"damaged|cut off"):
        GzipFile(path)


def test_long_names_and_other_dialects_of_tar(tmp_path: Path):
    long = "/".join(["folder" * 8] * 4) + "/\u00fcnicode.jpg"
    for dialect in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=dialect) as tar:
            add(tar, long, b"1")
            add(tar, "b.jpg", b"22")
        tree = open_tree(tmp_path / "a.tar")
        assert sorted(tree.paths) == ["b.jpg", long] and tree.read(tree.paths.index(long)) == b"1"


def test_members_that_could_do_harm_are_left_out_and_told(tmp_path: Path):
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("../../outside.jpg", "/etc/passwd.jpg", "C:\\x.jpg", "good/a.jpg", "a/../../b.jpg"):
            add(tar, name, b"x")
        for kind, target in ((tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, "good/a.jpg"), (tarfile.CHRTYPE, "")):
            info = tarfile.TarInfo(f"odd{kind.decode()}.jpg")
            info.type, info.linkname = kind, target
            tar.addfile(info)
    members = index_archive(path)
    assert members.names == ["good/a.jpg"] and len(members.refused) == 7
    reasons = " ".join(reason for _, reason in members.refused)
    for word in ("leads out of the archive", "absolute path", "a link", "a device"):
        assert word in reasons
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as file:
        file.writestr("../x.jpg", b"x")
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
        file.writestr("fine.jpg", b"y")
    members = index_archive(tmp_path / "evil.zip")
    assert members.names == ["fine.jpg"] and len(members.refused) == 2


def test_a_tar_that_is_cut_off_says_where_and_keeps_what_is_before(tmp_path: Path):
    files = contents()
    path = write_tar(tmp_path / "a.tar", files)
    whole = path.read_bytes()
    for length in (len(whole) // 2, len(whole) // 3 // 512 * 512, 700, 512 + 51):
        path.write_bytes(whole[:length])
        try:
            members = index_archive(path)
        except UserError as error:
            assert "cut off" in str(error) and length < 1024
            continue
        assert members.damage is not None and ("cut off" in members.damage or "without the mark" in members.damage)
        assert all(members.read(i) == files[name] for i, name in enumerate(members.names))
        assert len(members.names) < len(files)


def test_headers_that_lie_about_sizes_do_no_harm(tmp_path: Path):
    info = tarfile.TarInfo("a/huge.jpg")
    info.size = 2**40
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf() + bytes(2048))
    with pytest.raises(UserError, match=r"cut off in a/huge\.jpg"):
        index_archive(path)
    path.write_bytes(b"\x93NUMPY" + bytes(range(256)) * 8)
    with pytest.raises(UserError, match="no tar archive"):
        index_archive(path)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.jpg", bytes(50_000_000))
    data = bytearray((tmp_path / "bomb.zip").read_bytes())
    central = data.rindex(b"PK\1\2")
    data[central + 24 : central + 28] = (1000).to_bytes(4, "little")  # declares 1,000 bytes, holds 50 million
    (tmp_path / "bomb.zip").write_bytes(data)
    members = index_archive(tmp_path / "bomb.zip")
    with pytest.raises(UnreadableImage, match="not as long as the archive says"):
        members.read(0)


def test_a_wrapper_folder_is_passed_over_but_not_a_class_or_a_split(tmp_path: Path):
    write_tar(tmp_path / "a.tar", {"imagenette2/train/x/1.jpg": b"", "imagenette2/README.md": b""})
    assert without_wrapper(open_tree(tmp_path / "a.tar"), keep=("train",)).paths == ["README.md", "train/x/1.jpg"]
    write_tar(tmp_path / "b.tar", {"train/x/1.jpg": b"", "train/y/1.jpg": b""})
    assert without_wrapper(open_tree(tmp_path / "b.tar"), keep=("train",)).paths[0] == "train/x/1.jpg"


def test_a_folder_is_listed_without_hidden_files_pipes_and_loops(tmp_path: Path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.jpg").write_bytes(b"1")
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"")
    (tmp_path / "cat" / "back").symlink_to(tmp_path)
    (tmp_path / "cat" / "broken.jpg").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "cat" / "pipe.jpg")
    tree = open_tree(tmp_path)
    assert tree.paths == ["cat/1.jpg", "cat/broken.jpg"]
    with pytest.raises(UnreadableImage, match="no such file"):
        tree.read(1)


# ---------------------------------------------------------------- keys


def split_of(paths: list[str], labels: list[int]) -> OriginalSplit:
    return OriginalSplit(np.array(labels, np.int64), paths, paths.__getitem__, lambda i: b"")


def test_keys_are_unique_short_and_plain():
    paths = ["cat/1.jpg", "dog/1.jpg", "cat/1.png", "dog/a.b.jpg", "dog/x y.jpg", "dog/" + "\u00e9" * 200, "dog/.jpg"]
    keys = make_keys(split_of(paths, [0, 1, 0, 1, 1, 1, 1]), ("cat", "dog"))
    assert len(set(keys)) == len(keys)
    assert keys[1] == "dog_1" and keys[3] == "a_b" and keys[4] == "x_y"
    assert keys[0].startswith("cat_1_") and keys[2].startswith("cat_1_")
    for key in keys:
        assert "." not in key and "/" not in key and len(f"{key}.jpeg".encode()) <= 100


def test_names_as_imagenet_has_them_are_the_keys():
    paths = ["n01440764/n01440764_10026.JPEG", "val/ILSVRC2012_val_00000001.JPEG"]
    assert make_keys(split_of(paths, [0, 0]), ("n01440764",)) == ["n01440764_10026", "ILSVRC2012_val_00000001"]


def test_the_order_is_of_the_keys_alone_and_mixes_the_classes():
    keys = [f"n{c:08d}_{i}" for c in range(10) for i in range(100)]
    order = shuffled(keys)
    backwards = shuffled(keys[::-1])
    assert [keys[i] for i in order] == [keys[::-1][i] for i in backwards]
    classes = order[:200] // 100
    assert len(set(classes.tolist())) == 10 and np.bincount(classes).max() < 40


def test_wnids_are_found_only_where_they_are_beyond_doubt():
    assert wnids_of_labels(["0", "1", "0"], ["n00000001_1", "n00000002_1", "n00000001_2"]) == {
        "0": "n00000001",
        "1": "n00000002",
    }
    assert wnids_of_labels(["0", "0"], ["n00000001_1", "n00000002_1"]) == {}
    assert wnids_of_labels(["0", "1"], ["n00000001_1", "b"]) == {}
    assert wnids_of_labels(["0", "1"], ["n00000001_1", "n00000001_2"]) == {}


def test_an_empty_name_is_no_archive(tmp_path: Path):
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(UserError, match="holds no files"):
        index_archive(tmp_path / "a.tar")
    buffer = io.BytesIO()
    tarfile.open(fileobj=buffer, mode="w").close()
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="holds no files"):
        index_archive(tmp_path / "a.tar")
