"""Published weights: fetched from a server on this machine, checked, cached; explained where there is no network."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from caffe_files import blob, net_of
from small_networks import small

from alexnet import UserError, create_model, import_weights
from alexnet.data.downloads import Download
from alexnet.models import ARCHITECTURES
from alexnet.reporting.progress import Progress
from alexnet.weights import published
from alexnet.weights.names import to_torchvision
from alexnet.weights.published import PUBLISHED, cache_folder, fetch_weights, find_published


class Server:
    """Serves files by name, on 127.0.0.1."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.delay_seconds = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.lstrip("/")
                outer.requests.append(name)
                time.sleep(outer.delay_seconds)
                if name not in outer.files:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(outer.files[name])))
                self.end_headers()
                self.wfile.write(outer.files[name])

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def narrow(server: Server, monkeypatch: pytest.MonkeyPatch):
    """The three published sets with narrow networks in their places, on the server; the networks by variant."""
    networks = {}
    mean = np.random.default_rng(0).uniform(90, 130, (1, 3, 256, 256)).astype(np.float32)
    image = blob(mean, old=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, contents in (("./synset_words.txt", b"n01440764 tench"), ("./imagenet_mean.binaryproto", image)):
            info = tarfile.TarInfo(name)
            info.size = len(contents)
            archive.addfile(info, io.BytesIO(contents))
    server.files["caffe_ilsvrc12.tar.gz"] = buffer.getvalue()
    monkeypatch.setattr(published, "_MEAN_ARCHIVE", Download(f"{server.url}/caffe_ilsvrc12.tar.gz"))
    monkeypatch.setattr(published, "_MEAN_SHA1", hashlib.sha1(image).hexdigest())
    for weights in PUBLISHED.values():
        record = small(weights.variant)
        monkeypatch.setitem(ARCHITECTURES, weights.variant, record)
        model = create_model(record, 1000, seed=1)
        networks[weights.variant] = model
        if weights.variant == "torchvision":
            buffer = io.BytesIO()
            torch.save({to_torchvision(name): value for name, value in model.state_dict().items()}, buffer)
            contents = buffer.getvalue()
            official = {"num_bytes": len(contents), "sha256": hashlib.sha256(contents).hexdigest()}
        else:
            contents = net_of(model)
            official = {"sha1": hashlib.sha1(contents).hexdigest()}
        name = weights.download.file_name
        server.files[name] = contents
        download = Download(f"{server.url}/{name}", **official)
        monkeypatch.setitem(PUBLISHED, weights.name, replace(weights, download=download))
    return networks, mean[0]


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("torchvision", "IMAGENET1K_V1"),
        ("torchvision", "AlexNet_Weights.IMAGENET1K_V1"),
        ("torchvision", "DEFAULT"),
        ("caffe", "bvlc_alexnet"),
        ("caffenet", "bvlc_reference_caffenet"),
        ("caffenet", "DEFAULT"),
    ],
)
def test_create_model_takes_published_weights_by_name(variant, name, narrow, server: Server, capsys) -> None:
    networks, _ = narrow
    for _ in range(2):
        model = create_model(variant, weights=name, dropout=0.3)
    for key, value in networks[variant].state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in model.parameters()) and model.training
    assert len(server.requests) == 1, "the second time they are in the cache"
    assert "Downloading" in capsys.readouterr().err
    create_model(variant, weights=name, progress=False)
    assert capsys.readouterr().err == ""


def test_the_checkpoint_has_torchvisions_preprocessing_and_class_order(narrow, server: Server) -> None:
    checkpoint = import_weights("IMAGENET1K_V1")
    preprocessing = checkpoint.preprocessing
    assert (preprocessing.image_size, preprocessing.crop_size, preprocessing.input_scale) == (256, 224, "unit")
    assert preprocessing.channel_mean == (0.485, 0.456, 0.406) and preprocessing.channel_std == (0.229, 0.224, 0.225)
    assert checkpoint.classes[:2] == ("n01440764", "n01443537") and checkpoint.class_names[0] == "tench"
    said = checkpoint.imported
    assert said["published"]["name"] == "IMAGENET1K_V1" and "56.522 %" in said["published"]["reported"]
    assert said["notes"] == [], "nothing was assumed"
    # The same file by its path is known by its checksum.
    by_path = import_weights(cache_folder() / "alexnet-owt-7be5be79.pth")
    assert by_path.imported["published"] == said["published"]


def test_caffes_weights_come_with_caffes_mean_image(narrow, server: Server) -> None:
    _, mean = narrow
    for name in ("bvlc_alexnet", "bvlc_reference_caffenet"):
        checkpoint = import_weights(name)
        assert checkpoint.preprocessing.mean_mode == "at_crop" and checkpoint.preprocessing.channel_order == "bgr"
        np.testing.assert_array_equal(checkpoint.preprocessing.mean_image.numpy(), mean[::-1].transpose(1, 2, 0))
    assert server.requests.count("caffe_ilsvrc12.tar.gz") == 1
    server.requests.clear()
    import_weights("bvlc_alexnet", mean="104,117,123")
    assert server.requests == []


def test_the_cache_is_torch_hubs(narrow, server: Server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    path = fetch_weights(PUBLISHED["IMAGENET1K_V1"], Progress("silent"))
    assert path == tmp_path / "xdg" / "torch" / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"


def test_several_that_want_the_same_file_fetch_it_once(narrow, server: Server) -> None:
    server.delay_seconds = 0.3
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch_weights(PUBLISHED["bvlc_alexnet"], Progress("silent")), range(4)))
    assert len(set(paths)) == 1 and paths[0].read_bytes() == server.files["bvlc_alexnet.caffemodel"]
    assert server.requests == ["bvlc_alexnet.caffemodel"]


def test_another_file_than_the_official_one_is_refused(narrow, server: Server) -> None:
    server.files["bvlc_alexnet.caffemodel"] += b"\0"
    with pytest.raises(UserError, match=r"is not the official file \(sha1 [0-9a-f]{40}, official [0-9a-f]{40}\)"):
        import_weights("bvlc_alexnet")
    server.files["alexnet-owt-7be5be79.pth"] = server.files["alexnet-owt-7be5be79.pth"][::-1]
    with pytest.raises(UserError, match=r"is not the official file \(sha256 [0-9a-f]{64}"):
        create_model("torchvision", weights="DEFAULT")
    assert not [path for path in cache_folder().iterdir() if not path.name.startswith(".")]
    damaged = bytearray(server.files["caffe_ilsvrc12.tar.gz"])
    damaged[len(damaged) // 2] ^= 255
    server.files["caffe_ilsvrc12.tar.gz"] = bytes(damaged)
    with pytest.raises(UserError, match=r"is damaged|does not hold Caffe's mean image"):
        import_weights("bvlc_reference_caffenet")


def test_without_a_network_the_message_says_which_file_to_put_where(narrow, server: Server, tmp_path: Path) -> None:
    server.http.server_close()
    with pytest.raises(UserError) as caught:
        create_model("torchvision", weights="IMAGENET1K_V1")
    folder = tmp_path / "cache" / "hub" / "checkpoints"
    assert f"{server.url}/alexnet-owt-7be5be79.pth cannot be reached" in str(caught.value)
    assert f"put it at {folder / 'alexnet-owt-7be5be79.pth'}" in str(caught.value)
    (folder / "alexnet-owt-7be5be79.pth").write_bytes(server.files["alexnet-owt-7be5be79.pth"])
    create_model("torchvision", weights="IMAGENET1K_V1")
    (folder / "bvlc_alexnet.caffemodel").write_bytes(server.files["bvlc_alexnet.caffemodel"])
    with pytest.raises(UserError) as caught:
        import_weights("bvlc_alexnet")
    message = str(caught.value)
    assert f"put it at {folder / 'caffe_ilsvrc12.tar.gz'}" in message
    assert "Its imagenet_mean.binaryproto alone, in the same folder, does as well" in message
    create_model("caffe", weights="bvlc_alexnet")  # needs no mean
    with tarfile.open(fileobj=io.BytesIO(server.files["caffe_ilsvrc12.tar.gz"])) as archive:
        archive.extract("./imagenet_mean.binaryproto", folder, filter="data")
    assert import_weights("bvlc_alexnet").preprocessing.mean_mode == "at_crop"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "as_run", "weights": "IMAGENET1K_V1"}, "no published weights 'IMAGENET1K_V1' of as_run; there are"),
        ({"name": "as_run", "weights": "DEFAULT"}, "no published weights 'DEFAULT' of as_run"),
        ({"name": "torchvision", "weights": "bvlc_alexnet"}, "of torchvision; there are IMAGENET1K_V1"),
        ({"name": "torchvision", "weights": "V2"}, "no published weights 'V2'"),
        ({"name": "torchvision", "weights": "DEFAULT", "without": ["conv4"]}, "only its dropout can differ"),
        ({"name": "torchvision", "weights": "DEFAULT", "input_scale": "pixels"}, "only its dropout can differ"),
        ({"name": "torchvision", "weights": "DEFAULT", "num_classes": 10}, "They have 1000 classes"),
        ({"name": "torchvision", "weights": "DEFAULT", "image_size": 40}, "too small"),
    ],
)
def test_weights_that_do_not_go_with_the_network_are_refused(arguments, message, narrow, server: Server) -> None:
    with pytest.raises(UserError, match=message):
        create_model(**arguments)


def test_official_addresses_and_checksums_are_as_published() -> None:
    table = {weights.name: weights.download for weights in PUBLISHED.values()}
    assert table["IMAGENET1K_V1"].url == "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
    assert str(table["IMAGENET1K_V1"].sha256).startswith("7be5be79"), "torchvision puts the sum's beginning in the name"
    assert table["bvlc_alexnet"].sha1 == "9116a64c0fbe4459d18f4bb6b56d647b63920377"
    assert find_published("torchvision") is PUBLISHED["IMAGENET1K_V1"] and find_published("resnet") is None
