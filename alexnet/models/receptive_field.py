"""Which pixels a unit sees, by arithmetic alone: the receptive fields of every layer of a record."""

from __future__ import annotations

from typing import NamedTuple

from alexnet.models.architecture import (
    AdaptiveAveragePool,
    Architecture,
    AveragePool,
    Convolution,
    Layer,
    LayerShapes,
    Linear,
    Local,
    MaxPool,
    SpatialNorm,
    layer_shapes,
)


class ReceptiveField(NamedTuple):
    """The square of pixels that a unit of a map depends on; the same along rows and columns.

    The unit in row r sees the `size` rows of pixels from `first + r * stride` on. Where that is outside the image it
    sees the zeros of a padding.
    """

    size: int
    stride: int
    first: int

    @property
    def center(self) -> float:
        """Middle of the first unit's field, where 0 is the middle of the first pixel."""
        return self.first + (self.size - 1) / 2

    def box(self, row: int, column: int, image_size: int) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of what the unit sees of an image, in pixels, without bottom and right."""
        top, left = self.first + row * self.stride, self.first + column * self.stride
        limits = (min(max(edge, 0), image_size) for edge in (top, left, top + self.size, left + self.size))
        return tuple(limits)  # type: ignore[return-value]


def receptive_fields(architecture: Architecture, image_size: int) -> dict[str, ReceptiveField]:
    """Layer name -> its units' receptive field, in order. Units that are in no map see the whole image.

    Raises UserError for an image size the layers cannot be built for.
    """
    fields = {}
    field = ReceptiveField(size=1, stride=1, first=0)
    whole = ReceptiveField(image_size, 1, 0)
    for row in layer_shapes(architecture, 1, image_size):
        window = _window(row)
        if window is None or field is whole:
            field = whole
        else:
            size, stride, padding = window
            field = ReceptiveField(
                field.size + (size - 1) * field.stride, field.stride * stride, field.first - padding * field.stride
            )
        fields[row.layer.name] = field
    return fields


def _window(row: LayerShapes) -> tuple[int, int, int] | None:
    """(size, stride, padding) of the window that each of a layer's outputs sees; None: everything."""
    layer: Layer = row.layer
    match layer:
        case Convolution():
            return layer.kernel, layer.stride, layer.padding
        case Local():
            return layer.kernel, 1, layer.padding
        case MaxPool() | AveragePool():
            return layer.size, layer.stride, 0
        case SpatialNorm():
            return layer.size, 1, layer.size // 2
        case AdaptiveAveragePool() if row.inputs[1] % layer.size == 0:
            step = row.inputs[1] // layer.size
            return step, step, 0
        case AdaptiveAveragePool() | Linear():
            return None
        case _:
            return 1, 1, 0
