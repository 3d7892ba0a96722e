"""The records in results/ say what their own values and logs say."""

import json
import math
from pathlib import Path

import pytest

from alexnet.commands.reproduce_ledger import records_command
from alexnet.reproduce import cifar, figure_1
from alexnet.reproduce.record import interval_text, numbers_text, read_runs, refresh_record
from alexnet.reproduce.study import Interval, Row
from alexnet.reproduce.training_error import training_curve

ROOT = Path(__file__).resolve().parents[3]
FILES = [file for file in sorted((ROOT / "results").glob("*/record.json")) if "study" in json.loads(file.read_text())]
ROWS = [(file.parent, row) for file in FILES for row in json.loads(file.read_text())["rows"]]
STUDENT_T = {2: 12.7062047364, 3: 4.3026527299, 4: 3.1824463053, 5: 2.7764451052, 6: 2.5705818366, 10: 2.2621571628}
"""Number of seeds -> the 97.5 % quantile, from a printed table."""
Z = 1.959963984540054


def expected_interval(row):
    """What the values of a row come to, by formulas written here."""
    values = list(row["values"].values())
    if row["at_least"] or not values:
        return None
    count, mean = len(values), math.fsum(values) / len(values)
    if count > 1:
        variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
        half = STUDENT_T[count] * math.sqrt(variance / count)
        return mean - half, mean + half
    if row["num_images"] is None:
        return None
    share, n = mean / 100, row["num_images"]
    middle, half = share + Z**2 / (2 * n), Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return tuple(100 * end / (1 + Z**2 / n) for end in (middle - half, middle + half))


def expected_status(row, interval):
    values = list(row["values"].values())
    if not values:
        return "not run"
    published = row["published"]
    if row["is_difference"]:
        if len(values) < 2 or interval[0] <= 0 <= interval[1]:
            return "not resolved"
        if published is None or not row["is_comparable"]:
            return "measured"
        if interval[0] <= published <= interval[1]:
            return "size consistent"
        return "sign shown" if math.copysign(1, interval[0]) == math.copysign(1, published) else "contradicted"
    if published is None or row["tolerance"] is None:
        return "measured"
    return "matched" if abs(math.fsum(values) / len(values) - published) <= row["tolerance"] else "differs"


@pytest.mark.parametrize(("folder", "row"), ROWS, ids=[f"{folder.name}-{row['quantity']}" for folder, row in ROWS])
def test_interval_and_verdict_follow_from_the_values(folder, row):
    interval = expected_interval(row)
    assert row["interval"] == (interval if interval is None else pytest.approx(interval))
    over = None if interval is None else "seeds" if len(row["values"]) > 1 else "images"
    assert row["interval_over"] == over
    assert row["status"] == expected_status(row, interval)
    assert row["is_difference"] == (row["unit"] == "points")
    page = (folder / "README.md").read_text(encoding="utf-8")
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {row['quantity']} |")]
    assert row["status"] in line
    assert interval is None or interval_text(Interval(*row["interval"], over), row["unit"]) in line


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_the_page_of_a_record_has_its_numbers(file):
    rows = [Row.from_dict(row) for row in json.loads(file.read_text())["rows"]]
    assert numbers_text(rows) in (file.parent / "README.md").read_text(encoding="utf-8")


def test_the_command_writes_what_is_there_already(tmp_path, capsys):
    source = next(file.parent for file in FILES if "lrn-cifar" in file.parent.name)
    folder = tmp_path / source.name
    folder.mkdir()
    for name in ("record.json", "README.md"):
        (folder / name).write_bytes((source / name).read_bytes())
    records_command(str(tmp_path))
    assert str(folder) in capsys.readouterr().out
    refresh_record(folder)
    for name in ("record.json", "README.md"):
        assert (folder / name).read_bytes() == (source / name).read_bytes()


def record_of(study):
    (file,) = [file for file in FILES if file.parent.name.split("_")[1] == study]
    return file.parent, {row["quantity"]: row for row in json.loads(file.read_text())["rows"]}


def test_what_three_seeds_do_not_show():
    _, rows = record_of("lrn-cifar")
    lrn = rows["what normalisation takes off"]
    assert (lrn["status"], lrn["interval"]) == ("not resolved", pytest.approx([-0.8927, 1.0927], abs=1e-4))
    _, rows = record_of("transfer")
    gains = [row for name, row in rows.items() if name.startswith("what transfer")]
    assert len(gains) == 3 and {row["status"] for row in gains} == {"not resolved"}


def test_figure_1_is_what_its_logs_say():
    folder, rows = record_of("figure-1")
    rates = {"relu": 0.002, "tanh": 0.008, "silu": 0.004}
    runs = read_runs(folder)
    units = {
        name: figure_1.Unit(
            name,
            rate,
            [],
            {s: training_curve(runs[f"{name}-lr-{rate:g}/seed-{s}"]) for s in (0, 1, 2)},
        )
        for name, rate in rates.items()
    }
    assert [row.to_dict() for row in figure_1.rows_of(units, 50_000, 60, 0)] == list(rows.values())
    at_middle = rows["tanh's epochs over ReLU's, errors at mid-epoch"]["values"]
    assert [round(value, 1) for value in at_middle.values()] == [6.6, 6.9, 6.5]


def test_the_training_errors_of_the_13_percent_net_are_those_of_its_log():
    folder, rows = record_of("cifar-13")
    run = read_runs(folder)["cifar-13pct/seed-0"]
    loss, error = cifar.training_rows({0: run}, cifar.AFTER_100_EPOCHS)
    assert [loss.to_dict(), error.to_dict()] == [rows[row.quantity] for row in (loss, error)]
    (evaluation,) = [event for event in run.events_of("evaluation") if event["step"] == 31_250]
    assert error.values[0] == pytest.approx(100 * evaluation["train_top1_error"])
    assert loss.values[0] == pytest.approx(0.39985, abs=1e-5)
    assert loss.published == pytest.approx((0.418657 + 0.405222 + 0.419132 + 0.394249) / 4)
    assert error.published == pytest.approx((14.58 + 14.11 + 14.54 + 13.71) / 4)


def test_a_training_that_ends_before_the_logged_place_has_no_such_rows():
    folder, _ = record_of("cifar-13")
    run = read_runs(folder)["cifar-13pct/seed-0"]
    assert cifar.training_rows({0: run}, cifar.AFTER_100_EPOCHS._replace(epoch=141.0)) == ()
