"""What a card needs of the tokens it shows, read from logits that are about to be overwritten.

Tensors in, small tensors out; knows nothing of rows, texts or cards.
"""

from typing import NamedTuple

from torch import Tensor

from apt_model.distill.losses import token_kl
from apt_model.distill.signals import TopRows
from apt_model.distill.topk import at_temperature_one, top_forward_kl

TOP = 5


class ShownTokens(NamedTuple):
    """What both models say at S positions: the TOP best tokens (fewer where a model knows fewer), and their distance.

    Attributes:
        teacher_ids, student_ids: (S, TOP) int64, the most probable first.
        teacher_probs, student_probs: (S, TOP) float32, at temperature 1.
        kl_nats: (S) float32, KL(teacher ‖ student) at temperature 1.
    """

    teacher_ids: Tensor
    teacher_probs: Tensor
    student_ids: Tensor
    student_probs: Tensor
    kl_nats: Tensor


def read_tokens(
    student_logits: Tensor, teacher: Tensor | TopRows, rows: Tensor, *, temperature: float, width: int
) -> ShownTokens:
    """Read `rows` of a block, (R, at least `width`) logits over `temperature`, or the teacher's top K."""
    student = student_logits.index_select(0, rows)[:, :width] * temperature
    q = student.softmax(dim=1)
    if isinstance(teacher, TopRows):
        known = at_temperature_one(TopRows(*(part.index_select(0, rows) for part in teacher)), temperature=temperature)
        teacher_probs, order = known.log_probs.exp().topk(min(TOP, known.ids.shape[1]), dim=1)
        teacher_ids = known.ids.gather(1, order)
        kl = top_forward_kl(student, known, q, student.logsumexp(dim=1), q.clone())
    else:
        logits = teacher.index_select(0, rows)[:, :width] * temperature
        teacher_probs, teacher_ids = logits.softmax(dim=1).topk(min(TOP, width), dim=1)
        kl = token_kl(student, logits, temperature=1.0)
    student_probs, student_ids = q.topk(min(TOP, width), dim=1)
    return ShownTokens(teacher_ids, teacher_probs, student_ids, student_probs, kl.clamp(min=0))
