"""The answers of the HTTP API, as records: what stands here is what the OpenAPI description says."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, field_validator

from alexnet.runtime.text import valid_text


class _Answer(BaseModel):
    @field_validator("*", mode="before")
    @classmethod
    def _as_valid_text(cls, value: object) -> object:
        return valid_text(value) if isinstance(value, str) else value


class Error(_Answer):
    """Why a request was refused."""

    error: str = Field(description="A sentence for a person.", examples=["This is not an image."])


class Health(_Answer):
    """Whether the server lives, or is ready."""

    status: Literal["live", "ready"]


class Layer(_Answer):
    """One layer of a network."""

    name: str = Field(examples=["conv1"])
    kind: str = Field(examples=["Convolution"])
    shape: list[int] = Field(description="Of its output: channels, rows, columns; or units.", examples=[[96, 55, 55]])
    has_maps: bool = Field(description="Whether it can say where the network looked.")


class Class(_Answer):
    """One class of a network; its position in the list is the index of the output."""

    id: str
    name: str


class Results(_Answer):
    """The last evaluation of a training. Errors are fractions."""

    top1_error: float | None = None
    top5_error: float | None = None
    views: str | None = None
    num_images: int | None = None
    split: str | None = None


class NetworkCard(_Answer):
    """A network that is served."""

    id: str = Field(description="Its name in requests.", examples=["a"])
    title: str
    file: str = Field(description="Name of the checkpoint's file.")
    architecture: str = Field(examples=["as_run"])
    summary: str
    num_parameters: int
    crop_size: int = Field(description="Side of its input, pixels.")
    square_size: int = Field(description="Side of the squares that crops are taken of, pixels.")
    data: str = Field(description="Name of the data set that it was trained on.")
    step: int
    epoch: float
    checkpoint: Literal["last", "best"] | None = Field(
        description='Which of its run\'s weights: the last ones, or those with the lowest validation error ("best").'
    )
    results: Results
    classes: list[Class]
    layers: list[Layer]
    last_maps: str = Field(description="The layer that says where it looked, unless another is asked for.")
    feature_layer: str = Field(description="The layer by whose outputs images are near to each other.")
    has_kernels: bool


class Limits(_Answer):
    """What is accepted."""

    max_upload_bytes: int
    max_pixels: int
    formats: list[str]


class DataCard(_Answer):
    """The data set of the nearest images."""

    name: str
    num_images: int
    is_ready: bool
    share_done: float = Field(description="How much of it the networks have seen, from 0 to 1.")
    failure: str | None = Field(description="Why it will not become ready.")


class ExampleCard(_Answer):
    """A picture to begin with."""

    index: int
    class_id: str | None = Field(description="Of its true class, where that is known.")
    class_name: str | None
    picture: str = Field(description="Where the PNG file is, relative to the page.", examples=["api/examples/0"])


class Description(_Answer):
    """What a server serves."""

    version: str
    networks: list[NetworkCard]
    limits: Limits
    data: DataCard | None
    examples: list[ExampleCard]


class ImageCard(_Answer):
    """The image that was sent, upright."""

    width: int
    height: int
    format: str


class Box(_Answer):
    """The part of the image that a network looked at: a square, in pixels of the upright image."""

    left: float
    top: float
    side: float


class Guess(_Answer):
    """A class and its probability in [0, 1]."""

    index: int = Field(description="Position of the class in the network's outputs.")
    id: str
    name: str
    probability: float


class Guesses(_Answer):
    """What one network says."""

    network: str
    guesses: list[Guess]
    box: Box
    square: str | None = Field(description="The square that the network got, as a PNG file in base64; if asked for.")


class Prediction(_Answer):
    """What the networks say of an image."""

    image: ImageCard
    networks: list[Guesses]
    milliseconds: float = Field(description="From the request's head to this answer.")


class Heat(_Answer):
    """Where a network saw what speaks for a class, over the box of the image."""

    network: str
    class_index: int
    class_name: str
    layer: str
    rows: int
    columns: int
    highest: float = Field(description="The value that 255 stands for; 0 where nothing speaks for the class.")
    values: str = Field(description="rows x columns bytes in base64: 0 is zero, 255 the highest value.")


class Maps(_Answer):
    """What one layer makes of an image."""

    layer: str
    kind: str
    shape: list[int] = Field(description="Of the whole output: channels, rows, columns; or units.")
    channels: list[int] = Field(description="Which maps follow, the strongest first; empty for units.")
    lowest: float = Field(description="The value that byte 0 stands for, at most 0.")
    highest: float = Field(description="The value that byte 255 stands for.")
    values: str = Field(description="maps x rows x columns bytes in base64, or one a unit.")


class Activations(_Answer):
    """What every layer makes of an image, in order."""

    network: str
    layers: list[Maps]


class Bank(_Answer):
    """Kernels of the first convolution that lived on one of the two GPUs of 2012."""

    count: int
    rows: int
    columns: int
    pixels: str = Field(
        description="count x rows x columns x 3 bytes in base64, RGB; 128 is zero, each kernel is scaled by itself."
    )


class Kernels(_Answer):
    """The kernels of the first convolution."""

    network: str
    layer: str
    banks: list[Bank]


class Neighbour(_Answer):
    """An image of the data set."""

    index: int
    key: str = Field(description="Its name in the data set.")
    class_name: str | None = Field(description="Of its class, where that is known.")
    distance: float
    picture: str = Field(description="Where the JPEG file is, relative to the page.", examples=["api/pictures/17"])


class Neighbours(_Answer):
    """The nearest images of the data set, nearest first."""

    network: str
    layer: str
    data: str
    neighbours: list[Neighbour]
