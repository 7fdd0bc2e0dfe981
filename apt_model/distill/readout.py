"""The one place where tensors become numbers and text. What comes out can be shown; nothing here trains.

Knows nothing of what the numbers mean for a lesson.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apt_model.events.sinks import Guard
from apt_model.training.batch import Batch
from apt_model.training.encode import IGNORED

MAX_CARD_TOKENS = 256
FLOATS_AT_ONCE = 2**16  # of each model: a quarter of a megabyte, so that what is computed stays in the cache


@dataclass(frozen=True, kw_only=True)
class CardRow:
    """Which part of a batch a card shows: found on the CPU, before the step, without reading a logit.

    Attributes:
        row: index in the batch.
        positions: logits at these positions are shown; each predicts the token after it.
        given_ids: the tokens just before the shown part.
        input_ids: the row's own tokens.
    """

    row: int
    positions: Tensor
    given_ids: list[int]
    input_ids: list[int]


@dataclass(frozen=True, kw_only=True)
class RowReadout:
    """What both said on a `CardRow`, as numbers: argmax tokens, mean of 1 - exp(-KL) at temperature 1, agreement."""

    teacher_ids: list[int]
    student_ids: list[int]
    normalised_kl: float
    agreement: float


def numbers(values: Sequence[Tensor]) -> list[float]:
    """Scalar tensors as floats, in a single transfer from the device: the step's only synchronisation."""
    reading: list[float] = torch.stack([value.detach().float() for value in values]).tolist()
    return reading


def choose_row(batch: Batch, *, turn: int, given_tokens: int) -> CardRow | None:
    """The row to show, round and round by `turn` among those with something to learn; None if there is none.

    The first token of a text is a guess for anyone, so the shown part begins after `given_tokens` real ones, where
    the row is long enough.
    """
    valid = batch.labels[:, 1:] != IGNORED
    candidates = valid.any(dim=1).nonzero().flatten().tolist()
    if not candidates:
        return None
    row = candidates[turn % len(candidates)]
    text = batch.attention_mask[row].nonzero().flatten()
    first, last = int(text[0]), int(text[-1])
    learned = valid[row].nonzero().flatten()
    shown = learned[learned >= first + given_tokens]
    if not len(shown):
        shown = learned
    shown = shown[:MAX_CARD_TOKENS]
    start = int(shown[0]) + 1
    ids = batch.input_ids[row]
    return CardRow(
        row=row,
        positions=shown,
        given_ids=ids[max(first, start - max(given_tokens, 1)) : start].tolist() if given_tokens else [],
        input_ids=ids[first : last + 1][: 2 * MAX_CARD_TOKENS].tolist(),
    )


@torch.no_grad()
def read_row(card: CardRow, student_logits: Tensor, teacher_logits: Tensor) -> RowReadout:
    """Read one row of the logits (B, L, V) that the step trains on."""
    teacher_row, student_row = teacher_logits[card.row], student_logits[card.row]
    positions, device = card.positions.to(student_row.device), student_row.device
    teacher_ids, student_ids = torch.empty(2, len(positions), dtype=torch.long, device=device)
    kl = torch.empty(len(positions), device=device)  # made before the loop: what outlives a turn would split the heap
    rows = max(1, FLOATS_AT_ONCE // teacher_row.shape[-1])
    for start in range(0, len(positions), rows):
        some = slice(start, start + rows)
        teacher, student = (_finite(row.index_select(0, positions[some])) for row in (teacher_row, student_row))
        teacher_ids[some], student_ids[some] = _argmax(teacher), _argmax(student)
        kl[some] = _kl(teacher, student, teacher_ids[some], student_ids[some])
    values = [-torch.expm1(-kl.clamp(min=0)).mean(), (student_ids == teacher_ids).float().mean()]
    normalised_kl, agreement = numbers(values)
    return RowReadout(
        teacher_ids=teacher_ids.tolist(),
        student_ids=student_ids.tolist(),
        normalised_kl=normalised_kl,
        agreement=agreement,
    )


def _finite(logits: Tensor) -> Tensor:
    """In float32, with the lowest of all numbers for what is ruled out: it still has no probability."""
    return logits.float().clamp_(min=torch.finfo(torch.float32).min)


def _argmax(logits: Tensor) -> Tensor:
    """Most probable token of each row; on the CPU by numpy, which is five times faster at it than torch 2.13."""
    return torch.from_numpy(logits.numpy().argmax(axis=-1)) if logits.device.type == "cpu" else logits.argmax(dim=-1)


def _kl(teacher: Tensor, student: Tensor, teacher_ids: Tensor, student_ids: Tensor) -> Tensor:
    """`losses.token_kl` at temperature 1 without gradient, several times faster: one exp a logit, no log.

    KL = Σ p · (teacher - student) - log Σ exp(teacher) + log Σ exp(student).
    """
    student_log_sum = _log_sum(student, student.softmax(dim=-1), student_ids)
    p = teacher.softmax(dim=-1)
    expected: Tensor = torch.linalg.vecdot(p, teacher - student)
    return expected + student_log_sum - _log_sum(teacher, p, teacher_ids)


def _log_sum(logits: Tensor, probabilities: Tensor, best: Tensor) -> Tensor:
    """log Σ exp(logits) of each row, from the entry whose probability is the surest."""
    best = best.unsqueeze(-1)
    return (logits.gather(-1, best) - probabilities.gather(-1, best).log()).squeeze(-1)


class Decoder:
    """Token ids as text, whatever the tokenizer does: where it fails, a placeholder stands in and the guard knows."""

    def __init__(self, tokenizer: Any, guard: Guard) -> None:
        self._tokenizer, self._guard = tokenizer, guard
        self._size = len(tokenizer) if hasattr(tokenizer, "__len__") else None

    def __call__(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens left out; ids that are no token (-100, padding of the head) are dropped."""
        placeholder = f"⟨{len(ids)} tokens⟩"
        if self._tokenizer is None or not ids:
            return placeholder if ids else ""
        return self._guard.run("tokenizer", lambda: self._decode(ids), placeholder)

    def _decode(self, ids: Sequence[int]) -> str:
        real = [token for token in ids if token >= 0 and (self._size is None or token < self._size)]
        text = self._tokenizer.decode(real, skip_special_tokens=True)
        if not isinstance(text, str):
            raise TypeError(f"decode returned {type(text).__name__}, not str")
        return text


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Whatever happens inside, the random generators of python, numpy and torch are afterwards as they were."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
