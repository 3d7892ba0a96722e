"""`alexnet neighbours`: which images of a set a network takes for the most alike to given ones."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alexnet.commands.output import network_facts, print_json
from alexnet.data.decode import UnreadableImage
from alexnet.data.squares import to_square
from alexnet.errors import RunError, UserError
from alexnet.evaluation.extraction import Extractor, make_extractor
from alexnet.evaluation.feature_files import FeatureTable, is_table, read_table, write_table
from alexnet.evaluation.features import network_digest
from alexnet.evaluation.image_list import ImageList, open_images
from alexnet.evaluation.neighbours import NeighbourIndex, Neighbours
from alexnet.evaluation.subjects import data_config_of, describe
from alexnet.reporting.panel_figures import number
from alexnet.reporting.pictures import check_picture_path, save_picture
from alexnet.reporting.progress import Progress
from alexnet.reporting.study_figures import Nearest, neighbour_rows
from alexnet.runtime.text import print_lines
from alexnet.training.checkpoint import Checkpoint, load_checkpoint

MAX_ROWS_DRAWN = 20


class _Queries(NamedTuple):
    """The images that are looked for, those that could be read, and why the others could not."""

    images: ImageList
    indices: list[int]
    features: np.ndarray
    errors: dict[str, str]


def neighbours_command(
    checkpoint: Path,
    given: Sequence[str],
    among: str,
    *,
    count: int,
    layer: str | None,
    split: str | None,
    output: Path | None,
    device: str,
    as_json: bool,
    quiet: bool,
) -> int:
    """Print the nearest images of each one given, and draw them to `output`; returns how many could not be read."""
    if output is not None:
        check_picture_path(output)
    loaded = load_checkpoint(checkpoint)
    known = read_table(Path(among)) if is_table(Path(among)) else None
    if known is not None:
        check_same_network(known, Path(among), loaded)
        _check_options(known, Path(among), layer, split)
    extractor = make_extractor(
        loaded, layer if known is None else known.about["layer"],
        "center" if known is None else known.about["views"], device=device,
    )  # fmt: skip
    with ExitStack() as stack:
        display = stack.enter_context(Progress("silent" if quiet else "auto"))
        queries = _look_at(extractor, given)
        table = known
        if table is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            table = _features_of(extractor, among, split, folder / "features.npz", display)
        index = NeighbourIndex(table.values, extractor.device)
        found = index.search(queries.features, count)
        if output is not None:
            save_picture(_draw(extractor, queries, table, found, among, split), output)
        record = _record(extractor, queries, table, found, among)
    if as_json:
        print_json({**network_facts(checkpoint, loaded), "output": None if output is None else str(output), **record})
    else:
        print_lines(f"Network: {describe(loaded)}")
        _print(record, output)
    for key, reason in queries.errors.items():
        print_lines(f"error: {key}: {reason}", stream=sys.stderr)
    return len(queries.errors)


def check_same_network(table: FeatureTable, path: Path, checkpoint: Checkpoint) -> None:
    """Raises UserError for features that another network made: they mean something else."""
    if table.about.get("network") != network_digest(checkpoint):
        raise UserError(
            f"the features in {path} were made by another network ({table.about.get('model')} after step "
            f"{table.about.get('step')}); make them again with `alexnet features` and this checkpoint"
        )


def _check_options(table: FeatureTable, path: Path, layer: str | None, split: str | None) -> None:
    if layer is not None and layer != table.about["layer"]:
        raise UserError(f"{path} has features of {table.about['layer']}, not of {layer}; leave out --layer")
    if split is not None:
        raise UserError("--split needs a data set; a file of features is searched as it is")


def _look_at(extractor: Extractor, given: Sequence[str]) -> _Queries:
    """Read the images to look for; there must be one."""
    images = open_images(given, data_config_of(extractor.checkpoint))
    errors: dict[str, str] = {}
    rows = list(extractor.rows(images, on_skip=errors.__setitem__))
    readable = [i for i, key in enumerate(images.keys) if key not in errors]
    return _Queries(images, readable, np.concatenate([batch.values for batch in rows]), errors)


def _features_of(extractor: Extractor, among: str, split: str | None, path: Path, display: Progress) -> FeatureTable:
    """Those of a data set or of images, in a file, so that they may be more than memory holds."""
    images = open_images(among, data_config_of(extractor.checkpoint), split)
    for note in images.notes:
        display.message(note)
    rows = extractor.rows(
        images,
        lambda key, reason: display.message(f"{key} is unreadable and left out: {reason}."),
        display.counter(f"Features of {extractor.layer}"),
    )
    write_table(path, rows, classes=images.classes, class_names=images.class_names, about=extractor.about(images))
    return read_table(path)


def _record(
    extractor: Extractor, queries: _Queries, table: FeatureTable, found: Neighbours, among: str
) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    for position, image in enumerate(queries.indices):
        nearest = [
            {
                "key": table.keys[row],
                "split": table.splits[row] or None,
                "class": None if table.labels[row] < 0 else table.classes[table.labels[row]],
                "name": table.class_name(row),
                "distance": float(distance),
            }
            for row, distance in zip(found.indices[position].tolist(), found.distances[position], strict=True)
        ]
        results.append({"input": queries.images.keys[image], "neighbours": nearest, "error": None})
    results += [{"input": key, "neighbours": [], "error": reason} for key, reason in queries.errors.items()]
    return {"layer": extractor.layer, "among": among, "num_images": len(table), "queries": results}


def _print(record: dict[str, Any], output: Path | None) -> None:
    print_lines(
        f"Nearest of {record['num_images']:,} images by {record['layer']}; the number is the Euclidean distance"
    )
    for query in record["queries"]:
        if query["error"] is None:
            print_lines(query["input"])
        largest = max((nearest["distance"] for nearest in query["neighbours"]), default=0.0)
        decimals = max(0, 3 - math.floor(math.log10(largest))) if largest else 0
        for nearest in query["neighbours"]:
            name = f"  {nearest['name']}" if nearest["name"] else ""
            print_lines(f"  {nearest['distance']:10.{decimals}f}  {nearest['key']}{name}")
    if output is not None:
        print_lines(f"Drawn in {output}")


def _draw(
    extractor: Extractor, queries: _Queries, table: FeatureTable, found: Neighbours, among: str, split: str | None
) -> Any:
    if len(queries.indices) > MAX_ROWS_DRAWN:
        raise UserError(
            f"a picture has at most {MAX_ROWS_DRAWN} rows, and {len(queries.indices)} images are looked for; leave out "
            "--output, or give fewer"
        )
    size = extractor.preprocessing.image_size
    square_of = _squares_of(extractor, table, found, among, split)
    rows = []
    for position, image in enumerate(queries.indices):
        own = queries.images.class_name(image)
        shown = [
            (
                square_of(row),
                f"{table.class_name(row) or Path(table.keys[row]).name}\n{number(distance)}",
                own is None or own == table.class_name(row),
            )
            for row, distance in zip(found.indices[position].tolist(), found.distances[position], strict=True)
        ]
        query = to_square(queries.images.read(image), size)
        rows.append(Nearest(query, own or Path(queries.images.keys[image]).name, shown))
    has_classes = any(queries.images.class_name(image) for image in queries.indices)
    headline = (
        f"Left: the images asked for. Right: the nearest of {len(table):,} by {extractor.layer}, with their distances"
        f"{'; another class in orange' if has_classes else ''}."
    )
    return neighbour_rows(rows, headline=headline)


def _squares_of(
    extractor: Extractor, table: FeatureTable, found: Neighbours, among: str, split: str | None
) -> Callable[[int], np.ndarray]:
    """Row of the table -> its image as a square."""
    given = table.about.get("images")
    if not given:
        raise UserError(f"{among} does not say where its images are, so they cannot be drawn; leave out --output")
    try:
        images = open_images(given, data_config_of(extractor.checkpoint), split)
    except UserError as error:
        raise UserError(f"the images of {among} cannot be drawn: {error}") from None
    wanted = {(table.splits[row], table.keys[row]) for row in np.unique(found.indices).tolist()}
    # The same image may be listed twice; then the pixels are the same, too.
    names = zip(images.splits, images.keys, strict=True)
    places = {name: place for place, name in enumerate(names) if name in wanted}

    def square(row: int) -> np.ndarray:
        key = table.keys[row]
        try:
            pixels = images.read(places[table.splits[row], key])
        except KeyError:
            raise UserError(f"{key} is no longer among the images of {among}; make the features again") from None
        except UnreadableImage as error:
            raise RunError(f"{key} can no longer be read: {error}") from None
        return to_square(pixels, extractor.preprocessing.image_size)

    return square
