"""Decoding what strangers send: in processes that may be lost."""

import io
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from serving_stand_ins import picture, png_bomb

from alexnet.serve.decoder_process import format_of
from alexnet.serve.images import Decoders
from alexnet.serve.refusals import Refused
from alexnet.serve.settings import Settings


@pytest.fixture(scope="module")
def decoders():
    settings = Settings(num_decoders=1, max_pixels=1_000_000, decode_seconds=20)
    with Decoders(settings) as started:
        yield started


def noise(kind, size=(40, 30)):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return pixels, file.getvalue()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("PNG", "PNG"), ("BMP", "BMP"), ("TIFF", "TIFF"), ("PPM", "PNM"), ("JPEG", "JPEG"), ("GIF", "GIF")),
        *(("WEBP", "WebP"), ("JPEG2000", "JPEG 2000"), ("AVIF", "AVIF")),
    ],
)
def test_formats_are_told_by_their_content(decoders, kind, name):
    pixels, data = noise(kind)
    decoded = decoders.decode(data)
    assert (decoded.format, decoded.pixels.shape) == (name, pixels.shape)
    if kind in ("PNG", "BMP", "TIFF", "PPM"):
        assert (decoded.pixels == pixels).all()


def test_what_is_no_image_is_not_even_tried(decoders):
    for data in (b"<svg onload='x'/>", b"%PDF-1.7", b"%!PS-Adobe", b"RIFF1234WAVE", b"\0" * 100, b"hello"):
        assert format_of(data) == ""
        with pytest.raises(Refused, match="not an image") as refused:
            decoders.decode(data)
        assert refused.value.status == 415


def test_size_is_judged_before_decoding(decoders):
    for data in (png_bomb(9000, 9000), picture("red", (1001, 1000), "GIF"), picture("red", (1001, 1000), "JPEG")):
        with pytest.raises(Refused, match="limit of 1,000,000"):
            decoders.decode(data)


def test_a_file_that_is_cut_off_is_said_to_be(decoders):
    with pytest.raises(Refused, match="cannot be used: the file is truncated") as refused:
        decoders.decode(noise("PNG", (300, 200))[1][:20_000])
    assert refused.value.status == 422


def idle_process(decoders):
    process = decoders._idle.get()
    decoders._idle.put(process)
    return process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_was_killed_or_stopped_while_idle_costs_no_image(decoders, number):
    process = idle_process(decoders)
    os.kill(process.pid, number)
    started = time.monotonic()
    assert decoders.decode(picture("red")).format == "PNG"
    assert time.monotonic() - started < 5
    assert not process._process.is_alive()


def test_an_image_is_tried_once_more_when_the_process_dies(decoders, monkeypatch):
    process, decode = idle_process(decoders), type(idle_process(decoders)).decode
    died = []

    def die_and_decode(self, data, seconds):
        if len(died) < times:
            died.append(self.pid)
            self.kill()
            self._process.join()
        return decode(self, data, seconds)

    monkeypatch.setattr(type(process), "decode", die_and_decode)
    times = 1
    assert decoders.decode(picture("red")).format == "PNG"
    times = 3
    with pytest.raises(Refused, match="broke down") as refused:
        decoders.decode(picture("red"))
    assert refused.value.status == 422
    assert len(set(died)) == 3 and process.pid in died
    assert decoders.decode(picture("red")).format == "PNG"


@pytest.mark.parametrize("size", [(20, 20), (1000, 1000)], ids=["the pipe takes it", "sending blocks"])
def test_a_process_that_takes_too_long_is_replaced(size, monkeypatch):
    with Decoders(Settings(num_decoders=1, decode_seconds=0.3)) as decoders:
        process = idle_process(decoders)
        monkeypatch.setattr(process, "answers", lambda: True)
        os.kill(process.pid, signal.SIGSTOP)  # as if it were caught in a file
        with pytest.raises(Refused, match=r"takes longer than 0\.3 s") as refused:
            decoders.decode(noise("PNG", size)[1])
        assert refused.value.status == 422
        assert not process._process.is_alive()
        assert decoders._idle.get()._process.is_alive()


def test_a_decoder_at_work_does_not_delay_the_end(monkeypatch):
    with Decoders(Settings(num_decoders=1)) as decoders:
        process = idle_process(decoders)
        monkeypatch.setattr(process, "answers", lambda: True)
        os.kill(process.pid, signal.SIGSTOP)
        waiting = decoders.executor.submit(decoders.decode, picture("red"))
        time.sleep(0.1)
        started = time.monotonic()
    assert time.monotonic() - started < 2
    assert waiting.exception().status == 503


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits on memory are Linux's")
def test_a_decoder_cannot_write_files_nor_take_all_memory(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from alexnet.serve.decoder_process import _confine\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "_confine(1000)\n"
        "try:\n    Path(sys.argv[1]).write_text('something')\nexcept OSError:\n    print('no file')\n"
        "try:\n    bytearray(2**31)\nexcept MemoryError:\n    print('no memory')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "file")], capture_output=True, text=True, timeout=60
    )
    assert result.stdout.split("\n")[:2] == ["no file", "no memory"], result.stderr
