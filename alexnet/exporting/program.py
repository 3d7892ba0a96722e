"""What the writers of all programs do: trace, write, run what was written, compare, and only then keep it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from alexnet.data.squares import ImageSet
from alexnet.evaluation.subjects import images_for
from alexnet.exporting.accuracy import Loss, measure_loss
from alexnet.exporting.description import describe
from alexnet.exporting.formats import ExportReport, ExportSettings, Format
from alexnet.exporting.network import ImageClassifier
from alexnet.exporting.packing import packed_model
from alexnet.exporting.verification import (
    Photographs,
    Runner,
    Verification,
    drawn_photographs,
    photographs_in,
    photographs_of,
    verify,
)
from alexnet.reporting.progress import Progress
from alexnet.runtime.files import write_atomically
from alexnet.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Program:
    """A traced network, and how it is written and run."""

    save: Callable[[BinaryIO], None]
    open: Callable[[Path], Runner]
    """Makes a file, whatever its name, ready to run."""
    runtime: str
    """What runs it, with its version."""
    notes: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


def write_program(
    chosen: Format,
    trace: Callable[[ImageClassifier, Mapping[str, Any]], Program],
    checkpoint: Checkpoint,
    output: Path,
    settings: ExportSettings,
    display: Progress,
) -> ExportReport:
    """Write a program, verify it, and measure its accuracy where a data set is given; see `formats.Writer`.

    trace(classifier, description) makes the program. The file gets its name after it has passed.
    """
    images, photographs = _find_images(checkpoint, settings, display)
    packed = packed_model(checkpoint, settings.weights)
    display.message(f"Tracing {checkpoint.architecture.name} for {chosen.name}.")
    classifier = ImageClassifier(packed, checkpoint.preprocessing, logits=settings.logits)
    program = trace(classifier, describe(checkpoint, settings.weights))
    results: list[tuple[Verification, Loss | None]] = []

    def write(file: BinaryIO) -> None:
        program.save(file)
        file.flush()
        display.message(f"Running it by {program.runtime} on {photographs.source}.")
        run = program.open(Path(file.name))
        results.append(_try(run, program.runtime, checkpoint, images, photographs, settings, display))

    write_atomically(output, write, sum(parameter.nbytes for parameter in packed.parameters()))
    ((verification, loss),) = results
    return ExportReport(
        format=chosen.name,
        output=output,
        weights=settings.weights,
        num_bytes=output.stat().st_size,
        notes=program.notes,
        verification=verification,
        loss=loss,
        details=dict(program.details),
    )


def _find_images(
    checkpoint: Checkpoint, settings: ExportSettings, display: Progress
) -> tuple[ImageSet | None, Photographs]:
    """The data set for the accuracy, if any, and what to verify on."""
    images, image_size = None, checkpoint.preprocessing.image_size
    if settings.data is not None:
        images = images_for(
            checkpoint,
            settings.data,
            settings.split,
            on_progress=display.counter(f"Reading {settings.split} images"),
            on_message=display.message,
        )
    if settings.images:
        return images, photographs_in(settings.images, image_size)
    if images is not None:
        return images, photographs_of(images, str(settings.data))
    return images, drawn_photographs(image_size)


def _try(
    run: Runner,
    runtime: str,
    checkpoint: Checkpoint,
    images: ImageSet | None,
    photographs: Photographs,
    settings: ExportSettings,
    display: Progress,
) -> tuple[Verification, Loss | None]:
    verification = verify(
        run,
        # Not the traced one: its layers may have been replaced by the format's own.
        packed_model(checkpoint, settings.weights),
        checkpoint.preprocessing,
        photographs,
        runtime=runtime,
        tolerance=settings.tolerance,
    )
    if images is None:
        return verification, None
    loss = measure_loss(
        run,
        checkpoint,
        images,
        data=str(settings.data),
        split=settings.split,
        on_network=display.counter("Evaluating the network"),
        on_file=display.counter("Evaluating the file"),
    )
    return verification, loss
