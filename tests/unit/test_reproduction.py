"""docs/reproduction.md names fields, files and tests that exist, with the values that it prints."""

import re
from functools import reduce
from pathlib import Path

import pytest

from alexnet.config_io import diff_recipes, known_keys, load_recipe, parse_override
from alexnet.data.originals.imagenet import OFFICIAL_COUNTS
from alexnet.models import ARCHITECTURES
from alexnet.reproduce.catalogue import STUDIES
from alexnet.reproduce.imagenet import TEST_2010

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| the paper |")
]
FIELD = re.compile(r"([a-z]+(?:\.[a-z0-9_]+)+)(?:=(.+))?")


def spans(*columns):
    return [span for row in ROWS for column in columns for span in re.findall(r"`([^`]+)`", row[column])]


def test_every_row_has_four_cells():
    assert len(ROWS) > 50
    assert [row for row in ROWS if len(row) != 4] == []


TESTS = sorted(set(spans(3)))


@pytest.mark.parametrize("name", TESTS)
def test_a_test_that_is_named_exists(name):
    path, _, function = name.partition("::")
    text = (ROOT / path).read_text(encoding="utf-8")
    assert re.search(rf"^def {re.escape(function)}\(", text, re.MULTILINE)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_a_row_has_a_test_a_place_in_the_ledger_or_says_that_there_is_none(row):
    nothing_to_hold = ("not there", "not measured", "there is none")
    assert row[3] or row[1].startswith(nothing_to_hold)


@pytest.mark.parametrize("name", sorted({span for span in spans(1, 2) if span.startswith("alexnet/")}))
def test_a_file_that_is_named_exists_and_has_the_name(name):
    path, _, symbol = name.partition(":")
    file = ROOT / path
    assert file.is_file()
    if symbol:
        defined = rf"^(?:def |class )?{re.escape(symbol)}\b\s*(?:[=:(]|$)"
        assert re.search(defined, file.read_text(encoding="utf-8"), re.MULTILINE)


def fields(column):
    found = (FIELD.fullmatch(span) for span in spans(column) if not span.startswith("alexnet/"))
    return sorted({(match[1], match[2]) for match in found if match and not match[0].endswith((".py", ".md"))})


@pytest.mark.parametrize(("key", "value"), sorted({*fields(1), *fields(2)}, key=str))
def test_a_field_that_is_named_exists(key, value):
    assert re.sub(r"\.layers\.\w+\.", ".layers.NAME.", key) in known_keys()


def value_of(recipe, key):
    return reduce(lambda at, name: at[name] if isinstance(at, dict) else getattr(at, name), key.split("."), recipe)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        (name, key, value)
        for column, name in ((1, "paper"), (2, "as-run-2012"))
        for key, value in fields(column)
        if value is not None
    ],
)
def test_a_field_has_the_value_that_is_printed(name, key, value):
    _, printed = parse_override(f"{key}={value}")
    actual = value_of(load_recipe(name), key)
    assert (list(actual) if isinstance(actual, tuple) else actual) == printed


def test_every_study_that_is_named_exists():
    named = {span.split()[2] for span in spans(1) if span.startswith("alexnet reproduce ")}
    assert named and named <= set(STUDIES)


def test_the_page_lists_what_the_two_recipes_differ_in():
    """A field in which the run and the text differ has both values on the page."""
    here, there = dict(fields(1)), dict(fields(2))
    for key, _, _ in diff_recipes(load_recipe("paper"), load_recipe("as-run-2012")):
        # The names of the models and of the schedules follow from what the page says about them.
        if key not in ("model.name", "schedule.name") and not key.startswith("schedule.layers.conv1"):
            assert key in there or key in here, key


# ---------------------------------------------------------------- sentences that nothing else holds


def test_the_layers_are_those_of_the_paper_in_its_order():
    middle = "conv3 relu3 conv4 relu4 conv5 relu5 pool5"
    end = "fc6 relu6 drop6 fc7 relu7 drop7 fc8"
    paper = f"conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 {middle} {end}"
    as_run = f"conv1 norm1 pool1 relu1 conv2 relu2 norm2 cnorm2 pool2 {middle} {end}"
    for name, order in {"paper": paper, "as_run": as_run}.items():
        assert [layer.name for layer in ARCHITECTURES[name].layers] == order.split()


def test_the_sets_have_as_many_images_as_the_paper_says():
    for year in ("2010", "2012"):
        train, val = OFFICIAL_COUNTS[year]
        assert 1.2e6 <= train < 1.3e6 and val == 50_000
    assert TEST_2010.num_images == 150_000
    # "Over 15 million" in the text; the release of autumn 2011 has 14,197,122.
    assert OFFICIAL_COUNTS["fall11"][0] == 14_197_122
