"""`alexnet export` and `alexnet.export`: a checkpoint to a file for other programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from alexnet.commands.output import print_json
from alexnet.errors import UserError
from alexnet.evaluation.inputs import ImageInput, items_of
from alexnet.evaluation.subjects import describe
from alexnet.exporting.accuracy import Loss
from alexnet.exporting.formats import WEIGHTS, ExportReport, ExportSettings, Format, Weights, find_format, writer_of
from alexnet.exporting.verification import Verification
from alexnet.reporting.console import print_table
from alexnet.reporting.progress import Mode, Progress
from alexnet.runtime.process_settings import restored_settings
from alexnet.runtime.text import print_lines, valid_text
from alexnet.training.checkpoint import Checkpoint, load_checkpoint
from alexnet.training.checkpoint_files import checkpoint_file


@restored_settings()
def export(
    checkpoint: str | Path | Checkpoint,
    output: str | Path,
    *,
    format: str | None = None,
    weights: Weights | None = None,
    logits: bool = False,
    data: str | None = None,
    split: str = "val",
    images: ImageInput | Iterable[ImageInput] = (),
    tolerance: float = 1e-4,
    compare: str | Path | None = None,
    runtime: str | Path | None = None,
    progress: Mode = "silent",
) -> ExportReport:
    """Write a network in a format of `alexnet.exporting.formats.FORMATS` (None: what the output's suffix says).

    checkpoint: a file, a run's folder or a loaded one. weights: how they are stored; None for int8 in the format web
    and float32 in others. logits: a second output. data and split: where the error is measured, as in
    `alexnet.evaluate`. images: photographs on which the file is verified, as for `alexnet.predict`. compare and runtime
    are of the format web: a second checkpoint, and where ONNX Runtime Web is (a folder, or an archive of npm). Raises
    UserError for what the caller can mend, RunError when the file, once run, differs from the network by more than
    `tolerance`; then nothing is written.
    """
    output = Path(output)
    chosen = find_format(format, output)
    settings = ExportSettings(
        weights=chosen.weights if weights is None else weights,
        logits=logits,
        data=data,
        split=split,
        images=list(items_of(images)[0]),
        tolerance=tolerance,
        compare=None if compare is None else Path(compare),
        runtime=None if runtime is None else Path(runtime),
        source=None if isinstance(checkpoint, Checkpoint) else Path(checkpoint),
    )
    _check(chosen, output, settings)
    if not isinstance(checkpoint, Checkpoint):
        if output.exists() and output.samefile(checkpoint_file(checkpoint)):
            raise UserError(f"--output {output} is the checkpoint itself; give another name")
        checkpoint = load_checkpoint(checkpoint)
    with Progress(progress) as display:
        report = writer_of(chosen)(checkpoint, output, settings, display)
    return replace(report, network=describe(checkpoint), checkpoint=checkpoint.selection)


def _check(chosen: Format, output: Path, settings: ExportSettings) -> None:
    """Raises UserError for settings that cannot be, before anything is read."""
    if settings.weights not in WEIGHTS:
        raise UserError(f"the weights are {', '.join(get_args(Weights))}, not {settings.weights!r}")
    if chosen.suffix and output.is_dir():
        raise UserError(f"--output {output} is a folder; give the path of a file")
    if chosen.name in ("onnx", "web") and valid_text(str(output)) != str(output):
        raise UserError(f"--output {output} holds bytes that are not UTF-8, which ONNX cannot open; give another path")
    asked = ExportSettings.__dataclass_fields__
    changed = [name for name in asked if name != "source" and getattr(settings, name) not in (asked[name].default, [])]
    if changed and not chosen.is_program:
        raise UserError(f"--{changed[0]} is nothing for the format {chosen.name}, which holds the weights only")
    for name in changed:
        if name in chosen.lacks:
            raise UserError(f"--{name} is nothing for the format {chosen.name}")


def export_command(
    checkpoint: Path,
    output: Path,
    *,
    format: str | None,
    weights: str | None,
    logits: bool,
    data: str | None,
    split: str,
    images: Sequence[Path],
    tolerance: float,
    compare: Path | None,
    runtime: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Export, and print what was written or its JSON record."""
    report = export(
        checkpoint,
        output,
        format=format,
        weights=weights,  # type: ignore[arg-type]  # checked by export
        logits=logits,
        data=data,
        split=split,
        images=images,
        tolerance=tolerance,
        compare=compare,
        runtime=runtime,
        progress="silent" if quiet else "auto",
    )
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)


def _print(report: ExportReport) -> None:
    print_lines(f"{report.output}: {report.format}, weights in {report.weights}, {report.num_bytes:,} bytes")
    for note in report.notes:
        print_lines(note)
    print_lines(f"Network: {report.network}")
    if report.verification is not None:
        _print_verification(report.verification)
    if report.loss is not None:
        _print_loss(report.loss, report)
    elif report.weights != "float32":
        print_lines(f"What {report.weights} costs in accuracy was not measured; --data measures it.")
    for line in report.next_steps:
        print_lines(line)


def _print_verification(result: Verification) -> None:
    batches = ", ".join(map(str, result.batch_sizes))
    logits = "" if result.logits is None else f", {result.logits:.1e} of a logit (relative)"
    print_lines(
        f"Run by {result.runtime} in batches of {batches} on {result.images}. Largest differences from the network"
    )
    print_lines(
        f"with the same weights: {result.probabilities:.1e} of a probability, {result.log_probabilities:.1e} of its "
        f"logarithm (relative){logits}."
    )


def _print_loss(loss: Loss, report: ExportReport) -> None:
    print_table(
        ["", "top-1 error", "top-5 error", "loss"],
        [
            [name, f"{result.top1_error:.2%}", f"{result.top5_error:.2%}", f"{result.loss:.4f}"]
            for name, result in (("network in float32", loss.network), (f"file in {report.weights}", loss.file))
        ],
        title=f"{loss.num_images} images of {loss.data} ({loss.split}), {loss.views} view",
        numeric=["top-1 error", "top-5 error", "loss"],
    )
    print_lines(
        f"Same first guess on {loss.same_first_guess:.2%} of the images; probabilities differ by up to "
        f"{loss.largest_difference:.2g}."
    )
