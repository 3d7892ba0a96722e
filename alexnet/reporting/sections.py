"""The sections of a report about the run: result, curves, kernels, recipe, environment; a missing part says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from alexnet.evaluation.metrics import wilson_interval
from alexnet.reporting import figures
from alexnet.reporting.page import SVG_COLORS, details, facts, folded, missing, percent, picture, svg, table, text
from alexnet.reporting.progress import format_seconds
from alexnet.reporting.run_record import RunRecord, changed_settings

VIEW_DESCRIPTIONS = {
    "center": "the centre crop only",
    "flip": "the centre crop and its mirror image with their probabilities averaged",
    "ten_crop": "ten crops (corners and centre, each also mirrored) with their probabilities averaged",
}


def headline(run: RunRecord) -> str:
    """The result and the protocol it was measured by."""
    result = _result(run)
    if result is None:
        return missing("There is no result yet: nothing has been evaluated.")
    count = int(result.get("num_images") or 0)
    numbers = []
    for key, label, css_class in (("top1", "top-1 error", "number"), ("top5", "top-5 error", "number small")):
        error = result.get(f"{key}_error")
        if error is None or (key == "top5" and _num_classes(run) in range(1, 6)):
            continue  # Of at most five classes, five guesses always hold the right one.
        low, high = result.get(f"{key}_interval") or wilson_interval(error * count, count)
        numbers.append(
            f'<div><div class="figure-of">{label}</div><div class="{css_class}">{percent(error, count)}</div>'
            f'<div class="figure-of">95 % interval {percent(low, count)} to {percent(high, count)}</div></div>'
        )
    unfinished = "" if run.is_finished else _unfinished_note(run)
    return (
        f'{unfinished}<div class="headline">{"".join(numbers)}</div>{_measured(result, count)}{_protocol(run, result)}'
    )


def _result(run: RunRecord) -> dict[str, Any] | None:
    if run.summary:
        return run.summary
    if run.evaluation is not None:
        return run.evaluation.to_dict()
    evaluations = run.events_of("evaluation")
    return evaluations[-1] if evaluations else None


def _unfinished_note(run: RunRecord) -> str:
    start = run.events_of("start")
    last = max((event["step"] for event in run.events), default=0)
    planned = f" of {start[0]['num_steps']:,}" if start and start[0].get("num_steps") else ""
    return (
        f'<p class="note">This run is not finished: it is at step {last:,}{planned}. '
        "The numbers are those of its latest evaluation.</p>"
    )


def _measured(result: dict[str, Any], count: int) -> str:
    split = {"val": "validation", "train": "training"}.get(str(result.get("split", "val")), str(result.get("split")))
    views = str(result.get("views", "unknown"))
    return f"<p>Measured on {count:,} {text(split)} images, by {text(VIEW_DESCRIPTIONS.get(views, views))}.</p>"


def _protocol(run: RunRecord, result: dict[str, Any]) -> str:
    pairs = [("views", str(result.get("views", "unknown")))]
    if "step" in result:
        which = f"{result['checkpoint']}, " if "checkpoint" in result else ""
        pairs.append(("checkpoint", f"{which}step {result['step']:,}"))
    if result.get("loss") is not None:
        pairs.append(("loss", f"{result['loss']:.4f} nats"))
    if run.is_finished and result.get("images_per_second"):
        pairs.append(("training speed", f"{result['images_per_second']:.4g} images/s"))
    if result.get("train_seconds"):
        pairs.append(("training time", format_seconds(result["train_seconds"])))
    if result.get("epochs"):
        pairs.append(("epochs", f"{result['epochs']:.4g}"))
    for key in ("precision", "seed"):
        if key in result:
            pairs.append((key, str(result[key])))
    return facts(pairs)


def _num_classes(run: RunRecord) -> int:
    return len(run.evaluation.classes) if run.evaluation is not None else len(run.data.get("classes") or ())


def curves(run: RunRecord) -> str:
    """Loss, error and learning rate against epochs."""
    steps, evaluations = run.events_of("step"), run.events_of("evaluation")
    if not steps and not evaluations:
        return missing("No step has been logged yet.")
    drawings = [
        ("loss", figures.loss_curve(steps, evaluations, SVG_COLORS), _loss_in_words(steps, evaluations)),
        ("error", figures.error_curve(steps, evaluations, SVG_COLORS), _error_in_words(evaluations)),
        ("rate", figures.rate_curve(steps, SVG_COLORS), _rate_in_words(steps)),
    ]
    panels = "".join(f"<figure>{svg(drawing, name, words)}</figure>" for name, drawing, words in drawings)
    sentences = " ".join(text(words) for _, _, words in drawings if words)
    return f'<div class="panels">{panels}</div><p class="soft">{sentences}</p>'


def _loss_in_words(steps: Sequence[dict[str, Any]], evaluations: Sequence[dict[str, Any]]) -> str:
    _, training = figures.series(steps, "loss")
    _, validation = figures.series(evaluations, "loss")
    words = f"Training loss goes from {training[0]:.3g} to {training[-1]:.3g} nats" if len(training) else ""
    if len(validation):
        words += f"{', ' if words else ''}validation loss ends at {validation[-1]:.3g}"
    return f"{words[0].upper()}{words[1:]}." if words else "No loss has been logged."


def _error_in_words(evaluations: Sequence[dict[str, Any]]) -> str:
    epochs, errors = figures.series(evaluations, "top1_error")
    if not len(errors):
        return "The validation images have not been evaluated yet."
    best = int(errors.argmin())
    views = VIEW_DESCRIPTIONS.get(str(evaluations[-1].get("views")), "")
    return (
        f"The validation error is lowest after {epochs[best]:.4g} epochs, {percent(errors[best])}"
        f"{f' ({views})' if views else ''}, and {percent(errors[-1])} at the end."
    )


def _rate_in_words(steps: Sequence[dict[str, Any]]) -> str:
    drops = figures.rate_drops(steps)
    if drops:
        listed = "; ".join(f"epoch {epoch:.4g}: {rate:.3g}" for epoch, rate in drops)
        return f"Learning rate drops, marked by dashed lines: {listed}."
    _, rates = figures.series(steps, "lr")
    if not len(rates):
        return ""
    if rates.min() == rates.max():
        return f"The learning rate is {rates[0]:.3g} throughout."
    return f"The learning rate goes from {rates[0]:.3g} to {rates[-1]:.3g}."


def kernels(run: RunRecord) -> str:
    """The first layer's kernels in their banks (paper, Figure 3)."""
    if run.kernels is None:
        return missing("There is no checkpoint with a first convolution to show.")
    weights, banks = run.kernels.weights, run.kernels.banks
    count, _, height, width = weights.shape
    shown = []
    for index, bank in enumerate(np.split(weights, banks)):
        title = f"<h3>Tower {index + 1}: kernels {index * len(bank) + 1} to {(index + 1) * len(bank)}</h3>"
        alt = f"{len(bank)} kernels of {height} x {width} pixels{f' of tower {index + 1}' if banks > 1 else ''}"
        mosaic = figures.kernel_mosaic(bank)
        shown.append((title if banks > 1 else "") + picture(mosaic, alt, css_class="kernels", lossless=True))
    towers = (
        f" The paper's two towers see the same image through {count // banks} kernels each; there, one bank became "
        "colour-agnostic and the other colour-specific."
        if banks == 2
        else ""
    )
    which = f", {run.kernels.selection} weights" if run.kernels.selection else ""
    caption = (
        f"The {count} kernels of {run.kernels.layer}, {height} x {width} x 3, after step {run.kernels.step:,}{which}. "
        f"Each is scaled by its own greatest weight, grey is zero.{towers}"
    )
    return f"<figure>{''.join(shown)}<figcaption>{text(caption)}</figcaption></figure>"


def skipped(run: RunRecord) -> str:
    """Images that could not be read and were left out."""
    by_split = run.data.get("skipped")
    if not isinstance(by_split, dict):
        return missing("It is not recorded yet which images were left out.")
    rows = [
        (text(key), text(split), text(reason))
        for split, reasons in by_split.items()
        if isinstance(reasons, dict)
        for key, reason in reasons.items()
    ]
    if not rows:
        return missing("Every image could be read.")
    return folded(("image", "split", "reason"), rows, f"Left out because they could not be read: {len(rows):,}")


def recipe(run: RunRecord) -> str:
    """What differs from the defaults, and the whole recipe."""
    if run.config is None:
        return missing("There is no config.toml.")
    rows = [
        (f"<code>{text(key)}</code>", _value(value), _value(default))
        for key, value, default in changed_settings(run.settings)
    ]
    changed = table(("key", "this run", "default"), rows, caption="What differs from the defaults") if rows else ""
    return changed + details("The whole recipe (config.toml)", f"<pre><code>{text(run.config)}</code></pre>")


def _value(value: Any) -> str:
    if value is None:
        return '<span class="soft">not set</span>'
    return f"<code>{text(str(value).lower() if isinstance(value, bool) else value)}</code>"  # as TOML writes it


def environment(run: RunRecord) -> str:
    """Versions, machine and command."""
    rows = []
    for key, value in run.environment.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {version}" for name, version in value.items() if version is not None)
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        rows.append((text(key), text("-" if value in (None, "") else value)))
    if not rows:
        return missing("There is no environment.json.")
    return table(("what", "value"), rows, caption="Where and how this run was made")
