"""The floor: the work that every distillation step has to do, as fast as we can write it. All else is compared with it.

It is the teacher's forward pass, its logits computed chunk by chunk and discarded, and the student's step on
cross-entropy alone, with at most one chunk of logits in memory. Matrix products go into reused buffers, whose rows
begin on a cache line; elementwise passes take a few rows at a time, so that they stay in the cache; gradients are
computed in the forward pass; positions without a label never reach a head. A contender beats it only by a cheaper
product.
"""

from typing import Any

import torch
from torch import Tensor

from apt_model.models.wide_matmul import product_of
from benchmarks.sizes import Pair

CHUNK = 256  # positions a matrix product; more gains nothing on a CPU
LINE = 64  # numbers: rows begin at multiples of it, which makes products with an odd vocabulary up to 1.5 times faster
BLOCK = 2**18  # numbers an elementwise pass: 1 MiB in float32, of a core's second-level cache
IGNORED = -100


def room(rows: int, like: Tensor, line: int = LINE) -> Tensor:
    """An uninitialised (rows, V) for products with `like` (V, H), rows beginning at multiples of `line`."""
    width = like.shape[0]
    return like.new_empty(rows, -(-width // line) * line)[:, :width]


def throw_away(hidden: Tensor, weight: Tensor, line: int) -> None:
    """Make the logits of hidden states (N, H) with a head (V, H), chunk by chunk, and keep none."""
    buffer = room(min(CHUNK, len(hidden)), weight, line)
    for chunk in hidden.split(CHUNK):
        with product_of(chunk, weight):
            torch.mm(chunk, weight.t(), out=buffer[: len(chunk)])


class ChunkedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of hidden states (N, H), a head (V, H) and labels (N), none of them ignored."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, line: int) -> Tensor:
        """Loss and, at once, both gradients."""
        count, width = len(hidden), len(weight)
        logits = room(min(CHUNK, count), weight, line)
        rows = max(1, BLOCK // width) if hidden.device.type == "cpu" else CHUNK
        in_float32 = weight.dtype == torch.float32
        block = None if in_float32 else torch.empty(rows, width, dtype=torch.float32, device=hidden.device)
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.empty_like(weight)
        surprise = torch.zeros((), device=hidden.device)
        for start in range(0, count, CHUNK):
            chunk, targets = hidden[start : start + CHUNK], labels[start : start + CHUNK].unsqueeze(1)
            with product_of(chunk, weight):
                scores = torch.mm(chunk, weight.t(), out=logits[: len(chunk)])
            for first in range(0, len(chunk), rows):
                part, target = scores[first : first + rows], targets[first : first + rows]
                share = part if block is None else block[: len(part)].copy_(part)
                torch.softmax(share, 1, out=share)
                hit = share.gather(1, target)
                surprise -= hit.clamp_min(torch.finfo(torch.float32).tiny).log().sum()
                share.scatter_(1, target, hit - 1)
                if block is not None:
                    part.copy_(share)
            with product_of(chunk, weight):
                torch.mm(scores, weight, out=grad_hidden[start : start + len(chunk)])
                torch.addmm(grad_weight, scores.t(), chunk, beta=int(start > 0), alpha=1 / count, out=grad_weight)
        ctx.gradients = grad_hidden.div_(count), grad_weight
        return surprise / count

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """What forward made."""
        grad_hidden, grad_weight = ctx.gradients  # of a loss that is differentiated as it is: the outer factor is 1
        del ctx.gradients
        return grad_hidden, grad_weight, None, None


def floor_loss(pair: Pair, ids: Tensor, labels: Tensor, *, line: int = LINE) -> Tensor:
    """The student's mean cross-entropy, after a teacher's forward that nothing uses."""
    targets = labels[:, 1:].flatten()
    counts = targets != IGNORED
    some_masked = not bool(counts.all())
    with torch.no_grad():
        spoken = pair.teacher.model(ids).last_hidden_state[:, :-1].flatten(0, 1)
        throw_away(spoken[counts] if some_masked else spoken, pair.teacher.lm_head.weight, line)
    hidden = pair.student.model(ids).last_hidden_state[:, :-1].flatten(0, 1)
    if some_masked:
        hidden, targets = hidden[counts], targets[counts]
    loss: Tensor = ChunkedCrossEntropy.apply(hidden, pair.student.lm_head.weight, targets, line)  # type: ignore[no-untyped-call]
    return loss
