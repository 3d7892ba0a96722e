"""Five hundred uploads that mean no good: each is refused with a sentence, nothing is written, the server lives."""

import gzip
import io
import os
import random
import struct
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from serving_stand_ins import FORM, form_of, picture, png_bomb, running_server

from alexnet.serve.settings import Settings

NUM_UPLOADS = 500
MAX_BYTES = 2_000_000
FORM_KIND = f"multipart/form-data; boundary={FORM}"
EVIL_NAMES = [
    "../../../etc/passwd",
    "/etc/shadow",
    "C:\\windows\\x.png",
    "a\0b.png",
    "x" * 4000,
    "'; rm -rf ~",
    "..",
    "",
]


def encoded(kind, seed=0, size=(96, 64), **options):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


WHOLE = {kind: encoded(kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM")}


def truncations(rng):
    """Files that end too early."""
    for kind, data in WHOLE.items():
        for _ in range(20):
            yield f"{kind} cut off", data[: rng.randint(12, int(0.6 * len(data)))], "image/png"


def nonsense(rng):
    """The first bytes of a format, and then anything."""
    for kind, data in WHOLE.items():
        for _ in range(12):
            yield f"nonsense as {kind}", data[:12] + rng.randbytes(rng.randint(0, 4000)), "image/jpeg"
    for _ in range(40):
        yield "nonsense", rng.randbytes(rng.randint(0, 3000)), "image/png"


def wrong_types(rng):
    """Things that are no images, called images."""
    things = {
        "html": b"<!doctype html><script>alert(1)</script>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        "pdf": b"%PDF-1.7\n1 0 obj<<>>",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run",
        "program": b"\x7fELF\x02\x01\x01" + bytes(100),
        "archive": b"PK\x03\x04" + bytes(100),
        "packed": gzip.compress(bytes(100_000)),
        "pickle": b"cos\nsystem\n(S'touch /tmp/owned'\ntR.",
        "text": b"hello",
        "empty": b"",
        "zeros": bytes(5000),
        "checkpoint": b"\x80\x02}q\x00.",
    }
    for number in range(60):
        name, data = rng.choice(sorted(things.items()))
        filename = EVIL_NAMES[number % len(EVIL_NAMES)].replace("\0", "%00")
        yield f"{name} as {filename[:20]}", form_of([("image", filename, data)]), FORM_KIND


def bombs(rng):
    """Small files that are, or claim to be, very large."""
    hundred_megapixels = png_bomb(10_000, 10_000)
    for _ in range(10):
        yield "100 megapixels, all there", hundred_megapixels, "image/png"
    png, gif, bmp, jpeg = WHOLE["PNG"], WHOLE["GIF"], WHOLE["BMP"], WHOLE["JPEG"]
    for _ in range(8):
        side = rng.randint(10_000, 60_000)
        ihdr = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
        yield "PNG that lies", png[:12] + ihdr + struct.pack(">I", zlib.crc32(ihdr)) + png[33:], "image/png"
        yield "GIF that lies", gif[:6] + struct.pack("<HH", side, side) + gif[10:], "image/gif"
        yield "BMP that lies", bmp[:18] + struct.pack("<ii", side, side) + bmp[26:], "image/bmp"
        frame = jpeg.index(b"\xff\xc0") + 5
        yield "JPEG that lies", jpeg[:frame] + struct.pack(">HH", side, side) + jpeg[frame + 4 :], "image/jpeg"
        yield "PPM that lies", b"P6\n%d %d\n255\n" % (side, side), "image/x-portable-pixmap"
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "a" * 3_000_000, zip=True)
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=info)
    yield "text that unfolds", file.getvalue(), "image/png"
    progressive = encoded("JPEG", progressive=True, size=(8, 8))
    scan = progressive.index(b"\xff\xda")
    yield "JPEG of a thousand scans", progressive[:scan] + progressive[scan:-2] * 1000 + b"\xff\xd9", "image/jpeg"


def bad_forms(rng):
    """Forms that are none, or hold too much."""
    image = picture("red")
    whole = form_of([("image", "x.png", image)])
    for _ in range(10):
        yield "form cut off", whole[: rng.randint(0, len(whole) - 8)], FORM_KIND
        yield "another boundary", whole, "multipart/form-data; boundary=other"
    yield "no boundary", whole, "multipart/form-data"
    yield "many fields", form_of([("x", "", b"")] * 5000), FORM_KIND
    yield "two images", form_of([("image", "a", image), ("image", "b", image)]), FORM_KIND
    yield "another field", form_of([("../image", "x", image)]), FORM_KIND
    yield "endless header", b"--" + FORM.encode() + b"\r\nX: " + b"y" * 500_000, FORM_KIND


def too_large(rng):
    """More bytes than are taken."""
    for _ in range(8):
        yield "too many bytes", WHOLE["JPEG"] + bytes(MAX_BYTES + rng.randint(1, 2_000_000)), "image/jpeg"


def uploads():
    """Exactly five hundred, the same every time."""
    rng = random.Random(0)
    every = [item for kind in (truncations, nonsense, wrong_types, bombs, bad_forms, too_large) for item in kind(rng)]
    while len(every) < NUM_UPLOADS:
        data = WHOLE[rng.choice(sorted(WHOLE))]
        filename = rng.choice(EVIL_NAMES).replace("\0", "%00")
        every.append(("cut off in a form", form_of([("image", filename, data[: len(data) // 3])]), FORM_KIND))
    return every[:NUM_UPLOADS]


WRITTEN = []
_watching = False


def _watch(event, arguments):
    if not _watching or event != "open" or not isinstance(arguments[2], int):
        return
    if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and arguments[0] != os.devnull:
        WRITTEN.append(arguments[0])


@pytest.fixture
def watched():
    """Notes every file that this process opens for writing; decoders cannot write any (RLIMIT_FSIZE)."""
    global _watching
    sys.addaudithook(_watch)  # for the rest of the process, so it does nothing afterwards
    WRITTEN.clear()
    _watching = True
    yield WRITTEN
    _watching = False


def test_hostile_uploads_are_refused_one_by_one(checkpoints, watched, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings(max_upload_bytes=MAX_BYTES, num_decoders=2, max_requests=16)
    with running_server(checkpoints[:1], settings=settings) as server:
        watched.clear()
        before = resident(server)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda item: server.post("/api/predict", item[1], item[2]), uploads()))
        for (name, _, _), answer in zip(uploads(), answers, strict=True):
            assert 400 <= answer.status < 500, (name, answer.status, answer.body)
            assert list(answer.json) == ["error"], name
            sentence = answer.json["error"]
            assert sentence[0].isupper() and sentence.endswith(".") and "Traceback" not in sentence, (name, sentence)
        alive = server.post("/api/predict", picture("blue"))
        assert alive.json["networks"][0]["guesses"][0]["name"] == "blue"
        assert (server.service.door.num_inside, server.service.door.bytes_held) == (0, 0)
        assert watched == []
        assert resident(server) - before < 200e6
    assert list(tmp_path.iterdir()) == []


def resident(server):
    lines = server.get("/metrics").body.decode().splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith("process_resident_memory_bytes ")), 0.0)
