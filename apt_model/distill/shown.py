"""What a card needs of the tokens it shows, read from logits that are about to be overwritten.

Tensors in, small tensors out; knows nothing of rows, texts or cards.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from apt_model.distill.signals import FLOOR, TopRows
from apt_model.distill.topk import at_temperature_one, top_forward_kl

TOP = 5


class ShownTokens(NamedTuple):
    """What both models say at S positions, at temperature 1, and how far they are apart.

    Attributes:
        teacher_best, student_best: (S) int64, the most probable token, the first of those that are equally so.
        teacher_ids, student_ids: (S, TOP) int64, the best tokens, the best first; fewer where fewer are known.
        teacher_probs, student_probs: (S, TOP) float32.
        kl_nats: (S) float32, KL(teacher ‖ student).
    """

    teacher_best: Tensor
    teacher_ids: Tensor
    teacher_probs: Tensor
    student_best: Tensor
    student_ids: Tensor
    student_probs: Tensor
    kl_nats: Tensor


def join(readings: Iterable[ShownTokens]) -> ShownTokens:
    """Readings of some positions each as one."""
    return ShownTokens(*(torch.cat(parts) for parts in zip(*readings, strict=True)))


@torch.no_grad()
def read_tokens(
    student_logits: Tensor, teacher: Tensor | TopRows, rows: Tensor, *, temperature: float, width: int
) -> ShownTokens:
    """Read `rows` of a block, (R, at least `width`) logits over `temperature`, or the teacher's top K."""
    student = _picked(student_logits, rows, temperature, width)
    q = student.softmax(dim=1)
    student_best = _argmax(student)
    student_log_sum = _log_sum(student, q, student_best)
    if isinstance(teacher, TopRows):
        known = at_temperature_one(TopRows(*(part.index_select(0, rows) for part in teacher)), temperature=temperature)
        teacher_probs, order = known.log_probs.exp().topk(min(TOP, known.ids.shape[1]), dim=1)
        teacher_ids = known.ids.gather(1, order)
        teacher_best = teacher_ids[:, 0]
        kl = top_forward_kl(student, known, q, student_log_sum, torch.empty_like(q))
    else:
        logits = _picked(teacher, rows, temperature, width)
        p, teacher_best = logits.softmax(dim=1), _argmax(logits)
        teacher_log_sum = _log_sum(logits, p, teacher_best)
        teacher_probs, teacher_ids = p.topk(min(TOP, width), dim=1)
        kl = logits.sub_(student).mul_(p).sum(dim=1) + student_log_sum - teacher_log_sum
    student_probs, student_ids = q.topk(min(TOP, width), dim=1)
    return ShownTokens(
        teacher_best, teacher_ids, teacher_probs, student_best, student_ids, student_probs, kl.clamp(min=0)
    )


def _picked(logits: Tensor, rows: Tensor, temperature: float, width: int) -> Tensor:
    """Rows in float32 at temperature 1, with FLOOR for what is ruled out: it still has no probability."""
    return logits.index_select(0, rows)[:, :width].float().mul(temperature).clamp_(min=FLOOR)


def _argmax(logits: Tensor) -> Tensor:
    """Most probable token of each row; on the CPU by numpy, which is five times faster at it than torch 2.13."""
    return torch.from_numpy(logits.numpy().argmax(axis=-1)) if logits.device.type == "cpu" else logits.argmax(dim=-1)


def _log_sum(logits: Tensor, probabilities: Tensor, best: Tensor) -> Tensor:
    """log Σ exp(logits) of each row, from the entry whose probability is the surest."""
    best = best.unsqueeze(-1)
    return (logits.gather(-1, best) - probabilities.gather(-1, best).log()).squeeze(-1)
