"""Contenders of the step benchmark: the floor, this library's loss implementations, the plain loop.

A contender computes the loss of a batch; ours compute matrix products as `distill` does. Models and optimizer step are
the same for all. `peers` adds the other libraries.
"""

import shutil
import tempfile
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from apt_model.data.batch import Batch, learned_positions
from apt_model.distill.losses.fused import HeadInput, StudentOutput, WrittenLogits, fused_distillation
from apt_model.distill.losses.logit_blocks import Buffer, HeadSignal, Signal
from apt_model.distill.losses.objective import Objective
from apt_model.distill.teachers.cache.manifest import CacheSettings
from apt_model.distill.teachers.cache.writer import CacheWriter
from apt_model.distill.teachers.cached import CachedTeacher
from apt_model.models.output_head import find_head
from apt_model.models.wide_matmul import full_width
from benchmarks.sizes import Pair
from benchmarks.step.floor import floor_loss
from benchmarks.step.objective import IGNORED, TASK, TOP, LossFunction, Products, StepObjective, as_usual


def at_full_width(pair: Pair) -> AbstractContextManager[None]:
    """Context manager: matrix products as `distill` computes them."""
    return full_width(pair.teacher, pair.student)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One row of the table.

    Attributes:
        name: as in `--contenders`.
        build: makes its loss function for a pair of models; imports its library, and may fail in any way.
        objective: what it is documented to compute.
        package: the distribution that it comes from, whose version is printed.
        note: how it is called, if that is not obvious.
        products: context manager around its forward and backward pass that changes how float32 matrices are multiplied.
    """

    name: str
    build: Callable[[Pair], LossFunction]
    objective: StepObjective = TASK
    package: str = "apt-model"
    note: str = ""
    products: Products = as_usual


@torch.no_grad()
def teacher_logits(pair: Pair, ids: Tensor) -> Tensor:
    """The teacher's logits (B, L, V), without gradient."""
    logits: Tensor = pair.teacher(ids).logits
    return logits


def hidden_states(pair: Pair, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The student's last hidden states (B, L, H) with gradient, and the teacher's without."""
    with torch.no_grad():
        teacher = pair.teacher.model(ids).last_hidden_state
    return pair.student.model(ids).last_hidden_state, teacher


def _floor(pair: Pair) -> LossFunction:
    return lambda ids, labels: floor_loss(pair, ids, labels)


def _floor_unpadded(pair: Pair) -> LossFunction:
    return lambda ids, labels: floor_loss(pair, ids, labels, line=1)


def _no_kd(pair: Pair) -> LossFunction:
    def loss(ids: Tensor, labels: Tensor) -> Tensor:
        teacher_logits(pair, ids)
        found: Tensor = pair.student(ids, labels=labels).loss
        return found

    return loss


def _plain(pair: Pair) -> LossFunction:
    def loss(ids: Tensor, labels: Tensor) -> Tensor:
        spoken = teacher_logits(pair, ids)[:, :-1].flatten(0, 1)
        answered = pair.student(ids).logits[:, :-1].flatten(0, 1)
        targets = labels[:, 1:].flatten()
        temperature, counts = TASK.temperature, targets != IGNORED
        if not bool(counts.all()):
            spoken, answered, targets = spoken[counts], answered[counts], targets[counts]
        kd = F.kl_div(
            F.log_softmax(answered / temperature, dim=-1),
            F.softmax(spoken / temperature, dim=-1),
            reduction="batchmean",
        )
        return TASK.kd_weight * kd + TASK.ce_weight * F.cross_entropy(answered, targets)

    return loss


class OursFused:
    """The fused loss, with both heads' buffers reused from step to step, as in the training loop."""

    def __init__(self, pair: Pair, dtype: torch.dtype | None = None) -> None:
        student, teacher = find_head(pair.student), find_head(pair.teacher)
        assert student is not None
        assert teacher is not None
        self._pair, self._student, self._teacher = pair, student, teacher
        self._buffers, self._dtype = (Buffer(), Buffer()), dtype

    @property
    def bytes_kept(self) -> int:
        """Bytes held between steps: they count as memory that a step needs."""
        return sum(buffer.bytes_kept for buffer in self._buffers)

    def __call__(self, ids: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch."""
        hidden, spoken = (states[:, :-1].flatten(0, 1) for states in hidden_states(self._pair, ids))
        targets = labels[:, 1:].flatten()
        counts = targets != IGNORED
        if not bool(counts.all()):
            hidden, spoken, targets = hidden[counts], spoken[counts], targets[counts]
        weight, (own, teachers) = self._teacher.linear.weight, self._buffers
        signal = HeadSignal(
            spoken, self._teacher, temperature=TASK.temperature, width=len(weight), dtype=self._dtype, buffer=teachers
        )
        student = HeadInput(hidden=hidden, head=self._student, product_dtype=self._dtype, buffer=own)
        return fused(student, signal, targets)


class OursWritten(OursFused):
    """The fused loss for a student whose head cannot be called separately: from its full logits."""

    def __call__(self, ids: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch."""
        logits = self._pair.student(ids).logits.flatten(0, 1)
        with torch.no_grad():
            spoken = self._pair.teacher.model(ids).last_hidden_state.flatten(0, 1)
        positions = learned_positions(labels)
        head, (_, teachers), temperature = self._teacher, self._buffers, TASK.temperature
        signal = HeadSignal(spoken[positions], head, temperature=temperature, width=logits.shape[-1], buffer=teachers)
        student = WrittenLogits(logits=logits, positions=positions)
        return fused(student, signal, labels.flatten()[positions + 1])


def fused(student: StudentOutput, signal: Signal, targets: Tensor) -> Tensor:
    """The loss of TASK by `fused_distillation`."""
    alpha = TASK.kd_weight / TASK.temperature**2
    objective = Objective(temperature=TASK.temperature, alpha=alpha, beta=TASK.ce_weight)
    return fused_distillation(student, signal, targets, objective=objective, weight=1 / len(targets)).loss


class OursCached:
    """The fused loss with a cache instead of the teacher, written from the first batch."""

    def __init__(self, pair: Pair) -> None:
        head = find_head(pair.student)
        assert head is not None
        self._pair, self._head, self._buffer = pair, head, Buffer()
        self._directory = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, self._directory)
        self._cached: CachedTeacher | None = None

    @property
    def bytes_kept(self) -> int:
        """Bytes held between steps."""
        return self._buffer.bytes_kept

    def __call__(self, ids: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch."""
        batch = Batch(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)
        if self._cached is None:
            self._cached = self._cache(batch)
        hidden = self._pair.student.model(ids).last_hidden_state.flatten(0, 1)
        learned = learned_positions(labels)
        width = len(self._head.linear.weight)
        signal = self._cached.signal(batch, learned, temperature=TASK.temperature, columns=width, dtype=None)
        student = HeadInput(hidden=hidden[learned], head=self._head, buffer=self._buffer)
        return fused(student, signal, labels.flatten()[learned + 1])

    def _cache(self, batch: Batch) -> CachedTeacher:
        settings = CacheSettings(
            k=TOP, temperature=TASK.temperature, value_type="log8", max_length=batch.labels.shape[1], packing=False
        )
        rows = [
            {"input_ids": ids, "labels": labels}
            for ids, labels in zip(batch.input_ids.tolist(), batch.labels.tolist(), strict=True)
        ]
        CacheWriter(self._pair.teacher, rows, settings=settings).run(self._directory)
        return CachedTeacher(self._directory)


OURS = [
    Contender(name="floor", build=_floor, objective=StepObjective(kd=None, ce_weight=1), note="see `floor.py`"),
    Contender(
        name="floor-unpadded",
        build=_floor_unpadded,
        objective=StepObjective(kd=None, ce_weight=1),
        note="the floor with rows of logits as torch lays them out, not on cache lines",
    ),
    Contender(
        name="floor-full-width",
        build=_floor,
        objective=StepObjective(kd=None, ce_weight=1),
        note="the floor with products made as `distill` has them made",
        products=at_full_width,
    ),
    Contender(
        name="no-kd",
        build=_no_kd,
        objective=StepObjective(kd=None, ce_weight=1),
        package="transformers",
        note="the floor's work as users have it: full logits of both, loss from `model(ids, labels=...)`",
    ),
    Contender(name="plain", build=_plain, package="torch", note="the loop of the tutorials"),
    Contender(
        name="ours-fused",
        build=OursFused,
        note="`fused_distillation`, as `distill` runs it",
        products=at_full_width,
    ),
    Contender(
        name="ours-fused-bf16-head",
        build=lambda pair: OursFused(pair, torch.bfloat16),
        objective=replace(TASK, tolerance=2e-2),
        note='the same with `head_dtype="bf16"`: the products of both heads',
        products=at_full_width,
    ),
    Contender(name="ours-fused-usual", build=OursFused, note="the same with torch's own products in float32"),
    Contender(
        name="ours-written",
        build=OursWritten,
        note="the same where the student hides its head, as a compiled one does: its logits are written out",
        products=at_full_width,
    ),
    Contender(
        name="ours-cached",
        build=OursCached,
        objective=StepObjective(kd="KL of the top 64 and the rest", tolerance=1e-2),
        note="the same with `CachedTeacher` (8-bit values) for a teacher",
        products=at_full_width,
    ),
]
