"""Activations that go from process to process, and their gradients back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from alexnet.models import architecture as records
from alexnet.models.architecture import share_of_rows

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class Exchange(nn.Module):
    """What the parts hold of a batch's activations, put together or dealt out anew."""

    mesh: DeviceMesh | None = None
    """The processes, one part each; to be set before the first batch."""

    def __init__(self, record: records.Exchange) -> None:
        super().__init__()
        self.record = record

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...), this part's share of the maps or of the images -> what is wanted of it. All parts call it.

        The parts have equal shares of the images; of maps the last may have fewer, as `torch.chunk` has it.
        """
        from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

        assert self.mesh is not None, "the parts are not connected"
        whole = list(input.shape)
        if self.record.held == "maps":
            whole[1] = self.record.channels
        else:
            whole[0] *= self.mesh.size()
        held = DTensor.from_local(
            input.contiguous(),
            self.mesh,
            [Shard(1 if self.record.held == "maps" else 0)],
            run_check=False,
            shape=torch.Size(whole),
            stride=tuple(math.prod(whole[dim + 1 :]) for dim in range(len(whole))),
        )
        # Every part computes its own outputs from everything; the gradient is the sum of what they all send back.
        everything = held.redistribute(placements=[Replicate()]).to_local(grad_placements=[Partial()])
        if self.record.wanted == "all":
            return everything
        return everything[share_of_rows(len(everything), self.mesh.size(), self.mesh.get_local_rank())]

    def extra_repr(self) -> str:
        return str(self.record)
