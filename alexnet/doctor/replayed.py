"""What repeating the steps before a loss that was not finite has shown."""

from __future__ import annotations

import math
from pathlib import Path

from alexnet.doctor.findings import Finding, finding, some
from alexnet.reporting.progress import Progress as ProgressDisplay
from alexnet.training.replay import Replay, replay
from alexnet.training.signals import Signals

_LOSSES_SHOWN = 6
_GROWN = 2.0


def inspect_replay(path: Path, display: ProgressDisplay) -> list[Finding]:
    """Repeat the steps of a diverged run from its last checkpoint. Raises UserError as `alexnet.training.replay`."""
    name, result = str(path), replay(path, display)
    rows = [_losses(result), *_weights(result)]
    if result.same_batch is False:
        rows.append("the batch is not the one that diverged.npz holds: the images have changed since, or their decoder")
    if not result.is_repeated:
        what = f"Repeated from step {result.first_step}, the loss of step {result.step} is finite this time."
        return [finding("replay-finite", name, what, rows)]
    step = result.first_step + len(result.losses) - 1
    what = (
        f"Repeated from step {result.first_step}, the loss is not finite at step {step} again. {_where(result.signals)}"
    )
    if result.bad_images:
        rows.append(f"images whose loss is not finite: {len(result.bad_images)}, {some(result.bad_images)}")
    return [finding("replay-diverged", name, what, [*rows, *result.signals.rows()])]


def _where(signals: Signals) -> str:
    """Where on the way through the network numbers stop to be finite."""
    if not math.isfinite(signals.input_rms):
        return "The inputs themselves are not finite."
    before = f"the inputs (RMS {signals.input_rms:.3g})"
    for row in signals.layers:
        if not math.isfinite(row.rms):
            return f"The first output that is not finite is that of {row.layer}, after {before}."
        before = f"{row.layer} (RMS {row.rms:.3g})"
    return (
        f"Without dropout and in float32 every layer's output is finite, the last being {before}: it is the precision "
        "or the dropout of that step."
    )


def _losses(result: Replay) -> str:
    losses = ", ".join(f"{loss:.4g}" for loss in result.losses[-_LOSSES_SHOWN:])
    return f"the last losses: {losses}"


def _weights(result: Replay) -> list[str]:
    """The layers whose weights have grown since the checkpoint, those first that grew most."""
    grown = {
        layer: after / before
        for layer, (before, after) in result.weight_growth.items()
        if before > 0 and not after / before < _GROWN  # nan has grown, too
    }
    order = sorted(grown, key=lambda layer: -grown[layer] if math.isfinite(grown[layer]) else -math.inf)
    if not order:
        return [f"no layer's weights have grown {_GROWN:g} times since step {result.first_step}"]
    parts = [
        f"{layer} from {result.weight_growth[layer][0]:.3g} to {result.weight_growth[layer][1]:.3g}" for layer in order
    ]
    return [f"weights (RMS) since step {result.first_step}: {', '.join(parts)}"]
