"""Which format is meant, and which settings go with it."""

import importlib
import inspect
from pathlib import Path

import pytest

from alexnet.commands.export import export
from alexnet.errors import UserError
from alexnet.exporting import formats
from alexnet.exporting.formats import FORMATS, Format, find_format, writer_of


def test_the_suffix_says_which_format_is_meant_unless_it_is_named():
    assert find_format(None, Path("a.onnx")).name == "onnx"
    assert find_format(None, Path("A.PT2")).name == "pt2"
    assert find_format("pt2", Path("a.onnx")).name == "pt2"


def test_an_unknown_format_is_answered_with_the_nearest_and_all():
    with pytest.raises(UserError, match=r"no format 'onx'; did you mean 'onnx'\? the formats are onnx, pt2"):
        find_format("onx", Path("a"))
    with pytest.raises(UserError, match=r"a\.bin does not say which format is meant; give --format"):
        find_format(None, Path("a.bin"))


@pytest.mark.parametrize("each", FORMATS.values(), ids=list(FORMATS))
def test_every_format_has_a_writer_that_takes_what_writers_take(each):
    assert len(inspect.signature(writer_of(each)).parameters) == 4
    assert importlib.import_module(writer_of(each).__module__).__doc__


def test_weights_alone_take_no_settings_of_programs(monkeypatch, tmp_path):
    monkeypatch.setitem(formats.FORMATS, "raw", Format("raw", ".raw", "weights", "nowhere:write"))
    with pytest.raises(UserError, match="--weights is nothing for the format raw"):
        export("nothing.pt", tmp_path / "a.raw", weights="int8")
    with pytest.raises(UserError, match="--logits is nothing for the format raw"):
        export("nothing.pt", tmp_path / "a.raw", logits=True)


def test_settings_that_cannot_be_are_refused_before_anything_is_read(tmp_path):
    with pytest.raises(UserError, match="the weights are float32, float16, int8, not 'int4'"):
        export("nothing.pt", tmp_path / "a.onnx", weights="int4")  # type: ignore[arg-type]
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        export("nothing.pt", tmp_path / "folder.onnx")
    with pytest.raises(UserError, match=r"There is no checkpoint nothing\.pt"):
        export("nothing.pt", tmp_path / "a.onnx")
