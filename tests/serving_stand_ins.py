"""A server with a network whose guesses are known, on 127.0.0.1, and a way to ask it; for several test modules."""

import http.client
import io
import json
import struct
import threading
import time
import zlib
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from alexnet.data.preprocessing import Preprocessing
from alexnet.models import Architecture, build_network
from alexnet.models.architecture import Convolution, Linear, MaxPool, ReLU
from alexnet.training.checkpoint import Checkpoint, save_checkpoint

COLORS = {"red": (230, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 230)}
NAMES = tuple(COLORS)
SQUARE, CROP = 36, 32
FORM = "alexnet-test-boundary"


def color_checkpoint(path, order=(0, 1, 2), names=NAMES, data="/secret/place/colours"):
    """A network that says which of three colours an image has, and looks at the pixels that have it.

    order: the class that stands for each channel, so that a second network can be made to disagree.
    """
    architecture = Architecture(
        name="colours",
        summary="A network for tests.",
        source="",
        image_size=CROP,
        pad_right_bottom=0,
        input_scale="pixels",
        channel_order="rgb",
        initialization="torch_default",
        layers=(
            Convolution("conv1", 3, kernel=4, stride=4),
            ReLU("relu1"),
            MaxPool("pool1", size=2, stride=2, ceil_mode=False),
            Linear("fc8", None),
        ),
    )
    model = build_network(architecture, num_classes=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for channel in range(3):
            model.conv1.weight[channel] = -0.5 / 16
            model.conv1.weight[channel, channel] = 1 / 16
            model.fc8.weight[order[channel], 16 * channel : 16 * (channel + 1)] = 1 / 16 / 50
    checkpoint = Checkpoint(
        architecture=architecture,
        num_classes=3,
        image_size=CROP,
        classes=tuple(f"n{index}" for index in range(3)),
        class_names=tuple(names),
        preprocessing=Preprocessing(SQUARE, CROP, "pixels", "rgb", "center_crop", torch.zeros(SQUARE, SQUARE, 3)),
        recipe={"runtime": {"precision": "float32"}},
        data=data,
        step=7,
        epoch=1.5,
        metrics={"top1_error": 0.25, "top5_error": 0.0, "views": "center", "num_images": 12, "split": "val"},
        model_state=model.state_dict(),
        training_state=None,
        environment={},
    )
    save_checkpoint(path, checkpoint)
    return path


def color_folder(root, per_class=4):
    """A data set of plain pictures, every one a little different, in the classes of the network."""
    for label, (name, color) in enumerate(COLORS.items()):
        for split in ("train", "val"):
            for number in range(per_class):
                folder = root / split / f"n{label}"
                folder.mkdir(parents=True, exist_ok=True)
                shade = tuple(max(0, value - 9 * number) for value in color)
                Image.new("RGB", (SQUARE + 8, SQUARE), shade).save(folder / f"{name}-{number}.png")
    return root


def picture(color, size=(60, 48), kind="PNG", **options):
    """The bytes of an image file of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, COLORS.get(color, color)).save(file, kind, **options)
    return file.getvalue()


def spotted(color, corner, size=48, side=16):
    """The bytes of a grey PNG with a coloured square at (left, top)."""
    pixels = np.full((size, size, 3), 40, np.uint8)
    pixels[corner[1] : corner[1] + side, corner[0] : corner[0] + side] = COLORS[color]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def png_bomb(width, height):
    """A sound PNG of so many black pixels, as small as can be: four megapixels a kilobyte."""
    line = zlib.compressobj(9)
    packed = b"".join(line.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)) + line.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


class Answer(NamedTuple):
    """What a server said."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Running:
    """A server that runs in a thread of this process."""

    def __init__(self, server, service, port):
        self.server, self.service, self.port = server, service, port
        self.url = f"http://127.0.0.1:{port}/"

    def ask(self, method, path, body=None, headers=None, timeout=60):
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path, **headers):
        return self.ask("GET", path, headers=headers)

    def post(self, path, body, kind="application/octet-stream"):
        return self.ask("POST", path, body, {"Content-Type": kind})

    def post_form(self, path, parts):
        """parts: (name, filename, bytes) of each field."""
        return self.post(path, form_of(parts), f"multipart/form-data; boundary={FORM}")


def form_of(parts, boundary=FORM):
    """The body of a form with files."""
    body = b""
    for name, filename, data in parts:
        disposition = f'form-data; name="{name}"; filename="{filename}"'
        body += f"--{boundary}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + data + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()


@contextmanager
def running_server(paths, *, data=None, settings=None, examples=(), allowed_hosts=()):
    """Serve checkpoints until the block ends; data: a folder for nearest images, with classes or without."""
    from alexnet.evaluation.image_list import open_images
    from alexnet.serve.nearest import Neighbourhood
    from alexnet.serve.networks import load_networks
    from alexnet.serve.server import PageServer, open_socket
    from alexnet.serve.service import Service
    from alexnet.serve.settings import Settings

    opened = open_socket("127.0.0.1", 0)
    neighbourhood = (
        None
        if data is None
        else Neighbourhood(data.name, open_images(str(data), split="train" if (data / "train").is_dir() else None))
    )
    service = Service(
        load_networks(paths, device="cpu"),
        settings or Settings(num_decoders=1),
        examples=examples,
        neighbourhood=neighbourhood,
    )
    server = PageServer(service, opened, allowed_hosts=allowed_hosts)
    thread = threading.Thread(target=server.run, args=([opened],), name="server")
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)
        running = Running(server, service, opened.getsockname()[1])
        while neighbourhood is not None and not neighbourhood.is_ready:
            assert neighbourhood.failure is None and time.monotonic() < deadline, neighbourhood.failure
            time.sleep(0.02)
        yield running
    finally:
        server.should_exit = True
        thread.join(60)
        opened.close()
        assert not thread.is_alive(), "the server did not end"
