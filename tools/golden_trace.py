"""What the package computes and prints, as one JSON file: recorded before a rebuild and compared after it.

    python tools/golden_trace.py record TREE OUT.json     TREE: a checkout with its compiled kernels
    python tools/golden_trace.py compare BEFORE.json AFTER.json

Losses and weights are bits, so both files must come from one machine. The commands run with one thread in a folder
that is new each time, under the same relative names; what differs from run to run (times, speeds) is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# Each on images of its own size: the first nets of the paper at 224 pixels, the nets of 2011 at 24 and 32, batch norm.
RECIPES = {
    "as-run-2012": ("shapes:256", 8),
    "digits": ("shapes:256", 8),
    "cifar-18pct": ("shapes:32", 64),
    "cifar-11pct": ("shapes:32", 16),
    "bn-8k": ("shapes:256", 8),
}
NUM_STEPS = 20
# Settings that make a run short; the losses of all its steps are logged.
SHORT = (
    *("data.max_train_images=640", "train.on_stuck=warn", "evaluate.views=center", "logging.log_every_steps=1"),
    *("runtime.num_threads=1", "runtime.deterministic=true"),
)
COMMANDS = (
    *("train", "reproduce", "export", "push", "import", "serve", "features", "neighbours", "visualize", "evaluate"),
    *("predict", "doctor", "prepare", "info", "report", "recipe", "recipe list", "recipe show", "recipe diff"),
    *("recipe validate", "benchmark", "benchmark train", "benchmark inference", "benchmark loader"),
    *("benchmark serve", "benchmark scaling"),
)
# With what they print as JSON. "run" is a short run on the shapes, "set" a prepared set, "images" six PNG files.
CALLS = {
    "info variant": "info as_run --json",
    "info run": "info run --json",
    "predict": "predict run images --top 2 --json",
    "evaluate": "evaluate run --data shapes:36 --views flip --json",
    "features": "features run images --output features.npz --json",
    "neighbours": "neighbours run images/a.png --among features.npz --count 2 --json",
    "visualize": "visualize run kernels --output kernels.png --json",
    "export": "export run --output weights.safetensors --json",
    "import": "import torchvision.pth --output imported.pt --json",
    "prepare": "prepare folder prepared --json",
    "doctor data": "doctor folder --json",
    "doctor run": "doctor run --json",
    "report": "report run --json",
    "recipe list": "recipe list --json",
    "recipe show": "recipe show caffe",
    "recipe diff": "recipe diff paper caffe",
    "reproduce list": "reproduce list --json",
    "no such recipe": "train no-such-recipe",
    "no such checkpoint": "predict no-such-run images",
    "no such key": "train digits optimizer.learning_rate=1",
}
_VOLATILE = re.compile(r"second|time|per_s|memory|created|date|version|commit|machine|processor|cpu|wall|took", re.I)
_INPUTS = """
import os, numpy, torch
from PIL import Image
import alexnet
generator = numpy.random.default_rng(0)
for folder in ("images", "folder/cat", "folder/dog", "folder/emu"):
    os.makedirs(folder)
    for name in "abcdef":
        pixels = generator.integers(0, 256, (48 + 4 * ord(name) % 32, 64, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(f"{folder}/{name}.png")
torch.manual_seed(0)
torch.save(alexnet.create_model("torchvision", num_classes=3, image_size=64).state_dict(), "torchvision.pth")
"""

_HASHES = """
import hashlib, sys
import alexnet
for name, weights in sorted(alexnet.load_checkpoint(sys.argv[1]).model_state.items()):
    print(name, hashlib.sha256(weights.numpy().tobytes()).hexdigest()[:16])
"""


class Tree:
    """Runs the package of one checkout in a folder of its own."""

    def __init__(self, tree: Path, folder: Path) -> None:
        self.folder = folder
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self.environment = {**os.environ, **one_thread, "PYTHONPATH": str(tree.resolve()), "COLUMNS": "100"}
        self.environment |= {"MPLBACKEND": "Agg", "NO_COLOR": "1"}

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of Python with these arguments."""
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        return done.returncode, done.stdout, done.stderr

    def alexnet(self, arguments: str) -> tuple[int, str, str]:
        """The same of the command."""
        return self.run("-m", "alexnet", *arguments.split())


def record(tree: Path, out: Path) -> None:
    """Write the trace of the package in `tree`."""
    trace: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        here = Tree(tree, Path(name))
        code, _, errors = here.run("-c", _INPUTS)
        assert code == 0, errors
        short = (
            f"train cifar-quick --data shapes:36 --output run model.name=cifar_quick data.image_size=36 {_short(64)}"
        )
        code, _, errors = here.alexnet(short)
        assert code == 0, errors
        for command in ("", *COMMANDS):
            trace[f"help {command}".strip()] = here.alexnet(f"{command} --help")[1].splitlines()
        for call, arguments in CALLS.items():
            code, output, errors = here.alexnet(arguments)
            # An error's sentence is compared, progress is not.
            trace[f"call {call}"] = {
                "code": code,
                "output": _steady(output),
                "errors": errors.splitlines() if code else [],
            }
        trace["prepared bytes"] = {
            str(file.relative_to(here.folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted((here.folder / "prepared").rglob("*"))
            if file.is_file() and file.suffix not in {".json", ".lock"}
        }
        for recipe, (data, batch_size) in RECIPES.items():
            for precision in ("float32", "bfloat16"):
                trace[f"train {recipe} {precision}"] = _training(here, recipe, data, batch_size, precision)
                print(recipe, precision, "done", flush=True)
    out.write_text(json.dumps(trace, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _short(batch_size: int) -> str:
    return " ".join((*SHORT, f"train.batch_size={batch_size}", f"train.epochs={NUM_STEPS * batch_size / 640}"))


def _training(here: Tree, recipe: str, data: str, batch_size: int, precision: str) -> dict[str, Any]:
    output = f"{recipe}-{precision}"
    overrides = f"{_short(batch_size)} runtime.precision={precision}"
    code, _, errors = here.alexnet(f"train {recipe} --data {data} --output {output} {overrides}")
    if code:
        return {"code": code, "errors": errors.splitlines()[-3:]}
    lines = (here.folder / output / "metrics.jsonl").read_text().splitlines()
    steps = [event for event in map(json.loads, lines) if event["event"] == "step"]
    weights = (
        f"import alexnet, hashlib, sys\nfor k, v in sorted(alexnet.load_checkpoint({output!r}).model_state.items()):"
    )
    weights += " print(k, hashlib.sha256(v.numpy().tobytes()).hexdigest()[:16])"
    code, hashes, errors = here.run("-c", weights)
    assert code == 0, errors
    return {"losses": [event["loss"] for event in steps], "weights": hashes.splitlines()}


def _steady(output: str) -> Any:
    """Parsed JSON without what differs from run to run; lines where it is none."""
    try:
        return _without_volatile(json.loads(output))
    except ValueError:
        return output.splitlines()


def _without_volatile(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_volatile(item) for key, item in value.items() if not _VOLATILE.search(key)}
    return [_without_volatile(item) for item in value] if isinstance(value, list) else value


def compare(before: Path, after: Path) -> int:
    """Print what differs; 1 if anything does."""
    old, new = (json.loads(path.read_text(encoding="utf-8")) for path in (before, after))
    different = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    for key in different:
        print(f"== {key}")
        sides = [json.dumps(side.get(key), indent=1, sort_keys=True).splitlines() for side in (old, new)]
        for sign, own, other in (("-", *sides), ("+", *reversed(sides))):
            print(*(f"{sign} {line}" for line in own if line not in set(other)), sep="\n")
    print(f"{len(old)} parts before, {len(new)} after, {len(different)} differ.")
    return int(bool(different))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("tree", type=Path)
    recording.add_argument("out", type=Path)
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    given = parser.parse_args()
    sys.exit(record(given.tree, given.out) if given.command == "record" else compare(given.before, given.after))
