"""`alexnet evaluate` and `alexnet.evaluate`: checkpoints and a data set to an error rate with its protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet.commands.output import network_facts, print_json, write_json
from alexnet.config import EvaluateConfig
from alexnet.errors import UserError
from alexnet.evaluation.evaluator import evaluate as evaluate_models
from alexnet.evaluation.predictor import load_predictor
from alexnet.evaluation.report import EvaluationReport
from alexnet.evaluation.subjects import describe, images_for, recipe_of
from alexnet.reporting.console import print_table
from alexnet.reporting.progress import Mode, Progress
from alexnet.runtime.device import num_workers_of
from alexnet.runtime.process_settings import restored_settings
from alexnet.runtime.text import print_lines
from alexnet.training.checkpoint import Checkpoint, load_checkpoint

_CLASSES_SHOWN = 10


@restored_settings()
def evaluate(
    checkpoints: str | Path | Checkpoint | Sequence[str | Path | Checkpoint],
    data: str | None = None,
    *,
    views: str | None = None,
    split: str = "val",
    batch_size: int = 128,
    device: str = "auto",
    progress: Mode = "silent",
) -> EvaluationReport:
    """Evaluate one network, or the ensemble of several, on every image of a split.

    checkpoints: files, run folders or loaded checkpoints. data: see `alexnet.data.sources.open_source`; None takes the
    data of the first one's training, split as it was then. views: "center", "flip" or "ten_crop"; None takes the
    recipe's. The error rates are fractions. Raises UserError for what the caller can mend.
    """
    if isinstance(checkpoints, (str, Path, Checkpoint)):
        checkpoints = [checkpoints]
    loaded = [item if isinstance(item, Checkpoint) else load_checkpoint(item) for item in checkpoints]
    recipe = recipe_of(loaded[0])
    predictor = load_predictor(loaded, device=device, precision=recipe.runtime.precision)
    views = views or recipe.evaluate.views
    known_views = EvaluateConfig.model_json_schema()["properties"]["views"]["enum"]
    if views not in known_views:
        raise UserError(f"the views are {', '.join(known_views)}, not {views!r}")
    with Progress(progress) as display:
        images = images_for(
            loaded[0],
            data,
            split,
            on_progress=display.counter(f"Reading {split} images"),
            on_message=display.message,
        )
        return evaluate_models(
            predictor.models,
            predictor.preprocessings,
            images,
            classes=loaded[0].classes,
            class_names=loaded[0].class_names,
            views=views,
            batch_size=batch_size,
            device=predictor.device,
            dtype=predictor.dtype,
            num_workers=num_workers_of(recipe.runtime, images.array is not None),
            on_progress=display.counter("Evaluating"),
        )


def evaluate_command(
    checkpoints: Sequence[Path],
    data: str | None,
    *,
    views: str | None,
    split: str,
    batch_size: int,
    device: str,
    output: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Evaluate, print the result or its JSON record, and write the record to `output`."""
    if output is not None and output.is_dir():
        raise UserError(f"--output {output} is a folder; give the path of a file")
    loaded = [load_checkpoint(path) for path in checkpoints]
    report = evaluate(
        loaded,
        data,
        views=views,
        split=split,
        batch_size=batch_size,
        device=device,
        progress="silent" if quiet else "auto",
    )
    record = {
        "data": data or loaded[0].data,
        "split": split,
        "precision": recipe_of(loaded[0]).runtime.precision,
        "checkpoints": [_describe(path, checkpoint) for path, checkpoint in zip(checkpoints, loaded, strict=True)],
        **report.to_dict(),
    }
    if output is not None:
        write_json(output, record)
    if as_json:
        print_json(record)
    else:
        _print(report, record, loaded)


def _describe(path: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        **network_facts(path, checkpoint),
        "model": checkpoint.architecture.name,
        "epoch": checkpoint.epoch,
        "seed": checkpoint.recipe.get("seed"),
    }


def _print(report: EvaluationReport, record: dict[str, Any], checkpoints: Sequence[Checkpoint]) -> None:
    networks = "one network" if report.num_models == 1 else f"an ensemble of {report.num_models} networks"
    print_lines(f"{report.num_images} images of {record['data']} ({record['split']}), {report.views} views, {networks}")
    for checkpoint in checkpoints:
        print_lines(f"Network: {describe(checkpoint)}")
    for name, error, (low, high) in (
        ("top-1", report.top1_error, report.top1_interval),
        ("top-5", report.top5_error, report.top5_interval),
    ):
        if name == "top-5" and report.probabilities.shape[1] <= 5:
            continue  # of five classes every one is among the five best
        print_lines(f"{name} error  {error:7.2%}   95 % interval {low:.2%} to {high:.2%}")
    print_lines(f"loss         {report.loss:7.4f}   nats")
    wrong = [result for result in report.per_class if result.top1_error]
    wrong.sort(key=lambda result: -(result.top1_error or 0.0))
    if wrong:
        print_table(
            ["class", "images", "top-1 error", "most often taken for"],
            [[row.name, row.count, f"{row.top1_error:.1%}", row.most_confused_with] for row in wrong[:_CLASSES_SHOWN]],
            title=f"The hardest classes ({min(len(wrong), _CLASSES_SHOWN)} of {len(report.per_class)})",
            numeric=["images", "top-1 error"],
        )
