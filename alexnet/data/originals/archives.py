"""What is in a tar or zip archive, and where: archives are indexed once, and nothing of them is unpacked.

Members that could do harm when unpacked (links, devices, names that lead out of the archive) are never more than a
name here; they are left out and told.
"""

from __future__ import annotations

import itertools
import re
import struct
import tarfile
import zipfile
import zlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from alexnet.data.decode import UnreadableImage
from alexnet.data.originals.containers import Container, GzipFile, PlainFile
from alexnet.errors import UserError
from alexnet.runtime.text import valid_text

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
ARCHIVE_SUFFIXES = (*TAR_SUFFIXES, ".zip")
_UNREAD_SUFFIXES = (".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".7z", ".rar", ".gz", ".bz2", ".xz")
_MAX_HEADER_BYTES = 2**20
_MAX_PADDING = 2**20
"""After a tar's end; writers fill up their last record, which usually has 10 KB."""
_OCTAL = re.compile(rb"[0-7]+")
_STORED, _DEFLATED, _TAR = 0, 8, 255


@dataclass
class Members:
    """The files in an archive, N of them: names with slashes, and where their bytes are."""

    container: Container
    names: list[str] = field(default_factory=list)
    offsets: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    methods: array[int] = field(default_factory=lambda: array("B"))
    packed_sizes: array[int] = field(default_factory=lambda: array("q"))
    refused: list[tuple[str, str]] = field(default_factory=list)
    """Members that are left out, and why."""
    damage: str | None = None
    """Why the archive ends before its end; what was before is listed."""

    def add(self, name: str, offset: int, size: int, method: int = _TAR, packed: int = 0) -> None:
        """One more file."""
        self.names.append(name)
        self.offsets.append(offset)
        self.sizes.append(size)
        self.methods.append(method)
        self.packed_sizes.append(packed)

    def read(self, i: int) -> bytes:
        """The content of file i; UnreadableImage when it is not as the archive says."""
        if self.methods[i] != _TAR:
            return self._read_zip(i)
        data = self.container.read(self.offsets[i], self.sizes[i])
        if len(data) != self.sizes[i]:
            raise UnreadableImage("the archive is cut off in it")
        return data

    def _read_zip(self, i: int) -> bytes:
        header = self.container.read(self.offsets[i], 30)
        if len(header) != 30 or header[:4] != b"PK\3\4":
            raise UnreadableImage("the archive is damaged where it should be")
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        data = self.container.read(self.offsets[i] + 30 + name_length + extra_length, self.packed_sizes[i])
        if self.methods[i] == _DEFLATED:
            try:
                # No more than was declared is ever unpacked.
                data = zlib.decompressobj(-15).decompress(data, self.sizes[i] + 1)
            except zlib.error:
                raise UnreadableImage("its compressed data are damaged") from None
        if len(data) != self.sizes[i]:
            raise UnreadableImage("it is not as long as the archive says")
        return data


def is_archive(name: str) -> bool:
    """Whether a file of this name can be read as an archive."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def refuse_other_archives(path: Path) -> None:
    """Raise UserError, with the remedy, for an archive of a kind that cannot be read in place."""
    name = path.name.lower()
    if name.endswith(_UNREAD_SUFFIXES) and not is_archive(name):
        raise UserError(
            f"{path} is an archive of a kind that cannot be read in place (tar, tar.gz and zip can). Unpack it and "
            "give the folder."
        )


def index_archive(path: Path, on_progress: Callable[[int, int], None] | None = None) -> Members:
    """List an archive; tar archives in a tar are listed with it, their members below their name without `.tar`.

    An archive that is cut off is listed as far as it goes, and `damage` says where it ends. on_progress(bytes, of all).
    Raises UserError for a file that is no archive.
    """
    container: Container = PlainFile(path)
    start = container.read(0, 4)
    if path.name.lower().endswith(".zip") or start == b"PK\3\4":
        return _index_zip(path)
    is_packed = start[:2] == b"\x1f\x8b"
    if is_packed:
        # It is gone through twice: here, and for its headers below.
        container = GzipFile(path, on_progress and (lambda done, total: on_progress(done, 2 * total)))
    members = Members(container)
    with _Window(container) as window:
        for name, offset, size in _walk_tar(window, 0, container.size, members, path.name):
            if name.lower().endswith(".tar"):
                for inner, at, length in _walk_tar(window, offset, offset + size, members, f"{path.name}: {name}"):
                    members.add(f"{name[:-4]}/{inner}", at, length)
            else:
                members.add(name, offset, size)
            if on_progress is not None:
                done = min(offset + size, container.size)
                on_progress(done + container.size * is_packed, container.size * (1 + is_packed))
    if not members.names and members.damage is not None:
        raise UserError(f"{path} holds no files: {members.damage}. Is it a tar archive, and whole? Download it again.")
    return members


def first_names(path: Path, count: int) -> list[str]:
    """The names of the first files in a plain tar archive; none where it is not one."""
    container = PlainFile(path)
    with _Window(container) as window:
        walk = _walk_tar(window, 0, container.size, Members(container), path.name)
        return [name for name, _, _ in itertools.islice(walk, count)]


class _Window:
    """Headers of a container, read through one open file where it is a plain one."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._file = container.path.open("rb") if isinstance(container, PlainFile) else None

    def __enter__(self) -> _Window:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, offset: int, size: int) -> bytes:
        if self._file is None:
            return self._container.read(offset, size)
        self._file.seek(offset)
        return self._file.read(size)


def _walk_tar(window: _Window, start: int, stop: int, members: Members, where: str) -> Iterator[tuple[str, int, int]]:
    """(name, offset, size) of the regular files of the tar in bytes start to stop."""
    at = start
    long_name, long_size = None, None
    while True:
        header = window.read(at, 512) if at < stop else b""
        if header.strip(b"\0") == b"":
            if at == start:
                members.damage = members.damage or f"{where} is empty"
            elif len(header) < 512:
                members.damage = members.damage or f"{where} ends without the mark of a tar's end"
            elif stop - at > _MAX_PADDING:  # as where a download has only made the room for the rest
                members.damage = members.damage or (
                    f"{where} has its end at byte {at:,}, and {stop - at:,} bytes after it that are not read"
                )
            return
        try:
            info = _parse(header)
            if info.size < 0:  # it would lead back to itself
                raise tarfile.HeaderError("negative size")
        except tarfile.HeaderError:
            what = "is cut off" if len(header) < 512 else "is damaged, or no tar archive,"
            members.damage = members.damage or f"{where} {what} at byte {at:,}"
            return
        offset, size = at + 512, info.size
        at = offset + (size + 511) // 512 * 512
        if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
            content = window.read(offset, min(size, _MAX_HEADER_BYTES))
            if info.type == tarfile.GNUTYPE_LONGNAME:
                long_name = content.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
            elif info.type == tarfile.XHDTYPE:
                records = _pax_records(content)
                long_name = records.get("path", long_name)
                long_size = records.get("size")
            continue
        if long_size is not None and re.fullmatch("[0-9]{1,18}", long_size):
            size = int(long_size)
            at = offset + (size + 511) // 512 * 512
        name, long_name, long_size = long_name or info.name, None, None
        if offset + size > stop:
            members.damage = members.damage or (
                f"{where} is cut off in {valid_text(name)}: it should go on to byte {offset + size:,}, "
                f"and ends at {stop:,}"
            )
            return
        reason = _harm(name) if info.type in tarfile.REGULAR_TYPES else _kind(info)
        if info.isdir():
            continue
        if reason is not None:
            members.refused.append((f"{where}: {valid_text(name)}", reason))
        else:
            yield _clean(name), offset, size


def _parse(header: bytes) -> tarfile.TarInfo:
    """A tar header; the usual kind without tarfile's detours, five times as fast. Raises tarfile.HeaderError."""
    name = header[:100].split(b"\0", 1)[0]
    size, checksum = header[124:136].strip(b" \0"), header[148:156].strip(b" \0")
    is_usual = header[156:157] in (b"0", b"\0") and header[345:346] == b"\0" and name[-1:] != b"/"
    if is_usual and len(header) == 512 and _OCTAL.fullmatch(size) and _OCTAL.fullmatch(checksum):
        if int(checksum, 8) != sum(header) - sum(header[148:156]) + 8 * ord(" "):
            raise tarfile.HeaderError("bad checksum")
        info = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
        info.size = int(size, 8)
        return info
    return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")


def _pax_records(content: bytes) -> dict[str, str]:
    """The records `LENGTH KEY=VALUE\\n` of a pax header; what does not parse ends them."""
    records = {}
    while match := re.match(rb"(\d{1,10}) ([^=]+)=", content):
        length = int(match[1])
        if not match.end() < length <= len(content):
            break
        records[match[2].decode("utf-8", "replace")] = content[match.end() : length - 1].decode(
            "utf-8", "surrogateescape"
        )
        content = content[length:]
    return records


def _harm(name: str) -> str | None:
    """Why a member of this name is left out; None for a harmless name."""
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[\\/]", name):
        return "its name is an absolute path"
    if ".." in re.split(r"[/\\]", name):
        return "its name leads out of the archive"
    return None


def _kind(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "it is a link, not a file"
    return "it is a device or a pipe, not a file" if info.isdev() else "it is not a plain file"


def _clean(name: str) -> str:
    # PurePosixPath takes away "./", "//" and "/./"; most names have none.
    return str(PurePosixPath(name)) if name[:1] == "." or "//" in name or "/." in name else name


def _index_zip(path: Path) -> Members:
    members = Members(PlainFile(path))
    try:
        with zipfile.ZipFile(path) as file:
            infos = file.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"{path} cannot be read as a zip archive ({error}): it is cut off or damaged. Download it again."
        ) from None
    for info in infos:
        if info.is_dir():
            continue
        mode = info.external_attr >> 16
        reason = _harm(info.filename)
        if mode & 0o170000 == 0o120000:
            reason = "it is a link, not a file"
        elif info.flag_bits & 1:
            reason = "it is encrypted"
        elif info.compress_type not in (_STORED, _DEFLATED):
            reason = "it is compressed in an unusual way"
        if reason is not None:
            members.refused.append((f"{path.name}: {valid_text(info.filename)}", reason))
        else:
            members.add(
                _clean(info.filename), info.header_offset, info.file_size, info.compress_type, info.compress_size
            )
    return members
