"""All studies by name."""

from __future__ import annotations

import difflib

from alexnet.errors import UserError
from alexnet.reproduce import cifar, figure_1, lrn_cifar, precision
from alexnet.reproduce.study import Study

STUDIES: dict[str, Study] = {
    study.name: study for study in (figure_1.STUDY, *cifar.STUDIES, lrn_cifar.STUDY, precision.STUDY)
}


def get_study(name: str) -> Study:
    """The study of a name. Raises UserError for an unknown one, with the nearest known one."""
    if name in STUDIES:
        return STUDIES[name]
    near = difflib.get_close_matches(name, STUDIES, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(f"there is no study {name!r}; {hint}The studies are {', '.join(STUDIES)}.")
