import json

import pytest
from study_stand_ins import write_checkpoint

from alexnet.commands.reproduce import reproduce_command
from alexnet.errors import UserError

QUIET = {"seeds": None, "scale": "full", "as_json": True, "quiet": True}


def test_a_checkpoint_is_shown_on_its_own_data_and_stands_in_the_record(tmp_path, capsys):
    path = write_checkpoint(tmp_path / "small.pt")
    reproduce_command(["one-crop"], None, tmp_path / "out", checkpoint=path, **QUIET)
    record = json.loads(capsys.readouterr().out)
    assert (record["data"], record["checkpoint"]) == ("shapes:32", str(path))
    assert list(record["rows"][0]["values"]) == ["3"]  # the seed of its training
    assert (tmp_path / "out" / "record" / "README.md").is_file()


@pytest.mark.parametrize(
    ("study", "changes", "message"),
    [
        (
            "initialisation",
            {},
            "initialisation trains its own networks; --checkpoint is for figure-3, figure-4, one-crop",
        ),
        ("figure-3", {"seeds": "0,1"}, "with --checkpoint nothing is trained"),
        ("figure-3", {"scale": "small"}, "with --checkpoint nothing is trained"),
        ("figure-3", {"overrides": ["train.epochs=3"]}, "with --checkpoint nothing is trained"),
    ],
)
def test_what_a_checkpoint_makes_pointless_is_refused(tmp_path, study, changes, message):
    path = write_checkpoint(tmp_path / "small.pt")
    arguments = [study, *changes.pop("overrides", [])]
    with pytest.raises(UserError, match=message):
        reproduce_command(arguments, None, tmp_path / "out", checkpoint=path, **{**QUIET, **changes})
    assert not (tmp_path / "out").exists()


def test_a_study_without_data_names_both_remedies(tmp_path):
    with pytest.raises(UserError, match=r"figure-4 needs --checkpoint \(a trained network\) or --data: ImageNet"):
        reproduce_command(["figure-4"], None, tmp_path / "out", **QUIET)
