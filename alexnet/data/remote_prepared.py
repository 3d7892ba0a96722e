"""A prepared data set on the network: the index here, shards in a cache of bounded size, single images meanwhile."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import shutil
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from alexnet.data.prepared import (
    DESCRIPTION,
    SPLITS,
    STATISTICS,
    open_index,
    prepared_source,
    prepared_split,
    read_description,
)
from alexnet.data.remote_files import RemoteError, RemoteFiles, open_remote_files, read_whole, retry
from alexnet.data.shard_cache import DamagedDownload, ShardCache
from alexnet.data.shards import HEADER_BYTES, ShardIndex, check_index, map_file, name_in_header
from alexnet.data.splits import Source, Split
from alexnet.errors import RunError, UserError
from alexnet.runtime.files import write_atomically

_DOWNLOADS = 2
"""Shards that come at the same time: enough to use a connection while the other one begins."""
_PAUSE_SECONDS = 300.0
"""Until a shard that could not be had is tried again."""


def open_remote(address: str, cache_gb: float | None, shuffle_window: int | None = None) -> Source:
    """The prepared data set at an address: that of its folder or of its dataset.json.

    cache_gb: the most that shards may take on this machine's disk; None: half of what is free there. The index is
    fetched once. shuffle_window: how it will be read, for a note where the cache is too small. Raises UserError.
    """
    address = address.removesuffix(f"/{DESCRIPTION}").rstrip("/")
    files = open_remote_files(address)
    try:
        description = read_whole(files, DESCRIPTION)
        # What the folder holds belongs to this very description, whatever is at the address tomorrow.
        folder = cache_folder() / hashlib.sha256(description).hexdigest()[:32]
        _keep(folder / DESCRIPTION, description)
        record = read_description(folder)
        _check_names(record, address)
        parts = {name: record["splits"].get(name) for name in SPLITS}
        for part in parts.values():
            if part is not None:
                _fetch(files, folder, part["index"]["file"], part["index"]["sha256"])
        if parts["train"] is not None:
            described = record.get("statistics")
            # Older sets have no checksum of it.
            _fetch(files, folder, STATISTICS, described.get("sha256") if isinstance(described, dict) else None)
    except RemoteError as error:
        raise UserError(
            f"{error}. Give the address of a folder that `alexnet prepare` wrote, or of its dataset.json."
        ) from None
    limit = _free_bytes(folder) // 2 if cache_gb is None else int(cache_gb * 2**30)
    cache = ShardCache(folder, limit)
    rooms = _rooms(parts, limit, shuffle_window)
    splits: dict[str, Split | None] = {}
    for name, part in parts.items():
        splits[name] = None
        if part is not None:
            index = open_index(folder, record, name)
            names = [PurePosixPath(shard["file"]).name for shard in part["shards"]]
            check_index(index, [shard["bytes"] for shard in part["shards"]], f"{address}/{name}", names)
            shards = RemoteShards(files, part["shards"], index, cache, address, room=rooms[name])
            splits[name] = prepared_split(name, shards, record, is_remote=True, expect=shards.expect)
    note = _note_on_room(parts["train"], limit, shuffle_window)
    return replace(prepared_source(folder, record, splits), notes=(note,) if note else ())


def _rooms(parts: dict[str, dict[str, Any] | None], limit: int, window: int | None) -> dict[str, int]:
    """Bytes that the shards of each split may take in the cache: validation has what training leaves."""
    sizes = [shard["bytes"] for shard in part["shards"]] if (part := parts["train"]) is not None else []
    taken = sum(sizes)
    if window is not None:
        taken = min(taken, 2 * window * max(sizes, default=0))
    elif taken > limit:
        taken = 0  # what does not fit is not downloaded
    return {"train": limit, "val": limit - taken}


def _note_on_room(part: dict[str, Any] | None, limit: int, window: int | None) -> str | None:
    """What a person should know when the cache cannot hold what training reads."""
    sizes = [shard["bytes"] for shard in part["shards"]] if part is not None else []
    if sum(sizes) <= limit:
        return None
    fitting = limit // (2 * max(sizes))
    if window is not None and window <= fitting:
        return None
    gigabytes = [f"{number / 2**30:.3g} GB" for number in (sum(sizes), limit)]
    remedy = (
        f"set data.shuffle_window={fitting}, so that two windows of shards fit" if fitting else "raise data.cache_gb"
    )
    return (
        f"The training images take {gigabytes[0]}, the cache {gigabytes[1]}: what is not in it is fetched image by "
        f"image, which is slow; {remedy}."
    )


def cache_folder() -> Path:
    """Where data sets from the network are kept: $ALEXNET_CACHE, or alexnet in the user's cache."""
    named = os.environ.get("ALEXNET_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alexnet"


def _free_bytes(folder: Path) -> int:
    """What is free on the disk, and what the cache holds of it already."""
    used = 0
    for path in folder.rglob("*.tar"):
        with contextlib.suppress(FileNotFoundError):  # another process has just made room
            used += path.stat().st_size
    return shutil.disk_usage(folder).free + used


def _keep(path: Path, content: bytes) -> None:
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: file.write(content), len(content))


def _fetch(files: RemoteFiles, folder: Path, name: str, sha256: str | None) -> None:
    """Bring a small file into the folder, once."""
    if (folder / name).is_file():
        return
    content = read_whole(files, name)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise RemoteError(f"{name} differs from its checksum in dataset.json; the data set there is not whole")
    _keep(folder / name, content)


def _check_names(record: dict[str, Any], address: str) -> None:
    """Files are kept under the names that dataset.json gives them: they must stay in the folder."""
    names = []
    try:
        parts = [part for part in record["splits"].values() if part is not None]
        names += [entry["file"] for part in parts for entry in (part["index"], *part["shards"])]
        names += [entry["sha256"] for part in parts for entry in (part["index"], *part["shards"])]
        numbers = [entry["bytes"] for part in parts for entry in part["shards"]]
        sound = all(isinstance(name, str) for name in names) and all(isinstance(number, int) for number in numbers)
    except (KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise UserError(f"{address}/{DESCRIPTION} is damaged. Prepare the data set again.")
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            raise UserError(f"{address}/{DESCRIPTION} names a file outside of its folder: {json.dumps(name)}.")


class RemoteShards:
    """The shards of one split; those in the cache are mapped, of others single images are fetched.

    Shards are downloaded in the background: those that `expect` names, or, before it is called, all that are read from,
    provided that there is room for all of the split.
    """

    def __init__(
        self,
        files: RemoteFiles,
        records: Sequence[dict[str, Any]],
        index: ShardIndex,
        cache: ShardCache,
        address: str,
        *,
        room: int,
    ) -> None:
        """room: bytes that all these shards may take in the cache."""
        self.index = index
        self.files = [f"{address}/{record['file']}" for record in records]
        self._remote, self._records, self._cache = files, records, cache
        self._fits = sum(record["bytes"] for record in records) <= room
        self._maps: list[mmap.mmap | None] = [None] * len(records)
        self._lock = threading.Condition()
        self._wanted: list[int] = []
        self._expected: list[int] | None = None
        self._coming: set[int] = set()
        self._failed: dict[int, float] = {}
        """When a shard could not be had."""

    def __len__(self) -> int:
        return len(self.index)

    def payload(self, i: int) -> memoryview | bytes:
        """The bytes of image i as they are in the shard; RunError when they cannot be had, or are wrong."""
        start, size = int(self.index.offset[i]), int(self.index.size[i])
        shard = int(self.index.shard[i])
        mapped = self._mapped(shard)
        if mapped is not None:
            return memoryview(mapped)[start : start + size]
        data = self._fetch(shard, start, size)
        if zlib.crc32(data) != int(self.index.checksum[i]):
            raise RunError(f"{self.files[shard]}: an image differs from its checksum; the data set there was changed.")
        return data

    def key(self, i: int) -> str:
        """The key of image i, from its header in the shard."""
        shard, stop = int(self.index.shard[i]), int(self.index.offset[i])
        mapped = self._mapped(shard)
        start = stop - HEADER_BYTES
        header = self._fetch(shard, start, HEADER_BYTES) if mapped is None else mapped[start:stop]
        return name_in_header(header).rpartition(".")[0]

    def expect(self, shards: Sequence[int]) -> None:
        """Download these shards, the first of them first, and let go of all others."""
        with self._lock:
            self._expected = list(shards)
            self._failed.clear()  # there may be room now
            for shard in set(range(len(self._maps))) - set(shards):
                self._maps[shard] = None  # a file that is mapped takes its space even when it is deleted
                self._cache.kept.discard(self._records[shard]["file"])
            self._cache.kept.update(self._records[shard]["file"] for shard in shards)
            self._wanted = [shard for shard in shards if self._maps[shard] is None and shard not in self._coming]
            self._start_downloads()

    def wait(self, seconds: float) -> bool:
        """Wait until no shard is wanted any more; False after so many seconds."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._wanted and not self._coming, seconds)

    def _mapped(self, shard: int) -> mmap.mmap | None:
        mapped = self._maps[shard]
        if mapped is not None:
            return mapped
        record = self._records[shard]
        path = self._cache.get(record["file"], record["bytes"])
        if path is None:
            self._want(shard)
            return None
        try:
            mapped = map_file(path)
        except RunError:  # another process has just made room
            return None
        with self._lock:
            if self._fits if self._expected is None else shard in self._expected:
                self._maps[shard] = mapped
                self._cache.kept.add(record["file"])
        return mapped

    def _want(self, shard: int) -> None:
        with self._lock:
            failed = time.monotonic() - self._failed.get(shard, -math.inf) < _PAUSE_SECONDS
            known = shard in self._wanted or shard in self._coming or failed
            if self._expected is None and self._fits and not known:
                self._wanted.append(shard)
                self._start_downloads()

    def _fetch(self, shard: int, start: int, size: int) -> bytes:
        """A part of a shard that is not here."""
        try:
            if self._remote.has_ranges:
                return self._remote.read(self._records[shard]["file"], start, size)
        except RemoteError as error:
            if self._remote.has_ranges:
                raise RunError(f"{error}. When it can be read again, give the same command to go on.") from None
        path = self._download(shard, wait=True)
        if path is None:
            raise RunError(
                f"{self.files[shard]}: the server sends whole files only, and the cache has no room for it; raise "
                "data.cache_gb."
            )
        return map_file(path)[start : start + size]

    def _start_downloads(self) -> None:
        """Have as many threads as there is work for; called with the lock held."""
        for _ in range(min(_DOWNLOADS - len(self._coming), len(self._wanted))):
            shard = self._wanted.pop(0)
            self._coming.add(shard)
            threading.Thread(target=self._download_all, args=(shard,), name="alexnet-shards", daemon=True).start()

    def _download_all(self, shard: int | None) -> None:
        """Download a shard and then those that are wanted next."""
        while shard is not None:
            try:
                is_here = self._download(shard) is not None
            except (RunError, OSError):
                is_here = False
            with self._lock:
                self._coming.discard(shard)
                if not is_here:
                    # Its images are fetched one by one for a while; if the set was changed, they will say so.
                    self._failed[shard] = time.monotonic()
                shard = self._wanted.pop(0) if self._wanted else None
                if shard is not None:
                    self._coming.add(shard)
                self._lock.notify_all()

    def _download(self, shard: int, *, wait: bool = False) -> Path | None:
        record = self._records[shard]
        try:
            return retry(
                lambda: self._cache.fetch(
                    record["file"],
                    record["bytes"],
                    record["sha256"],
                    lambda: self._remote.chunks(record["file"]),
                    wait=wait,
                )
            )
        except DamagedDownload as error:
            raise RunError(f"{self.files[shard]}: {error}; the data set there was changed.") from None
        except Exception as error:
            raise RunError(f"{self.files[shard]} cannot be read: {error}.") from None
