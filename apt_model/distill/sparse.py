"""KL to a teacher of whom only the likeliest tokens are known: k of them, and all others together as one.

Pure functions of tensors. They know nothing of models, batches, or of where the teacher's signal was kept.
"""

from typing import NamedTuple

from torch import Tensor

FLOOR = -1e30  # stands for -inf, so that 0 times it is 0


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


def sparse_token_kl(student_logits: Tensor, teacher: TopRows, *, temperature: float) -> Tensor:
    """KL(teacher ‖ student) over the K tokens and the tail as one outcome, in nats, not yet multiplied by T².

    Never more than the KL over all tokens, which it equals where K is the whole vocabulary or where the student's
    tail has the shape of the teacher's: the one bucket hides the tail's mass times the KL within the tail.

    Shapes: student logits (R, V), any float dtype; returns (R) in float32. `teacher` is at `temperature` already.
    Gradient flows to the student only.
    Source: the chain rule of KL (Cover & Thomas, theorem 2.5.3).
    """
    scaled = (student_logits.float() / temperature).clamp(min=FLOOR)
    total = scaled.logsumexp(dim=-1)
    known = scaled.gather(-1, teacher.ids) - total.unsqueeze(-1)
    kl = (teacher.log_probs.exp() * (teacher.log_probs.clamp(min=FLOOR) - known)).sum(dim=-1)
    if teacher.ids.shape[-1] == scaled.shape[-1]:
        return kl
    # not log(1 - sum of the known): that difference has no digits left where the student is sure of itself
    others = scaled.scatter(-1, teacher.ids, FLOOR).logsumexp(dim=-1) - total
    return kl + teacher.log_tail.exp() * (teacher.log_tail.clamp(min=FLOOR) - others)
