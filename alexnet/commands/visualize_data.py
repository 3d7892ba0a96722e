"""The drawings of `alexnet visualize` that are about the network itself, or a whole data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alexnet.commands.neighbours import check_same_network
from alexnet.commands.visualize import Drawing, Task
from alexnet.data.squares import to_square
from alexnet.errors import UserError
from alexnet.evaluation.extraction import Extractor
from alexnet.evaluation.feature_files import FeatureTable, is_table, read_table
from alexnet.evaluation.features import last_hidden_layer
from alexnet.evaluation.image_list import ImageList, open_images, stream_squares
from alexnet.evaluation.subjects import data_config_of
from alexnet.models.architecture import layer_shapes
from alexnet.models.receptive_field import receptive_fields
from alexnet.reporting.activation_figures import UnitDrawing, unit_rows
from alexnet.reporting.figures import shorten
from alexnet.reporting.map_figure import class_map
from alexnet.reporting.panel_figures import number
from alexnet.reporting.study_figures import Bank
from alexnet.reporting.study_figures import kernel_banks as draw_banks
from alexnet.runtime.device import default_num_workers
from alexnet.visualize.embedding import embed
from alexnet.visualize.inputs import center_crop
from alexnet.visualize.kernels import color_share, kernel_banks
from alexnet.visualize.subjects import last_maps, map_layers
from alexnet.visualize.units import StrongestImages, strongest_images

DEFAULT_UNITS = 6
MAX_UNITS = 40
DEFAULT_COUNT = 8
MAX_COUNT = 24
DEFAULT_POINTS = 1000
THUMBNAIL_SIZE = 64


def draw_kernels(task: Task) -> Drawing:
    """The kernels of the first convolution, a bank for each tower."""
    banks = kernel_banks(task.model)
    shown, start = [], 1
    for bank in banks:
        share = float(color_share(bank).mean())
        shown.append(Bank(f"kernels {start}-{start + len(bank) - 1}, mean colour share {share:.2f}", bank))
        start += len(bank)
    height, width = banks[0].shape[2:]
    title = (
        f"The {start - 1} kernels of conv1, {height} x {width} x 3: {task.network}. Each is scaled by its own greatest "
        "weight; grey is zero. Colour share: the part of a kernel's energy that differs between red, green and blue."
    )
    record = {
        "layer": "conv1",
        "banks": [{"kernels": len(b), "color_share": float(color_share(b).mean())} for b in banks],
    }
    return Drawing(draw_banks(title, shown), record)


def _images(task: Task) -> ImageList:
    """What --data names, or the validation images of what the network was trained on."""
    data = task.options.data or task.checkpoint.data
    try:
        images = open_images(data, data_config_of(task.checkpoint), task.options.split)
    except UserError as error:
        if task.options.data is not None:
            raise
        raise UserError(
            f"give a data set with --data: what the network was trained on is not there ({error})"
        ) from None
    if task.options.split is None and images.classes:
        images = images.take([i for i, split in enumerate(images.splits) if split == "val"] or range(len(images)))
    for note in images.notes:
        task.display.message(note)
    return images


def draw_units(task: Task) -> Drawing:
    """For some units of a layer the images that excite them most."""
    layer = task.options.one_layer() or last_maps(task.checkpoint.architecture)
    task.model.check_layers([layer])
    units = _units_asked_for(task, layer)
    images = _images(task)
    count = min(task.options.count or DEFAULT_COUNT, MAX_COUNT, len(images))
    preprocessing = task.checkpoint.preprocessing
    batches = stream_squares(
        images, preprocessing.image_size, task.options.batch_size or 64,
        num_workers=default_num_workers(images_in_memory=False),
        on_skip=lambda key, reason: task.display.message(f"{key} is unreadable and left out: {reason}."),
        on_progress=task.display.counter(f"Looking through {layer}"),
    )  # fmt: skip
    found = strongest_images(task.model, preprocessing, batches, layer, count, device=task.device)
    drawn, records = [], []
    for unit in units or _strongest(found):
        drawing, record = _draw_unit(task, images, layer, found, unit)
        drawn.append(drawing)
        records.append(record)
    has_fields = layer in map_layers(task.checkpoint.architecture)
    headline = (
        f"Units of {layer}: of {len(images):,} images the {count} that excite each most, with the unit's output"
        f"{'; framed the part it sees, below it enlarged' if has_fields else ''}.\n{task.network}."
    )
    return Drawing(unit_rows(headline, drawn), {"layer": layer, "num_images": len(images), "units": records})


def _units_asked_for(task: Task, layer: str) -> list[int]:
    model = task.model
    rows = layer_shapes(model.architecture, model.num_classes, model.image_size)
    total = next(row.outputs[0] for row in rows if row.layer.name == layer)
    units = list(dict.fromkeys(task.options.unit))
    if units and max(units) >= total:
        raise UserError(f"{layer} has units 0 to {total - 1}, and no {max(units)}")
    if len(units) > MAX_UNITS:
        raise UserError(f"a picture has room for {MAX_UNITS} units, and {len(units)} are asked for")
    return units


def _strongest(found: StrongestImages) -> list[int]:
    return found.values[:, 0].argsort(descending=True, stable=True)[:DEFAULT_UNITS].tolist()


def _draw_unit(
    task: Task, images: ImageList, layer: str, found: StrongestImages, unit: int
) -> tuple[UnitDrawing, dict[str, Any]]:
    preprocessing, architecture = task.checkpoint.preprocessing, task.checkpoint.architecture
    field = receptive_fields(architecture, task.model.image_size)[layer]
    crops, boxes, captions, entries = [], [], [], []
    strongest: Iterator[tuple[float, int, int, int]] = zip(*(part[unit].tolist() for part in found), strict=True)
    for value, index, row, column in strongest:
        crops.append(center_crop(images.read(index), preprocessing).pixels)
        boxes.append(field.box(row, column, task.model.image_size))
        key = images.keys[int(index)]
        name = images.class_name(index) or Path(key).name
        captions.append(f"{number(value)}\n{name}")
        box = dict(zip(("top", "left", "bottom", "right"), boxes[-1], strict=True))
        entries.append({"key": key, "class": images.class_name(index), "value": value, "field": box})
    is_output = layer == architecture.layers[-1].name
    kind = f"class {task.name_of(unit)}" if is_output else f"unit {unit}"
    return UnitDrawing(shorten(f"{layer}, {kind}", 60), crops, boxes, captions), {"unit": unit, "images": entries}


class _Sample(NamedTuple):
    """Images on a map: their features, what is known of them, and how to see them."""

    features: np.ndarray
    names: list[str | None]
    keys: list[str]
    order: tuple[str, ...]
    layer: str
    total: int
    images: ImageList | None
    positions: list[int]
    """Of each one in `images`."""


def draw_tsne(task: Task) -> Drawing:
    """A sample of a data set as points, near each other where the layer's outputs are."""
    seed = task.options.seed or 0
    data = task.options.data
    if data is not None and is_table(Path(data)):
        sample = _sample_of_table(task, Path(data), seed)
    else:
        sample = _sample_of_images(task, seed)
    picture = _picture_of(task, sample) if task.options.thumbnails else None
    task.display.message(f"t-SNE of {len(sample.features):,} images")
    points = embed(sample.features, seed=seed)
    drawn = f"{len(points):,} of {sample.total:,} images, drawn at random"
    if len(points) == sample.total:
        drawn = f"all {sample.total:,} images"
    headline = (
        f"t-SNE of {sample.layer}: {drawn}. Near each other are images that the network takes for alike; distances "
        f"between groups and directions mean nothing.\n{task.network}."
    )
    figure = class_map(headline, points, sample.names, sample.order, picture)
    entries = [
        {"key": key, "class": name, "x": float(x), "y": float(y)}
        for key, name, (x, y) in zip(sample.keys, sample.names, points, strict=True)
    ]
    return Drawing(figure, {"layer": sample.layer, "num_images": sample.total, "seed": seed, "points": entries})


def _picture_of(task: Task, sample: _Sample) -> Callable[[int], np.ndarray]:
    """A thumbnail of each image of the sample."""
    images, size = sample.images, min(task.checkpoint.preprocessing.image_size, THUMBNAIL_SIZE)
    if images is None:
        raise UserError("--thumbnails needs the images; give a data set or a folder with --data, not features")
    return lambda index: to_square(images.read(sample.positions[index]), size)


def _choose(task: Task, total: int, seed: int) -> list[int]:
    count = task.options.count or DEFAULT_POINTS
    return sorted(np.random.default_rng(seed).permutation(total)[:count].tolist())


def _sample_of_table(task: Task, path: Path, seed: int) -> _Sample:
    table: FeatureTable = read_table(path)
    check_same_network(table, path, task.checkpoint)
    if task.options.layer or task.options.split:
        raise UserError("--layer and --split need images; a file of features is drawn as it is")
    rows = _choose(task, len(table), seed)
    names = [table.class_name(row) for row in rows]
    keys = [table.keys[row] for row in rows]
    return _Sample(table.values[rows], names, keys, table.class_names, table.about["layer"], len(table), None, rows)


def _sample_of_images(task: Task, seed: int) -> _Sample:
    layer = task.options.one_layer() or last_hidden_layer(task.checkpoint.architecture)
    task.model.check_layers([layer])
    images = _images(task)
    chosen = images.take(_choose(task, len(images), seed))
    extractor = Extractor(task.checkpoint, task.model, layer, "center", task.device, task.options.batch_size or 64)
    skipped: set[str] = set()

    def on_skip(key: str, reason: str) -> None:
        skipped.add(key)
        task.display.message(f"{key} is unreadable and left out: {reason}.")

    rows = list(extractor.rows(chosen, on_skip, task.display.counter(f"Features of {layer}")))
    positions = [i for i, key in enumerate(chosen.keys) if key not in skipped]
    return _Sample(
        np.concatenate([batch.values for batch in rows]),
        [chosen.class_name(i) for i in positions],
        [chosen.keys[i] for i in positions],
        images.class_names,
        layer,
        len(images),
        chosen,
        positions,
    )
