"""The exported page in a real browser: the network runs there, and says what it says in Python."""

import base64
import functools
import io
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from browser_stand_ins import HOSTILE, SECONDS
from PIL import Image
from serving_stand_ins import NAMES, color_checkpoint, picture, spotted
from small_networks import small
from test_page import PIXELS, choose, says, settled, verdict

import alexnet
from alexnet.data.decode import decode_image
from alexnet.data.photographs import draw_photograph
from alexnet.data.resample import to_square
from alexnet.errors import UserError
from alexnet.exporting.packing import packed_model
from alexnet.exporting.web import runtime, site
from alexnet.serve.examples import Example
from alexnet.serve.networks import load_networks
from alexnet.training.checkpoint import save_checkpoint
from alexnet.visualize import center_crop, grad_cam, layer_activations

pytestmark = pytest.mark.browser

SIZES = [(50, 36), (36, 36), (20, 31), (300, 411), (333, 1024), (37, 500), (5, 3), (640, 480), (64, 72), (101, 67)]
"""Heights and widths: shrinking, enlarging, only cropping, long ones, odd ones, and a half to be rounded."""
SQUARE = """async ([data, width, height, size]) => {
  const { squareOf } = await import("./square.js");
  const pixels = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const read = (left, top, columns, rows) => {
    const part = new Uint8Array(4 * columns * rows);
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++)
        for (let channel = 0; channel < 3; channel++)
          part[4 * (row * columns + column) + channel] = pixels[3 * ((top + row) * width + left + column) + channel];
    return part;
  };
  return btoa(String.fromCharCode(...squareOf(read, width, height, size)));
}"""
ASK = """async ([data, index]) => {
  const network = await import("./network.js");
  const image = new Blob([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))]);
  const { networks: [one] } = await network.predict(image);
  const { pixels } = one.square;
  const heat = await network.lookFor("a", one.square, index ?? one.guesses[0].index);
  const layers = await network.activations("a", one.square, 5);
  const encoded = (record) => ({ ...record, values: btoa(String.fromCharCode(...record.values)) });
  return { guesses: one.guesses, box: one.box, pixels: btoa(String.fromCharCode(...pixels)), heat: encoded(heat),
           layers: layers.map(encoded) };
}"""

LIMITS = """async () => {
  const { limits } = await (await import("./network.js")).describe();
  [limits.max_pixels, limits.max_upload_bytes] = [1_000_000, 2_000_000];
}"""


@pytest.fixture(scope="module")
def real_runtime():
    """The folder with ONNX Runtime Web; the tests are skipped where it cannot be had."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "_SECONDS", 120)
        try:
            runtime.find_runtime(None, print)
        except UserError as error:
            pytest.skip(f"NO TESTS OF THE EXPORTED PAGE: {error}")
    return runtime.runtime_cache()


@pytest.fixture(scope="module")
def hosted(tmp_path_factory, real_runtime):
    """hosted(name, checkpoint, **options) exports a network and serves the folder; gives `url` and `network`."""
    servers = []
    root = tmp_path_factory.mktemp("hosted")

    def host(name, checkpoint, **options):
        alexnet.export(checkpoint, root / name, format="web", runtime=real_runtime, **options)
        handler = functools.partial(QuietHandler, directory=str(root / name))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        (network,) = load_networks([checkpoint], device="cpu")
        return SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}/", network=network)

    yield host
    for server, thread in servers:
        server.shutdown()
        thread.join(SECONDS)
        server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    """Of `python -m http.server`, without its log."""

    def log_message(self, format, *args):
        """Nothing: what was asked for is seen in the browser."""


@pytest.fixture(scope="module")
def two(hosted, tmp_path_factory):
    """Two networks that know colours; one says that it knows digits, the other has a class with a hostile name."""
    folder = tmp_path_factory.mktemp("networks")
    first = color_checkpoint(folder / "first.pt", data="digits")
    second = color_checkpoint(folder / "second.pt", order=(1, 0, 2), names=(*NAMES[:2], HOSTILE))
    example = Example(decode_image(picture("blue")), "n2", "blue")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "examples_of_run", lambda folder: [example])
        return hosted("two", first, compare=second)


@pytest.fixture(scope="module")
def photographs(hosted, tmp_path_factory):
    """A network of all layers of as_run with few maps in each, that was never trained but has large weights."""
    from export_stand_ins import small_checkpoint

    path = tmp_path_factory.mktemp("network") / "small.pt"
    save_checkpoint(path, small_checkpoint(small("as_run"), image_size=67))
    return hosted("small", path)


def bytes_of(text):
    """The bytes that the browser has sent as base64."""
    return np.frombuffer(base64.b64decode(text), np.uint8)


def jpeg(number, size=None):
    """A drawn photograph as a file."""
    image = Image.fromarray(draw_photograph(number))
    file = io.BytesIO()
    (image if size is None else image.resize(size)).save(file, "JPEG", quality=92)
    return file.getvalue()


def test_squares_are_those_of_python_to_the_last_bit(opened, photographs):
    with opened(photographs) as page:
        for number, (height, width) in enumerate(SIZES):
            pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
            for size in (36, 128):
                data = base64.b64encode(pixels.tobytes()).decode()
                found = bytes_of(page.evaluate(SQUARE, [data, width, height, size]))
                assert np.array_equal(found.reshape(size, size, 3), to_square(pixels, size)), (height, width, size)


def test_everything_that_the_page_shows_is_what_python_gives(opened, photographs):
    with opened(photographs) as page:
        compare_image(page, photographs.network, jpeg(4), another_class=True)
        compare_image(page, photographs.network, jpeg(5, (50, 61)), another_class=False)


def compare_image(page, network, data, another_class):
    """Ask the page's modules about an image, and compare all that they answer."""
    pixels = decode_image(data)
    square = to_square(pixels, network.square_size)
    inputs = center_crop(square, network.checkpoint.preprocessing).inputs
    model = packed_model(network.checkpoint, "int8")
    probabilities = model(inputs).softmax(1)[0].numpy()
    best = int(probabilities.argmax())
    index = (best + 3) % len(probabilities) if another_class else None
    found = page.evaluate(ASK, [base64.b64encode(data).decode(), index])
    assert np.array_equal(bytes_of(found["pixels"]).reshape(square.shape), square)
    assert [guess["index"] for guess in found["guesses"]] == np.argsort(-probabilities, kind="stable")[:5].tolist()
    for guess in found["guesses"]:
        assert abs(guess["probability"] - probabilities[guess["index"]]) < 1e-5
    assert found["box"] == pytest.approx(network.crop_box(*pixels.shape[:2])._asdict())
    heat = grad_cam(model, inputs, best if index is None else index)[0].numpy()
    assert heat.max() > 0
    assert abs(found["heat"]["highest"] / heat.max() - 1) < 1e-4
    assert np.abs(bytes_of(found["heat"]["values"]).reshape(heat.shape) - heat * 255 / heat.max()).max() < 0.6
    expected = layer_activations(model, inputs)
    for layer in found["layers"]:
        compare_layer(layer, expected.pop(layer["layer"])[0].numpy())
    assert list(expected) == ["drop6", "drop7"]


def compare_layer(found, outputs):
    """What the page draws of a layer, beside its outputs: the strongest maps, as bytes between lowest and highest."""
    if outputs.ndim == 3:
        strength = np.abs(outputs).mean(axis=(1, 2))
        assert strength[found["channels"]] == pytest.approx(np.sort(strength)[::-1][:5], rel=1e-3, abs=1e-6)
        outputs = outputs[found["channels"]]
    lowest, highest = min(0.0, float(outputs.min())), max(0.0, float(outputs.max()))
    assert [found["lowest"], found["highest"]] == pytest.approx([lowest, highest], rel=1e-3, abs=1e-5)
    scaled = (outputs - lowest) * (255 / ((highest - lowest) or 1))
    assert np.abs(bytes_of(found["values"]).reshape(outputs.shape) - scaled).max() < 0.6, found["layer"]


def test_two_networks_are_compared_as_on_the_servers_page(opened, two):
    with opened(two) as page:
        choose(page, spotted("red", (4, 4)))
        assert verdict(page) == "They disagree: red, or green"
        settled(page)
        assert page.locator("#coming").is_hidden()
        heat = page.locator(".stage canvas").first.evaluate(PIXELS)
        assert heat["topLeft"] != [230, 20, 20] and heat["bottomRight"] == [40, 40, 40]
        assert page.locator("#banks canvas").count() == 2
        page.locator("#inside-network label", has_text="second").click()
        page.locator("#layers label", has_text="fc8").click()
        assert "fc8: 3 units" in page.locator("#maps .label").inner_text()
        page.get_by_role("button", name="Example blue").click()
        says(page, f"blue, or {HOSTILE}")
        assert page.locator("main img[src=x]").count() == 0
        assert page.locator("footer").inner_text() == "The network runs in your browser: no image leaves it."


def test_transparency_is_laid_over_white(opened, two):
    ramp = np.zeros((40, 44, 4), np.uint8)
    ramp[..., 0], ramp[..., 3] = 200, np.linspace(0, 255, 44).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(ramp).save(file, "PNG")
    with opened(two) as page:
        found = page.evaluate(ASK, [base64.b64encode(file.getvalue()).decode(), 0])
    square = to_square(decode_image(file.getvalue()), 36)
    assert np.abs(bytes_of(found["pixels"]).reshape(square.shape) - square.astype(int)).max() <= 2


def test_what_cannot_be_used_is_refused_and_the_next_image_is_not(opened, two):
    with opened(two) as page:
        page.evaluate(LIMITS)
        for data, name, sentence in (
            (b"hello", "note.png", "This is not an image, or it is damaged"),
            (jpeg(1)[:200], "half.jpg", "This is not an image, or it is damaged"),
            (b"", "empty.png", "The image is empty"),
            (picture("red", (1500, 1000)), "wide.png", "1.5 million pixels; the most that is taken here is 1 million"),
            (bytes(2_000_001), "huge.png", "huge.png is larger than 2 MB"),
        ):
            choose(page, data, name)
            page.get_by_role("alert").filter(has_text=sentence).wait_for()
            assert page.locator("#answer").is_hidden()
        choose(page, picture("blue"))
        says(page, f"blue, or {HOSTILE}")
        assert page.locator("#alert").is_hidden()


def test_a_network_that_does_not_come_is_told_of(browser, two):
    page = browser.new_page()
    page.set_default_timeout(1000 * SECONDS)
    page.route("**/network-b.onnx*", lambda route: route.fulfill(status=404))
    page.goto(two.url)
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text() == "A file of this page is missing: network-b.onnx (status 404)."
    page.close()


def test_on_a_telephone_nothing_is_wider_than_the_screen(opened, two):
    with opened(two, viewport={"width": 390, "height": 844}) as page:
        choose(page, picture("red"))
        settled(page)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
