"""A training leaves the process of a notebook or a server as it was, however it ends."""

import os
import signal
import threading

import matplotlib.backends.backend_svg  # noqa: F401  # libraries change things when they are imported: not in the test
import pytest
import sklearn.datasets
import torch
from process_snapshot import BACKENDS, process_snapshot

import alexnet
from alexnet.errors import RunError, UserError
from alexnet.runtime.process_settings import restored_settings
from alexnet.training.trainer import Trainer

OVERRIDES = [
    *("model.name=cifar_quick", "data.image_size=36", "data.max_train_images=64", "train.epochs=0.02"),
    *("evaluate.views=center", "runtime.deterministic=true", "runtime.num_threads=1", "runtime.kernels=plain"),
]
STEP = Trainer.update


def train(output, *overrides):
    return alexnet.train("digits", "shapes:36", output, overrides=[*OVERRIDES, *overrides], progress="silent")


@pytest.fixture
def user_settings(monkeypatch):
    """A user's own settings, all different from those of the training."""
    assert sklearn.datasets
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with restored_settings():
        BACKENDS.fp32_precision = "tf32"
        BACKENDS.cudnn.benchmark = True
        torch.set_num_threads(2)
        torch.set_deterministic_debug_mode("warn")
        for number in handlers:
            signal.signal(number, lambda *_: None)
        yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def at_step(monkeypatch, number, action):
    """Do something in the middle of the training, and see the settings that it runs with."""
    seen = []

    def update(self, batch):
        seen.append((torch.get_num_threads(), BACKENDS.cudnn.conv.fp32_precision, torch.get_deterministic_debug_mode()))
        if len(seen) == number:
            action()
        return STEP(self, batch)

    monkeypatch.setattr(Trainer, "update", update)
    return seen


def test_one_that_ends_well(tmp_path, monkeypatch, user_settings):
    seen = at_step(monkeypatch, 1, lambda: None)
    before = process_snapshot()
    assert train(tmp_path / "run").finished
    assert process_snapshot() == before
    assert set(seen) == {(1, "none", 2)}
    # The run holds a checkpoint now: what is done with it changes nothing either.
    alexnet.evaluate(tmp_path / "run", views="center", progress="silent")
    alexnet.predict(tmp_path / "run", torch.zeros(3, 40, 40, dtype=torch.uint8))
    alexnet.features(tmp_path / "run", torch.zeros(3, 40, 40, dtype=torch.uint8))
    alexnet.export(tmp_path / "run", tmp_path / "weights.safetensors")
    assert process_snapshot() == before


def test_one_that_fails(tmp_path, monkeypatch, user_settings):
    before = process_snapshot()
    with pytest.raises(RunError):
        train(tmp_path / "diverged", "optimizer.lr=1e30", "train.on_stuck=stop")
    assert process_snapshot() == before
    with pytest.raises(UserError):
        train(tmp_path / "none", "model.num_classes=3")
    assert process_snapshot() == before
    at_step(monkeypatch, 1, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(tmp_path / "broken")
    assert process_snapshot() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_a_signal_stops(tmp_path, monkeypatch, user_settings, number):
    at_step(monkeypatch, 1, lambda: os.kill(os.getpid(), number))
    before = process_snapshot()
    summary = train(tmp_path / "run", "train.epochs=2")
    assert not summary.finished and summary.stopped_by == number
    assert process_snapshot() == before


def test_one_that_is_interrupted_twice(tmp_path, monkeypatch, user_settings):
    def interrupt():
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    at_step(monkeypatch, 1, interrupt)
    before = process_snapshot()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run")
    assert process_snapshot() == before


def test_the_modes_of_the_caller_do_not_reach_into_it(tmp_path):
    def weights(output):
        assert train(output, "optimizer.lr=0.01").finished
        return alexnet.load_checkpoint(output).model_state

    expected = weights(tmp_path / "usual")
    image = torch.zeros(3, 40, 40, dtype=torch.uint8)
    [prediction] = alexnet.predict(tmp_path / "usual", image)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.autocast("cpu"), torch.device("meta"):
            before = process_snapshot()
            found = weights(tmp_path / "other")
            assert alexnet.predict(tmp_path / "usual", image) == [prediction]
            assert process_snapshot() == before
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with torch.no_grad():
        found = weights(tmp_path / "without gradients")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_one_in_a_thread(tmp_path, user_settings):
    before = process_snapshot()
    summaries = []
    thread = threading.Thread(target=lambda: summaries.append(train(tmp_path / "run")))
    thread.start()
    thread.join()
    assert summaries[0].finished
    assert process_snapshot() == before
