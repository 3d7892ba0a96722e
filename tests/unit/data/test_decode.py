"""Every kind of image file becomes the RGB that a person expects, or a short reason why not."""

from __future__ import annotations

import io
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alexnet.data import decode
from alexnet.data.decode import UnreadableImage, _silent_pillow, decode_image


def encode(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def photo(height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth colours that JPEG keeps within a few levels."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    return np.stack([x * 255 / width, y * 255 / height, 255 - x * 255 / width], axis=-1).astype(np.uint8)


RGB = photo()


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: int) -> None:
    assert actual.dtype == np.uint8 and actual.shape == expected.shape
    assert np.abs(actual.astype(int) - expected.astype(int)).max() <= tolerance


@pytest.mark.parametrize("format", ["PNG", "BMP", "PPM", "TIFF", "GIF"])
def test_rgb_is_exact_in_lossless_formats(format):
    pixels = RGB if format != "GIF" else np.full((8, 9, 3), (255, 0, 51), np.uint8)
    assert np.array_equal(decode_image(encode(Image.fromarray(pixels), format)), pixels)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 2, "quality": 60}])
def test_jpeg_pixels_do_not_depend_on_the_decoder(options):
    data = encode(Image.fromarray(RGB), "JPEG", **options)
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    fast = decode._decode_plain_jpeg(data)
    assert fast is not None, "simplejpeg must take plain files"
    assert np.array_equal(fast, expected)
    assert np.array_equal(decode._decode_with_pillow(data), expected)
    assert np.array_equal(decode_image(data), expected)


def test_grey_jpeg_is_repeated_in_three_channels():
    data = encode(Image.fromarray(RGB[..., 0]), "JPEG")
    pixels = decode_image(data)
    assert_close(pixels, np.repeat(RGB[..., :1], 3, axis=-1), 4)
    assert np.array_equal(pixels, decode._decode_with_pillow(data))


def test_cmyk_jpeg_from_adobe_and_without_its_marker_both_look_right():
    ink = Image.merge("CMYK", [Image.new("L", (16, 16), value) for value in (0, 200, 40, 10)])
    expected = np.array(ink.convert("RGB"))
    adobe = encode(ink, "JPEG", quality=100)
    assert b"Adobe" in adobe
    assert_close(decode_image(adobe), expected, 4)

    start = adobe.index(b"\xff\xee")
    length = struct.unpack(">H", adobe[start + 2 : start + 4])[0]
    inverted = encode(ink.point(lambda value: 255 - value), "JPEG", quality=100)
    assert inverted[start : start + 2] == b"\xff\xee"
    plain = inverted[:start] + inverted[start + 2 + length :]
    assert_close(decode_image(plain), expected, 4)


@pytest.mark.parametrize("transparency", [3, bytes([255, 255, 255, 0])])
def test_transparent_palette_entries_are_white(transparency):
    image = Image.new("P", (4, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    image.putdata([0, 1, 2, 3])
    pixels = decode_image(encode(image, "PNG", transparency=transparency))
    assert pixels[0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]


def test_alpha_is_laid_over_white():
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    pixels = decode_image(encode(Image.fromarray(rgba), "PNG"))
    assert pixels[0, 0].tolist() == [255, 0, 0] and pixels[0, 1].tolist() == [255, 255, 255]
    assert_close(pixels[0, 2], np.array([127, 127, 127]), 1)
    grey_alpha = np.array([[[0, 255], [0, 0], [100, 255]]], np.uint8)
    pixels = decode_image(encode(_la(grey_alpha), "PNG"))
    assert pixels[0].tolist() == [[0] * 3, [255] * 3, [100] * 3]


def _la(values: np.ndarray) -> Image.Image:
    return Image.merge("LA", [Image.fromarray(np.ascontiguousarray(values[..., band])) for band in (0, 1)])


def test_a_transparent_colour_of_an_rgb_png_is_white():
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    pixels = decode_image(encode(image, "PNG", transparency=(1, 2, 3)))
    assert pixels[0].tolist() == [[255, 255, 255], [4, 5, 6]]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(format):
    grey = np.array([[0, 257, 32896, 65535]], np.uint16)
    pixels = decode_image(encode(Image.fromarray(grey), format))
    assert pixels[0, :, 0].tolist() == [0, 1, 128, 255]


def test_big_endian_16_bit_tiff():
    image = Image.frombytes("I;16B", (4, 1), np.array([0, 257, 32896, 65535], ">u2").tobytes())
    assert decode_image(encode(image, "TIFF"))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 25700.0, 65535.0], [0, 100, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([float("nan"), 0.0, 1.0], [0, 0, 255]),
        ([0.0, 0.0, 0.0], [0, 0, 0]),
        ([-7.0, -7.0, -7.0], [0, 0, 0]),
    ],
)
def test_float_tiff_takes_the_narrowest_usual_range(values, expected):
    pixels = decode_image(encode(Image.fromarray(np.array([values], np.float32)), "TIFF"))
    assert pixels[0, :, 0].tolist() == expected


def test_32_bit_integers_and_1_bit_images():
    wide = Image.fromarray(np.array([[0, 25700, 65535]], np.int32))
    assert decode_image(encode(wide, "TIFF"))[0, :, 0].tolist() == [0, 100, 255]
    bits = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    for format in ("PNG", "BMP", "TIFF", "PPM"):
        assert decode_image(encode(bits, format))[0].tolist() == [[0] * 3, [255] * 3]


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (5, 4), color) for color in ("red", "lime", "blue")]
    for format in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert decode_image(data)[0, 0].tolist() == [255, 0, 0], format


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(format, orientation):
    upright = photo(40, 56)
    # How each of the eight cameras' orientations stores an upright scene (EXIF 2.32, tag 274).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if format == "WEBP" else {"quality": 100, "subsampling": 0} if format == "JPEG" else {}
    pixels = decode_image(encode(Image.fromarray(np.ascontiguousarray(stored)), format, exif=exif, **options))
    assert_close(pixels, upright, 8 if format == "JPEG" else 0)


def test_an_upright_jpeg_with_exif_still_takes_the_fast_way():
    exif = Image.Exif()
    exif[271] = "a camera"
    assert decode._decode_plain_jpeg(encode(Image.fromarray(RGB), "JPEG", exif=exif)) is not None


def test_broken_exif_does_not_cost_the_image():
    plain = encode(Image.fromarray(RGB), "JPEG")
    for body in (
        b"Exif\x00\x00",
        b"Exif\x00\x00MM\x00*\xff\xff\xff\xff",
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff\x12",
    ):
        data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]
        assert np.array_equal(decode_image(data), decode_image(plain)), body


def test_an_orientation_that_cannot_be_read_does_not_cost_the_image(monkeypatch):
    def fail(image):
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(decode.ImageOps, "exif_transpose", fail)
    assert np.array_equal(decode_image(encode(Image.fromarray(RGB), "PNG")), RGB)


def test_a_png_named_jpg_and_a_jpeg_named_png_are_read(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode(Image.fromarray(RGB), "PNG"))
    (tmp_path / "b.png").write_bytes(encode(Image.fromarray(RGB), "JPEG"))
    assert np.array_equal(decode_image(tmp_path / "a.jpg"), RGB)
    assert_close(decode_image(tmp_path / "b.png"), RGB, 12)


def test_a_jpeg_of_thousands_of_scans_is_refused_and_one_with_a_film_behind_it_is_not():
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (90, 80, 70)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(UnreadableImage, match="more than 100 scans"):
        decode_image(data[:-2] + scan * 200 + data[-2:])
    assert decode_image(data + b"\xff\xda film" * 200).shape == (64, 64, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_truncated_files_are_unreadable_with_a_short_reason(format):
    data = encode(Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3), np.uint8)), format)
    for keep in (0.3, 0.6, 0.9):
        with pytest.raises(UnreadableImage) as caught:
            decode_image(data[: int(len(data) * keep)])
        assert 0 < len(str(caught.value)) <= 200
        assert "0x" not in str(caught.value)


def test_reasons(tmp_path):
    cases = {
        "the file is empty": b"",
        "not an image in a known format": b"hello, this is text\n" * 20,
        "the file is truncated": encode(Image.fromarray(RGB), "JPEG")[:800],
    }
    for reason, data in cases.items():
        path = tmp_path / "x.jpg"
        path.write_bytes(data)
        for given_as in (data, path):
            with pytest.raises(UnreadableImage, match=f"^{reason}$"):
                decode_image(given_as)
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(UnreadableImage, match="folder, not a file"):
        decode_image(tmp_path / "folder.jpg")
    with pytest.raises(UnreadableImage, match="no such file"):
        decode_image(tmp_path / "missing.jpg")


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [1.5, 3])
def test_too_many_pixels_are_an_error_and_never_a_warning(monkeypatch, format, share):
    data = encode(Image.fromarray(RGB), format)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(48 * 64 / share))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(UnreadableImage, match="limit of"):
            decode_image(data)
    assert caught == []
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode_image(data).shape == (48, 64, 3)


def test_the_filters_of_warnings_stay_as_they_are(recwarn):
    def warn():
        warnings.warn("once", UserWarning, stacklevel=1)

    warnings.simplefilter("default")
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        warn()
        assert len(list(pool.map(decode_image, [encode(Image.fromarray(RGB), "PNG")] * 40))) == 40
        warn()  # it was shown: the user does not want to see it again
    assert list(warnings.filters) == before
    assert len(recwarn.list) == 1
    # A block of the user's that begins or ends while an image is decoded takes no filter along.
    with _silent_pillow():
        block = warnings.catch_warnings()
        block.__enter__()
    block.__exit__(None, None, None)
    assert list(warnings.filters) == before
    with warnings.catch_warnings():
        decoding = _silent_pillow()
        decoding.__enter__()
    decoding.__exit__(None, None, None)
    assert list(warnings.filters) == before


def test_pillows_warnings_do_not_leak_even_behind_other_filters():
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x02\x01\x12\x00\x03\x00\x00\x00\xff\x00\x00\xff\xff\x01"
    plain = encode(Image.fromarray(RGB), "JPEG")
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode_image(data)
        warnings.simplefilter("error")
        decode_image(data)


def test_postscript_is_not_run():
    eps = encode(Image.fromarray(RGB), "EPS")
    with pytest.raises(UnreadableImage, match="known format"):
        decode_image(eps)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_give_pixels_or_unreadable_and_nothing_else(data):
    format = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM"]))
    good = bytearray(encode(Image.fromarray(RGB[:24, :24]), format))
    for _ in range(data.draw(st.integers(1, 5))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels = decode_image(bytes(good))
    except UnreadableImage as error:
        assert str(error)
    else:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3


@pytest.mark.data
def test_real_photographs_decode_as_pillow_does(data_folder: Path):
    paths = sorted((data_folder / "imagenet-photos").glob("*.JPEG"))
    assert len(paths) == 40
    num_fast = 0
    for path in paths:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            expected = np.array(image.convert("RGB"))
        assert np.array_equal(decode_image(path), expected), path.name
        num_fast += decode._decode_plain_jpeg(data) is not None
    assert num_fast >= 36


def test_the_orientation_is_found_behind_segments_of_any_content():
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(photo(40, 56)).save(buffer, "JPEG", exif=exif, quality=95)
    plain = buffer.getvalue()
    content = b"\xff\xda a scan, by its looks"
    segment = b"\xff\xe2" + (len(content) + 2).to_bytes(2, "big") + content
    assert decode._before_scan(plain) == plain[: plain.index(b"\xff\xda")]
    expected = decode_image(plain)
    assert np.array_equal(decode_image(plain[:2] + segment + plain[2:]), expected)
    assert not np.array_equal(expected, decode_image(plain.replace(b"Exif\0\0", b"None\0\0")))
