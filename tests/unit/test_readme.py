"""What the README tells people to type exists."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import torch
import typer

import alexnet
from alexnet.cli import app
from alexnet.commands.train import split_arguments
from alexnet.config_io import load_recipe
from alexnet.models import ARCHITECTURES, AlexNet, get_architecture

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^    (alexnet .*)$", README, re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_parses(line):
    group = typer.main.get_command(app)
    words = shlex.split(line, comments=True)[1:]
    context = typer.Context(group, info_name="alexnet")
    while hasattr(group, "commands"):
        name, group, words = group.resolve_command(context, words)
    parsed = group.make_context(name, words, parent=context)
    if name == "train":
        recipe, overrides = split_arguments(parsed.params["arguments"])
        load_recipe(recipe, overrides)


def test_the_readme_shows_commands():
    assert len(COMMANDS) >= 5


def test_the_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_python_example_uses_what_there_is():
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {
        node.attr
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "alexnet"
    }
    assert names and names <= set(alexnet.__all__)


def test_the_variants_table_is_complete_and_its_counts_are_right():
    rows = re.findall(r"^\| (`[^|]*) \|[^|]*\| ([\d, /]+) \|", README, re.MULTILINE)
    counts = {}
    for names, numbers in rows:
        found = [int(number.replace(",", "")) for number in numbers.split("/")]
        listed = re.findall(r"`(\w+)`", names)
        counts.update(zip(listed, found if len(found) == len(listed) else found * len(listed), strict=True))
    assert set(counts) == set(ARCHITECTURES)
    for name, count in counts.items():
        architecture = get_architecture(name)
        with torch.device("meta"):
            model = AlexNet(architecture, 10 if name.startswith("cifar") else 1000)
        assert sum(parameter.numel() for parameter in model.parameters()) == count, name


def test_the_files_it_points_to_exist():
    for path in re.findall(r"^\| `(alexnet/[^`]*)` \|", README, re.MULTILINE) + re.findall(
        r"\]\(([^)h][^)]*)\)", README
    ):
        assert (ROOT / path).exists(), path
