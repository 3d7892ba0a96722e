"""`alexnet features` and `alexnet.features`: what a layer makes of images, to a file or to memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch

from alexnet.commands.output import print_json
from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import UserError
from alexnet.evaluation.feature_files import FeatureRows, FeatureTable, check_path, read_table, write_table
from alexnet.evaluation.features import Precision, last_hidden_layer, layer_outputs, network_digest
from alexnet.evaluation.image_list import ImageList, open_images, stream_squares
from alexnet.evaluation.inputs import ImageInput
from alexnet.evaluation.subjects import data_config_of
from alexnet.evaluation.views import VIEW_NAMES
from alexnet.models import AlexNet
from alexnet.models.architecture import layer_shapes
from alexnet.reporting.console import printable
from alexnet.reporting.progress import Mode, Progress
from alexnet.runtime.device import choose_device, default_num_workers
from alexnet.training.checkpoint import Checkpoint, build_model, load_checkpoint


class Extractor(NamedTuple):
    """A network, a layer of it and the views of an image that are averaged: everything that makes features."""

    checkpoint: Checkpoint
    model: AlexNet
    layer: str
    views: str
    device: torch.device
    batch_size: int = 128

    @property
    def preprocessing(self) -> Preprocessing:
        return self.checkpoint.preprocessing

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image's outputs."""
        rows = layer_shapes(self.model.architecture, self.model.num_classes, self.model.image_size)
        return next(row.outputs for row in rows if row.layer.name == self.layer)

    def about(self, images: ImageList | None) -> dict[str, Any]:
        """Where features are from, as plain types."""
        return {
            "model": self.checkpoint.architecture.name,
            "network": network_digest(self.checkpoint),
            "step": self.checkpoint.step,
            "layer": self.layer,
            "shape": list(self.shape),
            "views": self.views,
            "image_size": self.preprocessing.image_size,
            "crop_size": self.preprocessing.crop_size,
            "images": None if images is None or images.given is None else list(images.given),
        }

    def rows(
        self,
        images: ImageList,
        on_skip: Callable[[str, str], None] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[FeatureRows]:
        """The features of all images that can be read, in order, a batch at a time."""
        batches = stream_squares(
            images,
            self.preprocessing.image_size,
            self.batch_size,
            num_workers=default_num_workers(images_in_memory=False),
            on_skip=on_skip,
            on_progress=on_progress,
        )
        for indices, pixels in batches:
            outputs = layer_outputs(
                self.model, self.preprocessing, pixels, self.layer,
                views=self.views, batch_size=self.batch_size, device=self.device,
            )  # fmt: skip
            chosen: list[int] = indices.tolist()
            yield FeatureRows(
                outputs.flatten(1).cpu().numpy(),
                [images.keys[i] for i in chosen],
                [images.splits[i] for i in chosen],
                images.labels[indices],
            )


def make_extractor(
    checkpoint: str | Path | Checkpoint,
    layer: str | None = None,
    views: str = "center",
    *,
    device: str = "auto",
    batch_size: int = 128,
) -> Extractor:
    """Check what is asked for, and load the network. Raises UserError for a bad checkpoint, layer or views."""
    loaded = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
    if views not in VIEW_NAMES:
        raise UserError(f"the views are {', '.join(VIEW_NAMES)}, not {views!r}")
    target = choose_device(device)
    model = build_model(loaded).to(target)
    layer = layer or last_hidden_layer(loaded.architecture)
    model.check_layers([layer])
    return Extractor(loaded, model, layer, views, target, batch_size)


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
    progress: Mode = "silent",
) -> FeatureTable:
    """What a layer makes of images: one row of D numbers an image, float32 computed, with keys and classes.

    checkpoint: a file, a run's folder or a loaded checkpoint. images: paths, folders, addresses, arrays or PIL images,
    or a single data set (see `alexnet.evaluation.image_list.open_images`), of which `split` chooses "train", "val" or
    "all" (the default). layer: any layer by its name, None for the one that the classifier reads (relu7); maps are
    flattened as (channel, row, column), `about["shape"]` has their shape. views: "center", or the mean over "flip" or
    "ten_crop". output: a .npz or .parquet file to write them to, batch by batch; the table returned is then mapped from
    it (parquet: read). Without it everything is in memory. Images that cannot be read are left out and told on the
    progress. Raises UserError for what the caller can mend.
    """
    extractor = make_extractor(checkpoint, layer, views, device=device, batch_size=batch_size)
    path = None if output is None else Path(output)
    table, _ = _extract(extractor, images, split, path, precision, progress)
    return table if table is not None else read_table(Path(output or ""))


def _extract(
    extractor: Extractor,
    given: ImageInput | Iterable[ImageInput],
    split: str | None,
    output: Path | None,
    precision: Precision,
    progress: Mode,
) -> tuple[FeatureTable | None, dict[str, Any]]:
    """The table, None where it was written to `output`, and what there is to say about it."""
    if precision not in get_args(Precision):
        raise UserError(f"the precision of features is float32 or float16, not {precision!r}")
    if output is not None:
        check_path(output)
    images = open_images(given, data_config_of(extractor.checkpoint), split)
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
    record = {"output": str(output), "checkpoint": str(checkpoint), **record}
    if as_json:
        print_json(record)
        return
    shape = " x ".join(map(str, record["shape"]))
    views_said = "centre crops" if views == "center" else f"the mean over {views} views"
    print(
        f"{printable(str(output))}: {extractor.layer} ({shape}) of {record['num_images']:,} images, {views_said}, "
        f"{precision}, {output.stat().st_size / 1e6:.1f} MB"
    )
    if record["skipped"]:
        print(f"{len(record['skipped'])} images could not be read and are left out")
