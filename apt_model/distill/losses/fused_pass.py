"""One pass over N positions, a block of logits at a time: loss, gradients and card statistics.

Pure arithmetic on the blocks of `logit_blocks` and `student_blocks`. Knows nothing of autograd, models or batches.

Below, z are the student's logits and u the teacher's, both over the temperature T; q = softmax(z), p = softmax(u).
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from apt_model.distill.losses.chunk_size import padded
from apt_model.distill.losses.divergences import KINDS, Block, resolve
from apt_model.distill.losses.logit_blocks import FLOOR, Signal, TopRows
from apt_model.distill.losses.objective import Objective
from apt_model.distill.losses.student_blocks import LearningSignal
from apt_model.distill.losses.token_stats import (
    Pulls,
    ShownTokens,
    SoftmaxRows,
    join,
    pulls_of,
    read_tokens,
    softness_of,
    teacher_ce,
)
from apt_model.distill.losses.topk_kl import top_forward_kl

UNBOUNDED = 1e15  # nats: FLOOR has stood for -inf
SMALL = 1e-30  # a probability below has lost digits in float32
LOSSLESS_SQUARES = 2  # the peak can be as small as 1/V: divide by it before the third, or float32 underflows
BLOCK_FLOATS = 2**18  # of an elementwise pass on the CPU: what is written once is read again from the cache


@dataclass(frozen=True, kw_only=True)
class FusedLoss:
    """The result of one pass.

    Attributes:
        loss: scalar float32, `weight · (alpha · Σ T² D + beta · Σ CE)`; with gradient from `fused_distillation`.
        kd: scalar, Σ T² D over the positions, not weighted, without gradient.
        ce: scalar, Σ cross-entropy at temperature 1, not weighted, without gradient.
        teacher_log_sum: scalar, Σ log Σ exp of the teacher's logits: finite exactly where all of them are (or -inf).
        shown: statistics of the positions on a card, in that order; None if there are none.
        pulls: the pull of both terms at the same positions; None if there are none.
    """

    loss: Tensor
    kd: Tensor
    ce: Tensor
    teacher_log_sum: Tensor
    shown: ShownTokens | None
    pulls: Pulls | None


class _Distance(NamedTuple):
    """How far the student is from the teacher on R rows, and the card statistics of some of them.

    Attributes:
        divergence: (R) in nats.
        gradient: (R, padded width), of the divergence by z.
        teacher_log_sum: (R), log Σ exp u; 0 for a teacher whose top K are known.
        shown: of the rows on a card; None if there are none.
        softness: of these rows, (0) where it is not known.
        teacher_ce: of these rows, the teacher's cross-entropy at temperature 1; (0) if there are none.
    """

    divergence: Tensor
    gradient: Tensor
    teacher_log_sum: Tensor
    shown: ShownTokens | None
    softness: Tensor
    teacher_ce: Tensor


def log_sum_of(logits: Tensor, probs: Tensor, at: Tensor) -> Tensor:
    """log Σ exp z of `logits` z (R, V), (R), from `probs`, their softmax: z_i − log softmax(z)_i, the same for any i.

    So no pass over the logits is needed: i is the column `at` (R, 1). Where its probability is too small to have all
    its digits, i is the row's peak, which takes a pass to find.
    """
    if logits.device.type == "cpu" and bool((share := probs.gather(1, at)).amin() > SMALL):
        return (logits.gather(1, at) - share.log()).squeeze(1)
    return logits.amax(dim=1) - probs.amax(dim=1).log()


class FusedPass:
    """One pass over N positions: its settings, and memory for the tensors of one block.

    Args:
        labels: (N) int64.
        teacher: of the same N positions.
        objective: temperature, weights and kind of the loss.
        weight: a factor on the loss.
        chunk_rows: positions of a chunk.
        shown: indices into N, ascending, of the positions on a card.
    """

    def __init__(
        self,
        labels: Tensor,
        teacher: Signal,
        *,
        objective: Objective,
        weight: float,
        chunk_rows: int,
        shown: Sequence[int],
    ) -> None:
        self._labels, self._teacher, self._objective, self._weight = labels, teacher, objective, weight
        self._chunk_rows, self._shown = chunk_rows, list(shown)
        name, self._mixture = resolve(objective.kind, objective.mixture)
        self._kind = KINDS[name]
        # d(alpha T² D) / d(T z) = alpha T · dD/dz: in this unit dD/dz is the KD term's gradient as it is, and no pass
        # over it is needed to scale it. Without a KD term, beta takes its place.
        self._unit = objective.alpha * objective.temperature or objective.beta
        doublings = math.log2(objective.temperature)
        self._doublings = int(doublings) if doublings in range(1, 6) else None
        width = padded(teacher.width)
        rows = BLOCK_FLOATS // width if labels.device.type == "cpu" else chunk_rows
        self._block_rows = max(1, min(rows, chunk_rows, len(labels)))
        self._room = [torch.empty(self._block_rows, width, device=labels.device) for _ in range(3)]
        self._spares = list[Tensor]()

    @property
    def unit(self) -> float:
        """The factor by which the gradients computed here are multiplied to get those of the loss."""
        return self._unit * self._weight

    @cached_property
    def _reading_room(self) -> list[Tensor]:
        """Scratch memory of two blocks for card statistics, allocated with the first card."""
        return [torch.empty_like(room) for room in self._room[:2]]

    def run(self, student: LearningSignal) -> FusedLoss:
        """The loss of all positions, without gradient; `student` collects the gradients."""
        count, objective = len(self._labels), self._objective
        terms = torch.zeros(3, count, device=self._labels.device)
        shown, pulls = list[ShownTokens](), list[Pulls]()
        for start in range(0, count, self._chunk_rows):
            stop = min(start + self._chunk_rows, count)
            student.begin(start, stop)
            self._teacher.begin(start, stop)
            for first in range(start, stop, self._block_rows):
                last = min(first + self._block_rows, stop)
                rows = [index - first for index in self._shown[self._up_to(first) : self._up_to(last)]]
                labels = self._labels[first:last].unsqueeze(1)
                terms[:, first:last], seen = self._block(student, first - start, last - start, labels, rows)
                if seen is not None:
                    shown.append(seen[0])
                    pulls.append(seen[1])
            student.leave()
        kd, ce, teacher_log_sum = terms.sum(dim=1)
        kd = kd * objective.temperature**2
        return FusedLoss(
            loss=self._weight * (objective.alpha * kd + objective.beta * ce),
            kd=kd,
            ce=ce,
            teacher_log_sum=teacher_log_sum,
            shown=join(shown) if shown else None,
            pulls=join(pulls) if pulls else None,
        )

    def _up_to(self, position: int) -> int:
        """Number of shown positions before this one."""
        return bisect_left(self._shown, position)

    def _block(
        self, student: LearningSignal, first: int, last: int, labels: Tensor, rows: list[int]
    ) -> tuple[Tensor, tuple[ShownTokens, Pulls] | None]:
        """Divergence, cross-entropy and the teacher's log-sum (3, R), and the card statistics of `rows` of the block.

        The gradient goes to the student. All (R, V) tensors are written into memory allocated before.
        """
        objective = self._objective
        logits, signal = student.block(first, last), self._teacher.block(first, last)
        q, p, spare = (room[: last - first] for room in self._room)
        torch.softmax(logits, dim=1, out=q)
        log_sum = log_sum_of(logits, q, labels)
        own = self._at_temperature_one(logits, q, log_sum, labels, spare, p)
        # CE = log Σ exp(T z) − T z_label: at temperature 1, and infinite where the student rules the label out
        chosen = logits.gather(1, labels).squeeze(1)
        ce = (own.log_sum - objective.temperature * chosen).masked_fill_(chosen <= FLOOR, math.inf)
        if isinstance(signal, TopRows):
            found = self._to_top(own, signal, q, log_sum, labels, rows, p)
        else:
            found = self._to_all(own, signal, q, log_sum, labels, rows, p)
        divergence = found.divergence.masked_fill_(found.divergence > UNBOUNDED, math.inf)
        seen = None
        if found.shown is not None:
            weights = {"kd": objective.alpha * objective.temperature, "ce": objective.beta}
            gain = objective.gain(divergence[rows], ce[rows] - found.teacher_ce)
            pulls = pulls_of(rows, own, labels, found.gradient, **weights, softness=found.softness, gain=gain)
            seen = found.shown, pulls
        self._combine(found.gradient, own, labels)
        student.put_gradient(first, last, found.gradient, logits=logits, spare=own.probs)
        return torch.stack([divergence, ce, found.teacher_log_sum]), seen

    def _to_top(
        self,
        own: SoftmaxRows,
        teacher: TopRows,
        q: Tensor,
        log_sum: Tensor,
        labels: Tensor,
        rows: list[int],
        spare: Tensor,
    ) -> _Distance:
        """Distance to a teacher whose top K are known; the gradient is written into `spare`."""
        shown, its_ce = None, log_sum.new_empty(0)
        if rows:
            shown = self._read(own, teacher, rows, spare)
            its_ce = self._teacher_ce(rows, teacher, labels)
        divergence = top_forward_kl(own.logits, teacher, q, log_sum, spare)
        return _Distance(divergence, spare, torch.zeros_like(divergence), shown, divergence.new_empty(0), its_ce)

    def _to_all(
        self, own: SoftmaxRows, teacher: Tensor, q: Tensor, log_sum: Tensor, labels: Tensor, rows: list[int], p: Tensor
    ) -> _Distance:
        """Distance to a teacher with all logits; the gradient overwrites them, so card statistics are read before."""
        torch.softmax(teacher, dim=1, out=p)
        teacher_log_sum = log_sum_of(teacher, p, labels)
        shown, softness = None, teacher_log_sum.new_empty(0)
        its_ce = softness
        if rows:
            spare, other = (room[: len(p)] for room in self._reading_room)
            at_one = self._at_temperature_one(teacher, p, teacher_log_sum, labels, spare, other)
            shown = self._read(own, at_one, rows, other)
            softness = softness_of(rows, teacher, p, teacher_log_sum, width=self._teacher.width)
            its_ce = self._teacher_ce(rows, at_one, labels)
        block = Block(
            student=own.logits,
            teacher=teacher,
            q=q,
            p=p,
            q_log_sum=log_sum,
            p_log_sum=teacher_log_sum,
            mixture=self._mixture,
            spares=self._spares,
        )
        return _Distance(self._kind(block), teacher, teacher_log_sum, shown, softness, its_ce)

    def _at_temperature_one(
        self, logits: Tensor, q: Tensor, log_sum: Tensor, labels: Tensor, out: Tensor, spare: Tensor
    ) -> SoftmaxRows:
        """The softmax at temperature 1 of z = logits / T, from q = softmax(z) and log Σ exp z, written into `out`.

        softmax(T z) ∝ q^T: for T = 2, 4, 8 … square and renormalise instead of a second exp. To renormalise is a factor
        for each row, so it costs no pass; and log Σ exp(T z) = T log Σ exp z + log Σ q^T.
        """
        temperature = self._objective.temperature
        if temperature == 1:
            return SoftmaxRows(logits, q, None, log_sum)
        if self._doublings is None:
            torch.softmax(torch.mul(logits, temperature, out=spare), dim=1, out=out)
            return SoftmaxRows(logits, out, None, log_sum_of(spare, out, labels))
        if self._doublings > LOSSLESS_SQUARES:
            # (q / max q)^T in place of q^T; log Σ exp z grows by log max q in return
            peak = q.amax(dim=1)
            log_sum = log_sum + peak.log()
            q = torch.mul(q, peak.reciprocal().unsqueeze(1), out=out)
        torch.mul(q, q, out=out)
        for _ in range(self._doublings - 1):
            out.mul_(out)
        total = out.sum(dim=1)
        return SoftmaxRows(logits, out, total.reciprocal().unsqueeze(1), temperature * log_sum + total.log())

    def _combine(self, gradient: Tensor, own: SoftmaxRows, labels: Tensor) -> None:
        """Turn dD/dz into the gradient of the whole loss by the student's logits T z, in the pass's unit.

        That of CE is softmax(T z) − 1 at the label; beta over the unit is its weight beside dD/dz.
        """
        objective = self._objective
        ratio = objective.beta / self._unit
        if not objective.alpha:
            gradient.zero_()
        if objective.beta and own.share is None:
            gradient.add_(own.probs, alpha=ratio)
        elif objective.beta and own.share is not None:
            gradient.addcmul_(own.probs, own.share, value=ratio)
        if objective.beta:
            gradient.scatter_add_(1, labels, gradient.new_full((1, 1), -ratio).expand_as(labels))

    def _read(self, own: SoftmaxRows, teacher: SoftmaxRows | TopRows, rows: list[int], spare: Tensor) -> ShownTokens:
        """The card statistics of `rows` of a block."""
        temperature, width = self._objective.temperature, self._teacher.width
        return read_tokens(own, teacher, rows, temperature=temperature, width=width, spare=spare)

    def _teacher_ce(self, rows: list[int], teacher: SoftmaxRows | TopRows, labels: Tensor) -> Tensor:
        return teacher_ce(rows, teacher, labels, temperature=self._objective.temperature, width=self._teacher.width)
