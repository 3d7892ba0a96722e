"""One small ImageNet, drawn, in every layout in which copies of it go round."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

WNIDS = ("n02119789", "n01440764", "n02100735", "n01443537")
"""Not in sorted order: the kit's numbers follow another one."""
WORDS = {
    "n02119789": "kit fox, Vulpes macrotis",
    "n01440764": "tench, Tinca tinca",
    "n02100735": "English setter",
    "n01443537": "goldfish, Carassius auratus",
}


def colour_of(wnid: str, wnids: tuple[str, ...]) -> tuple[int, int, int]:
    """A colour for each class, far from those of the others: what is seen tells the label."""
    position = sorted(wnids).index(wnid)
    return (40 + 60 * (position % 4), 40 + 60 * (position // 4 % 4), 40 + 60 * (position // 16 % 4))


def draw(wnid: str, seed: int, wnids: tuple[str, ...]) -> bytes:
    """A JPEG of the class's colour with some noise, of an odd size."""
    random = np.random.RandomState(seed)
    height, width = random.randint(34, 60, 2)
    pixels = np.clip(random.normal(0, 6, (height, width, 3)) + colour_of(wnid, wnids), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


class SmallImageNet:
    """Training images {wnid: {file: content}}, validation images [(file, wnid, content)] in the order of the list."""

    def __init__(self, wnids: tuple[str, ...] = WNIDS, per_class: int = 6, val_labels: list[str] | None = None) -> None:
        self.wnids = wnids
        self.words = {wnid: WORDS.get(wnid, wnid) for wnid in wnids}
        self.train = {
            wnid: {f"{wnid}_{7 + 3 * i}.JPEG": draw(wnid, 100 * k + i, wnids) for i in range(per_class)}
            for k, wnid in enumerate(wnids)
        }
        labels = val_labels or [wnids[i % len(wnids)] for i in (2, 0, 3, 1, 1, 0, 2, 3, 0)]
        self.val = [
            (f"ILSVRC2012_val_{i:08d}.JPEG", wnid, draw(wnid, 9000 + i, wnids)) for i, wnid in enumerate(labels, 1)
        ]

    # ------------------------------------------------------------ archives

    def archives(self, root: Path, kit: dict[str, bytes] | None = None) -> Path:
        root.mkdir(parents=True, exist_ok=True)
        with tarfile.open(root / "ILSVRC2012_img_train.tar", "w") as outer:
            for wnid in sorted(self.train, reverse=True):
                inner = io.BytesIO()
                with tarfile.open(fileobj=inner, mode="w") as tar:
                    for name, data in self.train[wnid].items():
                        add(tar, name, data)
                add(outer, f"{wnid}.tar", inner.getvalue())
        with tarfile.open(root / "ILSVRC2012_img_val.tar", "w") as tar:
            for name, _, data in reversed(self.val):
                add(tar, name, data)
        unpacked = io.BytesIO()
        with tarfile.open(fileobj=unpacked, mode="w") as tar:
            for name, data in (kit or self.kit()).items():
                add(tar, f"ILSVRC2012_devkit_t12/data/{name}", data)
        write(root / "ILSVRC2012_devkit_t12.tar.gz", gzip.compress(unpacked.getvalue(), mtime=0))
        return root

    def kit(self) -> dict[str, bytes]:
        """meta.mat with ids in the order of `wnids`, inner nodes after them, and the ground truth in those ids."""
        rows = [(i, wnid, self.words[wnid], "gloss", 0) for i, wnid in enumerate(self.wnids, 1)]
        rows.append((len(rows) + 1, "n00001740", "entity", "all", 2))
        kinds = [(name, "O") for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")]
        buffer = io.BytesIO()
        scipy.io.savemat(buffer, {"synsets": np.array(rows, dtype=kinds)})
        ids = {wnid: i for i, wnid in enumerate(self.wnids, 1)}
        truth = "".join(f"{ids[wnid]}\n" for _, wnid, _ in self.val)
        return {"meta.mat": buffer.getvalue(), "ILSVRC2012_validation_ground_truth.txt": truth.encode()}

    # ------------------------------------------------------------ folders

    def names(self, root: Path) -> None:
        write(root / "synset_words.txt", "".join(f"{w} {self.words[w]}\n" for w in sorted(self.wnids)).encode())

    def sorted_folders(self, root: Path) -> Path:
        self._train_folders(root / "train")
        for name, wnid, data in self.val:
            write(root / "val" / wnid / name, data)
        self.names(root)
        return root

    def flat_validation(self, root: Path) -> Path:
        self._train_folders(root / "train")
        for name, _, data in self.val:
            write(root / "val" / name, data)
        for name, data in self.kit().items():
            write(root / "ILSVRC2012_devkit_t12" / "data" / name, data)
        return root

    def kaggle(self, root: Path) -> Path:
        self._train_folders(root / "ILSVRC" / "Data" / "CLS-LOC" / "train")
        for name, _, data in self.val:
            write(root / "ILSVRC" / "Data" / "CLS-LOC" / "val" / name, data)
        write(root / "ILSVRC" / "Data" / "CLS-LOC" / "test" / "ILSVRC2012_test_00000001.JPEG", self.val[0][2])
        lines = ["ImageId,PredictionString"]
        lines += [f"{name[:-5]},{wnid} 1 2 30 40 {wnid} 3 4 5 6 " for name, wnid, _ in reversed(self.val)]
        write(root / "LOC_val_solution.csv", "\n".join(lines).encode())
        write(root / "LOC_synset_mapping.txt", "".join(f"{w} {self.words[w]}\n" for w in sorted(self.wnids)).encode())
        return root

    def kaggle_zip(self, root: Path) -> Path:
        folder = self.kaggle(root / "unpacked")
        path = root / "imagenet-object-localization-challenge.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for item in sorted(folder.rglob("*")):
                if item.is_file():
                    file.write(item, item.relative_to(folder))
        return path

    def tar_of_folders(self, root: Path) -> Path:
        folder = self.sorted_folders(root / "imagenet")
        path = root / "imagenet.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            tar.add(folder, "imagenet")
        return path

    def class_tars(self, root: Path) -> Path:
        """As the 22K-class release: one tar a class, without validation images."""
        root.mkdir(parents=True, exist_ok=True)
        for wnid, files in self.train.items():
            with tarfile.open(root / f"{wnid}.tar", "w") as tar:
                for name, data in files.items():
                    add(tar, name, data)
        self.names(root)
        return root

    # ------------------------------------------------------------ tables and shards

    def parquet(self, root: Path) -> Path:
        import pyarrow as pa
        import pyarrow.parquet as pq

        root.mkdir(parents=True, exist_ok=True)
        ids = {wnid: label for label, wnid in enumerate(sorted(self.wnids))}
        info = {"info": {"features": {"label": {"names": [self.words[w] for w in sorted(self.wnids)]}}}}

        def table(rows: list[tuple[str, int, bytes]]) -> pa.Table:
            image = pa.array([{"bytes": data, "path": name} for name, _, data in rows])
            made = pa.table({"image": image, "label": pa.array([label for _, label, _ in rows], pa.int64())})
            return made.replace_schema_metadata({b"huggingface": json.dumps(info).encode()})

        train = [
            (f"{name[:-5]}_{wnid}.JPEG", ids[wnid], data)
            for wnid, files in self.train.items()
            for name, data in files.items()
        ]
        val = [(f"{name[:-5]}_{wnid}.JPEG", ids[wnid], data) for name, wnid, data in self.val]
        half = len(train) // 2
        (root / "data").mkdir(exist_ok=True)
        for name, rows in (
            ("train-00000-of-00002", train[half:]),
            ("train-00001-of-00002", train[:half]),
            ("validation-00000-of-00001", val),
            ("test-00000-of-00001", [("ILSVRC2012_test_00000001.JPEG", -1, self.val[0][2])]),
        ):
            pq.write_table(table(rows), root / "data" / f"{name}.parquet", row_group_size=5)
        return root

    def webdataset(self, root: Path) -> Path:
        root.mkdir(parents=True, exist_ok=True)
        ids = {wnid: label for label, wnid in enumerate(sorted(self.wnids))}
        train = [(name, wnid, data) for wnid, files in self.train.items() for name, data in files.items()]
        for shard in range(2):
            with tarfile.open(root / f"imagenet1k-train-{shard:04d}.tar", "w") as tar:
                for name, wnid, data in train[shard::2]:
                    self._sample(tar, name[:-5], ids[wnid], f"{wnid}/{name}", data)
        with tarfile.open(root / "imagenet1k-validation-00.tar", "w") as tar:
            for name, wnid, data in self.val:
                self._sample(tar, name[:-5], ids[wnid], name, data)
        self.names(root)
        return root

    def table(self, root: Path) -> Path:
        self.sorted_folders(root)
        with (root / "labels.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["path", "label", "split"])
            for wnid, files in self.train.items():
                rows.writerows([f"train/{wnid}/{name}", wnid, "train"] for name in files)
            rows.writerows([f"val/{wnid}/{name}", wnid, "val"] for name, wnid, _ in self.val)
        return root / "labels.csv"

    def caffe_lists(self, root: Path) -> Path:
        self.sorted_folders(root)
        ids = {wnid: label for label, wnid in enumerate(sorted(self.wnids))}
        lines = [f"train/{wnid}/{name} {ids[wnid]}" for wnid, files in self.train.items() for name in files]
        write(root / "train.txt", "\n".join(lines).encode())
        write(root / "val.txt", "".join(f"val/{wnid}/{name} {ids[wnid]}\n" for name, wnid, _ in self.val).encode())
        return root / "train.txt"

    def _train_folders(self, root: Path) -> None:
        for wnid, files in self.train.items():
            for name, data in files.items():
                write(root / wnid / name, data)

    @staticmethod
    def _sample(tar: tarfile.TarFile, key: str, label: int, file: str, data: bytes) -> None:
        add(tar, f"{key}.jpg", data)
        add(tar, f"{key}.cls", str(label).encode())
        add(tar, f"{key}.json", json.dumps({"label": label, "filename": file}).encode())


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """One file into an archive."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def write(path: Path, data: bytes) -> None:
    """One file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
