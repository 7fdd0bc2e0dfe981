"""Statistics of the tokens on a card (argmax, top 5, KL, entropy, pulls), read before the logits are overwritten.

Tensors in, small tensors out; knows nothing of rows, texts or cards.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from apt_model.distill.losses.chunk_size import MULTIPLE, padded
from apt_model.distill.losses.logit_blocks import FLOOR, TopRows
from apt_model.distill.losses.topk_kl import at_temperature_one, top_cross_entropy, top_forward_kl

TOP = 5


class ShownTokens(NamedTuple):
    """What both models predict at S positions, at temperature 1, and how far they are apart.

    Attributes:
        teacher_best, student_best: (S) int64, the most probable token, the first of those that are equally so.
        teacher_ids, student_ids: (S, TOP) int64, the best tokens, the best first; fewer where fewer are known.
        teacher_probs, student_probs: (S, TOP) float32.
        kl_nats: (S) float32, KL(teacher ‖ student).
        teacher_entropy, student_entropy: (S) float32, nats; the teacher's is (0) where only its best tokens are known.
    """

    teacher_best: Tensor
    teacher_ids: Tensor
    teacher_probs: Tensor
    student_best: Tensor
    student_ids: Tensor
    student_probs: Tensor
    kl_nats: Tensor
    teacher_entropy: Tensor
    student_entropy: Tensor


class Pulls(NamedTuple):
    """The pull of both terms of the loss on the student at S positions, and what it can gain there.

    Attributes:
        kd_pull, ce_pull: (S) float32, the norms of both terms' gradients by the student's logits, as weighted in the
            loss.
        softness: (S) float32, the teacher's entropy at the training temperature over the most it can be, log V; (0)
            where only its best tokens are known.
        gain: (S) float32, both terms as weighted in the loss, the cross-entropy less the teacher's.
    """

    kd_pull: Tensor
    ce_pull: Tensor
    softness: Tensor
    gain: Tensor


R = TypeVar("R", ShownTokens, Pulls)


class SoftmaxRows(NamedTuple):
    """The softmax at temperature 1 of one model's logits at R positions, in parts that the loss has computed anyway.

    Attributes:
        logits: (R, padded width) over the temperature, FLOOR for tokens that are ruled out and in the padding.
        probs: (R, padded width), the softmax at temperature 1, but for a factor.
        share: (R, 1), that factor; None where it is 1.
        log_sum: (R), log Σ exp of the logits at temperature 1.
    """

    logits: Tensor
    probs: Tensor
    share: Tensor | None
    log_sum: Tensor

    def at(self, rows: slice) -> "SoftmaxRows":
        """Some of them."""
        return SoftmaxRows(*(None if part is None else part[rows] for part in self))  # type: ignore[arg-type]


class _TeacherTokens(NamedTuple):
    """The teacher's part of `ShownTokens`."""

    best: Tensor
    ids: Tensor
    probs: Tensor
    kl_nats: Tensor
    entropy: Tensor


def join(readings: Sequence[R]) -> R:
    """Readings of some positions each, at least one, as one."""
    return type(readings[0])(*(torch.cat(parts) for parts in zip(*readings, strict=True)))


@torch.no_grad()
def read_tokens(
    student: SoftmaxRows,
    teacher: SoftmaxRows | TopRows,
    rows: Sequence[int],
    *,
    temperature: float,
    width: int,
    spare: Tensor,
) -> ShownTokens:
    """Read `rows`, ascending, of a block. Nothing is computed that the block's own pass has computed already.

    `spare`, of the block's shape, is room to work in.
    """
    span = slice(rows[0], rows[-1] + 1)  # without a gap where they are of one text, so nothing is copied
    student, spare = student.at(span), spare[span]
    student_best, student_ids = _best(student.logits, width)
    if isinstance(teacher, TopRows):
        theirs = _of_top(student, teacher.at(span), temperature, spare)
    else:
        theirs = _of_all(student, teacher.at(span), temperature, width, spare)
    found = ShownTokens(
        theirs.best,
        theirs.ids,
        theirs.probs,
        student_best,
        student_ids,
        _probs(student, student_ids, temperature),
        theirs.kl_nats.clamp(min=0),
        theirs.entropy,
        _entropy(student, temperature, spare),
    )
    within = torch.tensor(rows, device=spare.device) - rows[0]
    return ShownTokens(*(part.index_select(0, within) if len(part) else part for part in found))


def _of_top(student: SoftmaxRows, teacher: TopRows, temperature: float, spare: Tensor) -> _TeacherTokens:
    """Of a teacher whose top K are known: KL with the tail as one bucket, at temperature 1; no entropy."""
    teacher = at_temperature_one(teacher, temperature=temperature)
    probs, order = teacher.log_probs.exp().topk(min(TOP, teacher.ids.shape[1]), dim=1)
    ids = teacher.ids.gather(1, order)
    q = student.probs if student.share is None else student.probs * student.share
    kl = top_forward_kl(student.logits * temperature, teacher, q, student.log_sum, spare)
    return _TeacherTokens(ids[:, 0], ids, probs, kl, kl.new_empty(0))


def _of_all(
    student: SoftmaxRows, teacher: SoftmaxRows, temperature: float, width: int, spare: Tensor
) -> _TeacherTokens:
    """Of a teacher whose logits u are all known, as the student's z: both over T here, log-sums at temperature 1.

    KL = Σ p (log p − log q) = Σ p (u − z) − log Σ exp u + log Σ exp z: no log of a probability, one pass.
    """
    best, ids = _best(teacher.logits, width)
    probs = _probs(teacher, ids, temperature)
    kl = torch.sub(teacher.logits, student.logits, out=spare).mul_(teacher.probs).sum(dim=1).mul_(temperature)
    if teacher.share is not None:
        kl.mul_(teacher.share.squeeze(1))
    kl = kl + student.log_sum - teacher.log_sum
    return _TeacherTokens(best, ids, probs, kl, _entropy(teacher, temperature, spare))


@torch.no_grad()
def pulls_of(
    rows: Sequence[int],
    student: SoftmaxRows,
    labels: Tensor,
    gradient: Tensor,
    *,
    kd: float,
    ce: float,
    softness: Tensor,
    gain: Tensor,
) -> Pulls:
    """The pulls at `rows` of a block.

    Args:
        rows: indices into R.
        student: its probabilities.
        labels: (R, 1) int64.
        gradient: (R, padded width), the divergence's by the student's logits over the temperature.
        kd, ce: factors of both gradients.
        softness, gain: at these rows.
    """
    within = torch.tensor(rows, device=gradient.device)
    # the cross-entropy's gradient by the logits: q − 1 at the label, q elsewhere
    probs = student.probs.index_select(0, within)
    if student.share is not None:
        probs = probs * student.share.index_select(0, within)
    own = labels.index_select(0, within)
    apart = probs.scatter_add(1, own, probs.new_full((1, 1), -1.0).expand_as(own))
    return Pulls(gradient.index_select(0, within).norm(dim=1) * kd, apart.norm(dim=1) * ce, softness, gain)


@torch.no_grad()
def teacher_ce(
    rows: Sequence[int], teacher: SoftmaxRows | TopRows, labels: Tensor, *, temperature: float, width: int
) -> Tensor:
    """The teacher's cross-entropy on labels (R, 1) at `rows`, at temperature 1."""
    within = torch.tensor(rows, device=labels.device)
    own = labels.index_select(0, within)
    if isinstance(teacher, SoftmaxRows):
        chosen = teacher.logits.index_select(0, within).gather(1, own).squeeze(1)
        return (teacher.log_sum.index_select(0, within) - temperature * chosen).masked_fill_(chosen <= FLOOR, math.inf)
    return top_cross_entropy(at_temperature_one(teacher.at(within), temperature=temperature), own, width=width)


@torch.no_grad()
def softness_of(rows: Sequence[int], logits: Tensor, probs: Tensor, log_sum: Tensor, *, width: int) -> Tensor:
    """The entropy at `rows` of a softmax over log `width`, from its logits z (R, padded width) and log-sum (R).

    H = −Σ p log p = log Σ exp z − Σ p z: p is 0 in the padding.
    """
    within = torch.tensor(rows, device=logits.device)
    mean = (logits.index_select(0, within) * probs.index_select(0, within)).sum(dim=1)
    return (log_sum.index_select(0, within) - mean).clamp_(min=0) / math.log(width)


@torch.no_grad()
def softmax_rows(logits: Tensor, *, width: int) -> SoftmaxRows:
    """From logits (R, `width`) of any float dtype, at temperature 1."""
    own = torch.empty((len(logits), padded(width)), device=logits.device)
    own[:, :width].copy_(logits).clamp_(min=FLOOR)
    own[:, width:] = FLOOR
    probs = own.softmax(dim=1)
    # log Σ exp z = max z − log max p: the peak's probability has all its digits
    return SoftmaxRows(own, probs, None, own.amax(dim=1) - probs.amax(dim=1).log())


def _probs(rows: SoftmaxRows, ids: Tensor, temperature: float) -> Tensor:
    """Probabilities at temperature 1 of some ids (R, K): exp(z − log Σ exp z), which no factor has rounded."""
    return (rows.logits.gather(1, ids) * temperature - rows.log_sum.unsqueeze(1)).exp()


def _entropy(rows: SoftmaxRows, temperature: float, spare: Tensor) -> Tensor:
    """H = −Σ p log p = log Σ exp z − Σ p z at temperature 1, (R) in nats."""
    mean = torch.mul(rows.logits, rows.probs, out=spare).sum(dim=1).mul_(temperature)
    if rows.share is not None:
        mean.mul_(rows.share.squeeze(1))
    return torch.sub(rows.log_sum, mean).clamp_(min=0)


def _best(logits: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The first most probable token of each row (R), and the best TOP (R, TOP).

    A top-5 over the whole vocabulary costs more than all else here. The best TOP tokens lie in the TOP groups of
    MULTIPLE columns whose maxima are the highest: one pass for the maxima, then a top-5 among TOP · MULTIPLE.
    """
    groups = logits.view(len(logits), -1, MULTIPLE)
    maxima = groups.amax(dim=2)
    first = argmax(maxima)
    within = argmax(groups[torch.arange(len(groups), device=groups.device), first])
    chosen = maxima.topk(min(TOP, maxima.shape[1]), dim=1, sorted=False).indices
    candidates = groups.gather(1, chosen.unsqueeze(2).expand(-1, -1, MULTIPLE)).flatten(1)
    order = candidates.topk(min(TOP, width), dim=1).indices
    ids = chosen.gather(1, order // MULTIPLE) * MULTIPLE + order % MULTIPLE
    return first * MULTIPLE + within, ids.clamp_(max=width - 1)  # where all the rest is ruled out, so is the padding


def argmax(values: Tensor) -> Tensor:
    """The first maximum of each row; on the CPU by numpy, which is five times faster at it than torch 2.13."""
    return torch.from_numpy(values.numpy().argmax(axis=-1)) if values.device.type == "cpu" else values.argmax(dim=-1)
