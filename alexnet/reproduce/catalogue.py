"""All studies by name."""

from __future__ import annotations

import difflib

from alexnet.errors import UserError
from alexnet.reproduce import (
    ablations,
    cifar,
    figure_1,
    figure_3,
    figure_4,
    initialisation,
    large_batch,
    lrn_cifar,
    one_crop,
    precision,
    tables,
    trace,
    transfer,
)
from alexnet.reproduce.study import Study

_ALL = (
    *tables.STUDIES,
    figure_1.STUDY,
    figure_3.STUDY,
    figure_4.STUDY,
    *ablations.STUDIES,
    *cifar.STUDIES,
    trace.STUDY,
    lrn_cifar.STUDY,
    initialisation.STUDY,
    large_batch.STUDY,
    one_crop.STUDY,
    precision.STUDY,
    transfer.STUDY,
)
STUDIES: dict[str, Study] = {study.name: study for study in _ALL}


def get_study(name: str) -> Study:
    """The study of a name. Raises UserError for an unknown one, with the nearest known one."""
    if name in STUDIES:
        return STUDIES[name]
    near = difflib.get_close_matches(name, STUDIES, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(f"there is no study {name!r}; {hint}the studies are {', '.join(STUDIES)}.")
