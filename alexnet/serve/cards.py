"""From what the networks give to what is answered: arrays as bytes, names, addresses of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from alexnet import _version
from alexnet.serve import answers
from alexnet.serve.encoding import base64_of, png_of
from alexnet.serve.images import FORMATS
from alexnet.serve.nearest import Neighbour, Neighbourhood
from alexnet.serve.networks import LayerMaps, Network, count_parameters, results_of
from alexnet.serve.refusals import Refused
from alexnet.visualize import map_layers

if TYPE_CHECKING:
    from alexnet.serve.service import Picture, Service


def description(service: Service) -> answers.Description:
    """What the server serves."""
    settings = service.settings
    return answers.Description(
        version=_version.__version__,
        networks=[network_card(network) for network in service.networks.values()],
        limits=answers.Limits(
            max_upload_bytes=settings.max_upload_bytes,
            max_pixels=settings.max_pixels,
            formats=FORMATS,
        ),
        data=None if service.neighbourhood is None else data_card(service.neighbourhood),
        examples=[
            answers.ExampleCard(
                index=index,
                class_id=example.class_id,
                class_name=example.class_name,
                picture=f"api/examples/{index}",
            )
            for index, example in enumerate(service.examples)
        ],
    )


def network_card(network: Network) -> answers.NetworkCard:
    """One network. Of files and data sets only names are told, not where they are."""
    checkpoint = network.checkpoint
    architecture = checkpoint.architecture
    with_maps = map_layers(architecture)
    return answers.NetworkCard(
        id=network.id,
        title=network.title,
        file=network.file.name,
        architecture=architecture.name,
        summary=architecture.summary,
        num_parameters=count_parameters(checkpoint),
        crop_size=checkpoint.preprocessing.crop_size,
        square_size=checkpoint.preprocessing.image_size,
        data=checkpoint.data.rstrip("/").rpartition("/")[2],
        step=checkpoint.step,
        epoch=checkpoint.epoch,
        checkpoint=checkpoint.selection,
        results=answers.Results(**results_of(checkpoint)),
        classes=[
            answers.Class(id=identifier, name=name)
            for identifier, name in zip(checkpoint.classes, checkpoint.class_names, strict=True)
        ],
        layers=[
            answers.Layer(
                name=row.layer.name,
                kind=type(row.layer).__name__,
                shape=list(row.outputs),
                has_maps=row.layer.name in with_maps,
            )
            for row in network.layers
        ],
        last_maps=network.last_maps,
        feature_layer=network.feature_layer,
        has_kernels=bool(network.kernels()),
    )


def data_card(neighbourhood: Neighbourhood) -> answers.DataCard:
    """The data set, and how far the networks have got with it."""
    return answers.DataCard(
        name=neighbourhood.name,
        num_images=len(neighbourhood.images),
        is_ready=neighbourhood.is_ready,
        share_done=neighbourhood.share_done,
        failure=neighbourhood.failure,
    )


def guesses(
    network: Network, probabilities: np.ndarray, picture: Picture, top: int, *, with_square: bool
) -> answers.Guesses:
    """The best guesses of one network."""
    classes, names = network.checkpoint.classes, network.checkpoint.class_names
    best = np.argsort(-probabilities, kind="stable")[:top].tolist()
    box = network.crop_box(picture.height, picture.width)
    return answers.Guesses(
        network=network.id,
        guesses=[
            answers.Guess(index=i, id=classes[i], name=names[i], probability=float(probabilities[i])) for i in best
        ],
        box=answers.Box(left=box.left, top=box.top, side=box.side),
        square=base64_of(png_of(picture.squares[network.square_size])) if with_square else None,
    )


def heat(network: Network, index: int, layer: str, values: np.ndarray) -> answers.Heat:
    """Where a class was seen; values (h, w), at least 0."""
    highest = float(values.max())
    scaled = np.rint(values * (255 / highest)) if highest > 0 else values
    return answers.Heat(
        network=network.id,
        class_index=index,
        class_name=network.checkpoint.class_names[index],
        layer=layer,
        rows=values.shape[0],
        columns=values.shape[1],
        highest=highest,
        values=base64_of(scaled.astype(np.uint8).tobytes()),
    )


def activations(network: Network, layers: Sequence[LayerMaps]) -> answers.Activations:
    """What the layers make of an image, each on a scale of its own."""
    return answers.Activations(network=network.id, layers=[_maps(maps) for maps in layers])


def _maps(maps: LayerMaps) -> answers.Maps:
    values = np.nan_to_num(maps.values, posinf=0.0, neginf=0.0)
    lowest, highest = min(0.0, float(values.min())), max(0.0, float(values.max()))
    scaled = (values - lowest) * (255 / ((highest - lowest) or 1.0))
    return answers.Maps(
        layer=maps.layer,
        kind=maps.kind,
        shape=list(maps.shape),
        channels=maps.channels,
        lowest=lowest,
        highest=highest,
        values=base64_of(np.rint(scaled).astype(np.uint8).tobytes()),
    )


def kernels(network: Network) -> answers.Kernels:
    """The kernels of the first convolution; grey is zero, and each is scaled by its own largest weight."""
    banks = []
    for bank in network.kernels():
        scale = np.abs(bank).max(axis=(1, 2, 3), keepdims=True)
        pixels = np.rint(127.5 * (1 + bank / np.maximum(scale, np.finfo(np.float32).tiny))).astype(np.uint8)
        count, _, rows, columns = bank.shape
        data = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)).tobytes()
        banks.append(answers.Bank(count=count, rows=rows, columns=columns, pixels=base64_of(data)))
    return answers.Kernels(network=network.id, layer="conv1", banks=banks)


def neighbours(network: Network, neighbourhood: Neighbourhood, found: Sequence[Neighbour]) -> answers.Neighbours:
    """The nearest images."""
    return answers.Neighbours(
        network=network.id,
        layer=neighbourhood.layer_and_views(network)[0],
        data=neighbourhood.name,
        neighbours=[
            answers.Neighbour(
                index=one.position,
                key=one.key,
                class_name=one.class_name,
                distance=one.distance,
                picture=f"api/pictures/{one.position}",
            )
            for one in found
        ],
    )


def ready_neighbourhood(service: Service) -> Neighbourhood:
    """The data set's images, if they can be asked about. Raises Refused (404, 503) saying why not."""
    neighbourhood = service.neighbourhood
    if neighbourhood is None:
        raise Refused(404, "This server was given no data set; start it with --data DATA for nearest images.")
    if neighbourhood.failure is not None:
        raise Refused(404, f"Nearest images are not available: {neighbourhood.failure}.")
    if not neighbourhood.is_ready:
        share = f"{neighbourhood.share_done:.0%}"
        raise Refused(503, f"The images of the data set are being looked at ({share} are done).", retry_seconds=5)
    return neighbourhood


def check_class(network: Network, index: int) -> None:
    """Raises Refused (404) for a class that the network does not have."""
    if index >= network.checkpoint.num_classes:
        raise Refused(404, f"There is no class {index}; there are {network.checkpoint.num_classes}, counted from 0.")


def check_layer(network: Network, name: str | None, *, with_maps: bool = False) -> None:
    """Raises Refused (404) for a layer that the network does not have, or that has no maps where these are needed."""
    architecture = network.checkpoint.architecture
    names = map_layers(architecture) if with_maps else [layer.name for layer in architecture.layers]
    if name is not None and name not in names:
        what = "layer with maps" if with_maps else "layer"
        raise Refused(404, f"There is no {what} {name!r} in this network; there are {', '.join(names)}.")
