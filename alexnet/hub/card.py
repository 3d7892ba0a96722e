"""The model card: what the network is, what it reached and by which protocol, how it was trained, how it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from alexnet._version import __version__
from alexnet.config import Recipe
from alexnet.config_io import to_toml
from alexnet.hub.repository import PLACEHOLDER, WEIGHTS, describe
from alexnet.models.summary import layer_table
from alexnet.runtime.text import printable, printable_lines
from alexnet.training.checkpoint import Checkpoint

TAGS = ("alexnet", "image-classification", "pytorch")
_CLASSES_SHOWN = 200
_ERRORS = (("top1", "top-1"), ("top5", "top-5"))
_VIEWS = {"center": "centre crop", "flip": "centre crop and its mirror image", "ten_crop": "ten crops"}


def make_card(
    checkpoint: Checkpoint,
    *,
    sha256: str,
    repo_id: str | None = None,
    license: str | None = None,
    summary: Mapping[str, Any] | None = None,
) -> ModelCard:
    """The card of a checkpoint, as `repository.shareable` leaves it.

    sha256: of model.safetensors. repo_id: where it will be, for the examples. license: an identifier of the Hub's list.
    summary: the run's summary.json, whose final evaluation counts where it is of these very weights.
    """
    repo = repo_id or PLACEHOLDER
    result = result_of(checkpoint, summary)
    # The title and the name of the data set also go into the metadata, where Markdown has no meaning.
    checkpoint = replace(checkpoint, data=printable(checkpoint.data))
    name = printable(checkpoint.data or checkpoint.architecture.name)
    title = repo_id.rpartition("/")[2] if repo_id else f"AlexNet for {name}"
    base = str((checkpoint.recipe.get("model") or {}).get("init") or "")
    data = ModelCardData(
        license=license,
        library_name="alexnet",
        pipeline_tag="image-classification",
        tags=list(TAGS),
        base_model=base.removeprefix("hf:").partition("@")[0] if base.startswith("hf:") else None,
        model_name=title,
        eval_results=_eval_results(checkpoint, result) or None,
    )
    sections = [
        f"# {_plain(title)}",
        _what(checkpoint),
        "## Results\n\n" + _results(checkpoint, result),
        "## Use\n\n" + _use(repo),
        "## Input\n\n" + _input(checkpoint),
        f"## Classes\n\n{_classes(checkpoint)}",
        "## Training\n\n" + _training(checkpoint),
        "## Licence\n\n" + _licence(license),
        f"## File\n\n`{WEIGHTS}`, SHA-256 `{sha256}`. Written by alexnet {__version__}.",
    ]
    return ModelCard(printable_lines(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"))


def result_of(checkpoint: Checkpoint, summary: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The run's final evaluation where it is of these weights, else the checkpoint's last one; empty without any."""
    if summary and summary.get("step") == checkpoint.step:
        return summary
    return checkpoint.metrics


def _protocol(result: Mapping[str, Any], checkpoint: Checkpoint) -> str:
    views = str(result.get("views"))
    split = {"val": "validation", "train": "training"}.get(str(result.get("split", "val")), str(result.get("split")))
    return printable(f"{result['num_images']:,} {split} images of {checkpoint.data}, {_VIEWS.get(views, views)}")


def _what(checkpoint: Checkpoint) -> str:
    architecture = checkpoint.architecture
    parameters = sum(row.parameters for row in layer_table(architecture, checkpoint.num_classes, checkpoint.image_size))
    return (
        f"An AlexNet for {checkpoint.num_classes:,} classes: the variant {_code(architecture.name)}, "
        f"{parameters:,} parameters. {_plain(architecture.summary)} "
        f"(Source of the architecture: {_plain(architecture.source)}.)"
    )


def _results(checkpoint: Checkpoint, result: Mapping[str, Any]) -> str:
    published = (checkpoint.environment.get("imported") or {}).get("published")
    lines = [f"As published by its authors, not measured here: {published['reported']}."] if published else []
    if not result:
        return "\n\n".join([*lines, "It has not been evaluated with this package."])
    table = ["| | error | 95 % interval | measured on |", "|---|---:|---|---|"]
    for key, label in _ERRORS:
        error, interval = result.get(f"{key}_error"), result.get(f"{key}_interval")
        if error is None or (key == "top5" and checkpoint.num_classes <= 5):
            continue
        between = f"{interval[0]:.2%} to {interval[1]:.2%}" if interval else ""
        table.append(f"| {label} | {error:.2%} | {between} | {_plain(_protocol(result, checkpoint))} |")
    selection = checkpoint.selection or result.get("checkpoint")
    which = f"{selection} weights, " if selection else "weights "
    note = {
        "last": "",
        "best": "; they were chosen by their error on the validation images, which flatters it",
    }.get(str(selection), "; whether they were chosen by their error on these images is not recorded")
    seeds = f"Of the {which}after step {checkpoint.step:,}{note}. One training, one seed."
    return "\n\n".join([*lines, "\n".join(table), seeds])


def _eval_results(checkpoint: Checkpoint, result: Mapping[str, Any]) -> list[EvalResult]:
    """The results in the form that the Hub shows beside the card; the protocol is in the metric's name."""
    if not result:
        return []
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=checkpoint.data or "unknown",
            dataset_name=checkpoint.data or "unknown",
            metric_type="accuracy",
            metric_value=round(1 - result[f"{key}_error"], 6),
            metric_name=f"{label} accuracy ({_protocol(result, checkpoint)})",
        )
        for key, label in _ERRORS
        if result.get(f"{key}_error") is not None and (key == "top1" or checkpoint.num_classes > 5)
    ]


def _use(repo: str) -> str:
    return f"""\
    pip install 'alexnet[hub]'

```python
import alexnet

model = alexnet.from_pretrained("{repo}")
(prediction,) = model.predict("image.jpg", top=5)
for guess in prediction.guesses:
    print(f"{{guess.probability:6.1%}}  {{guess.name}}")
```

On the command line: `alexnet predict hf:{repo} image.jpg`. As the start of a training on other images:
`alexnet train transfer --data photos --init hf:{repo}`. A folder with these files can be given in place of the name."""


def _input(checkpoint: Checkpoint) -> str:
    facts = describe(checkpoint)["preprocessing"]
    mean = ", ".join(f"{value:.1f}" for value in facts["mean_rgb"])
    if facts["input_scale"] == "pixels":
        what = f"RGB from 0 to 255 minus the mean ({mean} on average; the exact one is in the file)"
    else:
        means, stds = (", ".join(f"{value:g}" for value in facts[key]) for key in ("channel_mean", "channel_std"))
        what = f"RGB from 0 to 1, minus ({means}), divided by ({stds})"
    order = "; then the channels in the order BGR" if facts["channel_order"] == "bgr" else ""
    return (
        f"The shorter side of an image is resized to {facts['image_size']} pixels, the centre square is kept, and of "
        f"it a crop of {facts['crop_size']} x {facts['crop_size']}. {what[0].upper()}{what[1:]}{order}. `predict` and "
        "the commands do all of this."
    )


def _classes(checkpoint: Checkpoint) -> str:
    names: Sequence[str] = checkpoint.class_names
    shown = ", ".join(_plain(name) for name in names[:_CLASSES_SHOWN])
    more = f", and {len(names) - _CLASSES_SHOWN:,} more, in `config.json`" if len(names) > _CLASSES_SHOWN else ""
    return f"{len(names):,}, in the order of the outputs: {shown}{more}."


def _training(checkpoint: Checkpoint) -> str:
    imported = checkpoint.environment.get("imported")
    if imported:
        form = _plain(str(imported["form"]))
        return f"The weights were trained elsewhere and imported from {_code(imported['file'])} ({form})."
    try:
        recipe = Recipe.model_validate(checkpoint.recipe)
    except ValueError:  # of another version of this package
        recipe = None
    environment = checkpoint.environment
    machine = ", ".join(environment.get("devices") or [str(environment.get("processor", "an unknown processor"))])
    how = f" with seed {recipe.seed}, in {recipe.runtime.precision}" if recipe is not None else ""
    lines = [
        f"Trained on {_plain(checkpoint.data)} for {checkpoint.step:,} steps ({checkpoint.epoch:.3g} epochs){how}, on "
        f"{machine}, with torch {(environment.get('versions') or {}).get('torch')}."
    ]
    init = environment.get("init")
    if init:
        origin = f"step {init['step']:,} of {_plain(init['data'])}" if init["data"] else "imported"
        lines.append(
            f"It began with the weights of {_code(init['file'])} ({_plain(init['model'])}, {origin}, "
            f"SHA-256 `{init['sha256']}`); new were {', '.join(init['new']) or 'no layers'}"
            f"{'; ' + ', '.join(init['frozen']) + ' were frozen' if init['frozen'] else ''}."
        )
    if recipe is not None:
        lines.append(f"<details><summary>The recipe</summary>\n\n```toml\n{to_toml(recipe)}```\n\n</details>")
    return "\n\n".join(lines)


def _licence(license: str | None) -> str:
    stated = f"Of the weights: {license}." if license else "None is stated for the weights."
    return f"{stated} The images they were trained on have terms of their own."


def _code(text: str) -> str:
    return f"`{printable(text).replace('`', '?')}`"


def _plain(name: str) -> str:
    """A class's name as text in Markdown: folders may be called anything."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in " ".join(name.split()))
