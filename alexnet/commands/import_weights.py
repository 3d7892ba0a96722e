"""`alexnet import`: weights of another program to a checkpoint, and what was found in them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from alexnet.commands.output import print_json
from alexnet.errors import UserError
from alexnet.reporting.console import print_table
from alexnet.runtime.text import print_lines
from alexnet.training.checkpoint import Checkpoint, save_checkpoint
from alexnet.weights.importing import import_weights
from alexnet.weights.inputs import read_numbers


def import_command(
    source: str,
    output: Path | None,
    *,
    variant: str | None,
    image_size: int | None,
    classes: Path | None,
    mean: str | None,
    std: str | None,
    resize: int | None,
    key: str | None,
    allow_pickle: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Import, write the checkpoint, print what it is. Raises UserError for what the person can mend."""
    output = output or _default_output(Path(source))
    _check_output(output, Path(source), overwrite)
    checkpoint = import_weights(
        source,
        variant=variant,
        image_size=image_size,
        classes=classes,
        mean=mean,
        std=None if std is None else read_numbers(std, "--std"),
        resize=resize,
        key=key,
        allow_pickle=allow_pickle,
        progress="silent" if quiet else "auto",
    )
    save_checkpoint(output, checkpoint)
    record = _record(checkpoint, output)
    if as_json:
        print_json(record)
    else:
        _print(record)


def _default_output(source: Path) -> Path:
    """The source's name in this folder, ending in .pt; another one for a .pt that is here itself."""
    stem = Path(source.name.removesuffix(".tar")).stem  # model_best.pth.tar is model_best
    output = Path(f"{stem}.pt")
    return Path(f"{stem}-imported.pt") if output.resolve() == source.resolve() else output


def _check_output(output: Path, source: Path, overwrite: bool) -> None:
    if output.is_dir():
        raise UserError(f"--output {output} is a folder; give the path of a file")
    if output.exists() and source.exists() and output.samefile(source):
        raise UserError(f"{output} is the file itself; name another with --output")
    if output.exists() and not overwrite:
        raise UserError(f"{output} is there already; name another file with --output, or replace it by --overwrite")


def _record(checkpoint: Checkpoint, output: Path) -> dict[str, Any]:
    preprocessing = checkpoint.preprocessing
    imported = checkpoint.environment.get("imported", {})
    names = imported.get("names", {})
    return {
        "output": output,
        "model": checkpoint.architecture.name,
        "summary": checkpoint.architecture.summary,
        "parameters": sum(tensor.numel() for tensor in checkpoint.model_state.values()),
        "num_classes": checkpoint.num_classes,
        "classes": list(checkpoint.classes),
        "class_names": list(checkpoint.class_names),
        "image_size": checkpoint.image_size,
        "preprocessing": {
            "resize": preprocessing.image_size,
            "crop": preprocessing.crop_size,
            "input_scale": preprocessing.input_scale,
            "channel_order": preprocessing.channel_order,
            "mean": _mean(checkpoint),
        },
        "source": {key: value for key, value in imported.items() if key not in ("names", "notes")},
        "weights": [
            {"name": name, "source_name": names.get(name, name), "shape": list(tensor.shape)}
            for name, tensor in checkpoint.model_state.items()
        ],
        "notes": imported.get("notes", []),
    }


def _mean(checkpoint: Checkpoint) -> list[float] | str:
    """Three numbers, RGB; or that it is an image."""
    preprocessing = checkpoint.preprocessing
    if preprocessing.input_scale == "unit":
        return [round(value, 6) for value in preprocessing.channel_mean]
    if preprocessing.mean_mode == "channel":
        return [round(value, 3) for value in preprocessing.mean_image.mean(dim=(0, 1)).tolist()]
    return "an image"


def _print(record: dict[str, Any]) -> None:
    source, inputs = record["source"], record["preprocessing"]
    print_lines(f"{source.get('file', '')}: {source.get('form', '')}, sha256 {source.get('sha256', '')[:16]}")
    print_table(
        ["weights", "in the file", "shape", "parameters"],
        [
            [row["name"], row["source_name"], " x ".join(map(str, row["shape"])), f"{math.prod(row['shape']):,}"]
            for row in record["weights"]
        ],
        numeric=["parameters"],
    )
    print_lines(f"{record['model']}: {record['summary']}")
    mean = inputs["mean"] if isinstance(inputs["mean"], str) else ", ".join(f"{value:g}" for value in inputs["mean"])
    print_lines(
        f"{record['parameters']:,} parameters, {record['num_classes']:,} classes ({record['class_names'][0]}, ...); "
        f"images: shorter side {inputs['resize']}, centre crop {inputs['crop']}, {inputs['channel_order'].upper()}, "
        f"{'0-1' if inputs['input_scale'] == 'unit' else '0-255'} minus the mean ({mean})"
    )
    published = source.get("published")
    if published:
        print_lines(f"{published['name']}, as reported by its authors: {published['reported']}; {published['terms']}")
    for note in record["notes"]:
        print_lines(f"note: {note}")
    print_lines(f"Checkpoint: {record['output']}")
