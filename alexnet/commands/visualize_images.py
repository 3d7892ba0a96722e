"""The drawings of `alexnet visualize` that are about given images."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from alexnet.commands.visualize import Drawing, Task
from alexnet.data.decode import UnreadableImage
from alexnet.data.originals.listing import some
from alexnet.errors import UserError
from alexnet.evaluation.inputs import NamedImage, open_inputs
from alexnet.models.architecture import Dropout
from alexnet.reporting.activation_figures import LayerDrawing, activation_rows, strongest_maps
from alexnet.reporting.figures import shorten
from alexnet.reporting.panel_figures import Panel, panel_rows
from alexnet.runtime.text import valid_text
from alexnet.visualize.activations import layer_activations
from alexnet.visualize.dense import dense_logits, window_field
from alexnet.visualize.grad_cam import grad_cam
from alexnet.visualize.gradients import input_gradients, saliency
from alexnet.visualize.inputs import CenterCrop, center_crop, whole_image
from alexnet.visualize.occlusion import occlude
from alexnet.visualize.placement import spread_over_pixels
from alexnet.visualize.subjects import last_maps

MAX_IMAGES = 12
DEFAULT_MAPS = 16
_LARGE = 99.5
"""Percentile at which the scale of a saliency map ends: single pixels would leave the others dark."""


class _Subject(NamedTuple):
    """An image that is drawn, with the classes it is asked for."""

    name: str
    pixels: np.ndarray
    """(H, W, 3) uint8, whole."""
    crop: CenterCrop
    probabilities: np.ndarray
    """(classes,) float32, for the crop."""
    classes: list[int]

    def record(self, task: Task) -> dict[str, Any]:
        """Plain types for JSON."""
        shown = [
            {
                "class": task.checkpoint.classes[item],
                "name": task.name_of(item),
                "probability": float(self.probabilities[item]),
            }
            for item in self.classes
        ]
        return {"input": self.name, "classes": shown}

    def title(self, task: Task, class_index: int) -> str:
        """A class and its probability, for a panel."""
        return f"{task.name_of(class_index)}\n{self.probabilities[class_index]:.1%}"

    def picture(self) -> Panel:
        """The crop itself."""
        return Panel(f"{Path(self.name).name or self.name}\n", self.crop.pixels)


def find_class(task: Task, text: str) -> int:
    """The position of the class that a person means by its id, its name (or one of several), or its number."""
    classes, names = task.checkpoint.classes, task.checkpoint.class_names
    lowered = valid_text(text).strip().lower()
    for position, (class_id, name) in enumerate(zip(classes, names, strict=True)):
        if lowered in (class_id.lower(), name.lower(), *(part.strip() for part in name.lower().split(","))):
            return position
    if lowered.isdecimal() and int(lowered) < len(classes):
        return int(lowered)
    near = difflib.get_close_matches(lowered, [*map(str.lower, names), *map(str.lower, classes)], n=1)
    meant = f"; did you mean {near[0]!r}?" if near else f"; it knows {some(names)}"
    raise UserError(f"the network knows no class {text!r}{meant}")


def _subjects(task: Task, default_top: int) -> list[_Subject]:
    """The images, read and asked for their classes. Raises UserError for one that cannot be read."""
    opened: list[NamedImage] = list(open_inputs(task.images))
    if len(opened) > MAX_IMAGES:
        raise UserError(f"a picture has room for {MAX_IMAGES} images, and {len(opened)} are given")
    wanted = list(dict.fromkeys(find_class(task, text) for text in task.options.class_))
    subjects = []
    for image in opened:
        try:
            pixels = image.read()
        except UnreadableImage as error:
            raise UserError(f"{image.name} cannot be read: {error}") from None
        crop = center_crop(pixels, task.checkpoint.preprocessing, task.device)
        with torch.inference_mode():
            probabilities = task.model(crop.inputs).float().softmax(dim=1)[0].cpu().numpy()
        best = np.argsort(-probabilities, kind="stable")[: task.options.top or default_top].tolist()
        subjects.append(_Subject(image.name, pixels, crop, probabilities, wanted or best))
    return subjects


def _done(task: Task, headline: str, rows: Sequence[Sequence[Panel]], subjects: Sequence[_Subject]) -> Drawing:
    figure = panel_rows(f"{headline}\n{task.network}.", rows)
    return Drawing(figure, {"images": [subject.record(task) for subject in subjects]})


def draw_activations(task: Task) -> Drawing:
    """One image through the layers: the strongest maps of each."""
    (subject,) = _one(_subjects(task, default_top=5))
    records = task.checkpoint.architecture.layers
    # Dropout changes the scale at most.
    chosen = list(task.options.layer) or [layer.name for layer in records if not isinstance(layer, Dropout)]
    outputs = layer_activations(task.model, subject.crop.inputs, chosen)
    layers = []
    for name, tensor in outputs.items():
        values = tensor[0].cpu().numpy()
        numbers: list[int] = []
        if values.ndim == 3:
            numbers = strongest_maps(values, task.options.maps or (DEFAULT_MAPS if len(chosen) > 1 else len(values)))
        shape = " x ".join(map(str, values.shape))
        layers.append(LayerDrawing(name, shape, values[numbers] if numbers else values, numbers))
    guesses = [(task.name_of(item), float(subject.probabilities[item])) for item in subject.classes]
    headline = (
        f"{shorten(Path(subject.name).name, 60)} through the layers of {task.network}.\n"
        "Of each layer the maps with the largest mean activation, with their numbers; every layer has its own scale."
    )
    figure = activation_rows(headline, subject.crop.pixels, layers, guesses)
    shown = {layer.name: {"shape": layer.shape, "maps": list(layer.numbers)} for layer in layers}
    return Drawing(figure, {**subject.record(task), "layers": shown})


def _one(subjects: list[_Subject]) -> list[_Subject]:
    if len(subjects) != 1:
        raise UserError(f"activations shows one image, and {len(subjects)} are given")
    return subjects


def draw_grad_cam(task: Task) -> Drawing:
    """For each image and class where a layer saw what speaks for the class."""
    layer = task.options.one_layer() or last_maps(task.checkpoint.architecture)
    rows, subjects = [], _subjects(task, default_top=3)
    for subject in subjects:
        heat = grad_cam(task.model, subject.crop.inputs, subject.classes, layer).cpu().numpy()
        panels = [
            Panel(subject.title(task, item), values, subject.crop.pixels)
            for item, values in zip(subject.classes, heat, strict=True)
        ]
        rows.append([subject.picture(), *panels])
    headline = (
        f"Grad-CAM of {layer}: where the network saw what speaks for a class, with its probability. Every panel has a "
        "scale of its own."
    )
    drawing = _done(task, headline, rows, subjects)
    return drawing._replace(record={"layer": layer, **drawing.record})


def draw_gradients(task: Task) -> Drawing:
    """For each image and class which pixels the score depends on most."""
    samples = task.options.samples or 1
    rows, subjects = [], _subjects(task, default_top=1)
    for subject in subjects:
        panels = [subject.picture()]
        for item in subject.classes:
            gradients = input_gradients(
                task.model, subject.crop.inputs, item, samples=samples, seed=task.options.seed or 0
            )
            strength = saliency(gradients)[0].cpu().numpy()
            limit = float(np.percentile(strength, _LARGE)) or 1.0
            unit = "|d logit / d input|, largest of R, G, B"
            panels.append(Panel(subject.title(task, item), np.minimum(strength, limit), unit=unit))
            panels.append(Panel(f"{task.name_of(item)}\nthe gradient in colour", _as_colours(gradients[0], limit)))
        rows.append(panels)
    averaged = f", the mean over {samples} copies with noise (SmoothGrad)" if samples > 1 else ""
    headline = (
        f"Input gradients{averaged}: the pixels whose change would change a class's score most. In colour, grey is "
        "no change."
    )
    return _done(task, headline, rows, subjects)


def _as_colours(gradients: torch.Tensor, limit: float) -> np.ndarray:
    """(3, h, w) as (h, w, 3) uint8: grey is zero, the limit is the end of a channel."""
    scaled = gradients.permute(1, 2, 0).cpu().numpy() / limit
    return np.rint(127.5 * (1 + np.clip(scaled, -1, 1))).astype(np.uint8)


def draw_occlusion(task: Task) -> Drawing:
    """For each image and class how its probability falls while a patch hides a part."""
    rows, subjects = [], _subjects(task, default_top=1)
    options = task.options
    patch = stride = 0
    for subject in subjects:
        counter = task.display.counter(f"Occluding {Path(subject.name).name}", unit="places", transient=True)
        found = occlude(
            task.model, subject.crop.inputs, patch=options.patch, stride=options.stride,
            batch_size=options.batch_size or 64, on_progress=counter,
        )  # fmt: skip
        patch, stride = found.patch, found.stride
        panels = [subject.picture()]
        for item in subject.classes:
            fall = 100 * found.fall(item).cpu().numpy()
            unit = "points by which the probability falls"
            panels.append(Panel(subject.title(task, item), fall, subject.crop.pixels, signed=True, unit=unit))
        rows.append(panels)
    headline = (
        f"Occlusion: how the probability of a class falls while {patch} x {patch} pixels are hidden, mean over the "
        f"places of the patch that cover a pixel; red: the class needs what is there, blue: it would be surer without."
    )
    drawing = _done(task, headline, rows, subjects)
    return drawing._replace(record={"patch": patch, "stride": stride, **drawing.record})


def draw_heat_map(task: Task) -> Drawing:
    """For each image and class its probability at every place, by the fully convolutional form of the network."""
    model, rows, records = task.model, [], []
    field = window_field(model)
    side = task.options.side or model.image_size * 2
    subjects = _subjects(task, default_top=1)
    for subject in subjects:
        whole = whole_image(subject.pixels, task.checkpoint.preprocessing, side, field.stride, task.device)
        probabilities = dense_logits(model, whole.inputs).float().softmax(dim=1)[0]
        windows = list(probabilities.shape[1:])
        size = whole.pixels.shape[0], whole.pixels.shape[1]
        chosen = probabilities[subject.classes]
        heat = spread_over_pixels(chosen, field, size).clamp(0, 1).cpu().numpy()
        edges = [field.center + field.stride * step for step in (0, 0, windows[0] - 1, windows[1] - 1)]
        box = edges[0], edges[1], edges[2], edges[3]
        panels = [
            Panel(f"{Path(subject.name).name or subject.name}\n{windows[0]} x {windows[1]} windows", whole.pixels)
        ]
        peaks = chosen.amax(dim=(1, 2)).tolist()
        for item, peak, values in zip(subject.classes, peaks, heat, strict=True):
            title = f"{task.name_of(item)}\nup to {peak:.1%} (centre crop {subject.probabilities[item]:.1%})"
            panels.append(Panel(title, values, whole.pixels, unit="probability", box=box))
        rows.append(panels)
        record = subject.record(task)
        for entry, peak in zip(record["classes"], peaks, strict=True):
            entry["highest"] = peak
        records.append({**record, "windows": windows, "size": list(size)})
    headline = (
        f"Dense class map: at the middle of each window of {model.image_size} x {model.image_size} pixels, one every "
        f"{field.stride}, the probability of the class for the window. The outermost middles are on the dashed line."
    )
    figure = panel_rows(f"{headline}\n{task.network}.", rows)
    return Drawing(figure, {"side": side, "window": model.image_size, "stride": field.stride, "images": records})
