import sys

import pytest

from alexnet.runtime.environment import describe_environment


@pytest.mark.parametrize("program", ["/somewhere/bin/alexnet", "/somewhere/alexnet/__main__.py"])
def test_the_command_is_as_a_person_would_give_it_again(program, monkeypatch):
    monkeypatch.setattr(sys, "argv", [program, "train", "folder", "--data", "my photos"])
    assert describe_environment()["command"] == "alexnet train folder --data 'my photos'"
