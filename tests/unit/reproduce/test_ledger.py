"""The ledger says what the records say, and nothing else."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

from alexnet.cli import app
from alexnet.commands.reproduce_ledger import ledger_command
from alexnet.commands.train import split_arguments
from alexnet.config_io import load_recipe, to_toml
from alexnet.errors import UserError
from alexnet.models import ARCHITECTURES
from alexnet.reproduce.calculations import calculate
from alexnet.reproduce.catalogue import STUDIES
from alexnet.reproduce.evidence import NO_ROW, record_names, run_evidence, study_evidence
from alexnet.reproduce.ledger import Number, read_line, read_published, write_page

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "results"
PAGE = ROOT / "docs" / "ledger.md"
GROUPS, NUMBERS = read_published()


def number_id(number):
    return number.id


# ---------------------------------------------------------------- the page


def test_the_page_is_what_the_records_say():
    expected = write_page(RESULTS, STUDIES, PAGE)
    assert PAGE.read_text(encoding="utf-8") == expected, (
        "docs/ledger.md is not what results/ and ledger.toml give; write it again: "
        "alexnet reproduce ledger --data results --output docs/ledger.md"
    )
    assert "no such row" not in expected, "a name in ledger.toml is not the study's"


def test_every_link_of_the_page_leads_somewhere():
    text = PAGE.read_text(encoding="utf-8")
    anchors = re.findall(r'<a id="([^"]+)">', text)
    assert len(anchors) == len(set(anchors))
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert target[1:] in anchors if target.startswith("#") else (PAGE.parent / target).exists(), target


def test_other_pages_point_to_places_that_exist():
    ids = {number.id for number in NUMBERS}
    for name in ("docs/reproduction.md", "README.md"):
        places = re.findall(r"ledger\.md#([\w-]+)", (ROOT / name).read_text(encoding="utf-8"))
        assert places and set(places) <= ids, name


def test_every_record_is_on_the_page():
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in record_names(RESULTS) if f"(../results/{name}/)" not in text] == []


def test_the_command_prints_writes_and_has_the_same_as_data(tmp_path, capsys):
    page = tmp_path / "page.md"
    ledger_command(str(RESULTS), page, as_json=False)
    assert page.read_text(encoding="utf-8") == write_page(RESULTS, STUDIES, page)
    capsys.readouterr()
    ledger_command(str(RESULTS), None, as_json=True)
    numbers = json.loads(capsys.readouterr().out)["numbers"]
    assert [entry["id"] for entry in numbers] == [number.id for number in NUMBERS]
    with pytest.raises(UserError, match="no folder of records"):
        ledger_command(str(tmp_path / "nowhere"), None, as_json=False)
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no records"):
        ledger_command(str(tmp_path / "photos"), None, as_json=False)
    (tmp_path / "photos" / "cat" / "record.json").write_text("{}")
    with pytest.raises(UserError, match=r"record\.json is not the record of a study"):
        ledger_command(str(tmp_path / "photos"), None, as_json=False)
    with pytest.raises(UserError, match="--output is for the page"):
        ledger_command(str(RESULTS), page, as_json=True)


# ---------------------------------------------------------------- the published side


def test_entries_are_complete():
    assert len({number.id for number in NUMBERS}) == len(NUMBERS)
    assert {number.group for number in NUMBERS} == {group.name for group in GROUPS}
    for number in NUMBERS:
        assert number.computed or number.reading or number.needs, f"{number.id} does not say what is missing"
        assert not number.protocol.endswith("."), number.id
        assert number.command or number.reading, number.id
        if number.unit in ("%", "points") and not number.computed:
            assert number.published != "-", number.id


@pytest.mark.parametrize("number", [number for number in NUMBERS if number.command], ids=number_id)
def test_a_command_names_what_there_is(number):
    group = typer.main.get_command(app)
    words = shlex.split(number.command)[1:]
    context = typer.Context(group, info_name="alexnet")
    verb = words[0]
    while hasattr(group, "commands"):
        name, group, words = group.resolve_command(context, words)
    parsed = group.make_context(name, words, parent=context)
    if verb == "reproduce":
        assert set(parsed.params["arguments"]) <= set(STUDIES)
    elif verb == "train":
        recipe, overrides = split_arguments(parsed.params["arguments"])
        load_recipe(recipe, overrides)
        assert number.recipe == recipe
    elif verb == "info":
        assert {parsed.params["what"], parsed.params["other"]} - {None} <= set(ARCHITECTURES)


@pytest.mark.parametrize("number", [number for number in NUMBERS if number.computed], ids=number_id)
def test_calculated_numbers_are_the_expected_ones(number):
    golden = number.golden or number.paper
    assert calculate(number.computed) == golden
    assert number.reading or golden == number.paper, "a number that is not the paper's needs a reading"


# ---------------------------------------------------------------- ours


def a_number(**values):
    return Number(id="n", group="cifar", what="a number", protocol="so", needs="images", **values)


def write_record(results, name, rows, *, study="a-study", scale="full", overrides=(), **more):
    folder = results / name
    folder.mkdir()
    record = {"study": study, "scale": scale, "overrides": list(overrides), "rows": rows, **more}
    (folder / "record.json").write_text(json.dumps(record))


def a_row(quantity, values, published=None, tolerance=None):
    """As the record of an earlier version has it; what its status says does not count."""
    return {"quantity": quantity, "unit": "%", "protocol": "10 images", "values": values, "published": published,
            "tolerance": tolerance, "status": "matched"}  # fmt: skip


def write_run(folder, recipe, *, seed, error, num_images=10_000, overrides=()):
    """Add a run to the record in `folder`, which need not be of a study."""
    folder.mkdir(exist_ok=True)
    file = folder / "record.json"
    record = json.loads(file.read_text()) if file.is_file() else {}
    run = load_recipe(recipe, [f"seed={seed}", *overrides])
    summary = {"top1_error": error, "num_images": num_images}
    runs = record.setdefault("runs", {})
    runs[f"run-{len(runs)}"] = {"recipe": tomllib.loads(to_toml(run)), "environment": None, "summary": summary}
    file.write_text(json.dumps(record))


def test_without_records_only_what_is_calculated_has_a_value(tmp_path):
    for number in NUMBERS:
        line = read_line(number, tmp_path)
        assert (line.ours != "-") == bool(number.computed), number.id
        assert line.status.startswith("not run: needs ") or number.reading or number.computed, number.id


def test_of_several_records_the_newest_counts_and_all_are_named(tmp_path):
    write_record(tmp_path, "2030-01-02_b", [a_row("error", {"0": 27.5, "1": 28.5}, 26.0, 1.5)])
    write_record(tmp_path, "2030-01-01_a", [a_row("error", {"0": 26.0})])
    write_record(tmp_path, "2030-01-03_c", [a_row("error", {"0": 1.0})], study="another")
    line = read_line(a_number(study="a-study", quantities=["error"], unit="%", paper="26"), tmp_path)
    assert (line.ours, line.status) == ("28.00 % (2 seeds; 95 % interval over seeds: 21.65 to 34.35)", "differs")
    assert [item.record for item in line.evidence] == ["2030-01-01_a", "2030-01-02_b"]


def test_a_small_form_and_changed_recipes_do_not_count(tmp_path):
    write_record(tmp_path, "2030-01-01_a", [a_row("error", {"0": 26.0})], overrides=["runtime.num_threads=1"])
    write_record(tmp_path, "2030-01-02_b", [a_row("error", {"0": 50.0})], scale="small")
    write_record(tmp_path, "2030-01-03_c", [a_row("error", {"0": 60.0})], overrides=["train.epochs=1"])
    line = read_line(a_number(study="a-study", quantities=["error"], unit="%", paper="26"), tmp_path)
    assert line.ours == "26.00 % (1 seed)"
    assert [item.remark for item in line.evidence] == ["", "small form", "with train.epochs=1"]


def test_a_record_of_other_images_or_of_nothing_does_not_count(tmp_path):
    write_record(tmp_path, "2030-01-01_a", [a_row("error", {"0": 26.0})])
    nothing = {**a_row("error", {}), "not_run": "its labels are not public"}
    write_record(tmp_path, "2030-01-02_b", [nothing])
    of_ten, of_all = (study_evidence(tmp_path, "a-study", ["error"], number) for number in ([10], [1, 100]))
    assert [item.remark for item in of_ten] == ["", "not run: its labels are not public"]
    assert of_all[0].remark == "other images: 10 images"


def test_a_network_that_was_given_counts_only_where_the_images_are_known(tmp_path):
    write_record(tmp_path, "2030-01-01_a", [a_row("error", {"0": 26.0})], checkpoint="runs/mine/checkpoints/best.pt")
    (of_any,) = study_evidence(tmp_path, "a-study", ["error"])
    (of_ten,) = study_evidence(tmp_path, "a-study", ["error"], [10])
    assert (of_any.remark, of_ten.remark) == ("a given network: 10 images", "")


def test_a_record_of_another_network_does_not_count(tmp_path):
    row = {**a_row("error", {"0": 26.0}), "protocol": "10 images; as_run after 5 steps of mine, 10 classes"}
    write_record(tmp_path, "2030-01-01_a", [row], checkpoint="mine.pt")
    remarks = [
        study_evidence(tmp_path, "a-study", ["error"], [10], network=network)[0].remark.partition(":")[0]
        for network in (["as_run after ", ", 10 classes"], ["as_run after ", ", 1,000 classes"], ["paper after "])
    ]
    assert remarks == ["", "another network", "another network"]


def test_a_record_of_a_recipe_that_has_changed_since_does_not_count(tmp_path):
    for name, overrides in (("a", []), ("b", ["data.first_images=none"]), ("c", ["runtime.num_threads=2"])):
        write_record(tmp_path, f"2030-01-01_{name}", [a_row("error", {"0": 12.5})])
        write_run(tmp_path / f"2030-01-01_{name}", "cifar-13pct", seed=0, error=0.125, overrides=overrides)
    write_record(tmp_path, "2030-01-01_d", [a_row("error", {"0": 12.5})])
    found = study_evidence(tmp_path, "a-study", ["error"], [10], recipe="cifar-13pct")
    assert [item.remark for item in found] == ["", "a changed recipe: data.first_images", "", "its recipe is not kept"]


def test_bounds_and_the_precision_are_told(tmp_path):
    write_record(tmp_path, "2030-01-01_a", [{**a_row("error", {"0": 26.0, "1": 26.0}), "at_least": True}],
                 overrides=['runtime.precision="bfloat16"'])  # fmt: skip
    line = read_line(a_number(study="a-study", quantities=["error"], unit="times", paper="6"), tmp_path)
    assert line.ours == "more than 26.00 times (2 seeds)" and line.evidence[0].precision == "bfloat16"


def test_two_quantities_make_a_pair_and_the_worse_status_counts(tmp_path):
    rows = [a_row("top-1", {"0": 40.0}, 40.0, 0.5), a_row("top-5", {"0": 18.0}, 19.0, 0.5)]
    write_record(tmp_path, "2030-01-01_a", rows)
    number = a_number(study="a-study", quantities=["top-1", "top-5"], unit="%", paper="40 / 19")
    line = read_line(number, tmp_path)
    assert (line.ours, line.status) == ("40.00 / 18.00 % (1 seed)", "differs, one seed")


def test_a_difference_in_the_ledger_is_what_its_interval_shows(tmp_path):
    row = {**a_row("gain", {"0": 0.53, "1": 0.03, "2": -0.26}, 0.4, 0.5), "unit": "points"}
    write_record(tmp_path, "2030-01-01_a", [row])
    line = read_line(a_number(study="a-study", quantities=["gain"], unit="points", paper="0.4"), tmp_path)
    assert line.status == "not resolved"
    assert line.ours == "0.100 points (3 seeds; 95 % interval over seeds: -0.893 to 1.09)"


def test_a_missing_row_of_a_changed_recipe_is_told_by_the_recipe(tmp_path):
    write_record(tmp_path, "2030-01-01_a", [a_row("error", {"0": 12.5})])
    write_run(tmp_path / "2030-01-01_a", "cifar-13pct", seed=0, error=0.1, overrides=["train.epochs=1"])
    (found,) = study_evidence(tmp_path, "a-study", ["error", "training"], [10], recipe="cifar-13pct")
    assert found.remark == "a changed recipe: train.epochs"


def test_a_record_without_the_row_does_not_count(tmp_path):
    write_record(tmp_path, "2030-01-01_a", [a_row("error", {"0": 1.0})])
    (found,) = study_evidence(tmp_path, "a-study", ["error", "loss"])
    assert found.remark == "no such row: loss"


def test_the_records_that_are_kept_have_the_rows_that_the_ledger_asks_for():
    for number in NUMBERS:
        for item in read_line(number, RESULTS).evidence:
            # An ensemble is not of five networks where not five seeds were run.
            assert not item.remark.startswith(NO_ROW) or number.id == "table-2-five-cnns", (number.id, item.record)


def test_runs_of_a_recipe_count_by_what_their_recipe_was(tmp_path):
    write_run(tmp_path / "2030-01-01_a", "cifar-quick", seed=0, error=0.25)
    write_run(tmp_path / "2030-01-01_a", "cifar-quick", seed=1, error=0.26,
              overrides=["runtime.num_threads=1"])  # fmt: skip
    write_run(tmp_path / "2030-01-01_a", "cifar-quick", seed=2, error=0.9, overrides=["train.epochs=1"])
    write_run(tmp_path / "2030-01-01_a", "cifar-quick", seed=3, error=0.9, num_images=100)
    write_run(tmp_path / "2030-01-02_b", "cifar-18pct", seed=0, error=0.9)
    (found,) = run_evidence(tmp_path, "cifar-quick", ["top1_error"], num_images=[10_000])
    assert found.record == "2030-01-01_a" and found.values == ({0: 25.0, 1: 26.0},)
    number = a_number(recipe="cifar-quick", keys=["top1_error"], num_images=[10_000], log="26", tolerance=0.6)
    line = read_line(number, tmp_path)
    assert line.status == "matched" and line.ours == "25.50 (2 seeds; 95 % interval over seeds: 19.15 to 31.85)"
    narrow = a_number(recipe="cifar-quick", keys=["top1_error"], num_images=[10_000], log="26", tolerance=0.4)
    assert read_line(narrow, tmp_path).status == "differs"
