"""Shards and their index: what is written is what is read, and what does not fit is refused."""

from __future__ import annotations

import io
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from alexnet.data.shard_writer import Sample, write_shard
from alexnet.data.shards import INDEX_TYPES, ShardFiles, ShardIndex
from alexnet.errors import UserError

CONTENTS = [bytes([i]) * (100 * i + 1) for i in range(20)]


def samples(numbers: range) -> list[Sample]:
    return [Sample(f"n01440764_{i}", CONTENTS[i], "jpg", i % 3) for i in numbers]


@pytest.fixture
def shards(tmp_path: Path) -> ShardFiles:
    parts = [range(0, 7), range(7, 20)]
    files = [tmp_path / f"{number:06d}.tar" for number in range(2)]
    records = [
        write_shard(file, number, samples(part)) for number, (file, part) in enumerate(zip(files, parts, strict=True))
    ]
    arrays = {name: np.concatenate([getattr(record.index, name) for record in records]) for name in INDEX_TYPES}
    with (tmp_path / "index.npz").open("wb") as file:
        ShardIndex(**arrays).save(file)
    return ShardFiles(files, ShardIndex.load(tmp_path / "index.npz"))


def test_every_image_is_found_by_its_number(shards: ShardFiles):
    assert len(shards) == 20
    for i in (19, 0, 7, 6, 12):
        assert bytes(shards.payload(i)) == CONTENTS[i] and shards.label(i) == i % 3
        assert shards.key(i) == f"n01440764_{i}" and shards.extension(i) == "jpg" and shards.verify(i)


def test_a_shard_is_a_plain_tar_in_the_layout_of_webdataset(shards: ShardFiles):
    with tarfile.open(shards.files[0], "r:") as tar:
        names = tar.getnames()
        assert names[:4] == ["n01440764_0.jpg", "n01440764_0.cls", "n01440764_1.jpg", "n01440764_1.cls"]
        member = tar.extractfile("n01440764_5.cls")
        assert member is not None and member.read() == b"2"
        assert {(info.mtime, info.uid, info.uname, info.mode) for info in tar} == {(0, 0, "", 0o644)}


def test_the_index_has_28_bytes_an_image_and_the_same_bytes_every_time(shards: ShardFiles):
    buffers = []
    for _ in range(2):
        buffer = io.BytesIO()
        shards.index.save(buffer)
        buffers.append(buffer.getvalue())
    assert buffers[0] == buffers[1]
    assert sum(np.dtype(kind).itemsize for kind in INDEX_TYPES.values()) == 28
    assert all(getattr(shards.index, name).dtype == kind for name, kind in INDEX_TYPES.items())


def test_threads_may_read_together(shards: ShardFiles):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: bytes(shards.payload(i % 20)), range(400)))
    assert found == [CONTENTS[i % 20] for i in range(400)]


def test_a_changed_byte_is_noticed(shards: ShardFiles):
    path, offset = shards.files[1], int(shards.index.offset[9])
    data = bytearray(path.read_bytes())
    data[offset + 3] ^= 1
    path.write_bytes(data)
    changed = ShardFiles(shards.files, shards.index)
    assert [changed.verify(i) for i in (8, 9, 10)] == [True, False, True]


def test_shards_that_are_cut_off_or_missing_are_refused(shards: ShardFiles):
    path = shards.files[1]
    path.write_bytes(path.read_bytes()[: int(shards.index.offset[19]) + 5])
    with pytest.raises(UserError, match=r"000001\.tar is cut off: 1 of its images are missing"):
        ShardFiles(shards.files, shards.index)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match=r"000001\.tar is cut off: \d+ of its images are missing"):
        ShardFiles(shards.files, shards.index)
    path.unlink()
    with pytest.raises(UserError, match=r"000001\.tar cannot be used"):
        ShardFiles(shards.files, shards.index)


def test_a_file_that_is_no_index_is_refused(tmp_path: Path):
    for content in (b"", b"PK\3\4 nothing", b"\x80\x04K\x01."):
        (tmp_path / "index.npz").write_bytes(content)
        with pytest.raises(UserError, match="is no index"):
            ShardIndex.load(tmp_path / "index.npz")
    np.savez(tmp_path / "index.npz", shard=np.zeros(3))
    with pytest.raises(UserError, match="is no index"):
        ShardIndex.load(tmp_path / "index.npz")


def test_14_million_entries_load_in_seconds(tmp_path: Path):
    """A tenth of them here; loading is one read of plain arrays, and takes time in proportion."""
    count = 1_400_000
    index = ShardIndex(**{name: np.zeros(count, kind) for name, kind in INDEX_TYPES.items()})
    with (tmp_path / "index.npz").open("wb") as file:
        index.save(file)
    assert (tmp_path / "index.npz").stat().st_size < 28 * count + 2000
    assert len(ShardIndex.load(tmp_path / "index.npz")) == count
