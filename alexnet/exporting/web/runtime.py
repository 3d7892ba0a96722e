"""ONNX Runtime Web, which runs the network in the browser: two files of its npm package, found or fetched, and checked.

They are 14 MB, so they are neither in this package nor in its repository. npm, which knows where the user's packages
come from, fetches them once.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from alexnet.data.remote_prepared import cache_folder
from alexnet.errors import UserError
from alexnet.runtime.files import write_atomically

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
FILES = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""Name in the package's dist folder -> SHA-256. The first begins with its copyright and licence (MIT)."""
_LARGEST = 20_000_000
_SECONDS = 600


def find_runtime(given: Path | None, tell: Callable[[str], None]) -> dict[str, bytes]:
    """The files by name: of `given`, or else of the cache, or else fetched by npm.

    given: the unpacked package, its dist folder, or the archive of `npm pack`. Raises UserError, which says what to
    get and where to put it, where they are not to be had or are not those of `VERSION`.
    """
    if given is not None:
        if not given.exists():
            raise UserError(f"--runtime {given} is not there. {_by_hand()}")
        return _checked(_read_archive(given) if given.is_file() else _read_folder(given), f"--runtime {given}")
    cache = runtime_cache()
    if all((cache / name).is_file() for name in FILES):
        return _checked({name: (cache / name).read_bytes() for name in FILES}, str(cache))
    files = _fetch(tell)
    for name, contents in files.items():
        write_atomically(cache / name, lambda file, contents=contents: file.write(contents), len(contents))
    return files


def runtime_cache() -> Path:
    """Where the files are kept."""
    return cache_folder() / f"{PACKAGE}-{VERSION}"


def _fetch(tell: Callable[[str], None]) -> dict[str, bytes]:
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"the page needs {PACKAGE} {VERSION} and there is no npm to fetch it. {_by_hand()}")
    tell(f"Fetching {PACKAGE} {VERSION} by npm (33 MB, once).")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--loglevel=error"]
        try:
            done = subprocess.run(
                command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"npm did not fetch {PACKAGE} within {_SECONDS} s. {_by_hand()}") from None
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            reason = next((line for line in done.stderr.splitlines() if line.strip()), "it gave no archive")
            raise UserError(f"npm could not fetch {PACKAGE} {VERSION} ({reason.strip()}). {_by_hand()}")
        return _checked(_read_archive(archives[0]), "what npm fetched")


def _by_hand() -> str:
    return (
        f"On a machine with npm and a network, `npm pack {PACKAGE}@{VERSION}` writes {PACKAGE}-{VERSION}.tgz: give "
        f"that file by --runtime. Or put {' and '.join(FILES)} of its dist folder into {runtime_cache()}"
    )


def _read_folder(folder: Path) -> dict[str, bytes]:
    """The files in a folder, or in its dist or package/dist."""
    for place in (folder, folder / "dist", folder / "package" / "dist"):
        paths = {name: place / name for name in FILES}
        if all(path.is_file() and path.stat().st_size <= _LARGEST for path in paths.values()):
            return {name: path.read_bytes() for name, path in paths.items()}
    raise UserError(f"--runtime {folder} holds no {' and no '.join(FILES)}. {_by_hand()}")


def _read_archive(path: Path) -> dict[str, bytes]:
    """The files in an archive of `npm pack`; only what is wanted is read, and nothing is unpacked onto the disk."""
    wanted = {f"package/dist/{name}": name for name in FILES}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|gz") as members:
            for member in members:
                name = wanted.get(member.name)
                if name is not None and member.isfile() and member.size <= _LARGEST:
                    file = members.extractfile(member)
                    found[name] = b"" if file is None else file.read()
                if len(found) == len(wanted):
                    break
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{path} is no archive of npm, or is damaged ({error})") from None
    missing = [name for name in FILES if name not in found]
    if missing:
        raise UserError(f"{path} has no package/dist/{missing[0]}. {_by_hand()}")
    return found


def _checked(files: Mapping[str, bytes], source: str) -> dict[str, bytes]:
    for name, contents in files.items():
        found = hashlib.sha256(contents).hexdigest()
        if found != FILES[name]:
            raise UserError(
                f"{source}: {name} is not that of {PACKAGE} {VERSION} (SHA-256 {found[:16]}..., expected "
                f"{FILES[name][:16]}...). Delete it. {_by_hand()}"
            )
    return dict(files)
