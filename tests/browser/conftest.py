"""A headless browser, the page in it, and watch over what it does."""

import os
import shutil
from contextlib import contextmanager

import pytest
from browser_stand_ins import HOSTILE, SECONDS
from serving_stand_ins import NAMES, color_checkpoint, color_folder, picture, running_server

from alexnet.evaluation.image_list import open_images
from alexnet.serve.examples import examples_of_images
from alexnet.serve.settings import Settings

EXECUTABLES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Nothing but what a test does: no updates, no telemetry, no first-run pages; a camera that shows a moving picture.
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
]


@pytest.fixture(scope="session")
def browser():
    """Chromium; the tests are skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="NO BROWSER TESTS: playwright is not installed")
    executable = os.environ.get("ALEXNET_CHROMIUM") or next(filter(None, map(shutil.which, EXECUTABLES)), None)
    if executable is None:
        pytest.skip(f"NO BROWSER TESTS: none of {', '.join(EXECUTABLES)} is installed (apt install chromium)")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=executable, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="session")
def one(tmp_path_factory):
    """A server with one network that knows colours and says that it knows digits, and a data set."""
    folder = tmp_path_factory.mktemp("one")
    data = color_folder(folder / "colours")
    examples = examples_of_images(open_images(str(data)))
    checkpoint = color_checkpoint(folder / "first.pt", data="digits")
    settings = Settings(num_decoders=1, max_upload_bytes=1_000_000)
    with running_server([checkpoint], data=data, settings=settings, examples=examples) as running:
        yield running


@pytest.fixture(scope="session")
def two(tmp_path_factory):
    """A server with two networks; the second takes red for green, and has a class with a hostile name.

    Its data set are a few images without classes, with long names.
    """
    folder = tmp_path_factory.mktemp("two")
    data = folder / "images"
    data.mkdir()
    for name in NAMES:
        (data / f"{name}_which_is_the_colour_of_this_picture_and_has_a_very_long_name_000000001.png").write_bytes(
            picture(name)
        )
    second = color_checkpoint(folder / "second.pt", order=(1, 0, 2), names=(*NAMES[:2], HOSTILE))
    with running_server([color_checkpoint(folder / "first.pt"), second], data=data) as running:
        yield running


@pytest.fixture
def opened(browser):
    """opened(server, **options) opens the page; afterwards nothing may have gone elsewhere, or wrong.

    With complaints=1, one answer of the server may have been an error.
    """

    @contextmanager
    def open_page(server, complaints=0, **options):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        context.set_default_timeout(1000 * SECONDS)
        page = context.new_page()
        errors, addresses = [], []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        context.on("request", lambda request: addresses.append(request.url))
        try:
            page.goto(server.url)
            page.locator("#about").wait_for()
            yield page
            page.wait_for_load_state("networkidle")
        finally:
            context.close()
        elsewhere = [url for url in addresses if not url.startswith((server.url, "blob:", "data:"))]
        assert elsewhere == []
        refused = [text for text in errors if text.startswith("Failed to load resource: the server responded with")]
        assert errors == refused and len(refused) == complaints, errors

    return open_page
