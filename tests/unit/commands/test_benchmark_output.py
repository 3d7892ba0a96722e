"""What the commands that measure share."""

import json
from pathlib import Path

import pytest

from alexnet.benchmark.machine import describe_machine
from alexnet.commands.benchmark_output import check_output, machine_line, tell
from alexnet.errors import UserError


@pytest.mark.skipif(not Path("/proc/loadavg").is_file(), reason="this system has no /proc/loadavg")
def test_a_record_and_its_line_tell_how_busy_the_machine_was():
    environment = describe_machine()
    assert len(environment["load_average"]) == 3
    assert machine_line(environment).endswith(f"load average {environment['load_average'][0]:.1f}")


def test_a_machine_that_does_not_tell_is_described_without():
    assert machine_line({"processor": "a processor", "cores": 2}) == "a processor, 2 cores"


def test_what_cannot_be_written_is_printed_all_the_same(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write --output"):
        tell({"speed": 5}, lambda: None, tmp_path / "file" / "record.json", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"speed": 5}


def test_a_person_is_shown_and_the_file_is_written(tmp_path, capsys):
    tell({"speed": 5}, lambda: print("five"), tmp_path / "record.json", as_json=False)
    assert capsys.readouterr().out == "five\n"
    assert json.loads((tmp_path / "record.json").read_text()) == {"speed": 5}


def test_a_folder_is_refused_before_anything_is_measured(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        check_output(tmp_path)
