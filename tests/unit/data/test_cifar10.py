"""CIFAR-10's files: right pixels from right files, a message from damaged ones, and no code run from any."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from alexnet.config import DataConfig
from alexnet.data.sources import open_source
from alexnet.data.squares import load_images
from alexnet.errors import UserError

CONFIG = DataConfig()
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FILES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def batch(seed: int, num_images: int = 20) -> tuple[np.ndarray, list[int]]:
    random = np.random.RandomState(seed)
    return random.randint(0, 256, (num_images, 3072), np.uint8), random.randint(0, 10, num_images).tolist()


def pickled(content: object) -> bytes:
    return pickle.dumps(content, protocol=2)


def write_python(folder: Path, num_images: int = 20) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(FILES):
        flat, labels = batch(seed, num_images)
        files = [f"{i}.png".encode() for i in range(num_images)]
        content = {b"batch_label": b"x", b"labels": labels, b"data": flat, b"filenames": files}
        (folder / name).write_bytes(pickled(content))
    (folder / "batches.meta").write_bytes(
        pickled({b"label_names": [name.encode() for name in NAMES], b"num_vis": 3072})
    )
    return folder


def write_binary(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(FILES):
        flat, labels = batch(seed)
        records = np.concatenate([np.array(labels, np.uint8)[:, None], flat], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return folder


@pytest.mark.parametrize("write", [write_python, write_binary])
@pytest.mark.parametrize("give_parent", [False, True])
def test_pixels_labels_and_names(tmp_path, write, give_parent):
    name = "cifar-10-batches-py" if write is write_python else "cifar-10-batches-bin"
    folder = write(tmp_path / name)
    source = open_source(str(tmp_path if give_parent else folder), CONFIG)
    assert source.kind == "cifar10" and source.classes == source.class_names == tuple(NAMES)
    assert source.train is not None and (len(source.train), len(source.val)) == (100, 20)
    assert source.train.keys[57] == "train/57" and source.val.keys[3] == "test/3"
    assert "published set has 50,000" in source.notes[0] and "published set has 10,000" in source.notes[1]
    for split, seeds in ((source.train, range(5)), (source.val, [5])):
        flat = np.concatenate([batch(seed)[0] for seed in seeds])
        assert split.labels.tolist() == [label for seed in seeds for label in batch(seed)[1]]
        assert split.array is not None and split.array.flags.c_contiguous and split.array.dtype == np.uint8
        for i in (0, 19, len(split) - 1):
            image = split.read(i)
            assert image.shape == (32, 32, 3)
            for channel in range(3):
                assert np.array_equal(image[..., channel].ravel(), flat[i, 1024 * channel : 1024 * (channel + 1)])


def test_batches_of_unequal_size(tmp_path):
    write_python(tmp_path)
    flat, labels = batch(77, 33)
    (tmp_path / "data_batch_3").write_bytes(pickled({b"labels": labels, b"data": flat}))
    train = open_source(str(tmp_path), CONFIG).train
    assert train is not None and len(train) == 113 and train.labels[40:73].tolist() == labels
    assert np.array_equal(train.read(40)[..., 0].ravel(), flat[0, :1024])
    assert np.array_equal(train.read(112)[..., 2].ravel(), batch(4)[0][19, 2048:])


def test_arrays_pickled_by_any_numpy_are_read(tmp_path):
    write_python(tmp_path)
    flat, labels = batch(0)
    content = {b"labels": labels, b"data": flat}
    for protocol in (0, 1, 2, 3, 4):
        own = pickle.dumps(content, protocol=protocol)
        # The module was called numpy.core before NumPy 2; protocol 4 writes its name's length in front of it.
        older = [] if protocol == 4 else [own.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")]
        for data in (own, *older):
            (tmp_path / "data_batch_1").write_bytes(data)
            train = open_source(str(tmp_path), CONFIG).train
            assert train is not None and np.array_equal(train.read(0)[..., 1].ravel(), flat[0, 1024:2048])
    fortran = {b"labels": labels, b"data": np.asfortranarray(flat)}
    (tmp_path / "data_batch_1").write_bytes(pickled(fortran))
    train = open_source(str(tmp_path), CONFIG).train
    assert train is not None and np.array_equal(train.read(3)[..., 1].ravel(), flat[3, 1024:2048])


class Payload:
    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("file", ["data_batch_2", "test_batch", "batches.meta"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, file):
    write_python(tmp_path)
    for function, arguments in (
        (os.system, (f"touch {tmp_path / 'ran'}",)),
        (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)),
        (open, (str(tmp_path / "ran"), "w")),
        (np.fromfile, (str(tmp_path / file),)),
    ):
        content = pickled({b"labels": Payload(function, *arguments), b"data": batch(0)[0]})
        (tmp_path / file).write_bytes(content)
        with pytest.raises(UserError, match=rf"{file} is not a whole file of CIFAR: it asks for .*could run code"):
            open_source(str(tmp_path), CONFIG)
        assert not (tmp_path / "ran").exists()
    pickle.loads(pickled(Payload(os.system, f"touch {tmp_path / 'ran'}")))
    assert (tmp_path / "ran").exists(), "the payload does run where nothing refuses it"


def test_damaged_files_are_user_errors_that_name_the_file(tmp_path):
    write_python(tmp_path)
    good = (tmp_path / "data_batch_4").read_bytes()
    flat, labels = batch(3)
    cases = {
        "truncated": good[: len(good) // 2],
        "empty": b"",
        "text": b"<html>not found</html>",
        "its data are not N x 3072 bytes": pickled({b"labels": labels, b"data": flat[:, :3000]}),
        "an array of type": pickled({b"labels": labels, b"data": flat.astype(np.float64)}),
        "20 images and 19 labels": pickled({b"labels": labels[:-1], b"data": flat}),
        "labels go from 0 to 10": pickled({b"labels": [0, 10] * 10, b"data": flat}),
        "labels go from -1 to 9": pickled({b"labels": [-1, 9] * 10, b"data": flat}),
        "not a list of whole numbers": pickled({b"labels": [0.5] * 20, b"data": flat}),
        "a label is out of range": pickled({b"labels": [10**30] * 20, b"data": flat}),
        "it holds no dictionary": pickled([1, 2, 3]),
        "its data are not": pickled({b"labels": labels}),
    }
    for reason, content in cases.items():
        (tmp_path / "data_batch_4").write_bytes(content)
        with pytest.raises(UserError, match="data_batch_4 is not a whole file of CIFAR: ") as caught:
            open_source(str(tmp_path), CONFIG)
        assert reason in str(caught.value) or reason in ("truncated", "empty", "text")


def test_missing_files_cifar100_and_bad_names(tmp_path):
    write_python(tmp_path)
    content = (tmp_path / "data_batch_5").read_bytes()
    (tmp_path / "data_batch_5").unlink()
    with pytest.raises(UserError, match="data_batch_5 is missing"):
        open_source(str(tmp_path), CONFIG)
    (tmp_path / "data_batch_5").write_bytes(pickled({b"fine_labels": [], b"data": batch(0)[0]}))
    with pytest.raises(UserError, match="CIFAR-100"):
        open_source(str(tmp_path), CONFIG)
    (tmp_path / "data_batch_5").write_bytes(content)
    (tmp_path / "batches.meta").write_bytes(pickled({b"label_names": "no list"}))
    with pytest.raises(UserError, match="it has no label_names"):
        open_source(str(tmp_path), CONFIG)
    (tmp_path / "batches.meta").unlink()
    with pytest.raises(UserError, match=r"batches\.meta is missing"):
        open_source(str(tmp_path), CONFIG)


def test_damaged_binary_files(tmp_path):
    write_binary(tmp_path)
    path = tmp_path / "data_batch_2.bin"
    good = path.read_bytes()
    for content in (good[:-1], b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match="no whole number of records"):
            open_source(str(tmp_path), CONFIG)
    path.write_bytes(b"\x0b" + good[1:])
    with pytest.raises(UserError, match="labels go from 0 to 11"):
        open_source(str(tmp_path), CONFIG)
    path.write_bytes(good)
    (tmp_path / "batches.meta.txt").unlink()
    with pytest.raises(UserError, match=r"batches\.meta\.txt"):
        open_source(str(tmp_path), CONFIG)


@pytest.mark.data
def test_the_real_files(data_folder):
    source = open_source(str(data_folder), CONFIG)
    assert source.train is not None and (len(source.train), len(source.val)) == (50_000, 10_000)
    assert source.classes == tuple(NAMES) and source.notes == ()
    assert np.bincount(source.train.labels).tolist() == [5000] * 10
    assert np.bincount(source.val.labels).tolist() == [1000] * 10
    images = load_images(source.train, 32, num_workers=2, max_unreadable=0, memory_limit_bytes=None)
    assert images.array is not None and images.array is source.train.array, "fifty thousand images are not copied again"
    # The set's well-known channel means.
    means = images.array[::10].mean(axis=(0, 1, 2))
    np.testing.assert_allclose(means, [125.3, 123.0, 113.9], atol=1.0)


def test_a_pickle_that_asks_for_a_memo_of_a_billion_places_gets_none(tmp_path):
    write_python(tmp_path)
    # LONG_BINPUT 2**31 - 1: eight bytes, for which the unpickler in C fills 32 GB.
    (tmp_path / "batches.meta").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(UserError, match="it has no label_names"):
        open_source(str(tmp_path), CONFIG)
