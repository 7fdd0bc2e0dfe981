"""One pass over N positions, a block of logits at a time: the loss, its gradients, and what a card shows of it.

Pure arithmetic on what `signals` hand out. Knows nothing of autograd, models or batches.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence

import torch
from torch import Tensor

from apt_model.config import LossKind
from apt_model.distill.losses.divergences import KINDS, Block, resolve
from apt_model.distill.losses.logit_blocks import FLOOR, Gradients, HeadSignal, Signal, TopRows, WrittenSignal, padded
from apt_model.distill.losses.token_stats import Pulls, ShownTokens, Side, pulls_of, read_tokens, softness_of
from apt_model.distill.losses.topk_kl import top_forward_kl

UNBOUNDED = 1e15  # nats: FLOOR has stood for -inf
SMALL = 1e-30  # of a share, in float32
LOSSLESS_SQUARES = 2  # of a softmax before its peak, 1/V at least, may leave float32's range
BLOCK_FLOATS = 2**18  # of an elementwise pass on the CPU: what is written once is read again from the cache


def log_sum_of(logits: Tensor, probs: Tensor, at: Tensor) -> Tensor:
    """log Σ exp of `logits` (R, V), (R), from their softmax: one element of each row tells, that at column `at` (R, 1).

    Where its share is too small to have all its digits, the row's peak is asked, which takes a look at all of it.
    """
    if logits.device.type == "cpu" and bool((share := probs.gather(1, at)).amin() > SMALL):
        return (logits.gather(1, at) - share.log()).squeeze(1)
    return logits.amax(dim=1) - probs.amax(dim=1).log()


class Pass:
    """One pass over N positions: its settings, its room to work in, what it found."""

    def __init__(
        self,
        *,
        labels: Tensor,
        teacher: Signal,
        temperature: float,
        alpha: float,
        beta: float,
        weight: float,
        kind: LossKind,
        mixture: float | None,
        chunk_rows: int,
        shown: Sequence[int],
    ) -> None:
        self.teacher, self.temperature, self._chunk_rows = teacher, temperature, chunk_rows
        self._labels, self._alpha, self._beta, self._weight = labels, alpha, beta, weight
        name, self._mixture = resolve(kind, mixture)
        self._kind = KINDS[name]
        self._shown, self.readings, self.pulls = list(shown), list[ShownTokens](), list[Pulls]()
        self._width = padded(teacher.width)
        self._unit = alpha * temperature or beta  # gradients are made in this unit, so that one pass less is needed
        self._spares, self._reading_room = list[Tensor](), list[Tensor]()
        doublings = math.log2(temperature)
        self._doublings = int(doublings) if doublings in range(1, 6) else None

    @property
    def unit(self) -> float:
        """What the gradients made here have to be multiplied by."""
        return self._unit * self._weight

    def run(self, student: HeadSignal | WrittenSignal, gradients: Gradients | None = None) -> Tensor:
        """Loss of all positions; their gradients by a head and what it was given, if anything learns there."""
        count, device = len(self._labels), self._labels.device
        rows = self._chunk_rows
        if device.type == "cpu":
            rows = max(1, BLOCK_FLOATS // self._width)
        rows = min(rows, self._chunk_rows, max(count, 1))
        self._room = [torch.empty(rows, self._width, device=device) for _ in range(3)]
        terms = torch.zeros(3, count, device=device)
        for start in range(0, count, self._chunk_rows):
            stop = min(start + self._chunk_rows, count)
            student.begin(start, stop)
            self.teacher.begin(start, stop)
            for first in range(start, stop, rows):
                last = min(first + rows, stop)
                terms[:, first:last] = self._block(student, first - start, last - start, first)
            if gradients is not None and isinstance(student, HeadSignal):
                student.leave(gradients, self.unit)
        kd, self.ce, self.teacher_log_sum = terms.sum(dim=1)
        self.kd = kd * self.temperature**2
        loss: Tensor = self._weight * (self._alpha * self.kd + self._beta * self.ce)
        return loss

    def _block(self, student: HeadSignal | WrittenSignal, first: int, last: int, offset: int) -> Tensor:
        """Divergence, cross-entropy and the teacher's log-sum (3, R); leaves the gradient with the student."""
        logits, signal = student.block(first, last), self.teacher.block(first, last)
        labels = self._labels[offset : offset + last - first].unsqueeze(1)
        q, p, hard = (room[: last - first] for room in self._room)
        torch.softmax(logits, dim=1, out=q)
        log_sum = log_sum_of(logits, q, labels)
        hard, share, hard_log_sum = self._at_temperature_one(logits, q, log_sum, labels, hard, p)
        chosen = logits.gather(1, labels).squeeze(1)
        ce = (hard_log_sum - self.temperature * chosen).masked_fill_(chosen <= FLOOR, math.inf)
        here = self._shown[bisect_left(self._shown, offset) : bisect_left(self._shown, offset + len(logits))]
        rows = [index - offset for index in here]
        said, softness = Side(logits, hard, share, hard_log_sum), ce.new_empty(0)
        if isinstance(signal, TopRows):
            if here:
                self._read(said, signal, rows, p)
            gradient, teacher_log_sum = p, torch.zeros_like(ce)
            divergence = top_forward_kl(logits, signal, q, log_sum, gradient)
        else:
            torch.softmax(signal, dim=1, out=p)
            gradient, teacher_log_sum = signal, log_sum_of(signal, p, labels)
            if here:
                if not self._reading_room:
                    self._reading_room = [torch.empty_like(room) for room in self._room[:2]]
                spare, other = (room[: last - first] for room in self._reading_room)
                at_one = self._at_temperature_one(signal, p, teacher_log_sum, labels, spare, other)
                self._read(said, Side(signal, *at_one), rows, other)
                softness = softness_of(rows, signal, p, teacher_log_sum, width=self.teacher.width)
            block = Block(
                student=logits,
                teacher=signal,
                q=q,
                p=p,
                q_log_sum=log_sum,
                p_log_sum=teacher_log_sum,
                mixture=self._mixture,
                spares=self._spares,
            )
            divergence = self._kind(block)
        if here:
            kd = self._alpha * self.temperature
            self.pulls.append(pulls_of(rows, said, labels, gradient, kd=kd, ce=self._beta, softness=softness))
        self._combine(gradient, hard, share, labels)
        if isinstance(student, HeadSignal) and student.softcap is not None:
            gradient.mul_(student.slope_of_cap(logits, hard))
        student.put_gradient(first, last, gradient)
        return torch.stack([divergence.masked_fill_(divergence > UNBOUNDED, math.inf), ce, teacher_log_sum])

    def _at_temperature_one(
        self, logits: Tensor, q: Tensor, log_sum: Tensor, labels: Tensor, hard: Tensor, other: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """A softmax at temperature 1 as a tensor (R, V) and a factor for its rows, and its log-sum (R).

        It is the T-th power of the softmax at T, made anew to sum to 1: for T = 2, 4, 8 squares, not a second exp.
        """
        temperature = self.temperature
        if temperature == 1:
            return q, None, log_sum
        if self._doublings is None:
            torch.softmax(torch.mul(logits, temperature, out=other), dim=1, out=hard)
            return hard, None, log_sum_of(other, hard, labels)
        if self._doublings > LOSSLESS_SQUARES:
            peak = q.amax(dim=1)
            log_sum = log_sum + peak.log()
            q = torch.mul(q, peak.reciprocal().unsqueeze(1), out=hard)
        torch.mul(q, q, out=hard)
        for _ in range(self._doublings - 1):
            hard.mul_(hard)
        total = hard.sum(dim=1)
        return hard, total.reciprocal().unsqueeze(1), temperature * log_sum + total.log()

    def _combine(self, gradient: Tensor, hard: Tensor, share: Tensor | None, labels: Tensor) -> None:
        """Turn the divergence's gradient by logits / T into the whole loss's by the logits, in the pass's unit."""
        ratio = self._beta / self._unit
        if not self._alpha:
            gradient.zero_()
        if self._beta and share is None:
            gradient.add_(hard, alpha=ratio)
        elif self._beta and share is not None:
            gradient.addcmul_(hard, share, value=ratio)
        if self._beta:
            gradient.scatter_add_(1, labels, gradient.new_full((1, 1), -ratio).expand_as(labels))

    def _read(self, student: Side, teacher: Side | TopRows, rows: list[int], spare: Tensor) -> None:
        """What a card shows of a block: read before the logits give way to their gradient."""
        width = self.teacher.width
        self.readings.append(
            read_tokens(student, teacher, rows, temperature=self.temperature, width=width, spare=spare)
        )
