"""Sources of logits a chunk at a time: a head's product, whole logits, a cached top-k.

Knows how to fill a buffer; knows nothing of gradients, divergences, labels or lessons. All logits here are divided by
the temperature, float32, and padded on the right to a multiple of 64 columns, which makes products faster; the padding
holds FLOOR, which adds nothing to a softmax.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from apt_model.distill.losses.chunk_size import padded
from apt_model.models.output_head import OutputHead
from apt_model.models.wide_matmul import product_of

FLOOR = -1e30  # stands for -inf where a difference of two of them must be 0 and not NaN


def product_dtype(head: OutputHead) -> torch.dtype:
    """The dtype in which a head's product is computed now: autocast's if that is on, else the weight's."""
    weight = head.linear.weight
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


class Buffer:
    """Memory for a chunk of logits, reused from step to step on a CPU: new pages cost more than a pass over them.

    On other devices torch's allocator reuses memory by itself.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    @property
    def bytes_kept(self) -> int:
        """Bytes that it holds."""
        return self._memory.nbytes

    def rows(self, count: int, width: int, *, like: Tensor) -> Tensor:
        """An uninitialised tensor (count, width), dtype and device as `like`; the one returned before is invalid."""
        if like.device.type != "cpu":
            return like.new_empty((count, width))
        needed = count * width * like.itemsize
        if self._memory.nbytes < needed:
            self._memory = torch.empty(0)  # the old one goes before the new one comes
            self._memory = torch.empty(needed, dtype=torch.uint8)
        return self._memory[:needed].view(like.dtype).view(count, width)


class TopRows(NamedTuple):
    """A teacher's distribution over R tokens' successors, of which only the top K are known.

    Attributes:
        ids: (R, K) int64, distinct within a row.
        log_probs: (R, K) float32, log-probabilities at the training temperature; exp of them and the tail sum to 1.
        log_tail: (R) float32, log of the probability of all other ids together; -inf where K is the vocabulary.
        log_tail_at_one: (R) float32, the same at temperature 1, for what a card shows.
    """

    ids: Tensor
    log_probs: Tensor
    log_tail: Tensor
    log_tail_at_one: Tensor

    def at(self, rows: slice | Tensor) -> "TopRows":
        """The same for some of the rows."""
        return TopRows(*(part[rows] for part in self))


class Signal(Protocol):
    """Protocol of the teacher's logits at N positions, read a block at a time.

    Attributes:
        width: columns of its logits that take part: the shared vocabulary.
        columns: columns that the teacher has.
    """

    width: int
    columns: int

    def begin(self, start: int, stop: int) -> None:
        """Prepare the chunk of positions start to stop; to be called before `block`."""

    def block(self, first: int, last: int) -> Tensor | TopRows:
        """Positions first to last of the chunk: logits (R, padded width) that may be overwritten, or the top K."""


class TensorSignal:
    """Full logits (M, V), computed already, of any float dtype; -inf excludes a token.

    Args:
        logits: (M, V); columns beyond `width` are left out.
        temperature: they are divided by it.
        width: the shared vocabulary.
        positions: (N) int64, rows of `logits`; all of them where None.
    """

    def __init__(self, logits: Tensor, *, temperature: float, width: int, positions: Tensor | None = None) -> None:
        self.width, self.columns = width, logits.shape[-1]
        self._logits, self._factor, self._start = logits.detach(), 1 / temperature, 0
        self._positions = torch.arange(len(logits), device=logits.device) if positions is None else positions
        self._out = logits.new_empty((0, padded(width)), dtype=torch.float32)

    def begin(self, start: int, stop: int) -> None:
        """Positions start to stop come next."""
        self._start = start

    def block(self, first: int, last: int) -> Tensor:
        """Positions first to last of those begun."""
        rows = self._logits.index_select(0, self._places(first, last))[:, : self.width]
        if len(self._out) < len(rows):
            self._out = self._out.new_empty((len(rows), padded(self.width)))
        out = self._out[: len(rows)].fill_(FLOOR)
        out[:, : self.width].copy_(rows).mul_(self._factor).clamp_(min=FLOOR)
        return out

    def _places(self, first: int, last: int) -> Tensor:
        return self._positions[self._start + first : self._start + last]


class TopSignal:
    """The top K of N positions, read by a function.

    Args:
        read: `(start, stop) -> TopRows` of these positions, on the training device.
        width: the vocabulary they were taken from.
    """

    def __init__(self, read: Callable[[int, int], TopRows], *, width: int) -> None:
        self.width = self.columns = width
        self._read, self._start = read, 0

    def begin(self, start: int, stop: int) -> None:
        """Positions start to stop come next."""
        self._start = start

    def block(self, first: int, last: int) -> TopRows:
        """Positions first to last of those begun."""
        return self._read(self._start + first, self._start + last)


class MovedSignal:
    """A `HeadSignal` whose blocks are moved to another device."""

    def __init__(self, signal: "HeadSignal", device: torch.device) -> None:
        self.width, self.columns = signal.width, signal.columns
        self._signal, self._device = signal, device

    def begin(self, start: int, stop: int) -> None:
        """Positions start to stop come next."""
        self._signal.begin(start, stop)

    def block(self, first: int, last: int) -> Tensor:
        """Positions first to last of those begun."""
        return self._signal.block(first, last).to(self._device)


class HeadSignal:
    """Logits computed by a head from hidden states, a chunk at a time into one buffer.

    Args:
        hidden: (N, H), of any float dtype.
        head: its weight and bias are read when the signal is made; no gradient is recorded.
        temperature: logits are divided by it.
        width: the shared vocabulary; columns beyond are not computed.
        dtype: of the products; None: autocast's if that is on, else the weight's. Sums over chunks are float32.
        buffer: memory for a chunk, None: its own; no two signals in use may share one.
    """

    def __init__(
        self,
        hidden: Tensor,
        head: OutputHead,
        *,
        temperature: float,
        width: int,
        dtype: torch.dtype | None = None,
        buffer: Buffer | None = None,
    ) -> None:
        dtype = product_dtype(head) if dtype is None else dtype
        self.width, self.columns = width, head.linear.out_features
        self.softcap, self._temperature = head.softcap, temperature
        self._hidden, self._scale = hidden.detach(), head.scale
        self._weight = head.linear.weight.detach()[:width].to(dtype)
        self._kept = buffer or Buffer()
        self._buffer = hidden.new_empty((0, padded(width)), dtype=dtype)
        # The product gives logits as they are used, (f · h) Wᵀ + f · b: z / T, or z / cap before tanh. So no pass over
        # the logits divides them. In low precision the factor waits until they are float32 and costs no accuracy.
        factor = head.scale / (head.softcap or temperature)
        self._is_float32 = dtype == torch.float32
        self._before, self._after = (factor, 1.0) if self._is_float32 else (1.0, factor)
        self._block = None if self._is_float32 else self._buffer.new_empty(0, dtype=torch.float32)
        bias = head.linear.bias
        self._bias = None
        if bias is not None:
            self._bias = (bias.detach()[:width].to(dtype) * self._before).clamp_(min=max(FLOOR, torch.finfo(dtype).min))
        self._start = self._stop = 0
        self._input = self._hidden[:0].to(dtype)

    def begin(self, start: int, stop: int) -> None:
        """Compute positions start to stop."""
        self._start, self._stop = start, stop
        if len(self._buffer) < stop - start:
            self._buffer = self._kept.rows(stop - start, self._buffer.shape[1], like=self._buffer)
        self._input = self._hidden[start:stop].to(self._weight.dtype)
        if self._before != 1.0:
            self._input = self._input * self._before
        rows = self._buffer[: stop - start]
        out = rows[:, : self.width]
        with product_of(self._input, self._weight):
            if self._bias is None:
                torch.mm(self._input, self._weight.t(), out=out)
            else:
                torch.addmm(self._bias, self._input, self._weight.t(), out=out)
        if self._is_float32 and self.softcap is None:
            rows[:, self.width :] = FLOOR

    def block(self, first: int, last: int) -> Tensor:
        """Positions first to last of those begun: (R, padded width)."""
        rows = self._buffer[first:last]
        if self._block is not None:
            if len(self._block) < last - first:
                self._block = torch.empty(rows.shape, device=rows.device)
            rows = self._block[: last - first].copy_(rows).mul_(self._after)
        if self.softcap is not None:
            rows.tanh_().mul_(self.softcap / self._temperature)
        if self.softcap is not None or self._block is not None:
            rows[:, self.width :] = FLOOR
        return rows
