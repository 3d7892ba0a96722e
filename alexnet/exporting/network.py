"""The whole way from images to probabilities as one module in plain torch operations: what exported programs hold."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from alexnet.data.preprocessing import Preprocessing
from alexnet.models import AlexNet


class ImageClassifier(nn.Module):
    """Squares of pixels to class probabilities, with the preprocessing of evaluation inside."""

    def __init__(self, model: AlexNet, preprocessing: Preprocessing, *, logits: bool = False) -> None:
        """model: without gradients. logits: return them too."""
        super().__init__()
        self.model = model
        self.image_size, self.crop_size = preprocessing.image_size, preprocessing.crop_size
        self.is_bgr = preprocessing.channel_order == "bgr"
        self.output_names: tuple[str, ...] = ("probabilities", "logits") if logits else ("probabilities",)
        self.last_layer = next(reversed(dict(model.named_children())))
        # Preprocessing is scale * pixel + shift; the shift is what becomes of black.
        black = torch.zeros(1, self.crop_size, self.crop_size, 3, dtype=torch.uint8)
        shift = preprocessing.normalize(black)
        is_uniform = bool((shift == shift[:, :, :1, :1]).all())
        self.shift = nn.Buffer(
            (shift[:, :, :1, :1] if is_uniform else shift).clone(memory_format=torch.contiguous_format)
        )
        self.scale: Tensor | None
        self.register_buffer("scale", _channel_scale(preprocessing))
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, image_size, image_size, 3) uint8 RGB -> probabilities (N, classes) float32, and logits if wanted."""
        # Layer by layer: the operators of this package that join layers are nothing other programs have.
        logits = self.model.activations(self.inputs(images), [self.last_layer])[self.last_layer]
        probabilities = logits.softmax(dim=1)
        return (probabilities, logits) if "logits" in self.output_names else (probabilities,)

    def inputs(self, images: Tensor) -> Tensor:
        """What the network gets of squares: their centre crops, (N, 3, crop_size, crop_size) float32."""
        start = (self.image_size - self.crop_size) // 2
        stop = start + self.crop_size
        crops = images[:, start:stop, start:stop]
        if self.is_bgr:
            crops = crops.flip(3)
        inputs = crops.permute(0, 3, 1, 2).to(torch.float32)
        if self.scale is not None:
            inputs = inputs * self.scale
        return inputs + self.shift

    def example(self) -> Tensor:
        """Two black images: what the tracing needs."""
        return torch.zeros(2, self.image_size, self.image_size, 3, dtype=torch.uint8)


def _channel_scale(preprocessing: Preprocessing) -> Tensor | None:
    """What a pixel is multiplied by, (1, 3, 1, 1) in the network's order of channels; None for 1."""
    if preprocessing.input_scale == "pixels":
        return None
    scale = 1 / (255 * torch.tensor(preprocessing.channel_std))
    return (scale.flip(0) if preprocessing.channel_order == "bgr" else scale).reshape(1, 3, 1, 1)
