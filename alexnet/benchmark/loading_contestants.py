"""Ways of loading: ours, and those that people would otherwise use. All give batches of crops, reflected at random.

Each is an endless iterator over (images (B, 224, 224, 3) uint8, labels); none turns pixels into floats, which the usual
transforms do as well, so the baselines are spared that.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from alexnet.benchmark.job import CROP_SIZE, STORED_SIZE, LoadingJob
from alexnet.config import AugmentConfig, DataConfig
from alexnet.data.loader import TrainingLoader
from alexnet.data.prepared import read_description
from alexnet.data.resample import cut_crop
from alexnet.data.sampler import ImageOrder
from alexnet.data.sources import open_source
from alexnet.data.splits import Split
from alexnet.data.squares import load_images
from alexnet.data.statistics import Statistics

_NUM_STEPS = 2**40

CONTESTANTS = {
    "ours": ("jpeg", "this package, from the prepared data set: threads, simplejpeg"),
    "ours-raw": ("raw", "this package, from a prepared data set with --format raw"),
    "ours-originals": ("originals", "this package, from the original files in class folders"),
    "pil-originals": ("originals", "ImageFolder + DataLoader: PIL open, resize, crop, flip in worker processes"),
    "dataloader": ("jpeg", "DataLoader with worker processes on the prepared data set: simplejpeg, crop, flip"),
    "webdataset": ("jpeg", "webdataset on the same shards, worker processes, decoded by PIL"),
    "dali": ("jpeg", "DALI on the CPU, on the same shards: fused decoding and cropping, flip"),
}
"""Name: what it reads, and what it is."""
_PACKAGES = {"webdataset": "webdataset", "dali": "nvidia.dali"}


def why_impossible(name: str, job: LoadingJob) -> str | None:
    """Why a contestant cannot take part, in a line; None where it can."""
    data, _ = CONTESTANTS[name]
    if getattr(job, data) is None:
        return (
            f"it reads {'class folders' if data == 'originals' else f'a prepared {data} data set'}, and there is none"
        )
    package = _PACKAGES.get(name)
    try:
        found = package is None or find_spec(package) is not None
    except ModuleNotFoundError:
        found = False
    return None if found else f"{package} is not installed"


def open_contestant(name: str, job: LoadingJob) -> Iterator[Any]:
    """The batches of a contestant."""
    data = getattr(job, CONTESTANTS[name][0])
    match name:
        case "ours" | "ours-raw" | "ours-originals":
            return _ours(data, job)
        case "pil-originals":
            return _batches_of(_ImageFolder(Path(data) / "train"), job)
        case "dataloader":
            return _batches_of(_PreparedImages(data), job)
        case "webdataset":
            return _webdataset(Path(data), job)
        case "dali":
            return _dali(Path(data), job)
        case _:
            raise ValueError(name)


def _train_split(data: str) -> Split:
    split = open_source(data, DataConfig()).train
    assert split is not None
    return split


def _ours(data: str, job: LoadingJob) -> Iterator[Any]:
    images = load_images(
        _train_split(data), STORED_SIZE, num_workers=0, max_unreadable=0, memory_limit_bytes=0, known_skipped=()
    )
    # Colour noise is the network's input's business; no statistics are needed for crops and flips.
    none = Statistics(np.zeros((STORED_SIZE, STORED_SIZE, 3), np.float32), np.eye(3), np.ones(3), np.eye(3), 1)
    loader = TrainingLoader(
        images,
        none,
        AugmentConfig(color_noise=0),
        order=ImageOrder(len(images), "each_epoch", 0),
        batch_size=job.batch_size,
        crop_size=CROP_SIZE,
        num_workers=job.num_workers,
    )
    return ((batch.crops, batch.labels) for batch in loader.batches(0, _NUM_STEPS))


def _random_crop(square: np.ndarray, out: np.ndarray) -> None:
    top, left = (random.randint(0, side - CROP_SIZE) for side in square.shape[:2])
    cut_crop(square, np.array([top, left, CROP_SIZE, CROP_SIZE]), random.random() < 0.5, out)


class _ImageFolder(Dataset[Any]):
    """What torchvision's ImageFolder with Resize(256), RandomCrop(224), RandomHorizontalFlip does, as bytes."""

    def __init__(self, root: Path) -> None:
        folders = sorted(path for path in root.iterdir() if path.is_dir())
        self.samples = [(str(file), label) for label, folder in enumerate(folders) for file in sorted(folder.iterdir())]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.samples[index]
        with open(path, "rb") as file:
            image = Image.open(file).convert("RGB")
        return _crop_with_pil(image), label


def _crop_with_pil(image: Image.Image) -> torch.Tensor:
    width, height = image.size
    if min(width, height) != STORED_SIZE:
        scale = STORED_SIZE / min(width, height)
        size = max(STORED_SIZE, round(width * scale)), max(STORED_SIZE, round(height * scale))
        image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (random.randint(0, side - CROP_SIZE) for side in image.size)
    image = image.crop((left, top, left + CROP_SIZE, top + CROP_SIZE))
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.array(image))


class _PreparedImages(Dataset[Any]):
    """A prepared data set, one image at a time."""

    def __init__(self, data: str) -> None:
        self.data = data
        self.size = len(_train_split(data))
        self.split: Split | None = None

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self.split is None:  # each process maps the shards itself
            self.split = _train_split(self.data)
        out = np.empty((CROP_SIZE, CROP_SIZE, 3), np.uint8)
        _random_crop(self.split.read(index), out)
        return torch.from_numpy(out), int(self.split.labels[index])


def _repeated(loader: Any) -> Iterator[Any]:
    return itertools.chain.from_iterable(itertools.repeat(loader))


def _batches_of(dataset: Dataset[Any], job: LoadingJob) -> Iterator[Any]:
    return _repeated(
        DataLoader(
            dataset,
            batch_size=job.batch_size,
            shuffle=True,
            num_workers=job.num_workers,
            drop_last=True,
            persistent_workers=job.num_workers > 0,
            worker_init_fn=_one_thread,
        )
    )


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def _shards(folder: Path) -> list[str]:
    return [str(folder / shard["file"]) for shard in read_description(folder)["splits"]["train"]["shards"]]


def _webdataset(folder: Path, job: LoadingJob) -> Iterator[Any]:
    webdataset: Any = import_module("webdataset")
    shards = _shards(folder)
    dataset = (
        webdataset.WebDataset(shards, resampled=True, shardshuffle=False)
        .shuffle(200)
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map(_crop_pair)
        .batched(job.batch_size, collation_fn=_collate, partial=False)
    )
    # Each worker process reads shards of its own choice, so there are as many as can be used.
    loader = webdataset.WebLoader(
        dataset, batch_size=None, num_workers=job.num_workers, persistent_workers=job.num_workers > 0
    )
    return iter(loader)


def _crop_pair(pair: tuple[Image.Image, int]) -> tuple[torch.Tensor, int]:
    return _crop_with_pil(pair[0]), pair[1]


def _collate(samples: list[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.stack([image for image, _ in samples]), torch.tensor([label for _, label in samples])


def _dali(folder: Path, job: LoadingJob) -> Iterator[Any]:
    dali: Any = import_module("nvidia.dali")
    fn, types, side = dali.fn, dali.types, float(CROP_SIZE)

    @dali.pipeline_def(batch_size=job.batch_size, num_threads=max(1, job.num_workers), device_id=None)
    def pipeline() -> Any:
        data, labels = fn.readers.webdataset(
            paths=_shards(folder), ext=["jpg", "cls"], random_shuffle=True, initial_fill=512
        )
        spread = partial(fn.random.uniform, range=(0.0, 1.0))
        images = fn.decoders.image_crop(
            data, device="cpu", output_type=types.RGB, crop=(side, side), crop_pos_x=spread(), crop_pos_y=spread()
        )
        return fn.flip(images, horizontal=fn.random.coin_flip()), labels

    built: Any = pipeline()
    built.build()
    return _dali_batches(built.run)


def _dali_batches(run: Callable[[], Any]) -> Iterator[Any]:
    while True:
        images, labels = run()
        yield np.asarray(images.as_tensor()), labels
