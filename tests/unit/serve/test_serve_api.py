"""The HTTP API, asked over a real connection."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving_stand_ins import COLORS, CROP, NAMES, SQUARE, picture, spotted

import alexnet
from alexnet.evaluation.predictor import predict

DOCS = Path(__file__).resolve().parents[3] / "docs" / "serving.md"


def values_of(answer, *shape):
    return np.frombuffer(base64.b64decode(answer["values"]), np.uint8).reshape(shape)


# ---------------------------------------------------------------- guesses


@pytest.mark.parametrize("name", NAMES)
def test_guesses_are_those_of_predict(server, checkpoints, name):
    data = picture(name, (61, 40), "JPEG", quality=80)
    answer = server.post("/api/predict", data).json
    expected = predict(checkpoints[0], data)[0].guesses
    first, second = answer["networks"]
    assert [(guess["name"], guess["id"]) for guess in first["guesses"]] == [(g.name, g.class_id) for g in expected]
    assert np.allclose([g["probability"] for g in first["guesses"]], [g.probability for g in expected], atol=1e-6)
    assert first["guesses"][0]["name"] == name
    assert second["guesses"][0]["name"] == {"red": "green", "green": "red", "blue": "blue"}[name]
    assert [guess["index"] for guess in first["guesses"]] == [NAMES.index(g.name) for g in expected]
    assert answer["image"] == {"width": 61, "height": 40, "format": "JPEG"}


def test_a_form_and_a_bare_body_give_the_same(server):
    data = picture("blue")
    bare = server.post("/api/predict", data, "image/png").json
    form = server.post_form("/api/predict", [("note", "", b"hello"), ("image", "../../etc/passwd", data)]).json
    curl = server.post("/api/predict", data, "application/x-www-form-urlencoded").json  # as curl --data-binary has it
    assert bare["networks"] == form["networks"] == curl["networks"]


def test_the_box_is_the_centre_crop_of_the_centre_square(server):
    box = server.post("/api/predict", picture("red", (100, 72))).json["networks"][0]["box"]
    margin = (SQUARE - CROP) / 2 * 72 / SQUARE
    assert box == pytest.approx({"left": 14 + margin, "top": margin, "side": 72 * CROP / SQUARE})


def test_an_image_is_turned_upright(server):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    data = picture("red", (80, 50), "JPEG", exif=exif)
    assert server.post("/api/predict", data).json["image"] == {"width": 50, "height": 80, "format": "JPEG"}


def test_the_square_that_comes_back_gives_the_same_guesses(server):
    data = spotted("green", (4, 4))
    whole = server.post("/api/predict?square=true", data).json["networks"][0]
    square = base64.b64decode(whole["square"])
    assert Image.open(io.BytesIO(square)).size == (SQUARE, SQUARE)
    again = server.post("/api/predict?network=a", square).json["networks"][0]
    assert again["guesses"] == whole["guesses"]


def test_top_and_network_choose(server):
    answer = server.post("/api/predict?top=1&network=b", picture("red")).json
    assert [one["network"] for one in answer["networks"]] == ["b"]
    assert [guess["name"] for guess in answer["networks"][0]["guesses"]] == ["green"]


def test_server_timing_tells_where_the_time_went(server):
    timing = server.post("/api/predict", picture("red")).headers["Server-Timing"]
    assert re.fullmatch(r"decode;dur=[\d.]+, network;dur=[\d.]+", timing)


# ---------------------------------------------------------------- where it looked, layers, kernels, neighbours


@pytest.mark.parametrize(("corner", "row", "column"), [((4, 4), 0, 0), ((28, 4), 0, 1), ((4, 28), 1, 0)])
def test_the_heat_is_where_the_colour_is(server, corner, row, column):
    answer = server.post("/api/gradcam?index=1", spotted("green", corner)).json
    assert (answer["class_name"], answer["layer"], answer["rows"], answer["columns"]) == ("green", "relu1", CROP, CROP)
    heat = values_of(answer, CROP, CROP).astype(int)
    assert heat.max() == 255 and answer["highest"] > 0
    quarters = heat.reshape(2, CROP // 2, 2, CROP // 2).sum(axis=(1, 3))
    assert np.unravel_index(quarters.argmax(), (2, 2)) == (row, column)


def test_a_class_that_nothing_speaks_for_has_no_heat(server):
    answer = server.post("/api/gradcam?index=0", picture((40, 40, 40))).json
    assert answer["highest"] == 0
    assert not values_of(answer, CROP, CROP).any()


def test_activations_are_those_of_the_network(server, checkpoints):
    answer = server.post("/api/activations?maps=2", picture("red", (SQUARE, SQUARE))).json
    layers = {layer["layer"]: layer for layer in answer["layers"]}
    assert list(layers) == ["conv1", "relu1", "pool1", "fc8"]
    conv1 = layers["conv1"]
    assert (conv1["shape"], conv1["kind"]) == ([3, 8, 8], "Convolution")
    red, green, blue = COLORS["red"]
    assert (conv1["highest"], conv1["lowest"]) == pytest.approx((red - (green + blue) / 2, green - (red + blue) / 2))
    assert conv1["channels"][0] == 0  # the strongest
    maps = values_of(conv1, 2, 8, 8)
    assert (maps[0] == 255).all() and (maps[1] == 0).all()
    scores = layers["fc8"]
    assert (scores["shape"], scores["channels"]) == ([3], [])
    logits = alexnet.load_model(checkpoints[0]).fc8.weight.shape
    assert logits[0] == len(values_of(scores, 3))


def test_single_layers_can_be_asked_for(server):
    answer = server.post("/api/activations?layer=pool1&layer=fc8", picture("red")).json
    assert [layer["layer"] for layer in answer["layers"]] == ["pool1", "fc8"]


def test_kernels_come_in_banks(server):
    (bank,) = server.get("/api/kernels?network=b").json["banks"]
    assert (bank["count"], bank["rows"], bank["columns"]) == (3, 4, 4)
    pixels = np.frombuffer(base64.b64decode(bank["pixels"]), np.uint8).reshape(3, 4, 4, 3)
    assert (pixels[1] == [64, 255, 64]).all()  # green above zero, the others half as much below


def test_nearest_images_are_near(server, folder):
    answer = server.post("/api/nearest?count=4", picture("blue")).json
    assert [one["class_name"] for one in answer["neighbours"]] == ["n2"] * 4
    distances = [one["distance"] for one in answer["neighbours"]]
    assert distances == sorted(distances) and distances[0] < 1
    shown = server.get("/" + answer["neighbours"][0]["picture"])
    assert (shown.status, shown.headers["Content-Type"]) == (200, "image/jpeg")
    assert Image.open(io.BytesIO(shown.body)).size == (256, 256)
    assert np.allclose(np.asarray(Image.open(io.BytesIO(shown.body))).mean((0, 1)), COLORS["blue"], atol=6)


def test_until_the_data_set_was_looked_at_there_are_no_neighbours(server, monkeypatch):
    neighbourhood = server.service.neighbourhood
    monkeypatch.setattr(neighbourhood, "is_ready", False)
    monkeypatch.setattr(neighbourhood, "num_done", 9)
    answer = server.post("/api/nearest", picture("blue"))
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5") and "(38% are done)" in answer.json["error"]
    assert server.get("/api/description").json["data"]["share_done"] == 9 / 24
    monkeypatch.setattr(neighbourhood, "failure", "the disk is gone")
    answer = server.post("/api/nearest", picture("blue"))
    assert answer.status == 404 and answer.json["error"].endswith("the disk is gone.")


# ---------------------------------------------------------------- what is served


def test_the_description_says_what_is_served_and_not_where_it_lies(server, folder):
    answer = server.get("/api/description")
    assert "secret" not in answer.body.decode() and str(folder.parent) not in answer.body.decode()
    first, second = answer.json["networks"]
    assert (first["id"], first["title"], second["title"], first["data"]) == ("a", "right", "wrong", "colours")
    assert [layer["name"] for layer in first["layers"] if layer["has_maps"]] == ["conv1", "relu1", "pool1"]
    assert first["results"]["top1_error"] == 0.25
    assert answer.json["data"] == {
        "name": "colours", "num_images": 12, "is_ready": True, "share_done": 1.0, "failure": None,
    }  # fmt: skip
    example = answer.json["examples"][0]
    shown = server.get("/" + example["picture"])
    assert server.post("/api/predict", shown.body).json["networks"][0]["guesses"][0]["id"] == example["class_id"]


def test_health_and_metrics(server):
    assert server.get("/health/live").json == {"status": "live"}
    assert server.get("/health/ready").json == {"status": "ready"}
    server.post("/api/predict", picture("red"))
    page = server.get("/metrics")
    assert page.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    text = page.body.decode()
    assert re.search(r'^alexnet_requests_total\{method="POST",path="/api/predict",status="200"\} [1-9]', text, re.M)
    assert re.search(r"^alexnet_batch_size_count [1-9]", text, re.M)
    assert re.search(r"^alexnet_requests_inside 0$", text, re.M)


def test_the_page_and_its_parts_are_there(server):
    page = server.get("/")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    html = page.body.decode()
    assert server.get("/app.js").headers["Content-Type"].startswith("text/javascript")
    for part in re.findall(r'(?:src|href)="([^"#]+)"', html):
        assert "//" not in part, "nothing comes from elsewhere"
        assert server.get(f"/{part}").status == 200, part


def test_every_answer_keeps_browsers_from_doing_more_than_they_should(server):
    for answer in (server.get("/"), server.get("/nothing"), server.post("/api/predict", b"?")):
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


# ---------------------------------------------------------------- refusals


REFUSED = {
    "/api/predict?network=c": (404, "no network 'c'"),
    "/api/predict?top=0": (422, "'top'"),
    "/api/gradcam": (422, "'index'"),
    "/api/gradcam?index=3": (404, "no class 3"),
    "/api/gradcam?index=0&layer=fc8": (404, "conv1, relu1, pool1"),
    "/api/activations?layer=conv9": (404, "'conv9'"),
    "/api/activations?maps=100000": (422, "'maps'"),
    "/api/nearest?count=0": (422, "'count'"),
    "/api/elsewhere": (404, "nothing"),
    "/api/kernels": (405, "method"),
}


@pytest.mark.parametrize("path", REFUSED)
def test_what_cannot_be_is_refused_with_a_sentence(server, path):
    status, part = REFUSED[path]
    answer = server.post(path, picture("red"))
    assert answer.status == status
    assert list(answer.json) == ["error"] and part in answer.json["error"] and answer.json["error"].endswith(".")


def test_addresses_that_are_not_there(server):
    for path in ("/nothing", "/api/pictures/999", "/api/examples/-1", "/../serve/app.py", "/%2e%2e/app.py"):
        answer = server.get(path)
        assert answer.status == 404 and answer.json["error"], path
    assert server.get("/api/predict").status == 405


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_other_names_for_this_machine_are_refused(server, host):
    answer = server.get("/api/description", Host=host)
    assert answer.status == 403 and "--allow-host" in answer.json["error"]


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:1234", "LOCALHOST"])
def test_the_names_of_this_machine_are_not(server, host):
    assert server.get("/health/live", Host=host).status == 200


# ---------------------------------------------------------------- the description for machines


def test_the_openapi_description_fits_the_answers_and_the_documentation(server):
    description = server.get("/openapi.json").json
    assert description["openapi"].startswith("3.")
    documented = set(re.findall(r"`(?:GET|POST) (/[^`?]*)", DOCS.read_text(encoding="utf-8")))
    assert documented == set(description["paths"])
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"] and operation["description"], path
            if method == "post":
                assert set(operation["requestBody"]["content"]) >= {"multipart/form-data", "image/*"}
                for status in ("400", "408", "413", "415", "422", "503"):
                    schema = operation["responses"][status]["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Error"}, (path, status)
    schemas = description["components"]["schemas"]
    for path, schema in {"/api/description": "Description", "/api/kernels": "Kernels"}.items():
        answer = server.get(path).json
        assert set(answer) == set(schemas[schema]["properties"])
    json.dumps(description)
