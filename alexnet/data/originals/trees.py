"""The files of a folder or of archives as one tree of names, read in place.

Whatever recognises a data set looks at a Tree, so that a folder and an archive of it are one thing.
"""

from __future__ import annotations

import errno
import os
import stat
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from alexnet.data.decode import UnreadableImage
from alexnet.data.originals.archives import Members, index_archive
from alexnet.errors import RunError, UserError
from alexnet.runtime.text import valid_text

_MAX_FILE_BYTES = 2**29
_NOT_THE_FILES_FAULT = (
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENODEV, errno.ENXIO),
    *(errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH),
)


class Tree:
    """N files: `paths` relative to the tree with slashes, in sorted order.

    refused: members of archives that are left out, with reasons. damage: sentences about archives that are cut off.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths: list[str] = []
        self.refused: list[tuple[str, str]] = []
        self.damage: list[str] = []
        self._archives: list[Members] = []
        self._archive = array("i")  # which of _archives, -1: a file below root
        self._member = array("q")  # which of the archive's members
        self._on_disk: dict[int, str] = {}
        self._index: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, i: int) -> bytes:
        """The content of file i, from any thread. Raises UnreadableImage."""
        archive = self._archive[i]
        if archive >= 0:
            _check_size(self.size(i))
            return self._archives[archive].read(self._member[i])
        return read_image_file(self.location(i), self.root)

    def size(self, i: int) -> int:
        """Bytes of file i; 0 where that is not known."""
        archive = self._archive[i]
        if archive >= 0:
            return self._archives[archive].sizes[self._member[i]]
        try:
            return self.location(i).stat().st_size
        except OSError:
            return 0

    def location(self, i: int) -> Path:
        """Where file i is: its own path, or that of its archive."""
        archive = self._archive[i]
        return self._archives[archive].container.path if archive >= 0 else Path(self._on_disk[i])

    def name(self, i: int) -> str:
        """File i as a person finds it: a path below the root, or archive: member."""
        archive = self._archive[i]
        if archive < 0:
            return valid_text(self.paths[i])
        members = self._archives[archive]
        return f"{members.container.path.name}: {valid_text(members.names[self._member[i]])}"

    def find(self, path: str) -> int | None:
        """The number of the file with this path."""
        if self._index is None:
            self._index = {path: i for i, path in enumerate(self.paths)}
        return self._index.get(path)

    def text(self, path: str) -> str | None:
        """The content of a text file; None without one."""
        i = self.find(path)
        if i is None:
            return None
        try:
            return self.read(i).decode("utf-8-sig", "backslashreplace")
        except UnreadableImage as error:
            raise UserError(f"{self.name(i)} cannot be read: {error}. Make it readable, or unpack it again.") from None

    def add_file(self, path: str, location: Path) -> None:
        """One more file of the disk; paths are added in sorted order."""
        self._on_disk[len(self.paths)] = str(location)
        self.paths.append(path)
        self._archive.append(-1)
        self._member.append(0)

    def top(self) -> set[str]:
        """The names of the folders directly in the tree."""
        return {path.partition("/")[0] for path in self.paths if "/" in path}

    def below(self, prefix: str) -> Tree:
        """The tree of one folder of this one: what is in it, with paths relative to it."""
        start = prefix.rstrip("/") + "/"
        chosen = [i for i, path in enumerate(self.paths) if path.startswith(start)]
        return self.select(chosen, [self.paths[i][len(start) :] for i in chosen])

    def select(self, chosen: Sequence[int], paths: Sequence[str]) -> Tree:
        """The tree of some files under other names."""
        tree = Tree(self.root)
        tree.refused, tree.damage, tree._archives = self.refused, self.damage, self._archives
        entries = sorted(zip(paths, chosen, strict=True))
        for new, (path, i) in enumerate(entries):
            tree.paths.append(path)
            tree._archive.append(self._archive[i])
            tree._member.append(self._member[i])
            if i in self._on_disk:
                tree._on_disk[new] = self._on_disk[i]
        return tree


def open_tree(path: Path, on_progress: Callable[[int, int], None] | None = None) -> Tree:
    """The tree of an archive or of a folder; in a folder, archives stay files."""
    if path.is_dir():
        return _folder_tree(path)
    return archive_tree([path], on_progress)


def archive_tree(
    archives: Iterable[Path],
    on_progress: Callable[[int, int], None] | None = None,
    prefix: Callable[[Path], str] = lambda path: "",
) -> Tree:
    """One tree of several archives, each below the folder that `prefix` gives it. on_progress(MB, of all)."""
    archives = list(archives)
    sizes = [path.stat().st_size if path.is_file() else 0 for path in archives]
    before, whole = 0, max(1, sum(sizes) // 10**6)
    tree = Tree(archives[0].parent)
    entries: list[tuple[str, int, int]] = []
    for number, (path, size) in enumerate(zip(archives, sizes, strict=True)):

        def count(done: int, total: int, before: int = before, size: int = size) -> None:
            if on_progress is not None:  # a gzip file counts by what is in it
                on_progress(int(before + size * done / max(1, total)) // 10**6, whole)

        members = index_archive(path, count)
        before += size
        tree._archives.append(members)
        tree.refused += members.refused
        tree.damage += [members.damage] if members.damage else []
        front = prefix(path)
        entries += [(front + name, number, i) for i, name in enumerate(members.names) if not is_hidden(name)]
    entries.sort()
    for path, number, i in entries:
        tree.paths.append(path)
        tree._archive.append(number)
        tree._member.append(i)
    return tree


def read_image_file(path: Path, root: Path) -> bytes:
    """The content of a file below `root`. Raises UnreadableImage.

    RunError where it is not this file that is at fault: a disk or a share that is gone would otherwise make a data set
    without the images that were on it.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for ever
            raise UnreadableImage("it is a folder, not a file" if path.is_dir() else "it is not a plain file")
        _check_size(status.st_size)
        return path.read_bytes()
    except OSError as error:
        if error.errno in _NOT_THE_FILES_FAULT or not _is_there(root):
            raise RunError(
                f"{path} can no longer be read: {error.strerror}. Is the disk or the share that it is on still there? "
                "Then give the same command again."
            ) from None
        raise UnreadableImage((error.strerror or type(error).__name__).lower()) from None


def _is_there(root: Path) -> bool:
    """Whether a folder can be listed and has anything in it: the place of a share that is gone is empty."""
    try:
        with os.scandir(root) as entries:
            return next(entries, None) is not None
    except PermissionError:
        return True
    except OSError:
        return False


def _check_size(num_bytes: int) -> None:
    if num_bytes > _MAX_FILE_BYTES:
        raise UnreadableImage(f"its {num_bytes / 1e6:,.0f} MB are more than an image has")


def is_hidden(path: str) -> bool:
    """Whether a file is one of the system's own (.DS_Store, __MACOSX) rather than of the data set."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def without_wrapper(tree: Tree, keep: Iterable[str] = ()) -> Tree:
    """The tree below a folder that holds all there is, as archives usually have one; never below a name in `keep`."""
    while True:
        top = tree.top()
        if len(top) != 1 or any("/" not in path for path in tree.paths):
            return tree
        (name,) = top
        if name.lower() in keep or not all(path.count("/") >= 2 or is_note(path) for path in tree.paths):
            return tree
        tree = tree.below(name)


def is_note(path: str) -> bool:
    """Whether a file only describes the others."""
    return path.lower().endswith((".txt", ".md", ".csv", ".json", ".xml", ".html", ".mat", ".tsv"))


def _folder_tree(root: Path) -> Tree:
    tree = Tree(root)
    found: list[tuple[str, str]] = []
    pending: list[tuple[str, Path, frozenset[str]]] = [("", root, frozenset([os.path.realpath(root)]))]
    while pending:
        prefix, folder, above = pending.pop()
        for entry in _scan(folder):
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if real not in above:  # a link back to a folder above would go round for ever
                    pending.append((f"{prefix}{entry.name}/", Path(entry.path), above | {real}))
            # A broken link is kept: it is told as unreadable rather than silently missed. Pipes would hang.
            elif entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path)):
                found.append((prefix + entry.name, entry.path))
    found.sort(key=lambda item: item[0])
    for path, location in found:
        tree.add_file(path, Path(location))
    return tree


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(
            f"Cannot list the folder {folder}: {error.strerror}. Make it readable, or move it away."
        ) from None
