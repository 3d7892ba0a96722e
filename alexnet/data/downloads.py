"""Files that are fetched from official addresses: data sets by their names; and the checksums of official archives."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from alexnet.data.originals.imagenet import OFFICIAL_FILES, OfficialFile
from alexnet.data.preparation import ProgressTask, Reporter
from alexnet.errors import RunError, UserError
from alexnet.runtime.files import wait_for_lock, write_text

_CHUNK = 2**18
_ATTEMPTS = 4
_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Download:
    """A file at its official address, with what is published about it."""

    url: str
    num_bytes: int | None = None
    md5: str | None = None
    sha1: str | None = None
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        """What the file is called."""
        return self.url.rpartition("/")[2]


_FASTAI = "https://s3.amazonaws.com/fast-ai-imageclas"
DOWNLOADS = {
    # Sizes as fastai publishes them (fastai/data/checks.txt), md5 sums as torchvision does.
    "imagenette": Download(f"{_FASTAI}/imagenette2.tgz", 1_557_161_267, "fe2fc210e6bb7c5664d602c3cd71e612"),
    "imagenette-320": Download(f"{_FASTAI}/imagenette2-320.tgz", 341_663_724, "3df6f0d01a2c9592104656642f5e78a3"),
    "imagenette-160": Download(f"{_FASTAI}/imagenette2-160.tgz", 99_003_388, "e793b78cc4c9e9a4ccc0c1155377a412"),
    "imagewoof": Download(f"{_FASTAI}/imagewoof2.tgz", 1_343_715_595),
    "imagewoof-320": Download(f"{_FASTAI}/imagewoof2-320.tgz", 328_387_740),
    "imagewoof-160": Download(f"{_FASTAI}/imagewoof2-160.tgz", 92_612_825),
    "tiny-imagenet": Download(
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip", 248_100_043, "90528d7ca1a48142e341f4ef8d21d0de"
    ),
    "cifar10": Download(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", 170_498_071, "c58f30108f718f92721af3b95e74349a"
    ),
}
_OTHER_NAMES = {"tiny-imagenet-200": "tiny-imagenet", "cifar-10": "cifar10"}
_NEEDS_ACCOUNT = ("imagenet", "imagenet-1k", "imagenet1k", "ilsvrc2012", "ilsvrc-2012")


def find_download(name: str) -> Download | None:
    """The download of that name; None without one. Raises UserError for ImageNet, which asks for an account."""
    key = name.lower().replace("_", "-").replace("imagenette2", "imagenette").replace("imagewoof2", "imagewoof")
    key = _OTHER_NAMES.get(key, key)
    if key in _NEEDS_ACCOUNT:
        raise UserError(
            f"{name} cannot be downloaded without an account at image-net.org. Get ILSVRC2012_img_train.tar, "
            "ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz there, put them into one folder, and give that "
            "folder; the parquet files of ILSVRC/imagenet-1k or Kaggle's archive do as well."
        )
    return DOWNLOADS.get(key)


def fetch(
    download: Download,
    folder: Path,
    reporter: Reporter,
    *,
    elsewhere: str = "choose another folder with --downloads",
) -> Path:
    """The downloaded file in `folder`; one that is there already is checked and used, one that broke off is taken up.

    Of several processes that want the same file one fetches it, and the others wait. elsewhere: what to do when the
    disk is too small. Raises UserError, saying which file to put where, when the address cannot be reached.
    """
    path = folder / download.file_name
    if path.is_file():
        _check(path, download, reporter)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with wait_for_lock(path.with_name(f".{path.name}.lock")):
        if not path.is_file():
            _fetch(download, path, reporter, elsewhere)
    return path


def _fetch(download: Download, path: Path, reporter: Reporter, elsewhere: str) -> None:
    part = path.with_name(f"{path.name}.part")
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _transfer(download.url, part, reporter, elsewhere)
            break
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # what is there is as long as the file, or longer: the checksum tells
                break
            raise UserError(_by_hand(download, path, f"the server answered {error.code} {error.reason}")) from None
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise  # a file of ours, not the network
            if attempt == _ATTEMPTS or not part.is_file() or part.stat().st_size == 0:
                reason = str(getattr(error, "reason", None) or error or type(error).__name__)
                raise UserError(_by_hand(download, path, reason)) from None
            reporter.message(f"The download of {path.name} broke off; it is taken up where it stopped.")
            time.sleep(0.2 * attempt)
    try:
        _check(part, download, reporter)
    except UserError:
        part.unlink(missing_ok=True)
        raise
    part.replace(path)


def _by_hand(download: Download, path: Path, reason: str) -> str:
    part = path.with_name(f"{path.name}.part")
    begun = f" {part.stat().st_size / 1e6:,.1f} MB of it came, and are kept for the next try." if part.is_file() else ""
    return (
        f"{download.url} cannot be reached ({reason}).{begun} Download it on a machine with a network, put it at "
        f"{path}, and give the same command again."
    )


def _transfer(url: str, part: Path, reporter: Reporter, elsewhere: str) -> None:
    """Append to `part` what it lacks of the file at `url`."""
    start = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
        resumed = response.status == 206
        start = start if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdecimal() else None
        _check_room(part, 0 if total is None else total - start, elsewhere)
        task = reporter.start(f"Downloading {part.stem} (MB)", (total or 0) // 10**6, done=start // 10**6, unit="MB")
        done = start
        try:
            with part.open("ab" if resumed else "wb", buffering=0) as file:
                while chunk := response.read(_CHUNK):
                    _write(file, chunk, part)
                    done += len(chunk)
                    task.update(done // 10**6)
                os.fsync(file.fileno())
        finally:
            task.finish()
    if total is not None and done < total:
        raise http.client.IncompleteRead(b"", total - done)


def _check_room(part: Path, missing: int, elsewhere: str) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < missing:
        raise UserError(
            f"{part.stem} needs {missing / 1e6:,.0f} MB more in {part.parent}, and {free / 1e6:,.0f} MB are free. Free "
            f"some space, or {elsewhere}."
        )


def _write(file: FileIO, chunk: bytes, part: Path) -> None:
    """Write all of a chunk; an error here is the disk's, and not the network's."""
    view = memoryview(chunk)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise RunError(
            f"Cannot write {part}: {error.strerror}. What came of the download is kept; free some space and give the "
            "same command again, it goes on from there."
        ) from None


def _check(path: Path, download: Download, reporter: Reporter) -> None:
    size = path.stat().st_size
    if download.num_bytes is not None and size != download.num_bytes:
        raise UserError(
            f"{path} has {size:,} bytes; the official file has {download.num_bytes:,}. Delete it, and give the same "
            "command again."
        )
    for algorithm in ("md5", "sha1", "sha256"):
        official = getattr(download, algorithm)
        if official is not None and (found := _digest(path, algorithm, reporter)) != official:
            raise UserError(
                f"{path} is not the official file ({algorithm} {found}, official {official}): the download is damaged. "
                "Delete it, and give the same command again."
            )


def verify_archives(archives: Sequence[Path], work: Path, reporter: Reporter, allow_damaged: bool) -> list[str]:
    """Compare archives with official names to the published sizes and md5 sums; sentences about those that differ.

    What was found is kept in `work`, so that it is not read again by the next call. Raises UserError for a file of the
    official length with other contents, unless damage is allowed.
    """
    notes = []
    for path in archives:
        official = OFFICIAL_FILES.get(path.name) or _downloadable(path.name)
        if official is None:
            continue
        size = path.stat().st_size
        if official.num_bytes is not None and size != official.num_bytes:
            notes.append(
                f"{path.name} is not the official file: it has {size:,} bytes, not {official.num_bytes:,}. It was "
                "packed by somebody else, or is cut off; it is prepared as it is."
            )
            continue
        if official.md5 is None:
            continue
        found = _kept_md5(path, work, reporter)
        if found == official.md5:
            continue
        message = f"{path.name} is not the official file: its md5 is {found}, the official one {official.md5}."
        if official.num_bytes is not None and not allow_damaged:
            raise UserError(
                f"{message} It has the right length, so it was damaged on the way or on the disk. Download it again, "
                "or go on with it by --allow-damaged."
            )
        notes.append(f"{message} It is prepared as it is.")
    return notes


def _downloadable(name: str) -> OfficialFile | None:
    for download in DOWNLOADS.values():
        if download.file_name == name:
            return OfficialFile(download.num_bytes, download.md5)
    return None


def _kept_md5(path: Path, work: Path, reporter: Reporter) -> str:
    stat = path.stat()
    key = f"{path.name} {stat.st_size} {stat.st_mtime_ns}"
    kept = work / "checksums.json"
    try:
        sums = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        sums = {}
    if key not in sums:
        sums[key] = _digest(path, "md5", reporter)
        write_text(kept, json.dumps(sums, indent=1))
    return sums[key]


def _digest(path: Path, algorithm: str, reporter: Reporter) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    total = path.stat().st_size
    task: ProgressTask | None = None
    if total > 10**9:
        task = reporter.start(f"Checking {path.name} (MB)", total // 10**6, unit="MB")
    done = 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(2**22):
                digest.update(chunk)
                done += len(chunk)
                if task is not None:
                    task.update(done // 10**6)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from None
    finally:
        if task is not None:
            task.finish()
    return digest.hexdigest()
