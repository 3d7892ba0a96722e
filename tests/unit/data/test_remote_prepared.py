"""A prepared data set on a server is the one on the disk, whatever the cache holds and whatever goes wrong."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import simplejpeg

from alexnet.config import AugmentConfig, DataConfig
from alexnet.data import remote_files, remote_prepared
from alexnet.data.loader import TrainingLoader
from alexnet.data.prepare import Request, prepare_data_set
from alexnet.data.remote_files import HttpFiles, RemoteError
from alexnet.data.remote_prepared import open_remote
from alexnet.data.sampler import ImageOrder, ShardWindows
from alexnet.data.sources import open_source
from alexnet.data.squares import load_images
from alexnet.errors import RunError, UserError
from alexnet.reporting.progress import Progress

SIZE = 24


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """60 training images in 6 shards and 20 validation images in 2."""
    root = tmp_path_factory.mktemp("original")
    generator = np.random.default_rng(0)
    for split, count in (("train", 30), ("val", 10)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (30, 26, 3), dtype=np.uint8)
                (root / split / name / f"{name}{i}.jpg").write_bytes(simplejpeg.encode_jpeg(pixels))
    folder = tmp_path_factory.mktemp("prepared") / "set"
    with Progress("silent") as progress:
        prepare_data_set(Request(str(root), folder, image_size=SIZE, images_per_shard=10, num_workers=1), progress)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote_files, "_PAUSES_SECONDS", (0.01, 0.01, 0.01))
    return tmp_path / "cache"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files with ranges, over connections that stay open; counts what it is asked for, and fails when told to."""

    protocol_version = "HTTP/1.1"
    wbufsize = 2**16

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        server.hosts.add(self.headers["Host"])
        server.ports.add(self.client_address[1])
        if server.failures:
            self.send_error(server.failures.pop())
            return
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        try:
            with open(self.translate_path(self.path), "rb") as file:
                data = file.read()
        except OSError:
            self.send_error(404)
            return
        wanted = self.headers.get("Range")
        if wanted and server.has_ranges:
            start, stop = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
            data = data[start : stop + 1]
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        cut = server.cut.pop() if server.cut and self.path.endswith(".tar") and not wanted else None
        self.wfile.write(data[:cut])
        if cut is not None or server.closing:
            self.close_connection = True

    def log_message(self, *_):
        pass


@contextmanager
def serving(folder):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    server.daemon_threads = True
    server.asked, server.ports, server.hosts = [], set(), set()
    server.failures, server.cut, server.has_ranges = [], [], True
    server.closing = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def squares(source, split="train"):
    part = getattr(source, split)
    return np.stack([part.read(i) for i in range(len(part))])


def shards_of(source):
    """The RemoteShards of the training split."""
    return source.train.storage.expect.__self__


def test_a_remote_set_is_the_local_one(prepared):
    local = open_source(str(prepared), DataConfig())
    with serving(prepared) as (_, address):
        for spec in (address, f"{address}/dataset.json", f"prepared:{address}/"):
            remote = open_source(spec, DataConfig())
            assert remote.fingerprint == local.fingerprint and remote.classes == local.classes
            assert list(remote.train.keys) == list(local.train.keys)
            assert np.array_equal(remote.train.labels, local.train.labels)
        for split in ("train", "val"):
            assert np.array_equal(squares(remote, split), squares(local, split))
        assert np.array_equal(remote.load_statistics().mean_image, local.load_statistics().mean_image)


def test_statistics_that_are_not_those_of_the_set_are_refused(prepared, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "set")
    content = bytearray((folder / "statistics.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "statistics.npz").write_bytes(content)
    with serving(folder) as (_, address), pytest.raises(UserError, match=r"statistics\.npz differs from its checksum"):
        open_remote(address, 1.0)
    # Older sets have no checksum of it.
    record = json.loads((folder / "dataset.json").read_text())
    del record["statistics"]["sha256"]
    (folder / "dataset.json").write_text(json.dumps(record))
    with serving(folder) as (_, address):
        open_remote(address, 1.0)


def test_the_index_is_fetched_once_and_shards_too(prepared):
    with serving(prepared) as (server, address):
        source = open_remote(address, 1.0)
        for _ in range(20):
            squares(source)
            if shards_of(source).wait(10):
                break
        server.asked.clear()
        again = open_remote(address, 1.0)
        expected = squares(open_source(str(prepared), DataConfig()))
        assert np.array_equal(squares(again), expected) and np.array_equal(squares(source), expected)
        assert server.asked == [("/dataset.json", None)]


def test_single_images_come_while_their_shards_do_not(prepared):
    with serving(prepared) as (server, address):
        source = open_remote(address, 0)  # no room for any shard
        assert np.array_equal(squares(source), squares(open_source(str(prepared), DataConfig())))
        ranges = [wanted for path, wanted in server.asked if path.startswith("/train/0")]
        assert len(ranges) == 60 and None not in ranges
        assert len(server.ports) == 1  # one connection, which stays open


def test_a_server_without_ranges_gives_whole_shards(prepared):
    with serving(prepared) as (server, address):
        server.has_ranges = False
        source = open_remote(address, 1.0)
        assert np.array_equal(squares(source), squares(open_source(str(prepared), DataConfig())))
        with pytest.raises(RunError, match=r"whole files only.*data\.cache_gb"):
            shutil.rmtree(shards_of(source)._cache.folder)
            open_remote(address, 0).train.read(0)


def test_only_the_shards_of_two_windows_are_kept(prepared, cache):
    sizes = [path.stat().st_size for path in sorted((prepared / "train").glob("*.tar"))]
    with serving(prepared) as (server, address):
        source = open_remote(address, 4.5 * max(sizes) / 2**30)
        images = load_images(source.train, SIZE, num_workers=0, max_unreadable=0, memory_limit_bytes=0)
        loader = TrainingLoader(
            images,
            source.load_statistics(),
            AugmentConfig(),
            order=ImageOrder(60, "each_epoch", 0, windows=ShardWindows(images.storage.shards, 2)),
            batch_size=10,
            crop_size=16,
            num_workers=2,
        )
        batches = []
        for batch in loader.batches(0, 18):
            batches.append(batch)
            assert shards_of(source).wait(10) and not shards_of(source)._failed
            assert sum(path.stat().st_size for path in cache.rglob("*.tar")) <= 4.5 * max(sizes)
        local = open_source(str(prepared), DataConfig())
        loader.images = load_images(local.train, SIZE, num_workers=0, max_unreadable=0, memory_limit_bytes=0)
        for batch in batches:
            expected = loader.make_batch(batch.step)
            assert np.array_equal(batch.indices, expected.indices)
            assert np.array_equal(batch.crops.numpy(), expected.crops.numpy())
        whole = [path for path, wanted in server.asked if wanted is None and path.startswith("/train/0")]
        assert len(whole) <= 3 * 6  # each at most once an epoch


def test_passing_failures_are_tried_again(prepared):
    with serving(prepared) as (server, address):
        server.failures = [503, 500, 429]
        source = open_remote(address, 0)
        server.failures = [503, 503]
        assert source.train.read(3).shape == (SIZE, SIZE, 3)
        server.failures = [503] * 4
        with pytest.raises(RunError, match=r"answers 503.*same command"):
            source.train.read(4)


def test_a_download_that_breaks_off_is_done_again(prepared, cache):
    with serving(prepared) as (server, address):
        source = open_remote(address, 1.0)
        server.cut = [700, 700]
        shards_of(source).expect([2])
        assert shards_of(source).wait(10)
        assert not shards_of(source)._failed
        assert [path.name for path in cache.rglob("*.tar*") if ".lock" not in path.name] == ["000002.tar"]
        assert source.train.read(25).shape == (SIZE, SIZE, 3)


def test_a_download_that_nobody_reads_on_does_not_spoil_the_next_answer(prepared, monkeypatch):
    monkeypatch.setattr(remote_files, "_CHUNK_BYTES", 100)
    monkeypatch.setattr(remote_files, "_PAUSES_SECONDS", ())
    with serving(prepared) as (_, address):
        files = HttpFiles(address)
        chunks = files.chunks("train/000000.tar")
        next(chunks)
        chunks.close()
        assert files.read("dataset.json", 0, 5) == (prepared / "dataset.json").read_bytes()[:5]


def test_a_connection_that_the_server_has_closed_is_opened_again(prepared, monkeypatch):
    monkeypatch.setattr(remote_files, "_PAUSES_SECONDS", ())  # at once, which is no second attempt
    with serving(prepared) as (server, address):
        files = HttpFiles(address)
        assert len(files.read("dataset.json", 0, 5)) == 5
        server.closing = True
        assert len(files.read("dataset.json", 0, 5)) == 5  # the last answer over the connection
        server.closing = False
        assert len(files.read("dataset.json", 0, 5)) == 5
        assert len(server.ports) == 2


def test_redirections_are_followed(prepared):
    with serving(prepared) as (_, address):
        assert len(open_remote(f"{address}/moved", 1.0).train) == 60


def test_an_address_without_a_data_set_is_the_persons_mistake(prepared):
    missing = r"nothing/dataset\.json: the server answers 404.*alexnet prepare"
    with serving(prepared) as (_, address), pytest.raises(UserError, match=missing):
        open_source(f"{address}/nothing", DataConfig())
    with pytest.raises(UserError, match="refused"):
        open_source(address, DataConfig())
    with pytest.raises(UserError, match=r"cannot be read|not installed"):
        open_source("nowhere://bucket/set", DataConfig())


def test_a_set_that_changed_is_noticed(prepared, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(prepared, copy)
    with serving(copy) as (_, address):
        source = open_remote(address, 0)
        shard = copy / "train" / "000001.tar"
        data = bytearray(shard.read_bytes())
        data[int(source.train.storage.expect.__self__.index.offset[12]) + 200] ^= 1
        shard.write_bytes(data)
        with pytest.raises(RunError, match=r"000001\.tar: an image differs from its checksum"):
            source.train.read(12)
        whole = open_remote(address, 1.0)
        shards_of(whole).expect([1])
        assert shards_of(whole).wait(10)
        assert not list(copy.parent.rglob("cache/**/000001.tar"))


def test_names_that_lead_out_of_the_folder_are_refused(prepared, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(prepared, copy)
    record = json.loads((copy / "dataset.json").read_text())
    for name in ("../../evil.tar", "/etc/evil.tar", "C:\\evil.tar"):
        record["splits"]["train"]["shards"][0]["file"] = name
        (copy / "dataset.json").write_text(json.dumps(record))
        with serving(copy) as (_, address), pytest.raises(UserError, match="outside of its folder"):
            open_remote(address, 1.0)


def test_stores_other_than_http_are_read_through_fsspec(prepared):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(prepared), "/bucket/set", recursive=True)
    source = open_source("memory://bucket/set", DataConfig(cache_gb=0))
    assert np.array_equal(squares(source), squares(open_source(str(prepared), DataConfig())))
    whole = open_remote("memory://bucket/set", 1.0)
    shards_of(whole).expect([0, 5])
    assert shards_of(whole).wait(10) and whole.train.read(59).shape == (SIZE, SIZE, 3)
    with pytest.raises(UserError, match="does not exist"):
        open_remote("memory://bucket/other", 1.0)


def test_a_server_that_is_not_there_is_an_error():
    with pytest.raises(RemoteError, match=r"no such|refused|not known|answers"):
        HttpFiles("http://127.0.0.1:9").read("a", 0, 5)


def test_a_cache_that_is_too_small_is_told_with_the_window_that_fits(prepared):
    size = max(path.stat().st_size for path in (prepared / "train").glob("*.tar")) / 2**30
    with serving(prepared) as (_, address):
        assert "data.shuffle_window=2" in open_remote(address, 4.5 * size).notes[0]
        assert "data.shuffle_window=2" in open_remote(address, 4.5 * size, 3).notes[0]
        assert "raise data.cache_gb" in open_remote(address, 0.5 * size).notes[0]
        assert open_remote(address, 4.5 * size, 2).notes == () and open_remote(address, 1.0).notes == ()


def test_validation_shards_have_what_training_leaves_and_neither_evicts_the_other(prepared, cache):
    size = max(path.stat().st_size for path in (prepared / "train").glob("*.tar"))
    limit = 6.5 * size  # two windows of two shards, and the two shards of validation images
    with serving(prepared) as (_, address):
        source = open_remote(address, limit / 2**30, 2)
        training, validation = shards_of(source), source.val.storage.expect.__self__
        squares(source, "val")
        assert validation.wait(10)
        squares(source, "val")  # maps them
        for shards in ([0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 0, 1]):
            training.expect(shards)
            assert training.wait(10) and not training._failed
            for shard in shards:
                training.payload(shard * 10)
            assert sorted(path.name for path in cache.glob("*/val/*.tar")) == ["000000.tar", "000001.tar"]
            assert sum(path.stat().st_size for path in cache.rglob("*.tar")) <= limit
        crowded = open_remote(address, 4.5 * size / 2**30, 2)
        assert not crowded.val.storage.expect.__self__._fits


def test_a_part_of_a_set_is_drawn_without_reading_keys(prepared):
    config = DataConfig(cache_gb=0, max_train_images=7)
    local = open_source(str(prepared), config)
    with serving(prepared) as (server, address):
        remote = open_source(address, config)
        assert not [path for path, _ in server.asked if path.endswith(".tar")]
        assert list(remote.train.keys) == list(local.train.keys) and len(set(remote.train.keys)) == 7
        assert remote.fingerprint == local.fingerprint
        other = open_source(str(prepared), DataConfig(max_train_images=7, split_seed=1))
        assert other.fingerprint != local.fingerprint and list(other.train.keys) != list(local.train.keys)
        assert np.array_equal(squares(remote), squares(local))


def test_a_shard_that_could_not_be_had_is_tried_again_after_a_while(prepared, monkeypatch):
    monkeypatch.setattr(remote_prepared, "_PAUSE_SECONDS", 0.0)
    with serving(prepared) as (server, address):
        source = open_remote(address, 1.0)
        server.cut = [10] * 4  # all that is tried for one shard
        source.train.read(0)
        assert shards_of(source).wait(10) and shards_of(source)._failed
        source.train.read(0)
        assert shards_of(source).wait(10)
        source.train.read(0)
        assert shards_of(source)._maps[int(shards_of(source).index.shard[0])] is not None


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://[oops/set", "no address"),
        ("http:///set", "names no host"),
        ("http://host:port/set", "no address"),
        ("http://a..b/set", "label"),
        ("http://" + "a" * 70 + "/set", "label"),
    ],
)
def test_what_is_no_address_is_the_persons_mistake(address, words):
    with pytest.raises(UserError, match=words):
        open_source(address, DataConfig())


def test_an_address_may_be_written_with_spaces_umlauts_and_a_user(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "web" / "my b\u00fccher")
    with serving(tmp_path / "web") as (server, address):
        assert len(open_remote(f"{address}/my b\u00fccher", 0).train) == 60
        assert len(open_remote(f"{address.replace('//', '//me:secret@')}/my%20b%C3%BCcher", 0).train) == 60
        assert not any("secret" in host for host in server.hosts)


def test_a_window_without_shards_has_no_effect_and_says_so(prepared):
    assert "no effect" in open_source("digits", DataConfig(shuffle_window=3)).notes[-1]
    assert open_source(str(prepared), DataConfig(shuffle_window=3)).notes == ()
