import io
import json
import zipfile

import numpy as np
import pytest

from alexnet.errors import RunError, UserError
from alexnet.evaluation.feature_files import FeatureRows, is_table, read_table, write_table

ABOUT = {"layer": "relu7", "shape": [4], "network": "abc"}
CLASSES, NAMES = ("n1", "n2"), ("cat", "dog, hound")


def rows(count, batch=3, scale=1.0):
    values = scale * np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    for start in range(0, count, batch):
        part = values[start : start + batch]
        which = range(start, start + len(part))
        yield FeatureRows(
            part, [f"{i}.png" for i in which], ["train"] * len(part), np.array([i % 3 - 1 for i in which])
        )


def write(path, batches, **changes):
    return write_table(path, batches, classes=CLASSES, class_names=NAMES, about=ABOUT, **changes)


def all_values(count):
    return np.concatenate([batch.values for batch in rows(count)])


@pytest.mark.parametrize("kind", ["npz", "parquet"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_what_is_written_is_read_back(tmp_path, kind, precision):
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra parquet)")
    path = tmp_path / "new" / f"features.{kind}"
    assert write(path, rows(8), precision=precision) == 8
    assert [item.name for item in path.parent.iterdir()] == [path.name] and is_table(path)
    table = read_table(path)
    assert np.array_equal(table.values, all_values(8).astype(precision)) and table.values.dtype == precision
    assert table.keys == [f"{i}.png" for i in range(8)] and table.splits == ["train"] * 8
    assert table.labels.tolist() == [-1, 0, 1, -1, 0, 1, -1, 0]
    assert [table.class_name(row) for row in range(3)] == [None, "cat", "dog, hound"]
    assert (table.classes, table.class_names) == (CLASSES, NAMES)
    assert {key: table.about[key] for key in ABOUT} == ABOUT


def test_an_npz_file_is_plain_numpy_and_its_features_are_mapped(tmp_path):
    path = tmp_path / "features.npz"
    write(path, rows(8))
    with np.load(path, allow_pickle=False) as file:
        assert np.array_equal(file["features"], all_values(8))
        assert file["keys"][7] == "7.png" and file["class_names"].tolist() == list(NAMES)
    table = read_table(path)
    assert isinstance(table.values, np.memmap)
    first = path.read_bytes()
    write(path, rows(8))
    assert path.read_bytes() == first
    # Somebody may have compressed it since.
    with np.load(path) as file:
        np.savez_compressed(tmp_path / "packed.npz", **file)
    assert np.array_equal(read_table(tmp_path / "packed.npz").values, all_values(8))


def test_a_parquet_file_is_a_plain_table(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra parquet)")
    path = tmp_path / "features.parquet"
    write(path, rows(4))
    table = parquet.read_table(path)
    assert table.column_names == ["key", "split", "label", "class", "class_name", "features"]
    assert table.column("class").to_pylist() == [None, "n1", "n2", None]
    assert np.allclose(table.column("features").to_pylist(), all_values(4))


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_values_that_do_not_fit_leave_no_file(tmp_path, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra parquet)")
    with pytest.raises(RunError, match=r"features of 0\.png are too large for float16; use --precision float32"):
        write(tmp_path / f"x.{kind}", rows(8, scale=1e6), precision="float16")
    broken = [*rows(3), *rows(3, scale=np.nan)]
    with pytest.raises(RunError, match=r"features of 0\.png are not finite"):
        write(tmp_path / f"x.{kind}", broken)
    with pytest.raises(UserError, match="there are no images"):
        write(tmp_path / f"x.{kind}", [])
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"written as \.npz or \.parquet, not as 'x.csv'"):
        write(tmp_path / "x.csv", rows(3))
    assert is_table(tmp_path / "none.npz"), "a name that was mistyped is not taken for that of a data set"
    with pytest.raises(UserError, match="There is no file"):
        read_table(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    (tmp_path / "torn.npz").write_bytes(b"PK" + bytes(30))
    write(tmp_path / "good.npz", rows(3))
    cut = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(cut[:-100])
    for name in ("other", "torn", "cut"):
        with pytest.raises(UserError, match=f"{name}.npz is not a file of features, or is damaged"):
            read_table(tmp_path / f"{name}.npz")
    (tmp_path / "dir.npz").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        write(tmp_path / "dir.npz", rows(3))


def test_no_code_of_a_file_is_executed(tmp_path):
    class Hostile:
        def __reduce__(self):
            return print, ("executed",)

    np.savez(tmp_path / "x.npz", about=np.array([Hostile()], dtype=object), features=np.ones((1, 1)))
    with pytest.raises(UserError, match="not a file of features"):
        read_table(tmp_path / "x.npz")


def test_labels_that_are_no_classes_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    write(path, rows(3))
    with np.load(path) as file:
        arrays = dict(file)
    for labels in (np.array([0, 1, 2]), np.array([0, -2, 1]), np.array([0, 1])):
        np.savez(path, **{**arrays, "labels": labels})
        with pytest.raises(UserError, match=r"labels are not those of its classes|different lengths"):
            read_table(path)


def packed(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def headed(descr: str, shape: tuple[int, ...], body: bytes = b"") -> bytes:
    """An .npy file that says it has so many numbers, and has something else."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue() + body


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        # Mapped, the eight bytes of each would be taken for addresses in memory.
        ("features", headed("|O", (3, 4), b"A" * 96), "its features are objects"),
        ("features", headed("<f4", (3, 10**18)), "its features are cut off"),
        ("features", packed(np.ones((3, 4), np.int64)), "2-dimensional, of the type int64"),
        ("features", packed(np.ones(3, np.float32)), "1-dimensional"),
        ("labels", packed(np.zeros(3)), "labels are of the type float64"),
        ("keys", headed("<U100", (10**12,)), "or is damaged"),
        ("keys", headed("<U100", (10**30,)), "or is damaged"),
        ("keys", b"\x93NUMPY\x01\x00\x0f\x00{'descr': '<f4', (", "or is damaged"),
        ("about", packed(np.array("[1]")), "or is damaged"),
        ("about", packed(np.array("[" * 100_000)), "or is damaged"),
    ],
    ids=["objects", "more", "integers", "a row", "labels", "much", "too much", "cut off", "a list", "deep"],
)
def test_arrays_that_are_no_features_are_refused(name, contents, message, tmp_path):
    write(tmp_path / "good.npz", rows(3))
    with zipfile.ZipFile(tmp_path / "good.npz") as good, zipfile.ZipFile(tmp_path / "bad.npz", "w") as bad:
        for member in good.namelist():
            bad.writestr(member, contents if member == f"{name}.npy" else good.read(member))
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / "bad.npz")


def test_a_file_that_would_become_far_larger_is_not_unpacked(tmp_path):
    write(tmp_path / "x.npz", rows(3))
    with zipfile.ZipFile(tmp_path / "x.npz", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("more.npy", bytes(10_000_000))
    with pytest.raises(UserError, match="unpacked it would be more than 200 times as large"):
        read_table(tmp_path / "x.npz")


def test_a_table_of_other_columns_is_refused(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra parquet)")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra parquet)")
    columns = {"key": ["a"], "split": [""], "label": [0], "features": [[1.0, 2.0]]}
    about = json.dumps({"format": "alexnet-features", "format_version": 1, "classes": ["x"], "class_names": ["x"]})
    for said in (about, "[1]"):
        table = pyarrow.table(columns).replace_schema_metadata({"alexnet-features": said})
        parquet.write_table(table, tmp_path / "x.parquet")
        with pytest.raises(UserError, match="not a file of features, or is damaged"):
            read_table(tmp_path / "x.parquet")


def test_a_file_of_features_of_a_later_version_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    write(path, rows(3))
    with np.load(path) as file:
        arrays = dict(file)
    later = str(arrays["about"]).replace('"format_version": 1', '"format_version": 2')
    np.savez(path, **{**arrays, "about": np.array(later)})
    with pytest.raises(UserError, match="it does not say format = alexnet-features, version 1"):
        read_table(path)
