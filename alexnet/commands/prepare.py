"""`alexnet prepare`: any published form of a data set to a prepared one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from alexnet.commands.output import print_json
from alexnet.data.prepare import Request, prepare_data_set
from alexnet.errors import RunError, UserError
from alexnet.reporting.progress import Mode, Progress
from alexnet.runtime.process_settings import restored_settings
from alexnet.runtime.text import print_lines

_FORMATS = ("jpeg", "raw")
_SHOWN = 10


@restored_settings()
def prepare(
    source: str | Path,
    folder: str | Path,
    *,
    image_size: int | None = None,
    quality: int = 95,
    encoding: Literal["jpeg", "raw", "original"] | None = None,
    images_per_shard: int | None = None,
    val_fraction: float | None = None,
    downloads: str | Path | None = None,
    num_workers: int | None = None,
    verify: bool = True,
    allow_damaged: bool = False,
    overwrite: bool = False,
    progress: Mode = "auto",
) -> dict[str, Any]:
    """Prepare a data set (docs/data.md) in a folder; returns the contents of its dataset.json.

    source: a path, or the name of a set that is then downloaded. The same call goes on with what was interrupted, and
    the result is the same byte for byte. Raises UserError for what the caller can mend, RunError when the disk is full.
    """
    request = Request(
        source=str(source),
        folder=Path(folder),
        image_size=image_size,
        quality=quality,
        encoding=encoding,
        images_per_shard=images_per_shard,
        val_fraction=val_fraction,
        downloads=None if downloads is None else Path(downloads),
        num_workers=_num_cores() if num_workers is None else num_workers,
        verify=verify,
        allow_damaged=allow_damaged,
        overwrite=overwrite,
    )
    with Progress(progress) as display:
        return prepare_data_set(request, display)


def _num_cores() -> int:
    """The cores that this process may use; a cluster gives a job fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_command(
    source: str,
    folder: Path,
    *,
    format: str | None,
    keep_original: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Prepare and say what came of it."""
    if format is not None and format not in _FORMATS:
        raise UserError(f"--format {format} is not known; the formats are {', '.join(_FORMATS)}.")
    if keep_original and format is not None:
        raise UserError("--keep-original and --format exclude each other; give one of them.")
    encoding = "original" if keep_original else format
    try:
        record = prepare(source, folder, encoding=encoding, progress="silent" if quiet else "auto", **options)  # type: ignore[arg-type]
    except KeyboardInterrupt:
        raise RunError(
            f"Interrupted. The finished shards in {folder} are kept; the same command goes on from there."
        ) from None
    if as_json:
        print_json({"output": str(folder), **summary_of(record)})
        return
    _print(folder, record)


def summary_of(record: dict[str, Any]) -> dict[str, Any]:
    """What is worth telling of a dataset.json; the lists of images in full."""
    return {
        "name": record["name"],
        "kind": record["kind"],
        "num_classes": len(record["classes"]),
        "splits": {
            name: {
                "num_images": part["num_images"],
                "num_shards": len(part["shards"]),
                "bytes": sum(shard["bytes"] for shard in part["shards"]),
            }
            for name, part in record["splits"].items()
        },
        "image_size": record["image_size"],
        "encoding": record["encoding"],
        "notes": record["notes"],
        "skipped": record["skipped"],
        "repaired": record["repaired"],
    }


def _print(folder: Path, record: dict[str, Any]) -> None:
    for title, items in (("left out", record["skipped"]), ("unusual, and kept", record["repaired"])):
        if items:
            print_lines(f"{len(items)} image(s) {title}:")
            for item in items[:_SHOWN]:
                print_lines(f"  {item['file']}: {item['reason']}")
            if len(items) > _SHOWN:
                print_lines(f"  and {len(items) - _SHOWN} more, listed in {folder / 'dataset.json'}")
    parts = ", ".join(
        f"{part['num_images']:,} {'training' if name == 'train' else 'validation'} images in {len(part['shards'])} "
        f"shard(s), {sum(shard['bytes'] for shard in part['shards']) / 1e6:,.1f} MB"
        for name, part in record["splits"].items()
    )
    print_lines(
        f"{folder}: {parts}; {len(record['classes'])} classes, {record['image_size']} px, {record['encoding']}."
    )
    print_lines(f"Train on it: alexnet train RECIPE --data {folder}")
