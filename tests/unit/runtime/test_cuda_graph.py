"""What is remembered, copied and captured again; the capture itself is a stand-in that runs on any device."""

import pytest
import torch

from alexnet.runtime.cuda_graph import CaptureError, GraphedCall

CPU = torch.device("cpu")


class StandIn:
    """Captures nothing, but keeps a capture's rules: it computes nothing itself, and its result stays where it is."""

    def __init__(self, error=None):
        self.log = []
        self.error = error

    def eagerly(self, function, inputs):
        self.log.append("eager")
        return function(inputs)

    def capture(self, function, inputs):
        if self.error is not None:
            raise self.error
        self.log.append("capture")
        result = torch.zeros(())

        def replay():
            self.log.append("replay")
            result.copy_(function(inputs))

        return replay, result


def total(inputs):
    return sum(tensor.double().sum() for tensor in inputs.values()).float()


def call_of(runner, function=total, **settings):
    return GraphedCall(function, runner, CPU, **settings)


def test_eager_calls_come_first_and_then_one_capture_is_replayed():
    runner = StandIn()
    call = call_of(runner, eager_calls=2)
    results = [float(call({"a": torch.full((3,), float(n))})) for n in range(5)]
    assert results == [0, 3, 6, 9, 12]
    assert runner.log == ["eager", "eager", "capture", "replay", "replay", "replay"]
    assert call.is_captured and call.num_captures == 1


def test_inputs_are_copied_into_the_same_buffers_every_time():
    call = call_of(StandIn())
    call({"a": torch.ones(2)})
    address = call.buffers["a"].data_ptr()
    given = torch.full((2,), 7.0)
    for _ in range(5):
        call({"a": given})
    assert call.buffers["a"].data_ptr() == address != given.data_ptr()
    assert call.buffers["a"].tolist() == [7, 7]


@pytest.mark.parametrize(
    "changed", [{"a": torch.ones(4)}, {"a": torch.ones(3, dtype=torch.int64)}, {"a": torch.ones(3), "b": torch.ones(1)}]
)
def test_other_shapes_dtypes_or_names_are_captured_anew(changed):
    runner = StandIn()
    call = call_of(runner, eager_calls=1)
    for _ in range(3):
        call({"a": torch.ones(3)})
    assert float(call(changed)) == float(total(changed))
    assert runner.log == ["eager", "capture", "replay", "replay", "eager"]
    assert not call.is_captured
    call(changed)
    assert call.num_captures == 2


def test_another_key_is_captured_anew_and_an_equal_one_is_not():
    runner = StandIn()
    call = call_of(runner, eager_calls=0)
    for key in (("fc6",), ("fc6",), ("fc6", "fc7")):
        call({"a": torch.ones(3)}, key)
    assert runner.log == ["capture", "replay", "replay", "capture", "replay"]


def test_a_failed_capture_says_why_in_one_line_and_has_had_no_effect():
    call = call_of(StandIn(RuntimeError("operation not permitted\nwhen stream is capturing")), eager_calls=0)
    with pytest.raises(CaptureError, match=r"^operation not permitted$"):
        call({"a": torch.ones(3)})
    assert not call.is_captured and call.num_captures == 0


def test_endless_captures_are_refused():
    call = call_of(StandIn(), eager_calls=0, max_captures=3)
    for number in range(3):
        call({"a": torch.ones(3)}, number)
    with pytest.raises(CaptureError, match="more than 3 times"):
        call({"a": torch.ones(3)}, "another")
