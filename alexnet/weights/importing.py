"""`alexnet.import_weights`: a file of another program to a checkpoint that describes itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from alexnet._version import __version__
from alexnet.errors import UserError
from alexnet.models import AlexNet, Architecture, build_network, get_architecture
from alexnet.models.changes import Activation, Pooling, with_dropout
from alexnet.reporting.progress import Mode, Progress
from alexnet.training.checkpoint import Checkpoint
from alexnet.weights.caffe_network import find_caffe_weights
from alexnet.weights.classes import default_classes, read_classes
from alexnet.weights.fit import Network, checked_tensor, choose_network
from alexnet.weights.found import Found
from alexnet.weights.inputs import make_preprocessing, read_mean
from alexnet.weights.kinds import kind_of
from alexnet.weights.published import PUBLISHED, Published, fetch_caffes_mean, fetch_weights, find_published
from alexnet.weights.safetensors_file import find_safetensors_weights
from alexnet.weights.tensorflow_npy import find_npy_weights
from alexnet.weights.torch_file import find_torch_weights


class _Said(NamedTuple):
    """What the person says about a network, where the file does not; None: nothing."""

    variant: str | None
    image_size: int | None
    classes: str | Path | None
    mean: str | Path | Sequence[float] | None
    std: Sequence[float] | None
    resize: int | None


def import_weights(
    source: str | Path,
    *,
    variant: str | None = None,
    image_size: int | None = None,
    classes: str | Path | None = None,
    mean: str | Path | Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize: int | None = None,
    key: str | None = None,
    allow_pickle: bool = False,
    progress: Mode = "silent",
) -> Checkpoint:
    """A checkpoint of weights that another program wrote; `save_checkpoint` writes it to a file.

    source: a file of torch.save, a .caffemodel, an .npy dictionary of the old TensorFlow ports, a .safetensors file, or
    the name of published weights (`alexnet.weights.published.PUBLISHED`), which are fetched. No code from a file is
    run. variant: where shapes alone do not tell. image_size: side of the network's input in pixels, where it is not the
    variant's. classes: a file that names the outputs. mean: a file (.binaryproto, .npy), or three numbers in the order
    of the network's channels; std: three numbers, for inputs of unit scale. resize: side of the squares that crops are
    cut from. key: the entry of a file of torch.save that holds the weights. allow_pickle: read .npy dictionaries.

    Where the weights are from and what was assumed is in `environment["imported"]`. Raises UserError for what the
    caller can mend.
    """
    said = _Said(variant, image_size, classes, mean, std, resize)
    if variant is not None:
        get_architecture(variant)
    path, published = Path(source), None
    if not path.exists():
        published = _published(str(source))
        if variant not in (None, published.variant):
            raise UserError(f"{published.name} is {published.variant}, not {variant}; leave out --variant.")
        with Progress(progress) as reporter:
            path = fetch_weights(published, reporter)
            if published.needs_caffes_mean and mean is None:
                said = said._replace(mean=fetch_caffes_mean(reporter))
        said = said._replace(variant=published.variant)
    found = _find(path, key, allow_pickle)
    if isinstance(found, Checkpoint):
        if any(item is not None for item in said):
            raise UserError(f"{path} describes itself; leave out what is said about its network, classes and inputs.")
        return found
    network = choose_network(found, path.name, said.variant, said.image_size)
    return _checkpoint(path, found, network, said, published or _published_file(path, network))


def _published(name: str) -> Published:
    published = find_published(name)
    if published is None:
        names = ", ".join(PUBLISHED)
        raise UserError(f"There is no file {name}, and no published weights of that name; those are {names}.")
    return published


def _published_file(path: Path, network: Network) -> Published | None:
    """The published weights that a file is, by its checksum."""
    for published in PUBLISHED.values():
        if published.variant == network.architecture.name:
            download = published.download
            algorithm, official = ("sha256", download.sha256) if download.sha256 else ("sha1", download.sha1)
            if _digest(path, algorithm) == official:
                return published
    return None


def _find(path: Path, key: str | None, allow_pickle: bool) -> Found | Checkpoint:
    kind = kind_of(path)
    if key is not None and kind != "torch":
        raise UserError(f"--key is for files of torch.save, and {path} is none.")
    match kind:
        case "torch":
            return find_torch_weights(path, key)
        case "caffemodel":
            return find_caffe_weights(path)
        case "npy":
            return find_npy_weights(path, allow_pickle=allow_pickle)
        case "safetensors":
            return find_safetensors_weights(path)


def _checkpoint(path: Path, found: Found, network: Network, said: _Said, published: Published | None) -> Checkpoint:
    architecture, num_classes, image_size = network.architecture, network.num_classes, network.image_size
    notes = list(found.notes)
    if said.classes is not None:
        classes = read_classes(Path(said.classes), num_classes)
    else:
        classes = default_classes(num_classes)
        notes += [classes.note] if classes.note and published is None else []
    mean = found.mean if said.mean is None else read_mean(said.mean, architecture)
    preprocessing, assumed = make_preprocessing(architecture, image_size, mean, said.std, said.resize)
    notes += assumed
    if mean is None and found.mean_file is not None:
        notes.append(f"It was trained with the mean file {found.mean_file}.")
    state = {name: checked_tensor(path.name, name, tensor) for name, tensor in found.tensors.items()}
    broken = [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        notes.append(f"Numbers that are not finite are in {', '.join(broken)}: the training diverged.")
    imported: dict[str, Any] = {
        "file": path.name,
        "sha256": _digest(path, "sha256"),
        "form": found.form,
        "names": dict(found.names),
        "mean": mean.origin if mean is not None else None,
        "notes": notes,
        "published": published.describe() if published is not None else None,
    }
    return Checkpoint(
        architecture=architecture,
        num_classes=num_classes,
        image_size=image_size,
        classes=classes.ids,
        class_names=classes.names,
        preprocessing=preprocessing,
        recipe=_recipe(network, preprocessing.image_size),
        data="",
        step=0,
        epoch=0.0,
        metrics={},
        model_state=state,
        training_state=None,
        environment={"alexnet": __version__, "imported": imported},
    )


def _recipe(network: Network, square: int) -> dict[str, Any]:
    """What is known of its training: the network and the images' size. The rest is this package's defaults."""
    model = {"name": network.architecture.name, "image_size": network.image_size}
    return {"model": model, "data": {"image_size": square}, "evaluate": {"views": "center"}}


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def published_state(architecture: Architecture, name: str, *, progress: Mode) -> dict[str, Tensor]:
    """The published weights of that name for a network, by our names; fetched where they are not in the cache.

    Raises UserError for an unknown name, for those of another network, and where they cannot be fetched.
    """
    variant = architecture.name
    published = find_published(name, variant)
    if published is None or published.variant != variant:
        known = ", ".join(f"{weights.name} ({weights.variant})" for weights in PUBLISHED.values())
        raise UserError(
            f"there are no published weights {name!r} of {variant}; there are {known}. For weights in a file: "
            "alexnet import FILE, then alexnet.load_model."
        )
    own = get_architecture(variant)
    if with_dropout(architecture, 0.0).layers != with_dropout(own, 0.0).layers or architecture.input_scale != (
        own.input_scale
    ):
        raise UserError(
            f"the published weights {published.name} are of {variant} as it is; only its dropout can differ."
        )
    with Progress(progress) as reporter:
        path = fetch_weights(published, reporter)
    return import_weights(path, variant=variant).model_state


def create_model(
    name: str | Architecture = "as_run",
    num_classes: int = 1000,
    *,
    weights: str | None = None,
    progress: bool = True,
    image_size: int | None = None,
    initialization: str | None = None,
    dropout: float | None = None,
    input_scale: Literal["pixels", "unit"] | None = None,
    activation: Activation | None = None,
    pooling: Pooling = "overlapping",
    without: Sequence[str] = (),
    seed: int = 0,
) -> AlexNet:
    """Build a network with initial weights, or with published ones.

    Args:
        name: A variant (see `alexnet.models.ARCHITECTURES`) or a record.
        num_classes: Outputs of the last layer.
        weights: Published weights: "IMAGENET1K_V1" for `torchvision`, "bvlc_alexnet" for `caffe`,
            "bvlc_reference_caffenet" for `caffenet`, or "DEFAULT" for the variant's. They are downloaded once, checked
            and kept where torch.hub keeps its own. `alexnet.import_weights` makes a checkpoint of them, with classes
            and preprocessing.
        progress: Show the download on standard error.
        image_size: Side of the input in pixels. None, here and below: the variant's own.
        initialization: A scheme of `alexnet.models.initialization.SCHEMES`.
        dropout: Probability of dropping a unit, for all dropout layers.
        input_scale: Kind of images that the network is meant for, "pixels" (0 to 255) or "unit" (0 to 1).
        activation: Replaces every ReLU.
        pooling: "overlapping" is the variant's own; "non_overlapping" is the paper's other one (section 3.4).
        without: Names of layers to leave out; a convolution goes together with its activation.
        seed: Equal arguments give equal weights.

    Raises:
        UserError: For an unknown name or scheme, impossible sizes and rates, a left-out layer that others need, and
            weights that are missing or do not fit.
    """
    model = build_network(
        name, num_classes, image_size=image_size, initialization=initialization, dropout=dropout,
        input_scale=input_scale, activation=activation, pooling=pooling, without=without, seed=seed,
    )  # fmt: skip
    if weights is None:
        return model
    state = published_state(model.architecture, weights, progress="auto" if progress else "silent")
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    for key, value in state.items():
        if shapes.get(key) != tuple(value.shape):
            raise UserError(
                f"the published weights {weights} do not fit: {key} is {tuple(value.shape)}, and the network has "
                f"{shapes.get(key)}. They have 1000 classes; to learn others from them, train from their checkpoint."
            )
    model.load_state_dict(state)
    return model
