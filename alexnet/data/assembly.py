"""The last step of a preparation: index, statistics and dataset.json, from the records of the shards."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from alexnet._version import __version__
from alexnet.data.preparation import PlannedSplit, Preparation
from alexnet.data.prepared import DESCRIPTION, FORMAT, STATISTICS, VERSION, WORK
from alexnet.data.shard_writer import ShardRecord
from alexnet.data.shards import INDEX_TYPES, ShardIndex
from alexnet.data.splits import class_texts
from alexnet.data.statistics import Statistics, from_sums
from alexnet.errors import UserError
from alexnet.runtime.files import write_atomically, write_text
from alexnet.runtime.text import valid_text


def finish(
    preparation: Preparation, records: dict[str, list[ShardRecord]], *, source: dict[str, Any], notes: Sequence[str]
) -> dict[str, Any]:
    """Write what makes shards a data set, dataset.json last; then remove .progress. Returns the description.

    source: how the person named the original, and the facts about its archives. Raises UserError when no image at all
    could be read.
    """
    folder, original = preparation.folder, preparation.original
    splits = {planned.name: _write_index(preparation, planned, records[planned.name]) for planned in preparation.plan}
    for planned in preparation.plan:
        if splits[planned.name]["num_images"] == 0:
            first = records[planned.name][0].skipped[0]
            preparation.forget(planned)  # or else mended files would not be looked at by the next call
            raise UserError(
                f"None of the {len(planned.keys)} {planned.name} images can be read; the first is {first['file']} "
                f"({first['reason']}). Check that the files are whole images, and give the same command again."
            )
    statistics = None
    if "train" in splits:
        num_images = splits["train"]["num_images"]
        statistics = from_sums(preparation.pixel_sums, preparation.product_sums, num_images)
        arrays: dict[str, Any] = vars(statistics)
        write_atomically(folder / STATISTICS, lambda file: np.savez(file, **arrays))
    options = preparation.options
    description = {
        "format": FORMAT,
        "version": VERSION,
        "name": original.name,
        "kind": original.kind,
        "classes": list(class_texts(original.classes)),
        "class_names": list(map(valid_text, original.class_names)),
        "image_size": options.image_size,
        "encoding": options.encoding,
        "quality": options.quality,
        "splits": splits,
        "statistics": None if statistics is None else _described(statistics, folder),
        "skipped": [
            *({"split": "", "key": "", "file": name, "reason": reason} for name, reason in original.refused),
            *(item for planned in preparation.plan for record in records[planned.name] for item in record.skipped),
        ],
        "repaired": [
            item for planned in preparation.plan for record in records[planned.name] for item in record.repaired
        ],
        "notes": list(notes),
        "made_by": {
            "program": "alexnet",
            "version": __version__,
            "options": asdict(options),
            "identity": preparation.identity,
            "source": source,
        },
    }
    write_text(folder / DESCRIPTION, json.dumps(description, indent=1) + "\n")
    shutil.rmtree(folder / WORK, ignore_errors=True)
    return description


def _write_index(preparation: Preparation, planned: PlannedSplit, records: Sequence[ShardRecord]) -> dict[str, Any]:
    arrays = {
        name: np.concatenate([getattr(record.index, name) for record in records]).astype(kind)
        for name, kind in INDEX_TYPES.items()
    }
    index = ShardIndex(**arrays)
    path = preparation.folder / planned.name / "index.npz"
    write_atomically(path, index.save)
    counts = np.bincount(index.label, minlength=len(preparation.original.classes))
    return {
        "num_images": len(index),
        "shards": [
            {
                "file": preparation.shard_path(planned.name, shard),
                "num_images": len(record.index),
                "bytes": record.num_bytes,
                "sha256": record.sha256,
            }
            for shard, record in enumerate(records)
        ],
        "index": {"file": f"{planned.name}/index.npz", "sha256": _sha256(path)},
        "class_counts": counts.tolist(),
    }


def _described(statistics: Statistics, folder: Path) -> dict[str, Any]:
    return {
        "file": STATISTICS,
        "sha256": _sha256(folder / STATISTICS),
        "num_images": statistics.num_images,
        "channel_mean": statistics.mean_image.mean(axis=(0, 1), dtype=np.float64).tolist(),
        "covariance": statistics.color_covariance.tolist(),
        "stdevs": statistics.color_stdevs.tolist(),
        "vectors": statistics.color_vectors.tolist(),
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
