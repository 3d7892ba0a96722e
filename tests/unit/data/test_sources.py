"""DATA as a person gives it: built-in names, kinds that are recognised, and messages where nothing is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.config import DataConfig
from alexnet.data.sources import KINDS, open_source, recognize
from alexnet.data.splits import fingerprint
from alexnet.errors import UserError

CONFIG = DataConfig()


def write_image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, (6, 7, 3), np.uint8)).save(path)


def write_class_folders(root: Path, classes: tuple[str, ...] = ("cat", "dog"), images: int = 4) -> Path:
    for label, name in enumerate(classes):
        for i in range(images):
            write_image(root / name / f"{i}.png", seed=100 * label + i)
    return root


def test_digits_are_the_1797_real_ones_in_a_fixed_stratified_split():
    from sklearn.datasets import load_digits

    source = open_source("digits", CONFIG)
    assert source.kind == "digits" and source.classes == tuple("0123456789") and source.class_names[7] == "seven"
    assert source.train is not None and (len(source.train), len(source.val)) == (1437, 360)
    flat, targets = load_digits(return_X_y=True)
    seen = np.zeros(1797, int)
    for split in (source.train, source.val):
        for position, key in enumerate(split.keys):
            index = int(key.removeprefix("digits/"))
            seen[index] += 1
            pixels = split.read(position)
            assert pixels.shape == (8, 8, 3) and pixels.dtype == np.uint8
            assert np.abs(pixels - flat[index].reshape(8, 8, 1) * 255 / 16).max() <= 0.5
            assert split.labels[position] == targets[index]
    assert (seen == 1).all()
    shares = np.bincount(source.val.labels) / np.bincount(targets)
    assert np.abs(shares - 360 / 1797).max() < 0.006
    assert source.fingerprint == "2ba9fddae3ad43eb85277409cd5602ba", (
        "the split is part of the source and must not change"
    )


def test_shapes_are_the_same_every_time_and_at_any_size():
    source = open_source("shapes:64", CONFIG)
    assert source.name == "shapes:64" and source.train is not None
    assert (len(source.train), len(source.val), len(source.classes)) == (1000, 200, 10)
    assert np.bincount(source.train.labels).tolist() == [100] * 10
    picture = source.train.read(17)
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
    assert np.array_equal(picture, open_source("shapes:64", CONFIG).train.read(17))  # type: ignore[union-attr]
    assert not np.array_equal(picture, source.val.read(17))
    large = open_source("shapes", CONFIG).train
    assert large is not None and large.read(0).shape == (256, 256, 3)
    for i in range(5):
        shrunk = np.array(Image.fromarray(large.read(i)).resize((64, 64), Image.Resampling.BOX)).astype(int)
        assert np.abs(shrunk - source.train.read(i)).mean() < 8, "one scene, whatever the size"


def test_shapes_show_what_their_labels_say():
    source = open_source("shapes:64", CONFIG)
    assert source.train is not None

    def saturated_share(name: str, channel: int) -> float:
        """Mean share of the pixels in which `channel` is far above red's or blue's opposite."""
        label = source.classes.index(name)
        pictures = np.stack([source.train.read(i) for i in range(label, 600, 10)]).astype(int)  # type: ignore[union-attr]
        return float((pictures[..., channel] - pictures[..., 2 - channel] > 80).mean())

    for red, blue in (("red_disk", "blue_disk"), ("red_triangle", "blue_triangle")):
        assert saturated_share(red, 0) > 2 * saturated_share(blue, 0)
        assert saturated_share(blue, 2) > 2 * saturated_share(red, 2)


def test_shapes_cannot_be_told_apart_by_their_mean_colour():
    split = open_source("shapes:32", CONFIG).train
    assert split is not None
    means = np.stack([split.read(i).mean(axis=(0, 1)) for i in range(600)])
    centers = np.stack([means[:300][split.labels[:300] == label].mean(axis=0) for label in range(10)])
    guesses = np.linalg.norm(means[300:, None] - centers, axis=-1).argmin(axis=1)
    assert (guesses == split.labels[300:600]).mean() < 0.35


@pytest.mark.parametrize("spec", ["shapes:", "shapes:abc", "shapes:7", "shapes:5000", "shapes:-64", "shapes:6.5"])
def test_a_bad_size_of_shapes_is_refused(spec):
    with pytest.raises(UserError, match="from 8 to 4096"):
        open_source(spec, CONFIG)


def test_kinds_are_recognised_and_can_be_forced(tmp_path):
    folder = write_class_folders(tmp_path / "pets")
    assert recognize(folder) == "folder"
    for spec in (str(folder), f"folder:{folder}"):
        source = open_source(spec, CONFIG)
        assert (source.kind, source.name, source.classes) == ("folder", "pets", ("cat", "dog"))
    with pytest.raises(UserError, match="none of CIFAR-10's files"):
        open_source(f"cifar10:{folder}", CONFIG)
    with pytest.raises(UserError, match=r"wnids\.txt is missing"):
        open_source(f"tiny_imagenet:{folder}", CONFIG)
    with pytest.raises(UserError, match="needs the folders train and val"):
        open_source(f"imagenette:{folder}", CONFIG)


def test_imagenette_gets_names_for_its_classes(tmp_path):
    wnids = ("n01440764", "n02102040", "n02979186", "n03000684", "n03028079", "n03394916", "n03417042", "n03425413")
    wnids += ("n03445777", "n03888257")
    for part in ("train", "val"):
        write_class_folders(tmp_path / part, wnids, images=1)
    source = open_source(str(tmp_path), CONFIG)
    assert source.kind == "imagenette" and source.classes == wnids
    assert source.class_names[0] == "tench" and source.class_names[-1] == "parachute"
    assert open_source(f"folder:{tmp_path}", CONFIG).class_names == wnids
    write_class_folders(tmp_path / "train", ("cat",))
    assert recognize(tmp_path) == "folder"
    with pytest.raises(UserError, match="cat is no class of Imagenette"):
        open_source(f"imagenette:{tmp_path}", CONFIG)


def test_an_unknown_folder_is_told_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match=r"it has notes\.txt.*class folders.*data_batch_1.*wnids\.txt"):
        open_source(str(tmp_path), CONFIG)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "No data set is given"),
        ("digit", "does not exist.*Did you mean digits"),
        ("/no/such/folder", "/no/such/folder does not exist.*digits, shapes, a folder"),
        ("foldr:/tmp", "no kind of data set is named 'foldr'.*Did you mean folder"),
        ("folder:", "the path is missing"),
        ("hf:imagenet-1k", "not supported by this version"),
        ("https://no-such-host.invalid/set", "dataset.json: .*not known.*Give the address"),
    ],
)
def test_a_wrong_spec_is_a_user_error_with_the_remedy(spec, message):
    with pytest.raises(UserError, match=message):
        open_source(spec, CONFIG)


def test_files_and_archives_are_not_folders(tmp_path):
    for name, message in (("cifar.tar.gz", "unpack it"), ("a.jpg", "a file, not a folder")):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(UserError, match=message):
            open_source(str(tmp_path / name), CONFIG)


def test_a_path_with_a_colon_and_a_home_path_are_paths(tmp_path, monkeypatch):
    folder = write_class_folders(tmp_path / "my:pets")
    assert open_source(str(folder), CONFIG).name == "my:pets"
    assert open_source(f"folder:{folder}", CONFIG).name == "my:pets"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_source("~/my:pets", CONFIG).name == "my:pets"


def test_max_train_images_draws_by_the_split_seed(tmp_path):
    folder = write_class_folders(tmp_path / "pets", images=20)
    whole = open_source(str(folder), CONFIG)
    some = open_source(str(folder), DataConfig(max_train_images=10))
    assert whole.train is not None and some.train is not None and len(some.train) == 10
    positions = [list(whole.train.keys).index(key) for key in some.train.keys]
    assert positions == sorted(positions), "the order of the split is kept"
    for new, old in enumerate(positions):
        assert some.train.labels[new] == whole.train.labels[old]
        assert np.array_equal(some.train.read(new), whole.train.read(old))
    assert list(some.val.keys) == list(whole.val.keys) and some.fingerprint != whole.fingerprint
    other = open_source("digits", DataConfig(max_train_images=100, split_seed=1)).train
    first = open_source("digits", DataConfig(max_train_images=100)).train
    assert other is not None and first is not None and first.array is not None and len(first.array) == 100
    assert list(first.keys) != list(other.keys) and np.array_equal(first.read(3), first.array[3])


def test_the_fingerprint_sees_classes_keys_labels_and_their_borders(tmp_path):
    first = open_source(str(write_class_folders(tmp_path / "a")), CONFIG)
    assert first.fingerprint == open_source(str(write_class_folders(tmp_path / "b")), CONFIG).fingerprint
    write_image(tmp_path / "b" / "dog" / "another.png", seed=999)
    assert first.fingerprint != open_source(str(tmp_path / "b"), CONFIG).fingerprint
    assert first.fingerprint != open_source(str(tmp_path / "a"), DataConfig(split_seed=1)).fingerprint
    assert fingerprint(("ab", "c"), None) != fingerprint(("a", "bc"), None)


@pytest.mark.data
def test_the_real_folders_are_recognised(data_folder):
    assert recognize(data_folder / "tiny-imagenet-10") == "tiny_imagenet"
    assert recognize(data_folder) == recognize(data_folder / "cifar-10-batches-py") == "cifar10"
    assert set(KINDS) == {"folder", "cifar10", "tiny_imagenet", "imagenette", "prepared"}
    with pytest.raises(UserError, match="images directly in it"):
        open_source(str(data_folder / "imagenet-photos"), CONFIG)
