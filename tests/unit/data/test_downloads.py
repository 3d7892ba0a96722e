"""Downloads by name, from a server on this machine: resumed, checked, and explained where there is no network."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from layouts_of_imagenet import add, draw

from alexnet.commands.prepare import prepare
from alexnet.data import downloads
from alexnet.data.downloads import DOWNLOADS, Download, fetch, find_download
from alexnet.errors import RunError, UserError
from alexnet.reporting.progress import Progress

CLASSES = ("n01440764", "n02102040", "n02979186")


class Server:
    """Serves one file; break_after cuts each answer off after so many bytes, ranges False ignores ranges."""

    def __init__(self) -> None:
        self.content = b""
        self.break_after: int | None = None
        self.ranges = True
        self.requests: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                outer.requests.append(wanted)
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and outer.ranges else 0
                if self.path != "/set.tgz":
                    self.send_error(404)
                    return
                if start and start >= len(outer.content):
                    self.send_error(416)
                    return
                body = outer.content[start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body if outer.break_after is None else body[: outer.break_after])

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/set.tgz"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    path = tmp_path / "made.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for split, count in (("train", 6), ("val", 2)):
            for label, wnid in enumerate(CLASSES):
                for i in range(count):
                    add(tar, f"imagenette2/{split}/{wnid}/{split}_{wnid}_{i}.JPEG", draw(wnid, 10 * label + i, CLASSES))
    server.content = path.read_bytes()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def download(server: Server) -> Download:
    return Download(server.url, len(server.content), hashlib.md5(server.content).hexdigest())


def test_a_named_set_is_downloaded_checked_and_prepared(
    server: Server, download: Download, tmp_path: Path, monkeypatch
):
    monkeypatch.setitem(DOWNLOADS, "imagenette", download)
    for _ in range(2):
        record = prepare("imagenette", tmp_path / "nette", image_size=32, progress="silent", num_workers=2)
    assert record["kind"] == "imagenette" and record["class_names"] == ["tench", "English springer", "cassette player"]
    assert [record["splits"][name]["class_counts"] for name in ("train", "val")] == [[6] * 3, [2] * 3]
    assert (tmp_path / "set.tgz").read_bytes() == server.content and len(server.requests) == 1
    assert not (tmp_path / "set.tgz.part").exists()


def test_a_download_that_breaks_off_is_taken_up_where_it_stopped(server: Server, download: Download, tmp_path: Path):
    server.break_after = len(server.content) // 3 + 1
    path = fetch(download, tmp_path / "d", Progress("silent"))
    assert path.read_bytes() == server.content
    third = server.break_after
    assert server.requests == [None, f"bytes={third}-", f"bytes={2 * third}-"]


def test_the_next_call_goes_on_with_what_the_last_one_left(server: Server, download: Download, tmp_path: Path):
    part = tmp_path / "d" / "set.tgz.part"
    part.parent.mkdir()
    part.write_bytes(server.content[:1000])
    assert fetch(download, tmp_path / "d", Progress("silent")).read_bytes() == server.content
    assert server.requests == ["bytes=1000-"]


def test_a_server_without_ranges_begins_again(server: Server, download: Download, tmp_path: Path):
    server.ranges = False
    (tmp_path / "set.tgz.part").write_bytes(b"anything")
    assert fetch(download, tmp_path, Progress("silent")).read_bytes() == server.content


def test_a_complete_part_is_recognised_by_the_server_that_has_no_more(
    server: Server, download: Download, tmp_path: Path
):
    (tmp_path / "set.tgz.part").write_bytes(server.content)
    assert fetch(download, tmp_path, Progress("silent")).read_bytes() == server.content


def test_a_wrong_checksum_is_refused_and_not_kept(server: Server, download: Download, tmp_path: Path):
    wrong = Download(server.url, len(server.content), "0" * 32)
    with pytest.raises(UserError, match=r"is not the official file \(md5 [0-9a-f]{32}, official 0{32}\)"):
        fetch(wrong, tmp_path, Progress("silent"))
    assert not (tmp_path / "set.tgz").exists() and not (tmp_path / "set.tgz.part").exists()
    (tmp_path / "set.tgz").write_bytes(server.content[:-1])
    with pytest.raises(UserError, match=r"set\.tgz has [\d,]+ bytes; the official file has"):
        fetch(download, tmp_path, Progress("silent"))


def test_without_a_network_the_message_says_which_file_to_put_where(server: Server, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(downloads, "_TIMEOUT_SECONDS", 2)
    server.http.server_close()  # nobody listens there any more
    gone = Download(server.url, None, None)
    with pytest.raises(UserError) as caught:
        fetch(gone, tmp_path, Progress("silent"))
    message = str(caught.value)
    assert f"{server.url} cannot be reached" in message and f"put it at {tmp_path / 'set.tgz'}" in message
    missing = Download(server.url.replace("set.tgz", "other.tgz"))
    with pytest.raises(UserError, match="cannot be reached"):
        fetch(missing, tmp_path, Progress("silent"))


def test_what_came_before_the_network_went_is_kept_and_told(server: Server, download: Download, tmp_path: Path):
    server.http.server_close()
    (tmp_path / "set.tgz.part").write_bytes(bytes(2_500_000))
    with pytest.raises(UserError, match=r"cannot be reached .* 2\.5 MB of it came, and are kept.*put it at"):
        fetch(download, tmp_path, Progress("silent"))
    assert (tmp_path / "set.tgz.part").stat().st_size == 2_500_000


def test_too_little_room_for_a_download_is_said_before_it_begins(
    server: Server, download: Download, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(UserError, match=r"needs .* MB more in .*--downloads"):
        fetch(download, tmp_path, Progress("silent"))
    assert not (tmp_path / "set.tgz.part").exists()


def test_a_disk_that_fills_is_not_taken_for_the_network(
    server: Server, download: Download, tmp_path: Path, monkeypatch
):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full to play the full disk")
    (tmp_path / "set.tgz.part").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"Cannot write .*set\.tgz\.part: No space left on device"):
        fetch(download, tmp_path, Progress("silent"))
    assert len(server.requests) == 1


def test_an_answer_of_not_found_is_told(server: Server, tmp_path: Path):
    with pytest.raises(UserError, match=r"the server answered 404.*put it at .*other\.tgz"):
        fetch(Download(server.url.replace("set.tgz", "other.tgz")), tmp_path, Progress("silent"))


def test_names_may_be_written_in_several_ways():
    assert find_download("imagenette2-160") is DOWNLOADS["imagenette-160"] is find_download("Imagenette_160")
    assert find_download("tiny-imagenet-200") is DOWNLOADS["tiny-imagenet"] and find_download("photos") is None
    for name in ("imagenet", "ImageNet-1k", "ilsvrc2012"):
        with pytest.raises(UserError, match=r"ILSVRC2012_img_train\.tar"):
            find_download(name)
