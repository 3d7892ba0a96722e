"""The real network, with dropout, colour noise and shared crops, broken off and continued."""

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.training.run import train
from alexnet.training.trainer import Trainer

SETTINGS = [
    "train.epochs=2",
    "train.batch_size=4",
    "train.micro_batch_size=2",
    "augment.crop_shared_by=2",
    "evaluate.views=center",
    "train.checkpoint_minutes=0",
    "runtime.num_threads=1",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 1)):
        for name in ("cats", "dogs"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
                image = Image.fromarray(pixels).resize((320, 260))
                image.save(root / split / name / f"{number}.jpg")
    return root


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_as_run_continues_bit_for_bit(photos, tmp_path, monkeypatch, precision):
    overrides = [*SETTINGS, f"runtime.precision={precision}"]

    def run(name):
        return train("as-run-2012", str(photos), tmp_path / name, overrides=overrides, progress="silent")

    run("whole")
    step = Trainer.update

    def break_off(trainer, batch):
        if trainer.state.step == 2:
            raise KeyboardInterrupt
        return step(trainer, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", break_off)
        with pytest.raises(KeyboardInterrupt):
            run("broken")
    assert weights(tmp_path / "broken")["step"] == 2
    run("broken")
    whole, broken = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert whole["step"] == broken["step"] == 4
    for name, tensor in whole["model_state"].items():
        assert torch.equal(tensor, broken["model_state"][name]), name
    for name in ("whole", "broken"):  # half a gigabyte each
        (tmp_path / name / "checkpoints" / "last.pt").unlink()
        (tmp_path / name / "checkpoints" / "best.pt").unlink()
