"""Response normalisation in plain torch, across maps and within them: what runs where no kernel of ours does.

The tensor is seen as (outer, rows, columns, inner), whichever memory format it is in: across maps
(N*H*W, towers, maps, 1) for channels-last and (N, towers, maps, H*W) for contiguous tensors, with windows along
columns; within maps (N, H, W, C) and (N*C, H, W, 1), with windows along rows and columns. A chunk of it is copied to a
buffer that has size // 2 zeros after every line, where a window sum is a sum of shifted views of one contiguous vector:
log2(size) additions at full speed, whatever the shape. The chunk is small enough to stay in cache through all passes.
Arithmetic is float32 for every narrower dtype. Backward keeps only x.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.jit._trace import is_tracing
from torch.nn import functional as F

_CHUNK_ELEMENTS = 2**19
"""Elements of a chunk on a CPU (512 KB of float32): a handful of such buffers stay in the second-level caches."""


class Norm(NamedTuple):
    """x / (k + scale * sum of the squares in its window) ** beta."""

    size: int
    """Maps in the window, or the side of the square window within a map."""
    scale: float
    """Multiplies the sum of squares."""
    beta: float
    k: float
    towers: int | None
    """Equal parts of the maps that no window reaches across; None: the window lies within a map."""


def check_norm(norm: Norm) -> None:
    """Raise ValueError for a norm that no formula is meant for: its record may come from a file."""
    if norm.size < 1 or (norm.towers is None and norm.size % 2 == 0) or not (norm.towers is None or norm.towers > 0):
        kind = "an odd window" if norm.towers is None else "a window and towers of at least 1"
        raise ValueError(f"a norm needs {kind}; it has size {norm.size} and towers {norm.towers}")
    if not (math.isfinite(norm.scale) and math.isfinite(norm.beta) and math.isfinite(norm.k)):
        raise ValueError(f"a norm needs finite numbers; it has scale {norm.scale}, beta {norm.beta} and k {norm.k}")


def formula(x: Tensor, norm: Norm) -> Tensor:
    """(N, C, H, W) -> the same shape and dtype, in a few operations of torch, so that any transformation can follow."""
    check_norm(norm)
    wide = x.float() if isinstance(x, Tensor) and x.dtype in (torch.float16, torch.bfloat16) else x
    squares = wide * wide
    # Means of the full window, since the exporter to ONNX takes no notice of avg_pool2d's divisor_override.
    if norm.towers is None:
        terms = norm.size**2
        means = F.avg_pool2d(squares, norm.size, 1, norm.size // 2, count_include_pad=True)
    else:
        terms = norm.size
        lines = squares.unflatten(1, (norm.towers, -1)).flatten(0, 1).flatten(2).unsqueeze(1)  # (N * towers, 1, C, HW)
        before = norm.size // 2
        padded = F.pad(lines, (0, 0, before, norm.size - 1 - before))
        means = F.avg_pool2d(padded, (norm.size, 1), 1).reshape_as(x)
    y = wide / (norm.k + norm.scale * terms * means) ** norm.beta
    return y if wide is x else y.to(x.dtype)


def needs_torch_operations(x: Tensor) -> bool:
    """Whether a transformation of torch is at work that custom operators and autograd functions cannot follow.

    These are torch.fx (x is a proxy), torch.export, torch.jit.trace, the transforms of torch.func, and forward-mode
    differentiation.
    """
    if not isinstance(x, Tensor) or torch.compiler.is_exporting() or is_tracing():
        return True
    if torch._C._are_functorch_transforms_active():
        return True
    return not torch.compiler.is_compiling() and _has_tangent(x)


def _has_tangent(x: Tensor) -> bool:
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None


def normalize(x: Tensor, norm: Norm) -> Tensor:
    """(N, C, H, W) -> the same shape, dtype and memory format. Raises ValueError for an impossible norm."""
    check_norm(norm)
    # Made dense outside, so that what is saved for a second derivative is an input of the function.
    return _Normalize.apply(_dense(x), norm)


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Norm) -> Tensor:
        ctx.save_for_backward(x)
        ctx.norm = norm
        y = torch.empty_like(x)
        chunks = _Chunks(x, norm)
        for source, target in zip(chunks.of(x), chunks.of(y), strict=True):
            padded = chunks.load(source, 0)
            factor = _power(chunks.denominators(padded), norm.beta)
            chunks.store(factor.mul_(chunks.body(padded)), target)
        return y

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor, None]:
        """With d the denominators: grad_x = g * d**-beta - 2 * a * beta * x * window_sum(g * x * d**(-beta - 1))."""
        (x,) = ctx.saved_tensors
        norm: Norm = ctx.norm
        if torch.is_grad_enabled():  # create_graph: this gradient will itself be differentiated
            (grad_x,) = torch.autograd.grad(formula(x, norm), x, grad_outputs, create_graph=True)
            return grad_x, None
        grad_y = grad_outputs[0].contiguous(memory_format=_memory_format(x))
        grad_x = torch.empty_like(x)
        chunks = _Chunks(x, norm)
        for source, upstream, target in zip(chunks.of(x), chunks.of(grad_y), chunks.of(grad_x), strict=True):
            padded = chunks.load(source, 0)
            x_body = chunks.body(padded)
            denominators = chunks.denominators(padded)
            direct = _power(denominators, norm.beta).mul_(chunks.body(chunks.load(upstream, 1)))
            through = chunks.scratch(2, len(source))
            torch.mul(direct, x_body, out=chunks.body(through)).div_(denominators)
            sums = chunks.window_sums(through, mirrored=True)
            chunks.store(direct.addcmul_(x_body, sums, value=-2 * norm.scale * norm.beta), target)
        return grad_x, None


class _Chunks:
    """Tensors of one shape, cut along (outer, rows, columns, inner), and the padded buffers their chunks are copied to.

    A buffer is a vector: margin zeros, then for every outer index (rows + gap) x (columns + gap) x inner elements, then
    margin zeros. Its body is all but the margins.
    """

    def __init__(self, x: Tensor, norm: Norm) -> None:
        self.norm = norm
        batch, maps, height, width = x.shape
        channels_last = not x.is_contiguous()
        within_maps = norm.towers is None
        if within_maps:
            shape = (batch, height, width, maps) if channels_last else (batch * maps, height, width, 1)
        else:
            lines = (norm.towers or 1, maps // (norm.towers or 1))
            shape = (batch * height * width, *lines, 1) if channels_last else (batch, *lines, height * width)
        outer, rows, columns, inner = self.shape = shape
        gap = norm.size // 2
        self.column_stride = inner
        self.row_stride = (columns + gap) * inner if within_maps else 0
        self.padded_shape = (rows + gap if within_maps else rows, columns + gap, inner)
        self.margin = gap * (self.row_stride + self.column_stride)
        self.dtype = torch.promote_types(x.dtype, torch.float32)
        self.device = x.device
        block = math.prod(self.padded_shape)
        self.outer_per_chunk = max(1, _CHUNK_ELEMENTS // block if x.device.type == "cpu" else outer)
        self.buffers: dict[int, Tensor] = {}

    def of(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Views of the tensor's chunks, (outer of a chunk, rows, columns, inner)."""
        dense = tensor if tensor.is_contiguous() else tensor.permute(0, 2, 3, 1)
        return dense.view(self.shape).split(self.outer_per_chunk)

    def scratch(self, number: int, num_outer: int) -> Tensor:
        """Buffer `number` for a chunk, zero in its margins and gaps as long as only chunks are stored into it."""
        length = 2 * self.margin + num_outer * math.prod(self.padded_shape)
        if number not in self.buffers or len(self.buffers[number]) != length:
            self.buffers[number] = torch.zeros(length, dtype=self.dtype, device=self.device)
        return self.buffers[number]

    def load(self, chunk: Tensor, number: int) -> Tensor:
        """A chunk copied into buffer `number`."""
        buffer = self.scratch(number, len(chunk))
        self._inside(self.body(buffer)).copy_(chunk)
        return buffer

    def store(self, body: Tensor, chunk: Tensor) -> None:
        """The inverse of `load`, from a body."""
        chunk.copy_(self._inside(body))

    def body(self, buffer: Tensor) -> Tensor:
        return buffer[self.margin : len(buffer) - self.margin]

    def _inside(self, body: Tensor) -> Tensor:
        _, rows, columns, _ = self.shape
        return body.view(-1, *self.padded_shape)[:, :rows, :columns]

    def denominators(self, padded: Tensor) -> Tensor:
        """k + a * window sums of the squares, as a body."""
        k = torch.tensor(self.norm.k, dtype=self.dtype)
        return torch.add(k, self.window_sums(padded * padded), alpha=self.norm.scale)

    def window_sums(self, buffer: Tensor, mirrored: bool = False) -> Tensor:
        """The sum over each element's window, as a body. mirrored: over the elements whose windows hold it."""
        size, row_stride = self.norm.size, self.row_stride
        length = len(buffer) - 2 * self.margin
        before = size - 1 - size // 2 if mirrored else size // 2
        first = self.margin - before * (row_stride + self.column_stride)
        if not row_stride:
            return _sum_shifted(buffer[first:], size, self.column_stride, length)
        lines = _sum_shifted(buffer[first:], size, self.column_stride, length + (size - 1) * row_stride)
        return _sum_shifted(lines, size, row_stride, length)


def _sum_shifted(values: Tensor, num_terms: int, stride: int, length: int) -> Tensor:
    """`length` sums values[i] + values[i + stride] + ... of num_terms terms, in about log2(num_terms) passes."""
    doubled, width = values[: length + (num_terms - 1) * stride], 1
    total, done = None, 0
    while True:
        if num_terms & width:
            part = doubled[done * stride : done * stride + length]
            total = part if total is None else total + part
            done += width
        if total is not None and done == num_terms:
            return total
        doubled = doubled[: -width * stride] + doubled[width * stride :]
        width *= 2


def _power(denominators: Tensor, beta: float) -> Tensor:
    """denominators ** -beta; for the usual beta without the logarithm and exponential that `pow` costs."""
    if beta != 0.75:
        return denominators.pow(-beta)
    root = denominators.rsqrt()
    return root.sqrt().mul_(root)


def _memory_format(x: Tensor) -> torch.memory_format:
    return torch.contiguous_format if x.is_contiguous() else torch.channels_last


def _dense(x: Tensor) -> Tensor:
    """x itself when contiguous or channels-last, else a contiguous copy."""
    return x if x.is_contiguous(memory_format=torch.channels_last) else x.contiguous()
