"""Which settings may differ between two trainings of one recipe, and which make it another recipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from alexnet.training.run_folder import NEUTRAL_KEYS

WITHOUT_EFFECT = (*NEUTRAL_KEYS, "seed", "runtime", "model.num_classes")
"""Keys, and sections, in which a run may differ from a recipe and still be a run of that recipe."""


def is_one_of(key: str, names: Sequence[str]) -> bool:
    """Whether a recipe's key is one of the named keys, or in one of the named sections."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def with_effect(overrides: Iterable[str]) -> list[str]:
    """Those of some "section.key=value" texts that change what is trained."""
    return [text for text in overrides if not is_one_of(text.partition("=")[0].strip(), WITHOUT_EFFECT)]
