"""`alexnet features` and `alexnet.features`: what a layer makes of images, to a file or to memory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from alexnet.commands.output import network_facts, print_json
from alexnet.errors import UserError
from alexnet.evaluation.array_inputs import Layout, ValueRange
from alexnet.evaluation.extraction import Extractor, make_extractor
from alexnet.evaluation.feature_files import FeatureRows, FeatureTable, check_path, read_table, write_table
from alexnet.evaluation.features import Precision
from alexnet.evaluation.image_list import ImageList, open_images
from alexnet.evaluation.inputs import ImageInput
from alexnet.evaluation.subjects import data_config_of, describe
from alexnet.reporting.progress import Mode, Progress
from alexnet.runtime.process_settings import restored_settings
from alexnet.runtime.text import print_lines

if TYPE_CHECKING:
    from alexnet.training.checkpoint import Checkpoint


@restored_settings()
def features(
    checkpoint: str | Path | Checkpoint,
    images: ImageInput | Iterable[ImageInput],
    *,
    layer: str | None = None,
    views: str = "center",
    split: str | None = None,
    output: str | Path | None = None,
    precision: Precision = "float32",
    batch_size: int = 128,
    device: str = "auto",
    layout: Layout | None = None,
    value_range: ValueRange | None = None,
    progress: Mode = "silent",
) -> FeatureTable:
    """Return what a layer makes of images: one row of D numbers per image, computed in float32, with keys and classes.

    Args:
        checkpoint: A file, a run's folder or a loaded checkpoint.
        images: Images as for `alexnet.predict`, or a single data set (its name or path).
        layer: Any layer by its name; None: the one that the classifier reads (relu7). Feature maps are flattened as
            (channel, row, column); `about["shape"]` has their shape.
        views: "center", or the mean over "flip" or "ten_crop".
        split: Of a data set: "train", "val" or "all"; None: all.
        output: A .npz or .parquet file to write to, batch by batch. The table returned is then mapped from it (parquet:
            read). None: everything is in memory.
        precision: Of the numbers that are kept: "float32" or "float16".
        batch_size: Images per forward pass.
        device: "auto", "cpu", "cuda" or "mps".
        layout: Of arrays and tensors, as for `alexnet.predict`.
        value_range: Of arrays and tensors, as for `alexnet.predict`.
        progress: "auto", "bars", "plain" or "silent". Images that cannot be read are left out and named there.

    Raises:
        UserError: For a bad checkpoint, layer, path or data set, for what `alexnet.predict` refuses, and where none of
            the images can be read.
    """
    extractor = make_extractor(checkpoint, layer, views, device=device, batch_size=batch_size)
    path = None if output is None else Path(output)
    table, _ = _extract(extractor, images, split, path, precision, progress, layout=layout, value_range=value_range)
    return table if table is not None else read_table(Path(output or ""))


def _extract(
    extractor: Extractor,
    given: ImageInput | Iterable[ImageInput],
    split: str | None,
    output: Path | None,
    precision: Precision,
    progress: Mode,
    *,
    layout: Layout | None = None,
    value_range: ValueRange | None = None,
) -> tuple[FeatureTable | None, dict[str, Any]]:
    """The table, None where it was written to `output`, and what there is to say about it."""
    if precision not in get_args(Precision):
        raise UserError(f"the precision of features is float32 or float16, not {precision!r}")
    if output is not None:
        check_path(output)
    images = open_images(given, data_config_of(extractor.checkpoint), split, layout=layout, value_range=value_range)
    skipped: dict[str, str] = {}
    with Progress(progress) as display:
        for note in images.notes:
            display.message(note)

        def on_skip(key: str, reason: str) -> None:
            skipped[key] = reason
            display.message(f"{key} is unreadable and left out: {reason}.")

        counter = display.counter(f"Features of {extractor.layer}")
        rows = extractor.rows(images, on_skip, counter)
        about = extractor.about(images)
        record = {key: value for key, value in about.items() if key != "images"}
        record |= {"width": int(np.prod(extractor.shape)), "precision": precision, "skipped": skipped}
        if output is None:
            table = _in_memory(list(rows), images, about, precision)
            return table, {**record, "num_images": len(table)}
        count = write_table(
            output, rows, classes=images.classes, class_names=images.class_names, about=about, precision=precision
        )
        return None, {**record, "num_images": count}


def _in_memory(rows: list[FeatureRows], images: ImageList, about: dict[str, Any], precision: Precision) -> FeatureTable:
    return FeatureTable(
        np.concatenate([batch.values for batch in rows]).astype(precision),
        [key for batch in rows for key in batch.keys],
        [split for batch in rows for split in batch.splits],
        np.concatenate([batch.labels for batch in rows]),
        images.classes,
        images.class_names,
        about,
    )


def features_command(
    checkpoint: Path,
    images: list[str],
    *,
    layer: str | None,
    output: Path,
    views: str,
    split: str | None,
    precision: Precision,
    batch_size: int,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write features to `output`, and say what is in it."""
    check_path(output)
    extractor = make_extractor(checkpoint, layer, views, device=device, batch_size=batch_size)
    _, record = _extract(extractor, images, split, output, precision, "silent" if quiet else "auto")
    record = {"output": str(output), **record, **network_facts(checkpoint, extractor.checkpoint)}
    if as_json:
        print_json(record)
        return
    shape = " x ".join(map(str, record["shape"]))
    views_said = "centre crops" if views == "center" else f"the mean over {views} views"
    print_lines(
        f"{output}: {extractor.layer} ({shape}) of {record['num_images']:,} images, {views_said}, "
        f"{precision}, {output.stat().st_size / 1e6:.1f} MB"
    )
    print_lines(f"Network: {describe(extractor.checkpoint)}")
    if record["skipped"]:
        print_lines(f"{len(record['skipped'])} images could not be read and are left out")
