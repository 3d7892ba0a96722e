"""`alexnet predict`: names and probabilities of images."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from alexnet.commands.output import network_facts, print_json
from alexnet.evaluation.predictor import Prediction, load_predictor, predict_each
from alexnet.evaluation.subjects import describe
from alexnet.runtime.text import print_lines
from alexnet.training.checkpoint import load_checkpoint


def predict_command(
    checkpoint: Path, images: Sequence[str], *, top: int, views: str, device: str, as_json: bool
) -> int:
    """Print the predictions as they come; returns the number of images that could not be read.

    Such an image has a message on standard error (with --json, an "error" in its entry); the others go on.
    """
    loaded = load_checkpoint(checkpoint)
    predictor = load_predictor(loaded, device=device)
    header = f"Network: {describe(loaded)}"
    predictions = []
    failed = 0
    for prediction in predict_each(predictor, images, top=top, views=views):
        failed += prediction.error is not None
        if prediction.error is not None:
            print_lines(f"error: {prediction.input}: {prediction.error}", stream=sys.stderr)
        elif not as_json:
            if header:  # once, and not where no image could be read
                print_lines(header)
                header = ""
            _print(prediction)
        if as_json:
            predictions.append(prediction.to_dict())
    if as_json:
        print_json({**network_facts(checkpoint, loaded), "views": views, "predictions": predictions})
    return failed


def _print(prediction: Prediction) -> None:
    print_lines(prediction.input)
    for guess in prediction.guesses:
        name = guess.name if guess.name == guess.class_id else f"{guess.name} ({guess.class_id})"
        print_lines(f"  {guess.probability:7.2%}  {name}")
