"""What people hand to the functions that take images: read as it is meant, or refused."""

import array
import base64
import io
import os
import pathlib
import tempfile
import types
import zipfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.data.decode import UnreadableImage, decode_image
from alexnet.errors import UserError
from alexnet.evaluation.image_list import open_images
from alexnet.evaluation.inputs import open_inputs, read_image

RGB = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
GRAY = np.repeat(RGB[:, :, :1], 3, axis=2)
RGBA = np.dstack([RGB, RGB[:, :, 1]])


def encoded(pixels=RGB, format="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def pixels(images):
    """Of every image, or the reason why there are none."""

    def read(image):
        try:
            return image.read()
        except UnreadableImage as error:
            return str(error)

    return [read(image) for image in images]


def same(found, *expected):
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


# ---------------------------------------------------------------- arrays and tensors


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (RGB, RGB),
        (RGB.transpose(2, 0, 1), RGB),
        (RGB[:, :, 0], GRAY),
        (RGB[:, :, :1], GRAY),
        (RGB[:, :, 0][None], GRAY),
        (RGBA, decode_image(encoded(RGBA))),
        (RGB[::-1, ::-1], RGB[::-1, ::-1]),
        (np.asfortranarray(RGB), RGB),
        (memoryview(np.ascontiguousarray(RGB)), RGB),
        (RGB[:, :, 0] > 99, np.where(GRAY > 99, 255, 0)),
        (torch.from_numpy(RGB), RGB),
        (torch.from_numpy(RGB).permute(2, 0, 1), RGB),
        (torch.from_numpy(RGB[:, :, 0]), GRAY),
        (torch.nn.Parameter(torch.from_numpy(RGB), requires_grad=False), RGB),
    ],
)
def test_an_array_whose_meaning_is_clear(given, expected):
    assert np.array_equal(read_image(given), expected)


@pytest.mark.parametrize("shape", [(3, 9, 3), (1, 8, 4), (3, 3, 1), (2, 4, 9, 3)])
def test_a_shape_that_can_be_two_things_needs_the_layout(shape):
    values = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    for given in (values, torch.from_numpy(values)):
        with pytest.raises(UserError):
            list(open_inputs(given))
    images = values if values.ndim == 4 else values[None]
    for layout, axes in (("HWC", (0, 1, 2, 3)), ("CHW", (0, 2, 3, 1))):
        found = pixels(open_inputs(values, layout=layout))
        assert same(found, *(read_image(image, layout="HWC") for image in images.transpose(axes)))
        assert [item.shape[2] for item in found] == [3] * len(images)


@pytest.mark.parametrize(
    ("given", "layout"),
    [
        (RGB, "CHW"),
        (RGB.transpose(2, 0, 1), "HWC"),
        (RGB, "HCW"),
        (np.zeros((5, 6, 7), np.uint8), None),  # maybe a batch of gray images: (5, 6, 7, 1)
        (np.zeros((5, 6, 2), np.uint8), None),
        (np.zeros((1, 1, 5, 6, 3), np.uint8), None),
        (np.zeros((0, 6, 3), np.uint8), None),
        (np.zeros((0, 5, 6, 3), np.uint8), None),
        (np.frombuffer(encoded(), np.uint8), None),
        (np.float32(3), None),
        (np.zeros((5, 6, 3), complex), None),
        (np.zeros((5, 6, 3), object), None),
        (np.zeros((5, 6, 3), "datetime64[s]"), None),
        (np.ma.masked_less(RGB, 9), None),
        (torch.zeros(3, 5, 6, dtype=torch.uint8, device="meta"), None),
        (torch.zeros(5, 6, dtype=torch.uint8).to_sparse(), None),
    ],
)
def test_an_array_that_is_no_image_is_refused(given, layout):
    with pytest.raises(UserError):
        list(open_inputs(given, layout=layout))
    # Among others it is the error of that image, and the others are read.
    if layout != "HCW":
        found = pixels(open_inputs([given, RGB[:, :, 0]], layout=layout))
        assert isinstance(found[0], str) and np.array_equal(found[-1], GRAY)


NUMBERS = [
    (RGB / 255, (0, 1)),
    ((RGB / 255).astype(np.float16), (0, 1)),
    (RGB.astype(np.float32) / 255, (0, 1)),
    (RGB.astype(np.float64), (0, 255)),
    (RGB / 127.5 - 1, (-1, 1)),
    (RGB.astype(np.int64), (0, 255)),
    (RGB.astype(np.uint16) * 257, (0, 65535)),
    (RGB.astype(np.int16) - 128, (-128, 127)),
    (torch.from_numpy(RGB) / 255, (0, 1)),
    (torch.from_numpy(RGB).permute(2, 0, 1).double() / 255, [0, 1]),
    ((torch.from_numpy(RGB) / 255).requires_grad_(), (0, 1)),
    (torch.from_numpy(RGB).long(), (0, 255)),
    (torch.from_numpy(RGB).bfloat16(), (0, 255)),
]


@pytest.mark.parametrize(("given", "value_range"), NUMBERS)
def test_numbers_of_any_range_need_it_stated(given, value_range):
    with pytest.raises(UserError):
        read_image(given)
    assert np.array_equal(read_image(given, value_range=value_range), RGB)


@pytest.mark.parametrize(
    ("given", "value_range"),
    [
        (RGB / 255 + 0.1, (0, 1)),
        (RGB / 255 - 0.1, (0, 1)),
        (RGB.astype(np.float32), (0, 1)),
        (RGB, (0, 1)),
        (np.where(RGB > 200, np.nan, 0.5), (0, 1)),
        (np.where(RGB > 200, np.inf, 0.5), (0, 1)),
        (torch.full((3, 5, 6), torch.nan), (0, 1)),
        (RGB / 255, (1, 0)),
        (RGB / 255, (0, np.nan)),
        (RGB / 255, 1),
        (RGB / 255, (0, 1, 2)),
    ],
)
def test_values_outside_the_stated_range_are_refused(given, value_range):
    with pytest.raises(UserError):
        read_image(given, value_range=value_range)


def test_the_stated_range_holds_for_uint8_too_and_bool_has_its_own():
    assert read_image(np.array([[0, 1]], np.uint8), value_range=(0, 1)).tolist() == [[[0] * 3, [255] * 3]]
    assert read_image(np.array([[0, 1]], bool), value_range=(0, 255)).tolist() == [[[0] * 3, [255] * 3]]


def test_a_batch_is_as_many_images():
    batch = np.stack([RGB, RGB[::-1]])
    tensors = torch.from_numpy(batch)
    for given in (batch, batch.transpose(0, 3, 1, 2), tensors, tensors.permute(0, 3, 1, 2)):
        assert same(pixels(open_inputs(given)), RGB, RGB[::-1])
    # One image of a batch in a list may be wrong.
    values = batch / 255
    values[1, 0, 0, 0] = 2
    first, second, third = pixels(open_inputs([values, RGB / 255], value_range=(0, 1)))
    assert same([first, third], RGB, RGB) and isinstance(second, str)
    with pytest.raises(UserError):
        list(open_inputs(values, value_range=(0, 1)))


class OtherArray:
    """As other libraries' arrays are: NumPy can make an array of it, and it can be iterated over."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return self.values

    def __iter__(self):
        return iter(self.values)


def test_an_array_with_too_many_pixels_is_refused_as_a_file_is(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    first, second = pixels(open_inputs([RGBA, RGB[:5]]))
    assert isinstance(first, str) and np.array_equal(second, RGB[:5])


def test_arrays_of_other_libraries_are_not_taken_for_lists():
    assert np.array_equal(read_image(OtherArray(RGB)), RGB)
    assert same(pixels(open_inputs([OtherArray(RGB), RGB])), RGB, RGB)

    class Elsewhere(OtherArray):
        def __array__(self, dtype=None, copy=None):
            raise TypeError("it is on another device")

    with pytest.raises(UserError):
        list(open_inputs(Elsewhere(RGB)))


# ---------------------------------------------------------------- files and bytes


class Upload(io.BytesIO):
    """As web frameworks give uploads."""

    filename = "cat.png"


def test_open_files_are_read_from_their_beginning(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded())
    written = io.BytesIO()
    Image.fromarray(RGB).save(written, "PNG")  # where its owner has left it: at the end
    with zipfile.ZipFile(tmp_path / "z", "w") as zipped:
        zipped.writestr("a.png", encoded())
    with (
        path.open("rb") as file,
        tempfile.NamedTemporaryFile() as temporary,
        zipfile.ZipFile(tmp_path / "z") as zipped,
        zipped.open("a.png") as member,
    ):
        temporary.write(encoded())
        given = [io.BytesIO(encoded()), written, Upload(encoded()), file, temporary, member, written]
        images = list(open_inputs(given))
        assert not file.closed
    assert same(pixels(images), *[RGB] * 7)
    assert [images[2].name, images[3].name, images[0].name] == ["cat.png", str(path), "file 0"]
    with path.open("rb") as file:
        assert np.array_equal(read_image(file), RGB)


def test_what_is_no_image_file_is_an_error_of_that_image():
    assert isinstance(pixels(open_inputs(io.BytesIO(b"text")))[0], str)
    assert isinstance(pixels(open_inputs(b"text"))[0], str)

    class Broken(io.BytesIO):
        def read(self, *_):
            raise OSError("the network is gone")

    assert isinstance(pixels(open_inputs(Broken()))[0], str)


class Asynchronous:
    async def read(self):
        raise AssertionError


@pytest.mark.parametrize("kind", ["closed", "text", "jpeg as text", "words", "asynchronous", "numbers", "write only"])
def test_a_file_that_cannot_be_read_as_bytes_is_a_mistake_of_the_call(tmp_path, kind, recwarn):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(format="JPEG"))
    closed = io.BytesIO(encoded())
    closed.close()
    text = tmp_path / "a.txt"
    text.write_text("a.jpg")
    with text.open() as words, path.open(encoding="utf-8") as wrong_mode, (tmp_path / "b").open("wb") as writing:
        given = {
            "closed": closed,
            "text": io.StringIO("a.jpg"),
            "jpeg as text": wrong_mode,
            "words": words,
            "asynchronous": Asynchronous(),
            "numbers": types.SimpleNamespace(read=lambda: 3),
            "write only": writing,
        }[kind]
        if kind == "write only":
            assert isinstance(pixels(open_inputs(given))[0], str)
            return
        with pytest.raises(UserError):
            list(open_inputs(given))
        first, second = pixels(open_inputs([given, RGB]))
    assert isinstance(first, str) and np.array_equal(second, RGB)
    assert not recwarn.list


def test_bytes_of_every_kind():
    data = encoded()
    for given in (data, bytearray(data), memoryview(data), memoryview(bytearray(data))[::1]):
        assert np.array_equal(read_image(given), RGB)


# ---------------------------------------------------------------- PIL images


def test_pictures_are_what_their_files_are(tmp_path):
    orientation = Image.Exif()
    orientation[0x0112] = 6
    wide = np.linspace(0, 65535, 108).reshape(9, 12)
    pictures = {
        "p.png": Image.fromarray(RGB).quantize(8),
        "rgba.png": Image.fromarray(RGBA),
        "la.png": Image.fromarray(RGB[:, :, 0]).convert("LA"),
        "1.png": Image.fromarray(RGB[:, :, 0]).convert("1"),
        "i16.png": Image.fromarray(wide.astype(np.uint16)),
        "i.tif": Image.fromarray((RGB[:, :, 0]).astype(np.int32)),
        "i-wide.tif": Image.fromarray(wide.astype(np.int32)),
        "f.tif": Image.fromarray((RGB[:, :, 0] / 255).astype(np.float32)),
        "cmyk.jpg": Image.fromarray(RGB).convert("CMYK"),
        "cmyk.tif": Image.fromarray(RGB).convert("CMYK"),
        "turned.jpg": Image.fromarray(RGB),
        "animated.gif": Image.fromarray(RGB),
    }
    for name, picture in pictures.items():
        more = {"save_all": True, "append_images": [Image.new("RGB", (12, 9))]} if name == "animated.gif" else {}
        picture.save(tmp_path / name, exif=orientation if name == "turned.jpg" else b"", **more)
        with Image.open(tmp_path / name) as opened:
            assert np.array_equal(read_image(opened), decode_image(tmp_path / name)), name
    assert decode_image(tmp_path / "turned.jpg").shape == (12, 9, 3)


def test_one_picture_given_many_times_is_read_once_at_a_time(tmp_path):
    large = np.random.default_rng(0).integers(0, 256, (600, 900, 3), dtype=np.uint8)
    Image.fromarray(large).save(tmp_path / "a.png")
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            with Image.open(tmp_path / "a.png") as picture:
                found = list(pool.map(lambda image: image.read(), open_inputs([picture] * 8)))
            assert same(found, *[large] * 8)


def test_a_picture_without_pixels_or_closed_is_an_error_of_that_image(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    closed = Image.open(tmp_path / "a.png")
    closed.close()
    for picture in (Image.new("RGB", (0, 0)), Image.new("L", (0, 5)), closed):
        assert isinstance(pixels(open_inputs(picture))[0], str)


# ---------------------------------------------------------------- paths and addresses


def test_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "a b#1.png", "two\nlines.png", "~tilde.png", "file:x.png"):
        if os.name == "nt" and name not in ("a.png", "a b#1.png"):
            continue
        (tmp_path / name).write_bytes(encoded())
        assert np.array_equal(read_image(name), RGB)
        assert np.array_equal(read_image(tmp_path / name), RGB)
        assert np.array_equal(read_image((tmp_path / name).as_uri()), RGB)
    [entry] = [entry for entry in os.scandir(tmp_path) if entry.name == "a.png"]
    for given in ("~/a.png", pathlib.Path("~/a.png"), entry, np.str_("a.png"), "file:a.png", f"FILE:{tmp_path}/a.png"):
        assert np.array_equal(read_image(given), RGB)
    assert np.array_equal(read_image(f"file://localhost{tmp_path.as_posix()}/a.png"), RGB)


def test_paths_in_arrays_and_columns(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded())
    path = str(tmp_path / "a.png")
    pictures = np.empty(2, object)
    pictures[:] = [Image.fromarray(RGB), RGB]
    for given in (np.array([path, path]), np.array([path, tmp_path / "a.png"], object), pictures):
        assert same(pixels(open_inputs(given)), RGB, RGB)


@pytest.mark.parametrize(
    "text",
    [
        "none.png", "~nobody-here/a.png", "x" * 5000, "a\nb.png", "photos/*.png", "ftp://x/a.png",
        "file://elsewhere/a.png", "file:///none.png", "file:", "data:,", "data:", "data:image/png;base64,@@",
        "data:image/png;base64,iVBORw0KGgo=",
    ],
)  # fmt: skip
def test_what_is_not_there_is_an_error_of_that_image(text):
    [found] = pixels(open_inputs(text))
    assert isinstance(found, str) and "\n" not in found
    assert len(pixels(open_inputs([text, RGB]))) == 2


@pytest.mark.parametrize("text", ["", " ", "a\0b.png"])
def test_what_is_no_path_is_a_mistake_of_the_call(tmp_path, monkeypatch, text):
    (tmp_path / "a.png").write_bytes(encoded())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        list(open_inputs(text))
    with pytest.raises(UserError):
        open_images(text)
    first, second = pixels(open_inputs([text, RGB]))
    assert isinstance(first, str) and np.array_equal(second, RGB)


def test_where_there_is_no_standard_input_that_is_a_mistake_of_the_call(monkeypatch):
    for stdin in (None, types.SimpleNamespace()):
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(UserError):
            list(open_inputs("-"))


def test_data_addresses():
    data = base64.b64encode(encoded()).decode()
    quoted = "".join(f"%{byte:02x}" for byte in encoded())
    for text in (
        f"data:image/png;base64,{data}", f"DATA:;BASE64,{data.rstrip('=')}", f"data:image/png,{quoted}",
        f"data:image/png;base64,{data[:20]}\n{data[20:]}", f"data:image/png;base64,{data.replace('+', '%2B')}",
    ):  # fmt: skip
        assert np.array_equal(read_image(text), RGB)
    [image] = open_inputs(f"data:image/png;base64,{data}")
    assert len(image.name) < 80
    assert open_images(f"data:image/png;base64,{data}").read(0).tolist() == RGB.tolist()


# ---------------------------------------------------------------- collections


@pytest.mark.parametrize(
    "given",
    [
        None, 3, 2.5, object(), str, {"a": RGB}, {"a.png"}, frozenset(["a.png"]), [None], [3], [[RGB]], [(RGB, 1)],
        [{}], RGB.tolist(), array.array("B", encoded()), [], (), iter([]), range(3), lambda: RGB, Ellipsis,
    ],
)  # fmt: skip
def test_what_is_no_image_is_one_sentence(given):
    for take in (lambda: list(open_inputs(given)), lambda: open_images(given), lambda: read_image(given)):
        with pytest.raises(UserError) as caught:
            take()
        assert "\n" not in str(caught.value)


def test_collections_keep_their_order():
    for given in ([RGB, GRAY], (RGB, GRAY), deque([RGB, GRAY]), {"a": RGB, "b": GRAY}.values(), iter([RGB, GRAY])):
        assert same(pixels(open_inputs(given)), RGB, GRAY)


def test_a_generator_is_consumed_as_far_as_it_is_needed_and_may_change_what_it_gave(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded())
    asked = []
    frame, tensor, data = np.zeros_like(RGB), torch.zeros(9, 12, 3, dtype=torch.uint8), bytearray(b"x")

    def frames():
        for number in range(3):
            asked.append(number)
            frame[:] = number
            yield frame
            tensor[:] = 10 + number
            yield tensor
            data[:] = encoded(np.full_like(RGB, 20 + number))
            yield data
            with (tmp_path / "a.png").open("rb") as file:
                yield file
            with Image.open(tmp_path / "a.png") as picture:
                yield picture

    images = open_inputs(frames())
    next(images)
    assert asked == [0]
    expected = [np.full_like(RGB, value) if value is not None else RGB for value in (
        *(10, 20, None, None), *(1, 11, 21, None, None), *(2, 12, 22, None, None),
    )]  # fmt: skip
    assert same(pixels(list(images)), *expected)
    opened = open_images(frames())
    assert same([opened.read(index) for index in range(15)], np.zeros_like(RGB), *expected)


def test_images_that_can_be_opened_again_are_remembered(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(encoded())
    paths = tuple(str(tmp_path / name) for name in ("a.png", "b.png"))
    assert open_images(paths).given == open_images(iter(paths)).given == paths
    assert open_images([pathlib.Path(paths[0]).as_uri()]).given == paths[:1]
    assert open_images([paths[0], RGB]).given is None
    assert open_images(Image.fromarray(RGB)).given is None


def test_one_image_is_one():
    with pytest.raises(UserError):
        read_image([RGB, RGB])
    with pytest.raises(UserError):
        read_image(np.stack([RGB, RGB]))
    with pytest.raises(UserError):
        read_image("none.png")
    assert np.array_equal(read_image([RGB]), RGB)


def test_four_planes_are_not_taken_for_an_image_with_opacity():
    planes = np.zeros((4, 28, 30), np.uint8)
    with pytest.raises(UserError):
        list(open_inputs(planes))
    assert len(list(open_inputs(planes[:, None]))) == 4
    assert len(list(open_inputs(planes, layout="CHW"))) == 1


def test_a_matrix_is_a_gray_image():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    (opened,) = open_inputs(image.view(np.matrix))
    assert np.array_equal(opened.read(), np.repeat(image[:, :, None], 3, axis=2))
