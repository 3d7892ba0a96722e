"""Archives read in place: what is in them, what is refused, and what is said of damaged ones."""

from __future__ import annotations

import errno
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
from alexnet.data.originals.trees import archive_tree, open_tree, without_wrapper
from alexnet.errors import RunError, UserError


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


def header(name: str, size: bytes) -> bytes:
    """A tar header with any bytes for its size."""
    raw = bytearray(tarfile.TarInfo(name).tobuf())
    raw[124:136], raw[148:156] = size, b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def test_a_size_below_zero_does_not_go_round_for_ever(tmp_path: Path):
    path = tmp_path / "a.tar"
    path.write_bytes(header("a.jpg", b"\xff" + (256**11 - 512).to_bytes(11, "big")) + bytes(2048))
    with pytest.raises(UserError, match="is damaged, or no tar archive, at byte 0"):
        index_archive(path)


def test_a_size_of_thousands_of_digits_is_not_believed(tmp_path: Path):
    record = b"5013 size=" + b"9" * 5002 + b"\n"
    pax = bytearray(header("a.jpg", b"%011o\0" % len(record)))
    pax[156:157], pax[148:156] = tarfile.XHDTYPE, b" " * 8
    pax[148:156] = b"%06o\0 " % sum(pax)
    path = tmp_path / "a.tar"
    content = record + bytes(-len(record) % 512)
    path.write_bytes(bytes(pax) + content + header("a.jpg", b"%011o\0" % 3) + b"abc".ljust(512, b"\0") + bytes(1024))
    members = index_archive(path)
    assert members.names == ["a.jpg"] and members.read(0) == b"abc"


def test_a_download_that_only_made_the_room_for_the_rest_is_cut_off(tmp_path: Path):
    path = write_tar(tmp_path / "a.tar", contents())
    assert index_archive(path).damage is None
    length = path.stat().st_size
    os.truncate(path, 9000)
    os.truncate(path, length)  # the right length, and zeros where nothing came
    damage = index_archive(path).damage
    assert damage is not None and "bytes after it that are not read" in damage


def test_an_archive_is_known_by_its_content(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.tar", "w") as file:
        file.writestr("x.jpg", b"y")
    assert index_archive(tmp_path / "a.tar").names == ["x.jpg"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_listing_archives_tells_how_far_it_is(tmp_path: Path, mode: str):
    files = {name: data * 40 for name, data in contents().items()}
    paths = [write_tar(tmp_path / f"{i}.tar", files, mode) for i in range(2)]
    calls: list[tuple[int, int]] = []
    archive_tree(paths, lambda done, total: calls.append((done, total)), prefix=lambda path: f"{path.stem}/")
    done = [done for done, _ in calls]
    assert done == sorted(done) and len({total for _, total in calls}) == 1 and len(set(done)) > 10
    assert done[-1] >= calls[-1][1] - 1


def test_a_disk_that_is_gone_is_not_a_set_of_unreadable_images(tmp_path: Path):
    (tmp_path / "disk" / "cat").mkdir(parents=True)
    for i in range(2):
        (tmp_path / "disk" / "cat" / f"{i}.jpg").write_bytes(b"x")
    tree = open_tree(tmp_path / "disk")
    (tmp_path / "disk" / "cat" / "0.jpg").unlink()
    with pytest.raises(UnreadableImage, match="no such file"):
        tree.read(0)
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    (tmp_path / "disk").mkdir()  # the place of a share that is gone
    with pytest.raises(RunError, match="can no longer be read"):
        tree.read(1)


def test_a_share_that_went_stale_ends_the_work(tmp_path: Path, monkeypatch):
    (tmp_path / "0.jpg").write_bytes(b"x")
    tree = open_tree(tmp_path)

    def stale(path: Path) -> bytes:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "read_bytes", stale)
    with pytest.raises(RunError, match=r"0\.jpg can no longer be read: Stale file handle"):
        tree.read(0)


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
