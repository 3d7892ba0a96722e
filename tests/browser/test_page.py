"""The page in a real browser, as a person uses it."""

import base64
import re

import pytest
from browser_stand_ins import HOSTILE, SECONDS
from serving_stand_ins import CROP, SQUARE, picture, spotted

pytestmark = pytest.mark.browser

GIVE = """([data, name, type, event]) => {
  const transfer = new DataTransfer();
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  if (type === "text") transfer.setData("text/plain", "hello");
  else transfer.items.add(new File([bytes], name, { type }));
  const options = { bubbles: true, cancelable: true };
  const made = event === "paste"
    ? new ClipboardEvent("paste", { ...options, clipboardData: transfer })
    : new DragEvent(event, { ...options, dataTransfer: transfer });
  document.body.dispatchEvent(made);
}"""
PIXELS = """(canvas) => {
  const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const at = (x, y) => [...data.slice(4 * (Math.floor(y * height) * width + Math.floor(x * width)), -1)].slice(0, 3);
  return { width, height, topLeft: at(0.2, 0.2), bottomRight: at(0.8, 0.8) };
}"""


def choose(page, data, name="picture.png"):
    page.locator("#file").set_input_files({"name": name, "mimeType": "", "buffer": data})


def give(page, event, data, kind="image/png"):
    """Drop or paste something."""
    page.evaluate(GIVE, [base64.b64encode(data).decode(), "given.png", kind, event])


def verdict(page):
    page.locator("#verdict").wait_for()
    return page.locator("#verdict").inner_text()


def settled(page):
    """Wait until everything about the image has been shown."""
    page.locator("#maps .tiles").wait_for()
    until(page, lambda: page.locator(".busy, .waiting").count() == 0)


def until(page, condition):
    """Wait for something that a locator cannot wait for. (The page's policy forbids playwright's wait_for_function.)"""
    for _ in range(20 * SECONDS):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not come to pass")


def says(page, ending):
    """Wait until the verdict ends like that."""
    page.locator("#verdict", has_text=re.compile(f"{re.escape(ending)}$")).wait_for()


def test_an_image_that_is_chosen_is_answered_in_every_part(opened, one):
    with opened(one) as page:
        choose(page, spotted("green", (4, 4)))
        assert re.fullmatch(r"(Surely|Probably|Perhaps|At a guess) green", verdict(page))
        settled(page)
        bars = page.locator(".guess")
        assert bars.count() == 3
        assert bars.first.inner_text().startswith("green") and page.locator(".guess input").first.is_checked()
        widths = [bar.evaluate("(bar) => parseFloat(bar.style.width)") for bar in page.locator(".guess .bar").all()]
        assert widths == sorted(widths, reverse=True) and 99 < sum(widths) < 101
        page.locator("#near-rows li").nth(5).wait_for()
        assert {page.locator("#near-rows .name").nth(place).inner_text() for place in range(4)} == {"n1"}
        assert page.locator("#layers label").all_inner_texts() == ["conv1", "relu1", "pool1", "fc8"]
        page.locator("#layers label", has_text="pool1").click()
        assert "pool1: 3 maps of 4" in page.locator("#maps .label").inner_text()
        page.locator("#layers label", has_text="fc8").click()
        assert "fc8: 3 units" in page.locator("#maps .label").inner_text()
        assert page.locator("#banks canvas").get_attribute("aria-label") == "3 kernels of 4 by 4 pixels"
        assert "25.0 % (center, 12 images)" in page.locator("#about").inner_text()


def test_the_colour_lies_where_the_network_looked(opened, one):
    with opened(one) as page:
        choose(page, spotted("green", (4, 4)))
        settled(page)
        canvas = page.locator(".stage canvas")
        with_heat = canvas.evaluate(PIXELS)
        page.locator("#overlay").uncheck()
        without = canvas.evaluate(PIXELS)
        assert without["topLeft"] == [20, 200, 20] and without["bottomRight"] == [40, 40, 40]
        assert with_heat["topLeft"][0] > 120, "the heat is warm where the green is"
        assert with_heat["bottomRight"] == [40, 40, 40]


def test_any_class_can_be_looked_for(opened, one):
    with opened(one) as page:
        choose(page, spotted("green", (4, 4)))
        settled(page)
        with page.expect_response(re.compile("api/gradcam")) as response:
            page.get_by_label("Another class").select_option("blue")
        assert response.value.json()["class_name"] == "blue"
        settled(page)
        assert page.locator(".guess :checked").count() == 0
        page.locator(".guess").first.click()
        assert page.get_by_label("Another class").input_value() == ""


def test_what_is_not_seen_is_dimmed(opened, one):
    with opened(one) as page:
        choose(page, picture("red", (96, 48)))
        settled(page)
        page.locator("#overlay").uncheck()
        left, middle = page.locator(".stage canvas").evaluate(
            """(canvas) => [0.02, 0.5].map((x) =>
                 canvas.getContext("2d").getImageData(x * canvas.width, canvas.height / 2, 1, 1).data[0])"""
        )
        assert middle == 230 and left < 160


def test_pasting_and_dropping(opened, one):
    with opened(one) as page:
        give(page, "paste", picture("blue"))
        assert verdict(page).endswith(" blue")
        give(page, "dragenter", b"")
        assert page.locator("#curtain").is_visible()
        give(page, "drop", picture("red"))
        says(page, " red")
        assert page.locator("#curtain").is_hidden()
        give(page, "paste", b"", "text")
        assert "The clipboard holds no image" in page.locator("#alert").inner_text()
        give(page, "drop", b"", "text")
        assert "not a file" in page.locator("#alert").inner_text()


def test_an_example_shows_which_class_is_true(opened, one):
    with opened(one) as page:
        button = page.get_by_role("button", name="Example n2").first
        button.click()
        assert verdict(page).endswith(" blue")
        assert page.locator(".guess.true").inner_text().startswith("blue")


def test_a_file_that_is_no_image_is_refused_and_the_next_one_is_not(opened, one):
    with opened(one, complaints=1) as page:
        choose(page, b"hello", "note.png")
        page.get_by_role("alert").wait_for()
        assert page.get_by_role("alert").inner_text().startswith("This is not an image")
        assert page.locator("#answer").is_hidden()
        choose(page, picture("red"))
        assert verdict(page).endswith(" red")
        assert page.locator("#alert").is_hidden()


def test_too_large_a_file_is_not_even_sent(opened, one):
    with opened(one) as page:
        choose(page, bytes(1_000_001), "huge.png")
        page.get_by_role("alert").wait_for()
        assert "huge.png is larger than 1 MB" in page.get_by_role("alert").inner_text()


def test_a_format_that_the_browser_does_not_know_is_shown_as_the_network_got_it(opened, one):
    with opened(one) as page:
        choose(page, picture("blue", (64, 50), "TIFF"), "scan.tiff")
        assert verdict(page).endswith(" blue")
        settled(page)
        shown = page.locator(".stage canvas").evaluate(PIXELS)
        assert shown["width"] == shown["height"]


def test_two_networks_side_by_side(opened, two):
    with opened(two) as page:
        choose(page, picture("red"))
        assert verdict(page) == "They disagree: red, or green"
        settled(page)
        first, second = page.locator(".view").all()
        assert first.bounding_box()["x"] + 100 < second.bounding_box()["x"]
        assert [view.locator("h3").inner_text() for view in (first, second)] == ["first", "second"]
        assert second.locator(".guess").first.inner_text().startswith("green")
        page.locator("#inside-network label", has_text="second").click()
        assert page.locator("#inside-network :checked").input_value() == "b"
        choose(page, picture("blue"))
        says(page, f"blue, or {HOSTILE}")
        assert page.locator("main img[src=x]").count() == 0, "a name is text, whatever it looks like"


def test_the_keyboard_stays_with_the_network_that_it_chose(opened, two):
    with opened(two) as page:
        choose(page, picture("red"))
        settled(page)
        page.locator("#inside-network input").first.focus()
        page.keyboard.press("ArrowRight")
        until(page, lambda: page.evaluate("document.activeElement.value") == "b")
        settled(page)
        assert page.evaluate("[document.activeElement.name, document.activeElement.value]") == ["inside-network", "b"]


def test_what_was_chosen_last_is_shown_whatever_comes_last(opened, one):
    with opened(one) as page:
        choose(page, spotted("green", (4, 4)))
        settled(page)
        held = []
        page.route("**/api/gradcam*index=2*", lambda route: held.append(route))
        with page.expect_request(re.compile("index=2")):
            page.get_by_label("Another class").select_option("blue")
        with page.expect_response(re.compile("index=1")):
            page.get_by_label("Another class").select_option("green")
        settled(page)
        shown = page.locator(".stage canvas").evaluate(PIXELS)
        with page.expect_response(re.compile("index=2")):
            held[0].continue_()
        page.wait_for_timeout(300)
        assert page.locator(".stage canvas").evaluate(PIXELS) == shown


def test_an_image_that_is_refused_ends_the_wait_for_the_one_before(opened, one):
    with opened(one) as page:
        page.route("**/api/predict*", lambda route: None)
        with page.expect_request("**/api/predict*"):
            choose(page, picture("red"))
        assert page.locator("body.busy").count() == 1
        choose(page, bytes(1_000_001), "huge.png")
        page.get_by_role("alert").wait_for()
        assert page.locator("body.busy").count() == 0


def test_an_example_that_is_gone_is_told(opened, one):
    with opened(one, complaints=1) as page:
        page.route("**/api/examples/*", lambda route: route.fulfill(status=404))
        page.get_by_role("button", name="Example").first.click()
        page.get_by_role("alert").wait_for()
        assert page.get_by_role("alert").inner_text().startswith("The example cannot be fetched")


def opened_by_key(page, key):
    """The file chooser that a key opens. On a busy machine Chromium now and then opens none at the first stroke."""
    from playwright.sync_api import TimeoutError as NoChooser  # where there is none, nothing here is run

    for attempt in range(1, 6):
        try:
            with page.expect_file_chooser(timeout=6_000) as chooser:
                page.keyboard.press(key)
            return chooser.value
        except NoChooser:
            if attempt == 5:
                raise


def test_by_keyboard_alone(opened, one):
    with opened(one) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "file"
        chooser = opened_by_key(page, "Enter")
        chooser.set_files({"name": "a.png", "mimeType": "image/png", "buffer": picture("green")})
        settled(page)
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.name").startswith("guess-"):
                break
        page.keyboard.press("ArrowDown")
        assert page.evaluate("document.activeElement.checked")
        chosen = page.locator(".guess:has(:checked) .name").inner_text()
        assert chosen != "green"
        assert page.get_by_role("status").inner_text() == f"Showing where the network looked for {chosen}."
        settled(page)


def test_a_screen_reader_is_told_everything(opened, one):
    with opened(one) as page:
        choose(page, picture("red"))
        settled(page)
        assert "red" in page.get_by_role("status").inner_text()
        told = page.locator("body").aria_snapshot()
        for part in (
            "- banner", "- main", "- contentinfo", '- heading "What does the network see?" [level=1]',
            '- heading "Layer by layer" [level=2]', '- group "Three best guesses"', "- radio \"red", '- group "Layer"',
            '- checkbox "Show where it looked" [checked]', '- slider "Strength"',
        ):  # fmt: skip
            assert part in told, (part, told)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("button, input:not([aria-hidden]), canvas[role=img], img")]
                 .filter((one) => !(one.innerText || one.ariaLabel || one.labels?.length
                                    || (one.matches("img") ? one.hasAttribute("alt") : one.querySelector("img")?.alt)))
                 .map((one) => one.outerHTML)"""
        )
        assert nameless == []


@pytest.mark.parametrize("server", ["one", "two"])
def test_on_a_telephone_nothing_sticks_out(opened, server, request):
    narrow = {"viewport": {"width": 360, "height": 700}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}
    with opened(request.getfixturevalue(server), **narrow) as page:
        wide = "document.scrollingElement.scrollWidth"
        assert page.evaluate(wide) == 360
        choose(page, picture("red", (300, 200)))
        settled(page)
        page.locator("#near-rows li").nth(2).wait_for()
        assert page.evaluate(wide) == 360
        tiles = [item.bounding_box() for item in page.locator("#near-rows ol").first.locator("li").all()]
        assert all(tile["width"] < 120 for tile in tiles), "long names are broken"
        assert page.locator(".stage canvas").first.bounding_box()["width"] <= 330
        for button in page.locator("label.button, button.button, .guess").all():
            if button.is_visible():
                assert button.bounding_box()["height"] >= 44
        assert page.locator("#verdict").bounding_box()["y"] < 350, "what it says is in sight"


def test_dark_and_without_motion(opened, one):
    with opened(one, color_scheme="dark", reduced_motion="reduce") as page:
        choose(page, picture("red"))
        settled(page)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", background))) < 60
        assert page.evaluate("getComputedStyle(document.querySelector('.bar')).transitionDuration") == "0s"


def test_drawing_a_digit(opened, one):
    with opened(one) as page:
        page.get_by_role("button", name="Draw a digit").click()
        box = page.locator("#sheet").bounding_box()
        page.mouse.move(box["x"] + 140, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + 140, box["y"] + 240, steps=5)
        page.mouse.up()
        with page.expect_response(re.compile("api/predict")) as response:
            page.get_by_role("button", name="What is it?").click()
        assert response.value.json()["image"] == {"width": 8, "height": 8, "format": "PNG"}
        settled(page)


def test_a_photograph_of_the_camera(opened, one):
    with opened(one, permissions=["camera"]) as page:
        page.get_by_role("button", name="Take a photograph").click()
        until(page, lambda: page.locator("#viewfinder").evaluate("(video) => video.videoWidth") > 0)
        with page.expect_response(re.compile("api/predict")) as response:
            page.get_by_role("button", name="Take it").click()
        assert response.value.json()["image"]["format"] == "JPEG"
        settled(page)
        assert page.evaluate("document.querySelector('#viewfinder').srcObject === null")


def test_the_next_image_does_not_wait_for_the_last(opened, one):
    with opened(one) as page:
        choose(page, picture("red"))
        choose(page, picture("blue", (CROP, SQUARE)))
        says(page, " blue")
        settled(page)
        assert verdict(page).endswith(" blue")
