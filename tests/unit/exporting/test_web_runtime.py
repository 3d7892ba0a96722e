"""ONNX Runtime Web: where it is looked for, what is taken of it, and what a person is told without it."""

import hashlib
import io
import os
import sys
import tarfile

import pytest

from alexnet.errors import UserError
from alexnet.exporting.web import runtime
from alexnet.exporting.web.runtime import find_runtime, runtime_cache

CONTENTS = {"ort.wasm.bundle.min.mjs": b"the script", "ort-wasm-simd-threaded.wasm": b"the engine"}
ARCHIVE = f"{runtime.PACKAGE}-{runtime.VERSION}.tgz"


@pytest.fixture(autouse=True)
def stand_in(monkeypatch, tmp_path):
    """Small files in place of the real ones, a cache of the test's own, and no npm."""
    assert set(CONTENTS) == set(runtime.FILES)
    sums = {name: hashlib.sha256(contents).hexdigest() for name, contents in CONTENTS.items()}
    monkeypatch.setattr(runtime, "FILES", sums)
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def archive(path, contents=CONTENTS, others=()):
    """An archive as npm packs it, with other members before."""
    with tarfile.open(path, "w:gz") as members:
        for name, data in [*others, *((f"package/dist/{name}", data) for name, data in contents.items())]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            members.addfile(member, io.BytesIO(data))
    return path


def give_npm(tmp_path, script):
    """A program called npm that does what the Python script says."""
    path = tmp_path / "bin" / "npm"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\nimport os, shutil, sys\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize("inside", ["", "dist", "package/dist"])
def test_an_unpacked_package_is_taken_wherever_its_files_are(tmp_path, inside):
    folder = tmp_path / "given" / inside
    folder.mkdir(parents=True)
    for name, contents in CONTENTS.items():
        (folder / name).write_bytes(contents)
    assert find_runtime(tmp_path / "given", print) == CONTENTS


def test_of_an_archive_only_what_is_wanted_is_read(tmp_path):
    given = archive(tmp_path / "a.tgz", others=[("../outside", b"x"), ("/etc/passwd", b"x"), ("package/dist/b", b"x")])
    before = sorted(tmp_path.rglob("*"))
    assert find_runtime(given, print) == CONTENTS
    assert sorted(tmp_path.rglob("*")) == before


def test_other_files_of_the_same_name_are_refused(tmp_path):
    given = archive(tmp_path / "a.tgz", {**CONTENTS, "ort-wasm-simd-threaded.wasm": b"another engine"})
    with pytest.raises(
        UserError, match=r"ort-wasm-simd-threaded\.wasm is not that of onnxruntime-web 1\.30\.0 \(SHA-256"
    ):
        find_runtime(given, print)


def test_what_is_no_runtime_is_said_to_be_none(tmp_path):
    (tmp_path / "a.tgz").write_bytes(b"hello")
    with pytest.raises(UserError, match=r"a\.tgz is no archive of npm, or is damaged"):
        find_runtime(tmp_path / "a.tgz", print)
    archive(tmp_path / "b.tgz", {"ort.wasm.bundle.min.mjs": b"the script"})
    with pytest.raises(UserError, match=r"b\.tgz has no package/dist/ort-wasm-simd-threaded\.wasm"):
        find_runtime(tmp_path / "b.tgz", print)
    with pytest.raises(UserError, match=r"--runtime .*nowhere is not there"):
        find_runtime(tmp_path / "nowhere", print)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"--runtime .*empty holds no ort\.wasm"):
        find_runtime(tmp_path / "empty", print)


def test_without_npm_a_person_is_told_what_to_get_and_where_to_put_it(tmp_path):
    with pytest.raises(UserError, match="there is no npm to fetch it") as caught:
        find_runtime(None, print)
    told = str(caught.value)
    assert "npm pack onnxruntime-web@1.30.0" in told and ARCHIVE in told and "--runtime" in told
    assert all(name in told for name in CONTENTS) and str(runtime_cache()) in told


def test_npm_is_asked_once_and_its_files_are_kept(tmp_path):
    archive(tmp_path / "packed.tgz")
    give_npm(
        tmp_path,
        f"assert sys.argv[1:3] == ['pack', 'onnxruntime-web@1.30.0'], sys.argv\n"
        f"shutil.copy({str(tmp_path / 'packed.tgz')!r}, {ARCHIVE!r})",
    )
    told = []
    assert find_runtime(None, told.append) == CONTENTS
    assert len(told) == 1 and "by npm" in told[0]
    (tmp_path / "bin" / "npm").unlink()
    assert find_runtime(None, told.append) == CONTENTS and len(told) == 1
    (runtime_cache() / "ort.wasm.bundle.min.mjs").write_bytes(b"changed")
    with pytest.raises(UserError, match="is not that of onnxruntime-web"):
        find_runtime(None, told.append)


def test_what_npm_says_when_it_fails_is_told(tmp_path):
    give_npm(tmp_path, "print('npm error code ENOTFOUND', file=sys.stderr)\nsys.exit(1)")
    with pytest.raises(UserError, match=r"npm could not fetch onnxruntime-web 1\.30\.0 \(npm error code ENOTFOUND\)"):
        find_runtime(None, lambda message: None)
    assert not runtime_cache().exists()


def test_an_npm_that_hangs_is_ended(tmp_path, monkeypatch):
    give_npm(tmp_path, "import time\ntime.sleep(30)")
    monkeypatch.setattr(runtime, "_SECONDS", 0.2)
    with pytest.raises(UserError, match=r"npm did not fetch onnxruntime-web within 0\.2 s"):
        find_runtime(None, lambda message: None)
    assert os.listdir(tmp_path) == ["bin"]
