"""A trial forward pass of both models on a few rows: losses, KL, vocabulary sizes, bytes kept for the backward pass.

Tensors end here. Knows nothing of which values are good or bad.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from apt_model.config import LessonConfig
from apt_model.data.batch import Batch, learned_positions
from apt_model.data.encoded import IGNORED
from apt_model.distill.losses.fused import HeadInput, StudentOutput, WrittenLogits, fused_distillation
from apt_model.distill.losses.logit_blocks import HeadSignal, Signal, TensorSignal
from apt_model.distill.losses.metrics import are_numbers, row_sums
from apt_model.distill.losses.objective import Objective
from apt_model.distill.losses.readout import numbers
from apt_model.models.devices import device_of
from apt_model.models.forward import Forward
from apt_model.models.output_head import OutputHead, find_head

ROWS, TOKENS = 4, 128


@dataclass(frozen=True, kw_only=True)
class TrialReading:
    """Measurements of the trial forward pass; losses in nats per token, NaN where the logits are no numbers.

    Attributes:
        teacher_width, student_width: columns of their logits.
        not_numbers: the roles whose logits have NaN, +inf, or a row of -inf alone.
        own_kl: KL(student ‖ student) at the training temperature, through the loss that trains: 0.
        kl: KL(teacher ‖ student) at temperature 1.
        teacher_ce, student_ce: cross-entropy on the labels.
        kept_bytes: activations that the student's forward pass keeps for the backward pass, bytes a token.
        kept_once: what it keeps however long the batch is: autocast's copies of the weights, in bytes.
        is_fused: whether the student's head was found, so that the fused loss computes logits chunk by chunk.
    """

    teacher_width: int
    student_width: int
    not_numbers: tuple[str, ...]
    own_kl: float
    kl: float
    teacher_ce: float
    student_ce: float
    kept_bytes: float
    kept_once: float
    is_fused: bool


def trial_batch(batches: Sequence[Batch]) -> Batch | None:
    """Up to 4 rows of one batch with a label in their first 128 tokens, or else anywhere; None if no row has one."""
    for width in (TOKENS, max((batch.labels.shape[1] for batch in batches), default=0)):
        for batch in batches:
            rows = (batch.labels[:, 1:width] != IGNORED).any(dim=1).nonzero().flatten()[:ROWS]
            if len(rows):
                return batch.part(rows, slice(width))
    return None


def read_trial(
    student: nn.Module,
    teacher: nn.Module,
    few: Batch,
    *,
    forwards: tuple[Forward, Forward],
    config: LessonConfig,
    device: torch.device,
) -> TrialReading:
    """Run both models on `few`.

    Args:
        student, teacher: in eval mode, the student on `device`.
        few: on the CPU.
        forwards: of the student and of the teacher.
        config: has temperature and precision.
        device: where the student computes.

    Raises:
        ModelError: no logits, or logits that do not fit the batch.
    """
    batch, (call_student, call_teacher), precision = few.to(device), forwards, config.train.mixed_precision
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    with torch.autocast(device.type, dtype) if precision != "no" else nullcontext():
        student_logits, kept = _kept_bytes(student, batch, call_student)
        kept_once = 0.0 if precision == "no" else _kept_at_no_tokens(student, batch, call_student, kept)
        head = find_head(student)
        with torch.no_grad():
            teacher_logits = call_teacher(teacher, batch.to(device_of(teacher) or device)).to(device)
        own_kd = _own_divergence(student, batch, head, call_student, config)
    pairs = (("student", student_logits), ("teacher", teacher_logits))
    sums = row_sums(student_logits, batch.labels, teacher_logits)
    teacher_sums = row_sums(teacher_logits, batch.labels)
    assert sums.kl is not None  # noqa: S101 - a teacher was given
    tokens, temperature = sums.tokens.sum(), config.distill.temperature
    own_kl, kl, teacher_ce, student_ce = numbers(
        [one / tokens for one in (own_kd / temperature**2, sums.kl.sum(), teacher_sums.ce.sum(), sums.ce.sum())]
    )
    return TrialReading(
        teacher_width=teacher_logits.shape[-1],
        student_width=student_logits.shape[-1],
        not_numbers=tuple(role for role, logits in pairs if not are_numbers(logits)),
        own_kl=own_kl,
        kl=kl,
        teacher_ce=teacher_ce,
        student_ce=student_ce,
        kept_bytes=(kept - kept_once) / few.input_ids.numel(),
        kept_once=kept_once,
        is_fused=head is not None,
    )


@torch.no_grad()
def _own_divergence(
    student: nn.Module, batch: Batch, head: OutputHead | None, call: Forward, config: LessonConfig
) -> Tensor:
    """Summed KD loss of the student with itself as teacher, by two forward passes and the loss that trains."""
    learned, objective = learned_positions(batch.labels), Objective.of(config.distill)
    temperature, dtype = objective.temperature, torch.bfloat16 if config.train.head_dtype == "bf16" else None
    output: StudentOutput
    itself: Signal
    if head is None:
        logits, again = (call(student, batch).flatten(0, 1) for _ in range(2))
        output = WrittenLogits(logits=logits, positions=learned)
        itself = TensorSignal(again, temperature=temperature, width=again.shape[-1], positions=learned)
    else:
        hidden, again = (call.hidden(student, batch, head).flatten(0, 1).index_select(0, learned) for _ in range(2))
        output = HeadInput(hidden=hidden, head=head, product_dtype=dtype)
        itself = HeadSignal(again, head, temperature=temperature, width=head.linear.out_features, dtype=dtype)
    labels = batch.labels.flatten()[learned + 1]
    return fused_distillation(output, itself, labels, objective=objective, chunk_rows=config.train.chunk_rows).kd


def _kept_bytes(student: nn.Module, batch: Batch, call: Forward) -> tuple[Tensor, int]:
    """The logits of a forward pass, and the bytes that it keeps for the backward pass."""
    kept = _SavedBytes(student)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
        return call(student, batch).detach(), kept.bytes


def _kept_at_no_tokens(student: nn.Module, batch: Batch, call: Forward, kept: int) -> float:
    """The bytes kept whatever the number of tokens: those of the batch and of its half lie on a line."""
    rows, width = batch.input_ids.shape
    count, half = (rows // 2, width) if rows > 1 else (rows, -(-width // 2))
    _, less = _kept_bytes(student, batch.part(torch.arange(count, device=batch.input_ids.device), slice(half)), call)
    tokens, fewer = rows * width, count * half
    return max(0.0, (less * tokens - kept * fewer) / (tokens - fewer)) if fewer < tokens else 0.0


class _SavedBytes:
    """Counts the bytes that a forward pass saves for the backward pass, each storage once, without the weights.

    The pack hook of `saved_tensors_hooks`: it returns each tensor unchanged.
    """

    def __init__(self, model: nn.Module) -> None:
        self._seen = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
        self._held: list[Tensor] = []  # a storage that is freed meanwhile would lend its address to another
        self.bytes = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self._held.append(tensor)
            self.bytes += storage.nbytes()
        return tensor
