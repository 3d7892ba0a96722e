"""A checkpoint as a folder for the Hub: bit for bit the same network, a card that says how it was measured."""

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from small_hub import COMMIT, small_hub

import alexnet
from alexnet import cli
from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import UserError
from alexnet.models import build_network
from alexnet.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

pytest.importorskip("huggingface_hub", reason="the Hub's library is not installed: pip install 'alexnet[hub]'")
from huggingface_hub import ModelCard

from alexnet.hub.model import HubAlexNet
from alexnet.hub.repository import shareable

CLASSES = ("n01", "n02", "n03")
METRICS = {"split": "val", "views": "center", "num_images": 80, "top1_error": 0.25, "top5_error": 0.0, "loss": 0.7}
SUMMARY = {**METRICS, "views": "ten_crop", "top1_error": 0.2, "top1_interval": [0.13, 0.3], "checkpoint": "last",
           "step": 70}  # fmt: skip


def make_checkpoint(seed=3, **fields):
    model = build_network("cifar_quick", 3, seed=seed)
    mean = torch.rand(36, 36, 3, generator=torch.Generator().manual_seed(seed)) * 255
    values = {
        "architecture": model.architecture,
        "num_classes": 3,
        "image_size": 32,
        "classes": CLASSES,
        "class_names": ("cat", "dog <b>", "hen"),
        "preprocessing": Preprocessing(36, 32, "pixels", "rgb", "at_crop", mean),
        "recipe": {"seed": 4, "model": {"name": "cifar_quick", "init": "/home/ada/old/best.pt"}},
        "data": "/home/ada/photos",
        "step": 70,
        "epoch": 3.5,
        "metrics": METRICS,
        "model_state": model.state_dict(),
        "training_state": {"optimizer": {}, "weights": None, "state": {}},
        "environment": {
            "command": "alexnet train --data /home/ada/photos",
            "processor": "abacus",
            "versions": {"torch": "2.13.0"},
            "init": {"file": "/home/ada/old/best.pt", "sha256": "0" * 64, "model": "cifar_quick", "step": 9,
                     "data": "/home/x/cifar", "copied": ["conv1"], "new": ["fc10"], "frozen": ["conv1"]},
        },
    }  # fmt: skip
    return Checkpoint(**{**values, **fields})


@pytest.fixture
def run(tmp_path):
    """A run's folder with two checkpoints, and the summary of the last one."""
    folder = tmp_path / "run"
    save_checkpoint(folder / "checkpoints" / "last.pt", make_checkpoint())
    save_checkpoint(folder / "checkpoints" / "best.pt", make_checkpoint(seed=8, step=60))
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    return folder


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.jpg")
    return tmp_path / "image.jpg"


def push(monkeypatch, *arguments):
    """Runs the command; the exit code."""
    monkeypatch.setattr(sys, "argv", ["alexnet", "push", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code or 0


def same(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


# ---------------------------------------------------------------- the files


def test_a_folder_gives_the_same_network_back_bit_for_bit(run, tmp_path, photo):
    HubAlexNet.from_checkpoint(run).save_pretrained(tmp_path / "files")
    model = alexnet.from_pretrained(tmp_path / "files")
    last = load_checkpoint(run / "checkpoints" / "last.pt")  # what the final evaluation is of
    assert same(model.state_dict(), last.model_state) and not model.training
    again = model.checkpoint
    assert torch.equal(again.preprocessing.mean_image, last.preprocessing.mean_image)
    assert {**again.preprocessing.to_dict(), "mean_image": 0} == {**last.preprocessing.to_dict(), "mean_image": 0}
    assert (again.classes, again.class_names, again.architecture) == (last.classes, last.class_names, last.architecture)
    (ours,), (theirs,) = model.predict(photo), alexnet.predict(last, photo)
    assert ours.guesses == theirs.guesses


def test_every_command_takes_such_a_folder(run, tmp_path):
    HubAlexNet.from_checkpoint(run).save_pretrained(tmp_path / "files")
    for name in (tmp_path / "files", tmp_path / "files" / "model.safetensors"):
        assert same(load_checkpoint(name).model_state, load_checkpoint(run / "checkpoints" / "last.pt").model_state)


def test_other_programs_find_plain_tensors_and_a_configuration(run, tmp_path):
    HubAlexNet.from_checkpoint(run).save_pretrained(tmp_path / "files")
    tensors = load_file(tmp_path / "files" / "model.safetensors")
    assert tensors["conv1.weight"].shape == (32, 3, 5, 5) and tensors["fc10.bias"].shape == (3,)
    config = json.loads((tmp_path / "files" / "config.json").read_text())
    assert config["id2label"] == {"0": "cat", "1": "dog <b>", "2": "hen"} and config["image_size"] == 32
    assert config["preprocessing"]["input_scale"] == "pixels" and len(config["preprocessing"]["mean_rgb"]) == 3


def test_weights_that_were_changed_are_saved_as_they_are_now(run, tmp_path):
    model = HubAlexNet.from_checkpoint(run)
    with torch.no_grad():
        model.fc10.bias.fill_(7.0)
    model.save_pretrained(tmp_path / "files")
    assert alexnet.from_pretrained(tmp_path / "files").fc10.bias.tolist() == [7.0] * 3
    card = (tmp_path / "files" / "README.md").read_text()
    assert "It has not been evaluated" in card, "the results are those of other weights"


def test_paths_of_the_machine_stay_on_it(run, tmp_path):
    shared = shareable(make_checkpoint())
    assert shared.data == "photos" and shared.recipe["model"]["init"] == "best.pt" and shared.training_state is None
    assert shared.environment["init"]["file"] == "best.pt" and shared.environment["init"]["data"] == "cifar"
    HubAlexNet.from_checkpoint(run).save_pretrained(tmp_path / "files")
    written = b"".join(path.read_bytes() for path in (tmp_path / "files").iterdir())
    assert b"/home/" not in written and b"ada/" not in written
    signed = shareable(make_checkpoint(data="https://host/photos.tar?signature=secret"))
    assert signed.data == "photos.tar"
    named = shareable(make_checkpoint(recipe={"model": {"init": "hf:ada/alexnet"}}))
    assert named.recipe["model"]["init"] == "hf:ada/alexnet"


def test_files_of_others_are_refused(tmp_path, run):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        alexnet.from_pretrained(tmp_path / "empty")
    from safetensors.torch import save_file

    foreign = make_checkpoint().model_state
    save_file({name: tensor.contiguous() for name, tensor in foreign.items()}, tmp_path / "empty" / "model.safetensors")
    with pytest.raises(UserError, match="alexnet import"):
        alexnet.from_pretrained(tmp_path / "empty")
    HubAlexNet.from_checkpoint(run).save_pretrained(tmp_path / "files")
    weights = tmp_path / "files" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        alexnet.from_pretrained(tmp_path / "files")


# ---------------------------------------------------------------- the card


def card_of(checkpoint, tmp_path, summary=None, **options):
    HubAlexNet(checkpoint, summary).save_pretrained(tmp_path / "card", model_card_kwargs=options)
    return ModelCard.load(tmp_path / "card" / "README.md")


def test_the_card_has_the_results_with_their_protocol(tmp_path):
    card = card_of(make_checkpoint(), tmp_path, SUMMARY, repo_id="ada/pets", license="cc-by-4.0")
    assert "| top-1 | 20.00% | 13.00% to 30.00% | 80 validation images of photos, ten crops |" in card.text
    assert card.data.license == "cc-by-4.0" and card.data.pipeline_tag == "image-classification"
    (result,) = card.data.eval_results  # of three classes, five guesses are always right
    assert result.metric_value == 0.8
    assert result.metric_name == "top-1 accuracy (80 validation images of photos, ten crops)"
    assert "step 70" in card.text and "flatters" not in card.text
    assert "It began with the weights of `best.pt`" in card.text and "conv1 were frozen" in card.text
    digest = re.search(r"SHA-256 `(\w{64})`\. Written", card.text).group(1)
    (facts,) = [alexnet.hub.repository.file_facts(tmp_path / "card")["model.safetensors"]]
    assert digest == facts["sha256"]


def test_text_from_files_is_no_markup_of_the_card(tmp_path):
    evil = "[x](javascript:1) `|<script>\x1b[2J\n# y\udce9"
    source = make_checkpoint()
    architecture = replace(source.architecture, name="a`b", summary=evil, source=evil)
    environment = source.environment | {"init": source.environment["init"] | {"file": evil, "data": evil}}
    checkpoint = make_checkpoint(data=evil, architecture=architecture, environment=environment, class_names=(evil,) * 3)
    card = card_of(checkpoint, tmp_path, SUMMARY)
    text = re.sub(r"(?<!`)`[^`]*`(?!`)", "", card.text)  # code is shown as it is
    assert not re.search(r"(?<!\\)[<\[](script|x)", text) and "\n# y" not in card.text and "\x1b" not in card.content
    assert sum(line.startswith("| top-1") for line in card.text.splitlines()) == 1
    (result,) = card.data.eval_results
    assert result.dataset_name == r"[x](javascript:1) `|<script>\u001b[2J\u000a# y\xe9"
    assert r"\uDC" not in card.content  # an escape of YAML that not every parser takes


def test_the_results_of_other_weights_are_not_claimed(tmp_path):
    card = card_of(make_checkpoint(step=60), tmp_path, SUMMARY)
    assert "| top-1 | 25.00% |  | 80 validation images of photos, centre crop |" in card.text
    assert "Of the weights after step 60; whether they were chosen by their error" in card.text


@pytest.mark.parametrize(("selection", "flatters"), [("last", False), ("best", True)])
def test_the_card_says_which_weights_the_results_are_of(tmp_path, selection, flatters):
    card = card_of(make_checkpoint(step=60, selection=selection), tmp_path, SUMMARY)
    assert f"Of the {selection} weights, after step 60" in card.text
    assert ("which flatters it" in card.text) == flatters


def test_without_a_result_or_a_licence_the_card_says_so(tmp_path):
    card = card_of(make_checkpoint(metrics={}), tmp_path)
    assert "It has not been evaluated" in card.text and card.data.eval_results is None
    assert "None is stated for the weights" in card.text and card.data.license is None
    assert r"cat, dog \<b\>, hen" in card.text


def test_imported_weights_bring_what_their_authors_published(tmp_path):
    published = {"name": "V1", "url": "https://example.org", "reported": "57.1 % of some images", "terms": "free"}
    imported = {"file": "v1.pth", "form": "a file of torch.save", "published": published}
    card = card_of(make_checkpoint(metrics={}, recipe={}, data="", environment={"imported": imported}), tmp_path)
    assert "As published by its authors, not measured here: 57.1 % of some images." in card.text
    assert "imported from `v1.pth`" in card.text


def test_a_recipe_of_another_version_is_left_out(tmp_path):
    card = card_of(make_checkpoint(recipe={"seed": 4, "later": {"key": 1}}), tmp_path)
    assert "Trained on photos for 70 steps" in card.text and "with torch 2.13.0" in card.text
    assert "The recipe" not in card.text and "seed 4" not in card.text


def test_the_card_has_no_checksum_of_a_file_that_was_not_written():
    with pytest.raises(UserError, match="save_pretrained"):
        HubAlexNet(make_checkpoint()).generate_model_card()


def test_a_network_that_began_with_one_of_the_hub_names_it(tmp_path):
    recipe = {"model": {"name": "cifar_quick", "init": "hf:ada/alexnet@main"}}
    assert card_of(make_checkpoint(recipe=recipe), tmp_path).data.base_model == "ada/alexnet"


def in_a_process(code, folder, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(alexnet.__file__).parents[1]), "HF_HOME": str(folder / "hf")}
        | environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_on_the_card_works_without_a_network(run, tmp_path, photo):
    HubAlexNet.from_checkpoint(run).save_pretrained(tmp_path / "files", model_card_kwargs={"repo_id": "ada/pets"})
    (example,) = re.findall(r"```python\n(.*?)```", (tmp_path / "files" / "README.md").read_text(), re.DOTALL)
    printed = in_a_process(example.replace("ada/pets", "files"), tmp_path, HF_HUB_OFFLINE="1")
    assert len(printed.splitlines()) == 3 and re.match(r" *\d+\.\d%  (cat|dog <b>|hen)", printed)


# ---------------------------------------------------------------- the command


def test_push_writes_files_to_look_at(run, tmp_path, monkeypatch, capsys):
    assert push(monkeypatch, run, "--output", tmp_path / "card", "--license", "mit", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert set(record["files"]) == {"model.safetensors", "config.json", "README.md"} and record["url"] is None
    assert record["files"]["README.md"]["bytes"] == (tmp_path / "card" / "README.md").stat().st_size


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give the repository"),
        (["pets"], "no name of a repository"),
        (["ada/pets", "--license", "Free for all"], "names licences"),
        (["ada/pets"], "add --yes"),
        (["--output", "."], "is there already"),
    ],
)
def test_mistakes_are_told_before_anything_leaves_the_machine(run, monkeypatch, capsys, arguments, words):
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # nobody to ask
    assert push(monkeypatch, run, *arguments) == 2
    assert words in capsys.readouterr().err


def test_without_the_library_the_extra_is_named(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert push(monkeypatch, run, "ada/pets", "--yes") == 2
    assert "pip install 'alexnet[hub]'" in capsys.readouterr().err


OVER_THE_NET = """
import alexnet
from alexnet import cli
import sys
def command(*arguments):
    sys.argv = ["alexnet", *arguments]
    try:
        cli.main()
    except SystemExit as done:
        print("exit", done.code)
command("push", "files", "ada/pets", "--private", "--yes", "--quiet")
command("predict", "hf:ada/pets", "image.jpg", "--json")
model = alexnet.from_pretrained("ada/pets")
print("sum", model.conv1.weight.sum().item())
command("predict", "hf:ada/none", "image.jpg")
command("push", "files", "ada/pets", "--yes", "--quiet")
"""


def test_to_the_hub_and_back(run, tmp_path, photo):
    """Through huggingface_hub's own client, to a small Hub on this machine."""
    names = ("caf\udce9", "dog\x1b[2J<b>", "\u202ehen")  # a folder's name may hold any bytes
    save_checkpoint(run / "checkpoints" / "last.pt", make_checkpoint(classes=names, class_names=names))
    HubAlexNet.from_checkpoint(run).save_pretrained(tmp_path / "files")
    (tmp_path / "files" / "more").mkdir()
    for name in ("notes.txt", "more/token"):  # nobody was shown these, nor asked about them
        (tmp_path / "files" / name).write_text("not for others")
    environment = {"HF_TOKEN": "hf_writes", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with small_hub() as hub:
        printed = in_a_process(OVER_THE_NET, tmp_path, HF_ENDPOINT=hub.address, **environment)
        files = hub.repositories["ada/pets"]
        assert set(files) == {"model.safetensors", "config.json", "README.md"} and hub.private["ada/pets"] is True
    assert files["model.safetensors"] == (tmp_path / "files" / "model.safetensors").read_bytes()
    labels = json.loads(files["config.json"])["id2label"]
    assert load_checkpoint(run).classes == (r"caf\xe9", names[1], names[2])
    assert list(labels.values()) == [r"caf\xe9", names[1], names[2]] and b"\\ud" not in files["config.json"]
    assert not {"\x1b", "\u202e"} & set(files["README.md"].decode())
    assert b'from_pretrained("ada/pets")' in files["README.md"] and b"USER/NAME" not in files["README.md"]
    assert f"Uploaded: {hub.address}/ada/pets/commit/{COMMIT}" in printed
    model = HubAlexNet.from_checkpoint(run)
    assert f"sum {model.conv1.weight.sum().item()}\n" in printed
    assert [line for line in printed.splitlines() if line.startswith("exit")] == [
        "exit 0",
        "exit 0",
        "exit 2",
        "exit 0",
    ]
    # What was fetched once needs no network any more.
    offline = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "1"}
    code = "import alexnet; print(alexnet.load_checkpoint('hf:ada/pets').step)"
    assert in_a_process(code, tmp_path, **offline) == "70\n"


def test_what_cannot_be_fetched_is_told_in_a_sentence(tmp_path, monkeypatch):
    from huggingface_hub import constants

    from alexnet.hub.remote import fetch_checkpoint, upload

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="not in the cache, and HF_HUB_OFFLINE is set"):
        fetch_checkpoint("hf:ada/nowhere")
    for name in ("hf:ada/no/where at all", "hf:pets", "hf:"):
        with pytest.raises(UserError, match="USER/NAME"):
            fetch_checkpoint(name)
    with pytest.raises(UserError, match="nothing was uploaded to ada/pets: HF_HUB_OFFLINE is set"):
        upload(tmp_path, "ada/pets", private=False, branch=None, message="")


@pytest.mark.parametrize(("writing", "words"), [(True, "let you write to"), (False, "let you read")])
def test_who_may_not_is_told_what_not(writing, words):
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    from alexnet.hub.remote import hub_errors

    refusal = httpx2.Response(403, request=httpx2.Request("GET", "https://example.org"))
    with pytest.raises(UserError, match=words), hub_errors("ada/pets", writing=writing):
        raise HfHubHTTPError("Forbidden", response=refusal)
