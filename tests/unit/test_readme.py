"""What the README tells people to type exists."""

import ast
import json
import re
import shlex
import statistics
from pathlib import Path

import pytest
import torch
import typer
from scipy import stats

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
    rows = re.findall(r"^\| (`[^|]*) \|[^|]*\| ([\d, /]+?)(?: \((\d+) classes\))? \|", README, re.MULTILINE)
    counts, num_classes = {}, {}
    for names, numbers, stated in rows:
        found = [int(number.replace(",", "")) for number in numbers.split("/")]
        listed = re.findall(r"`(\w+)`", names)
        counts.update(zip(listed, found if len(found) == len(listed) else found * len(listed), strict=True))
        num_classes.update(dict.fromkeys(listed, int(stated or 1000)))
    assert set(counts) == set(ARCHITECTURES)
    for name, count in counts.items():
        architecture = get_architecture(name)
        with torch.device("meta"):
            model = AlexNet(architecture, num_classes[name])
        assert sum(parameter.numel() for parameter in model.parameters()) == count, name


def test_the_demo_trains_as_many_parameters_as_it_says():
    (count,) = re.findall(r"make demo .*\(([\d,]+) parameters with ten classes\)", README)
    with torch.device("meta"):
        model = AlexNet(get_architecture("as_run"), 10)
    assert load_recipe("digits").model.name == "as_run"
    assert sum(parameter.numel() for parameter in model.parameters()) == int(count.replace(",", ""))


def test_the_files_it_points_to_exist():
    for path in re.findall(r"`((?:alexnet|tests|examples)/[\w/.*-]*)`", README) + re.findall(
        r"\]\(([^)h#][^)#]*)(?:#[^)]*)?\)", README
    ):
        assert (ROOT / path).exists(), path


def test_places_in_the_ledger_exist():
    ledger = (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")
    places = re.findall(r"\]\(docs/ledger\.md#([^)]+)\)", README)
    assert places and [place for place in places if f'<a id="{place}">' not in ledger] == []


def numbers_in(text):
    """(value, decimals) of every number; a comma between three digits is left out."""
    found = re.findall(r"(?<![\w.-])\d[\d,]*(?:\.\d+)?(?![\w-])", text)
    texts = [number.replace(",", "") for number in found]
    return [(float(number), len(number.partition(".")[2])) for number in texts]


MEASURED = re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \| \[record\]\(([^)]+)\) \|", README, re.MULTILINE)


@pytest.mark.parametrize(("what", "result", "record"), MEASURED)
def test_a_measured_number_is_in_its_record(what, result, record):
    """Rounded to as many decimals as the README has."""
    recorded = [value for value, _ in numbers_in((ROOT / record / "README.md").read_text(encoding="utf-8"))]
    printed = numbers_in(result)
    assert printed
    for value, decimals in printed:
        scale = 10**decimals
        # A cut-off number is right too: 76.5 % is "76 %".
        assert any(round(each, decimals) == value or int(each * scale) / scale == value for each in recorded), value


@pytest.mark.parametrize("result", [result for _, result, _ in MEASURED if "% error" in result or "top-1" in result])
def test_an_error_has_an_interval_that_says_over_what(result):
    assert re.search(r"\([\d.]+ to [\d.]+( and [\d.]+ to [\d.]+)?, over (images|seeds)\)", result)


def test_everything_measured_names_a_record():
    table = README.split("| what | result |")[1].split("\n\n")[0]
    assert len(MEASURED) == len(table.strip().splitlines()) - 2 >= 5


def test_the_trace_is_inside_what_one_more_run_would_give():
    (record,) = (ROOT / "results").glob("*_cifar-19-trace_*/record.json")
    rows = {row["quantity"]: row for row in json.loads(record.read_text(encoding="utf-8"))["rows"]}
    files = [row for quantity, row in rows.items() if quantity.startswith("training loss, file")]
    inside = 0
    for row in files:
        values = list(row["values"].values())
        reach = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) * (1 + 1 / len(values)) ** 0.5
        inside += abs(row["published"] - statistics.fmean(values)) <= reach
    assert (len(files), inside) == (17, 17)
    assert len(files[0]["values"]) == 6
