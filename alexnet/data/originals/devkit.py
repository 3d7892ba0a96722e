"""ImageNet's lists: which class a validation image has, and what the classes are called.

The development kits number the classes in an order of their own. Those numbers end here: what is returned are wnids.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from alexnet.data.decode import UnreadableImage
from alexnet.data.originals.trees import Tree
from alexnet.errors import UserError

_WNID = re.compile(r"n\d{8}")


@dataclass
class Devkit:
    """wnid_of: number of a validation image (from 1) -> wnid, or its file's stem -> wnid. names: wnid -> names."""

    wnid_of: dict[int | str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    origin: str = ""
    year: str | None = None
    """Of which ILSVRC the validation images are, where the list says so."""

    def find(self, path: str) -> str | None:
        """The wnid of a validation image, by its path."""
        stem = path.rpartition("/")[2].rpartition(".")[0]
        number = re.search(r"_(\d{8})$", stem)
        return self.wnid_of.get(stem) or (self.wnid_of.get(int(number[1])) if number else None)


def read_devkit(tree: Tree) -> Devkit | None:
    """The official kit (data/meta.mat and data/*_validation_ground_truth.txt) anywhere in a tree; None without one."""
    meta = next((path for path in tree.paths if path.rpartition("/")[2] == "meta.mat"), None)
    truth = next((path for path in tree.paths if path.endswith("_validation_ground_truth.txt")), None)
    if meta is None or truth is None:
        return None
    wnids, names = _read_meta(tree, meta)
    year = re.search(r"(\d{4})_validation_ground_truth", truth)
    kit = Devkit(names=names, origin=tree.name(_index(tree, truth)), year=year[1] if year else None)
    for number, line in enumerate((tree.text(truth) or "").split(), start=1):
        if not line.isdecimal() or int(line) not in wnids:
            raise UserError(
                f"Line {number} of {kit.origin} is {line[:20]!r}, which is no class of {meta}. Download the "
                "development kit again."
            )
        kit.wnid_of[number] = wnids[int(line)]
    return kit


def read_other_lists(tree: Tree) -> Devkit | None:
    """Validation labels from the other lists in use: Kaggle's LOC_val_solution.csv, or one wnid a line."""
    for path in tree.paths:
        name = path.rpartition("/")[2]
        if name == "LOC_val_solution.csv":
            kit = Devkit(origin=path)
            for line in (tree.text(path) or "").splitlines():
                match = re.match(r"([^,]+),(n\d{8})\b", line)  # the class, then boxes
                if match:
                    kit.wnid_of[match[1]] = match[2]
            return kit
        if name.endswith("validation_synset_labels.txt"):
            lines = (tree.text(path) or "").split()
            return Devkit({i: wnid for i, wnid in enumerate(lines, start=1) if _WNID.fullmatch(wnid)}, origin=path)
    return None


def read_names(trees: Sequence[Tree]) -> dict[str, str]:
    """What the classes are called, from the lists that usually lie beside the images; wnid -> names."""
    names: dict[str, str] = {}
    for tree in trees:
        for path in tree.paths:
            if path.count("/") > 2:
                continue
            name = path.rpartition("/")[2]
            if name in ("synset_words.txt", "words.txt", "LOC_synset_mapping.txt", "classes.txt"):
                for line in (tree.text(path) or "").splitlines():
                    match = re.match(r"(n\d{8})[\s,]+(.+)", line)
                    if match:
                        names.setdefault(match[1], match[2].strip())
            elif name == "imagenet_class_index.json":
                names.update(_class_index(tree, path, names))
    return names


def _class_index(tree: Tree, path: str, known: dict[str, str]) -> dict[str, str]:
    try:
        entries = json.loads(tree.text(path) or "{}").values()
        return {wnid: text.replace("_", " ") for wnid, text in entries if wnid not in known}
    except (ValueError, TypeError, AttributeError):
        return {}


def _read_meta(tree: Tree, path: str) -> tuple[dict[int, str], dict[str, str]]:
    """Of a kit's meta.mat: the wnid of each number, and each wnid's names."""
    import scipy.io  # scikit-learn brings it; it takes a moment to import

    where = tree.name(_index(tree, path))
    try:
        synsets = scipy.io.loadmat(io.BytesIO(tree.read(_index(tree, path))), squeeze_me=True)["synsets"]
        # The number's column is named for the year; the first field of all kits.
        number = synsets.dtype.names[0]
        rows = [(int(row[number]), str(row["WNID"]), str(row["words"])) for row in synsets]
    except UnreadableImage as error:
        raise UserError(f"{where} cannot be read: {error}. Download the development kit again.") from None
    except Exception as error:  # a damaged .mat file can raise anything
        raise UserError(f"{where} is damaged ({error}). Download the development kit again.") from None
    return {number: wnid for number, wnid, _ in rows}, {wnid: words for _, wnid, words in rows}


def _index(tree: Tree, path: str) -> int:
    i = tree.find(path)
    assert i is not None
    return i
