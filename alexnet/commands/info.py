"""`alexnet info`: a variant's layers, what differs between two, the card of a checkpoint or a run."""

from __future__ import annotations

import difflib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alexnet.commands.output import network_facts, print_json
from alexnet.config import MODEL_NAMES
from alexnet.errors import UserError
from alexnet.models import Architecture, get_architecture
from alexnet.models.summary import LayerRow, compare, layer_table
from alexnet.reporting.console import print_table
from alexnet.runtime.files import read_json
from alexnet.runtime.text import print_lines
from alexnet.training.checkpoint import Checkpoint, load_checkpoint
from alexnet.training.checkpoint_files import is_on_the_hub


def info_command(what: str, other: str | None, *, num_classes: int, image_size: int | None, as_json: bool) -> None:
    """Print the description of one thing, or what differs between two. Raises UserError for what is neither."""
    if other is not None:
        _print_differences(what, other, as_json=as_json)
    elif what in MODEL_NAMES:
        architecture = get_architecture(what)
        _print_variant(architecture, num_classes, image_size or architecture.image_size, {}, as_json=as_json)
    else:
        checkpoint = _load(what)
        card = _card(Path(what), checkpoint)
        _print_variant(checkpoint.architecture, checkpoint.num_classes, checkpoint.image_size, card, as_json=as_json)


def _load(what: str) -> Checkpoint:
    if not is_on_the_hub(what) and not Path(what).exists():
        close = difflib.get_close_matches(what.replace("-", "_"), MODEL_NAMES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"{what!r} is neither a variant nor a path{hint}; the variants are {', '.join(MODEL_NAMES)}")
    return load_checkpoint(what)


def _print_differences(a: str, b: str, *, as_json: bool) -> None:
    first, second = (get_architecture(name) if name in MODEL_NAMES else _load(name).architecture for name in (a, b))
    differences = compare(first, second)
    if as_json:
        print_json({"a": a, "b": b, "differences": [asdict(difference) for difference in differences]})
    elif differences:
        rows = [[row.layer, row.field, row.a, row.b] for row in differences]
        print_table(["layer", "field", a, b], rows)
    else:
        print_lines(f"{a} and {b} are the same network.")


def _print_variant(
    architecture: Architecture, num_classes: int, image_size: int, card: dict[str, Any], *, as_json: bool
) -> None:
    rows = layer_table(architecture, num_classes, image_size)
    totals = {"parameters": sum(row.parameters for row in rows), "macs": sum(row.macs for row in rows)}
    if as_json:
        record = {
            **card,
            "model": architecture.name,
            "summary": architecture.summary,
            "source": architecture.source,
            "num_classes": num_classes,
            "image_size": image_size,
            **totals,
            "layers": [{**asdict(row), "share": _share(row.parameters, totals["parameters"])} for row in rows],
        }
        print_json(record)
        return
    for key, value in card.items():
        if not isinstance(value, (dict, list)) and value not in (None, ""):
            print_lines(f"{key:16}{value}")
    print_lines(f"{architecture.name}: {architecture.summary}")
    print_lines(f"source: {architecture.source}")
    _print_layers(rows, totals)


def _print_layers(rows: list[LayerRow], totals: dict[str, int]) -> None:
    """Share is of the parameters; macs are multiply-adds of one forward pass of one image."""
    table = [
        [
            row.name,
            row.kind,
            " x ".join(map(str, row.output_shape)),
            f"{row.parameters:,}" if row.parameters else "",
            f"{_share(row.parameters, totals['parameters']):.1%}" if row.parameters else "",
            f"{row.macs:,}" if row.macs else "",
        ]
        for row in rows
    ]
    table.append(["total", "", "", f"{totals['parameters']:,}", "100.0%", f"{totals['macs']:,}"])
    print_table(
        ["layer", "kind", "output", "parameters", "share", "macs"], table, numeric=["parameters", "share", "macs"]
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _card(path: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint says about itself, and the summary of the run where a run's folder was given."""
    card: dict[str, Any] = {
        **network_facts(path, checkpoint),
        "data": checkpoint.data,
        "classes": len(checkpoint.classes),
        "step": checkpoint.step if checkpoint.imported is None else None,
        "epoch": round(checkpoint.epoch, 3) if checkpoint.imported is None else None,
        "seed": checkpoint.recipe.get("seed"),
        "resumable": checkpoint.training_state is not None,
        "metrics": checkpoint.metrics,
        "environment": checkpoint.environment,
    }
    if checkpoint.imported is not None:
        card["imported"] = "{file} ({form}, sha256 {sha256:.16})".format(**checkpoint.imported)
        if checkpoint.imported["published"] is not None:
            card["published"] = "{name}: {reported}".format(**checkpoint.imported["published"])
    if checkpoint.metrics:
        card["validation"] = _result(checkpoint.metrics, checkpoint.selection)
    summary = path / "summary.json"
    if summary.is_file():
        card["summary"] = read_json(summary)
        card["final"] = _result(card["summary"], card["summary"].get("checkpoint"))
    return card


def _result(metrics: dict[str, Any], selection: str | None) -> str:
    which = "" if selection is None else f", {selection} weights"
    return (
        f"top-1 error {metrics['top1_error']:.2%}, top-5 {metrics['top5_error']:.2%} "
        f"({metrics['views']}, {metrics['num_images']} images{which})"
    )
