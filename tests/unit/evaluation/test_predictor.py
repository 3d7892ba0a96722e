import io
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from evaluation_stand_ins import Scores, preprocessing
from PIL import Image

from alexnet.data.decode import UnreadableImage
from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import UserError
from alexnet.evaluation.inputs import _web_opener, download, is_image_bytes, open_inputs
from alexnet.evaluation.predictor import IMAGES_PER_BATCH, Predictor, load_predictor, predict, predict_each
from alexnet.models import build_network
from alexnet.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

COLORS = ("red", "green", "blue")
SIZE, CROP = 16, 12


def by_color(images):
    return images.mean((2, 3)) / 20


def color_predictor(score=by_color, classes=COLORS):
    return Predictor(
        [Scores(score)],
        [preprocessing(SIZE, CROP)],
        [f"n{i}" for i in range(len(classes))],
        classes,
        torch.device("cpu"),
    )


def picture(color, size=(20, 30)):
    return Image.new("RGB", size, color)


def encoded(color, kind="PNG"):
    buffer = io.BytesIO()
    picture(color).save(buffer, format=kind)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    """b/blue.png, green.jpg and red.png, with things among them that are not to be predicted."""
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name, color in (("red.png", "red"), ("green.jpg", "lime"), ("b/blue.png", "blue"), (".hidden/x.png", "red")):
        picture(color).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".thumb.png").write_bytes(b"x")
    return tmp_path


def best(predictions):
    return [p.guesses[0].name if p.error is None else p.error for p in predictions]


def test_paths_arrays_pictures_and_bytes_give_names(folder):
    array = np.zeros((30, 20, 3), dtype=np.uint8)
    array[..., 1] = 255
    inputs = [str(folder / "red.png"), folder / "b/blue.png", array, picture("blue"), encoded("red", "JPEG")]
    inputs += [io.BytesIO(encoded("blue")), torch.from_numpy(array).permute(2, 0, 1)]
    predictions = predict(color_predictor(), inputs, top=2)
    assert best(predictions) == ["red", "blue", "green", "blue", "red", "blue", "green"]
    first = predictions[0]
    assert first.input == str(folder / "red.png") and len(first.guesses) == 2
    assert first.guesses[0].class_id == "n0" and first.guesses[0].probability > 0.99
    assert first.to_dict()["guesses"][0] == {"class": "n0", "name": "red", "probability": first.guesses[0].probability}


def test_one_input_needs_no_list(folder):
    assert best(predict(color_predictor(), folder / "red.png")) == ["red"]
    assert best(predict(color_predictor(), picture("blue"))) == ["blue"]
    assert best(predict(color_predictor(), io.BytesIO(encoded("red")))) == ["red"]


def test_arrays_say_what_they_mean_or_are_told():
    planes = torch.zeros(2, 3, 30, 3)
    planes[0, 1], planes[1, 2] = 1, 1
    for too_little in ({}, {"layout": "CHW"}, {"value_range": (0, 1)}):
        with pytest.raises(UserError):
            predict(color_predictor(), planes, **too_little)
    assert best(predict(color_predictor(), planes, layout="CHW", value_range=(0, 1))) == ["green", "blue"]
    # A mistake in a list is that image's.
    good = np.zeros((30, 20, 3), np.uint8)
    predictions = predict(color_predictor(), [planes[0], good + np.uint8([0, 0, 99]), good / 255])
    assert [prediction.error is None for prediction in predictions] == [False, True, False]


def test_a_generator_is_asked_for_a_batch_at_a_time():
    asked = []

    def pictures():
        for number in range(100):
            asked.append(number)
            yield picture("red")

    predictions = predict_each(color_predictor(), pictures())
    next(predictions)
    assert len(asked) == IMAGES_PER_BATCH
    predictions.close()


def test_a_folder_is_searched_in_order_for_images_only(folder):
    predictions = predict(color_predictor(), folder)
    assert [p.input for p in predictions] == [str(folder / name) for name in ("green.jpg", "red.png", "b/blue.png")]
    assert best(predictions) == ["green", "red", "blue"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I;16", "F", "RGBa"])
def test_pictures_of_every_mode_are_read(mode):
    white = Image.new(mode, (9, 9)) if mode in ("I;16", "F", "RGBa") else picture("white").convert(mode)
    [prediction] = predict(color_predictor(), white)
    assert prediction.error is None


def test_unreadable_inputs_are_named_and_the_others_go_on(folder, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(encoded("red")[:40])
    (tmp_path / "empty").mkdir()
    inputs = [folder / "none.png", broken, folder / "red.png", tmp_path / "empty", np.zeros((4, 4)), "ftp://x/y.png"]
    predictions = predict(color_predictor(), inputs)
    errors = [p.error for p in predictions]
    assert errors[2] is None and best(predictions)[2] == "red"
    assert "no such file" in errors[0] and "folder holds no image" in errors[3]
    assert errors[1] and "uint8" in errors[4] and "ftp" in errors[5]
    assert all(not p.guesses for p in predictions if p.error)


def test_more_inputs_than_a_batch_keep_their_order():
    inputs = [picture(("red", "lime", "blue")[i % 3]) for i in range(71)]
    assert best(predict(color_predictor(), inputs)) == [COLORS[i % 3] for i in range(71)]


def test_standard_input_holds_an_image_or_lines_of_paths(folder):
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"):
        assert is_image_bytes(encoded("blue", kind)), kind
        [prediction] = predict(color_predictor(), "-", stdin=io.BytesIO(encoded("blue", kind)))
        assert best([prediction]) == ["blue"] and prediction.input == "-"
    lines = f"{folder / 'red.png'}\n\n  {folder / 'b'}  \r\n-\n".encode()
    assert best(predict(color_predictor(), "-", stdin=io.BytesIO(lines))) == [
        "red",
        "blue",
        "standard input cannot name itself",
    ]
    assert best(predict(color_predictor(), ["-"], stdin=io.BytesIO(b" \n"))) == ["standard input is empty"]


@pytest.mark.parametrize(
    "line", ["BMW.jpg", "P3 series/a b.ppm", "II.tif", "RIFF.webp", "GIF.gif", "\u00e9t\u00e9.png"]
)
def test_paths_that_begin_like_a_format_stay_paths(line):
    assert not is_image_bytes(f"{line}\nother.png\n".encode())
    assert [image.name for image in open_inputs("-", io.BytesIO(f"{line}\n".encode()))] == [line]


class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/red%20one.png":
            self.answer(200, encoded("red"))
        elif self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/red%20one.png")
            self.end_headers()
        elif self.path == "/to-file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
        elif self.path == "/page":
            self.answer(200, b"<html>no image</html>")
        elif self.path == "/slow":
            time.sleep(1)
            self.answer(200, b"")
        else:
            self.answer(404, b"")

    def answer(self, code, body):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@contextmanager
def local_server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_addresses_are_fetched_and_failures_explained():
    with local_server() as server:
        inputs = [f"{server}/{path}" for path in ("red one.png", "moved", "to-file", "page", "missing.png")]
        predictions = predict(color_predictor(), [*inputs, "http://127.0.0.1:1/x.png", "http://"])
    errors = [p.error for p in predictions]
    assert best(predictions)[:2] == ["red", "red"] and predictions[0].input == inputs[0]
    assert "could not be fetched" in errors[2] or "302" in errors[2]
    assert errors[3] == "not an image in a known format"
    assert "404" in errors[4]
    assert "could not be fetched" in errors[5] and "could not be fetched" in errors[6]


def test_only_web_addresses_are_ever_opened():
    # A redirection could otherwise lead to ftp, and `urlopen` would read file: and data: addresses.
    assert set(_web_opener().handle_open) == {"http", "https", "unknown"}


def test_a_download_has_limits():
    with local_server() as server:
        with pytest.raises(UnreadableImage, match="larger than"):
            download(f"{server}/page", max_bytes=10)
        with pytest.raises(UnreadableImage, match="timed out"):
            download(f"{server}/slow", timeout_seconds=0.1)


def test_the_square_of_the_shorter_side_is_what_is_seen():
    wide = np.zeros((SIZE, 3 * SIZE, 3), dtype=np.uint8)
    wide[:, :SIZE, 0] = wide[:, SIZE : 2 * SIZE, 1] = wide[:, 2 * SIZE :, 2] = 255
    assert best(predict(color_predictor(), wide)) == ["green"]


def test_views_are_averaged_when_asked():
    calls = []

    def score(images):
        calls.append(len(images))
        return by_color(images)

    predict(color_predictor(score), [picture("red"), picture("blue")], views="ten_crop")
    assert sum(calls) == 20


def test_outputs_that_are_not_finite_are_an_error_of_that_image():
    def score(images):
        logits = by_color(images)
        return torch.where(logits[:, :1] > 5, torch.nan, logits)

    predictions = predict(color_predictor(score), [picture("red"), picture("blue")])
    assert predictions[0].error == "the network's output is not finite"
    assert best(predictions[1:]) == ["blue"]


def test_a_generator_leaves_no_mode_behind():
    generator = predict_each(color_predictor(), [picture("red")] * 40)
    next(generator)
    assert not torch.is_inference_mode_enabled()
    generator.close()


def test_wrong_arguments_are_named():
    with pytest.raises(UserError, match="top must be"):
        predict(color_predictor(), picture("red"), top=0)
    for given in ([3], None, []):
        with pytest.raises(UserError):
            predict(color_predictor(), given)
    with pytest.raises(UserError, match="3 outputs, but 2"):
        predict(color_predictor(classes=("a", "b")), picture("red"))
    with pytest.raises(UserError, match=r"none\.pt"):
        predict("none.pt", picture("red"))
    with pytest.raises(UserError, match="at least one"):
        load_predictor([])


def test_top_beyond_the_classes_gives_all_of_them_summing_to_one():
    [prediction] = predict(color_predictor(), picture((100, 90, 80)), top=9)
    assert [guess.name for guess in prediction.guesses] == list(COLORS)
    assert sum(guess.probability for guess in prediction.guesses) == pytest.approx(1)


def save_small_checkpoint(path, classes=("n0", "n1", "n2"), seed=0):
    model = build_network("cifar_quick", num_classes=len(classes), seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    squares = Preprocessing(32, model.image_size, "pixels", "rgb", "center_crop", torch.full((32, 32, 3), 120.0))
    save_checkpoint(
        path,
        Checkpoint(
            architecture=model.architecture,
            num_classes=len(classes),
            image_size=model.image_size,
            classes=tuple(classes),
            class_names=tuple(f"name of {c}" for c in classes),
            preprocessing=squares,
            recipe={},
            data="test",
            step=1,
            epoch=1.0,
            metrics={},
            model_state=model.state_dict(),
            training_state=None,
            environment={},
        ),
    )
    return path


def test_checkpoints_predict_alone_and_as_an_ensemble(tmp_path):
    first = save_small_checkpoint(tmp_path / "a.pt", seed=1)
    second = save_small_checkpoint(tmp_path / "b.pt", seed=2)
    image = np.random.default_rng(0).integers(0, 256, (40, 32, 3), dtype=np.uint8)

    def probabilities(checkpoints):
        [prediction] = predict(load_predictor(checkpoints, device="cpu", precision="float32"), image)
        return {guess.name: guess.probability for guess in prediction.guesses}

    one, two, both = probabilities(first), probabilities(load_checkpoint(second)), probabilities([first, second])
    assert set(one) == {"name of n0", "name of n1", "name of n2"} and one != two
    for name, probability in both.items():
        assert probability == pytest.approx((one[name] + two[name]) / 2, rel=1e-4)
    [prediction] = predict(first, image)
    assert prediction.error is None


def test_an_ensemble_of_other_classes_is_refused(tmp_path):
    first = save_small_checkpoint(tmp_path / "a.pt")
    other = save_small_checkpoint(tmp_path / "b.pt", classes=("n0", "n2", "n1"))
    with pytest.raises(UserError, match=r"same classes in the same order; .*b\.pt differs"):
        load_predictor([first, other])
