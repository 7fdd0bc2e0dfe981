"""Both models on one batch: the loss, its gradient, and the row that a card shows, read on the way.

The loss is fused: no logits but a chunk's where the student's head can be had, none but its own where not. Knows how a
batch is graded; knows nothing of optimizers, epochs or who listens.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from apt_model.config import DistillConfig, TrainConfig
from apt_model.data.batch import Batch, learned_positions
from apt_model.data.encode import IGNORED
from apt_model.distill.checks import are_numbers
from apt_model.distill.losses.cross_vocabulary import CrossedLogits
from apt_model.distill.losses.fused import fused_distillation
from apt_model.distill.losses.layer_matching import Matcher, Seen
from apt_model.distill.losses.logit_blocks import Buffer
from apt_model.distill.losses.readout import CardRow, RowReadout, read_row, readout_of
from apt_model.distill.losses.reference import distillation_sums
from apt_model.distill.losses.topk_logits import SparseLogits, likeliest, refuse_narrow, sparse_distillation_sums
from apt_model.distill.teachers.live import TeacherSource
from apt_model.errors import ModelError
from apt_model.models.forward import Forward
from apt_model.models.output_head import OutputHead, find_head
from apt_model.models.wide_matmul import uses_onednn

T = TypeVar("T", float, Tensor)
TeacherLogits = Tensor | SparseLogits | CrossedLogits


class Terms(NamedTuple):
    """What the loss is made of, without gradient: sums over positions, or their means; 0 where a term is no part."""

    kd: Tensor
    ce: Tensor
    hidden: Tensor
    attention: Tensor


class Graded(NamedTuple):
    """A batch's share of the step: its loss with gradient, its sums of the terms, and what a card shows of it."""

    loss: Tensor
    terms: Terms
    readout: RowReadout | None


class Grader:
    """Grades a student against a teacher.

    Args:
        student: how the student is called.
        teacher: says what the teacher thinks of a batch.
        accelerator: places batches, casts, scales gradients.
        config: temperature, weights, kind of loss.
        train: how the heads are computed.
        matcher: compares their layers; None where only what they say is compared.
        say: is told of what the reader should know once.
    """

    def __init__(
        self,
        *,
        student: Forward,
        teacher: TeacherSource,
        accelerator: Accelerator,
        config: DistillConfig,
        train: TrainConfig,
        matcher: Matcher | None,
        say: Callable[..., None],
    ) -> None:
        self._forward, self._teacher = student, teacher
        self._accelerator, self._config, self._say, self._matcher = accelerator, config, say, matcher
        self._head: OutputHead | None = None  # of the student, once it has been looked for
        self._has_looked = False
        self._buffer = Buffer()
        self._chunk_rows, self._dtype = train.chunk_rows, torch.bfloat16 if train.head_dtype == "bf16" else None

    def check(self, batch: Batch) -> None:
        """Refuse a batch, still on the CPU, that one of the two cannot take."""
        self._forward.check(batch)
        self._teacher.check(batch)

    def weigh(self, kd: T, ce: T, hidden: T | float = 0.0, attention: T | float = 0.0) -> T:
        """The loss: `alpha * kd + beta * ce + hidden_weight * hidden + attention_weight * attention`."""
        inner = self._weigh_layers(hidden, attention) if self._matcher else 0.0
        return self._config.alpha * kd + self._config.beta * ce + inner

    def _weigh_layers(self, hidden: T | float, attention: T | float) -> T | float:
        return self._config.hidden_weight * hidden + self._config.attention_weight * attention

    def learn(
        self, student: nn.Module, batches: Sequence[Batch], rows: Sequence[CardRow | None], tokens: int
    ) -> tuple[Tensor, list[RowReadout | None]]:
        """Leave the gradient of the mean over `tokens` in the student, and in what compares its layers.

        Args:
            student: the module, as it is wrapped for training.
            batches: of one optimizer step.
            rows: what to read from each of them, if anything.
            tokens: positions to learn from in the whole step, over all processes.

        Returns:
            The sums of `Terms` over this process's part, (4,), and what was read from each batch.
        """
        accelerator, readouts = self._accelerator, []
        sums = torch.zeros(len(Terms._fields), device=accelerator.device)
        for left, batch, row in zip(reversed(range(len(batches))), batches, rows, strict=True):
            with nullcontext() if not left else accelerator.no_sync(student):
                graded = self._grade(student, batch, row, accelerator.num_processes / tokens)
                accelerator.backward(graded.loss)
            sums += torch.stack(graded.terms)
            readouts.append(graded.readout)
        if self._matcher is not None:
            self._matcher.share_gradients(accelerator)
        if uses_onednn():
            self._say("notice.wide_matmul")
        return sums, readouts

    def _grade(self, student: nn.Module, batch: Batch, row: CardRow | None, weight: float) -> Graded:
        if not self._has_looked:
            self._head, self._has_looked = find_head(student), True
        learned = learned_positions(batch.labels)  # known on the CPU
        with nullcontext() if self._matcher is None else self._matcher.watching() as seen:
            if batch.teachers is None:
                graded = self._fused(student, batch, row, learned, weight)
            else:
                graded = self._crossed(student, batch, row, weight)
        return graded if seen is None else self._matched(graded, seen, batch, learned, weight)

    def _crossed(self, student: nn.Module, batch: Batch, row: CardRow | None, weight: float) -> Graded:
        """Against a teacher of other tokens: whole logits of both."""
        student_logits, teacher_logits, moved = self.logits(student, batch)
        kd, ce = self.sums(student_logits, teacher_logits, moved)
        ce = torch.zeros_like(ce) if batch.is_written else ce
        readout = self.read(row, student_logits.detach(), teacher_logits, moved) if row is not None else None
        return Graded(self.weigh(kd, ce) * weight, self._terms(kd, ce), readout)

    def _fused(self, student: nn.Module, batch: Batch, row: CardRow | None, learned: Tensor, weight: float) -> Graded:
        device, config, head = self._accelerator.device, self._config, self._head
        labels = batch.labels.flatten()[learned + 1].to(device, non_blocking=True)
        positions, moved = learned.to(device, non_blocking=True), batch.to(device)
        shown = () if row is None else torch.searchsorted(learned, row.row * batch.labels.shape[1] + row.positions)
        if head is None:
            self._say("notice.head_hidden")
        with self._accelerator.autocast():
            if head is None:
                said = self._forward(student, moved).flatten(0, 1)
                columns = said.shape[-1]
            else:
                columns = head.linear.out_features
            signal = self._teacher.signal(
                moved, positions, temperature=config.temperature, columns=columns, dtype=self._dtype
            )
            self._shared(batch, signal.columns, columns)
            if head is not None:
                said = self._forward.hidden(student, moved, head).flatten(0, 1).index_select(0, positions)
            graded = fused_distillation(
                said,
                head,
                signal,
                labels,
                temperature=config.temperature,
                alpha=config.alpha,
                beta=0.0 if batch.is_written else config.beta,
                weight=weight,
                kind=config.loss_kind,
                mixture=config.mixture,
                chunk_rows=self._chunk_rows,
                dtype=self._dtype,
                shown=[int(index) for index in shown],
                buffer=self._buffer,
                positions=positions,
            )
        ce = torch.zeros_like(graded.ce) if batch.is_written else graded.ce
        readout = readout_of(graded.shown, graded.pulls) if graded.shown else None
        return Graded(graded.loss, self._terms(graded.kd, ce), readout)

    @staticmethod
    def _terms(kd: Tensor, ce: Tensor) -> Terms:
        return Terms(kd.detach(), ce.detach(), *torch.zeros(2, device=kd.device))

    def _matched(self, graded: Graded, seen: Seen, batch: Batch, learned: Tensor, weight: float) -> Graded:
        """What was graded, and how far the layers are apart at the same positions."""
        assert self._matcher is not None  # noqa: S101 - it has seen something
        device = self._accelerator.device
        positions, mask = learned.to(device, non_blocking=True), batch.attention_mask.to(device, non_blocking=True)
        hidden, attention = self._matcher.sums(seen, positions, mask)
        inner = self._weigh_layers(hidden, attention)
        terms = graded.terms._replace(hidden=hidden.detach(), attention=attention.detach())
        return Graded(graded.loss + weight * inner, terms, graded.readout)

    def sums(self, student_logits: Tensor, teacher_logits: TeacherLogits, batch: Batch) -> tuple[Tensor, Tensor]:
        """KD and CE of a batch as sums over its labels."""
        if isinstance(teacher_logits, CrossedLogits):
            return teacher_logits.sums(student_logits, batch)
        if isinstance(teacher_logits, SparseLogits):
            return sparse_distillation_sums(student_logits, teacher_logits, batch.labels)
        config = self._config
        return distillation_sums(
            student_logits,
            teacher_logits,
            batch.labels,
            temperature=config.temperature,
            kind=config.loss_kind,
            mixture=config.mixture,
        )

    def agreed(self, student_logits: Tensor, teacher_logits: TeacherLogits, batch: Batch) -> Tensor:
        """At how many labels of a batch both find the same token likeliest."""
        if isinstance(teacher_logits, CrossedLogits):
            return teacher_logits.agreed(student_logits, batch)
        has_label = batch.labels[:, 1:] != IGNORED
        students = student_logits.argmax(-1)[:, :-1][has_label]
        if isinstance(teacher_logits, SparseLogits):
            return (students == likeliest(teacher_logits.rows)).sum()
        return (students == teacher_logits.argmax(-1)[:, :-1][has_label]).sum()

    def read(self, row: CardRow, student_logits: Tensor, teacher_logits: TeacherLogits, batch: Batch) -> RowReadout:
        """What a card shows of a row of a batch that is where the logits are."""
        if isinstance(teacher_logits, CrossedLogits):
            return teacher_logits.read(row, student_logits, batch)
        return read_row(row, student_logits, teacher_logits)

    def logits(self, student: nn.Module, batch: Batch) -> tuple[Tensor, TeacherLogits, Batch]:
        """Logits of student and teacher, cut to the vocabulary that both heads have, and the batch where they are.

        Raises:
            ModelError: a label of the batch (still on the CPU) has no column in them.
        """
        moved = batch.to(self._accelerator.device)
        with self._accelerator.autocast():
            theirs, own = self._teacher.logits(moved), self._forward(student, moved)
        if isinstance(theirs, CrossedLogits):
            self._shared(batch, own.shape[-1], own.shape[-1])
            return own, theirs, moved
        width = theirs.width if isinstance(theirs, SparseLogits) else theirs.shape[-1]
        shared = self._shared(batch, width, own.shape[-1])
        if isinstance(theirs, SparseLogits):
            refuse_narrow(own.shape[-1], theirs.width)
            return own[..., :width], theirs, moved
        return own[..., :shared], theirs[..., :shared], moved

    def _shared(self, batch: Batch, teacher: int, student: int) -> int:
        """The vocabulary that heads of these widths share; that they differ is told once.

        Raises:
            ModelError: a label of the batch (still on the CPU) is beyond it.
        """
        shared, highest = min(teacher, student), int(batch.labels.max())
        if teacher != student:
            self._say("notice.vocabulary_cut", teacher=teacher, student=student, shared=shared)
        if highest >= shared:
            raise ModelError(
                "a label is beyond the heads of the models",
                got=f"label {highest}, logits for {teacher} (teacher) and {student} tokens (student)",
                expected=f"labels below {shared}",
                fix="give both models heads as wide as the tokenizer's vocabulary",
            )
        return shared

    @torch.no_grad()
    def blame(self, batches: Sequence[Batch]) -> str | None:
        """After a step that was not finite: the teacher, if its logits are not numbers. Its -inf rule columns out."""
        for batch in batches:
            logits = self._teacher.logits(batch.to(self._accelerator.device))
            if isinstance(logits, SparseLogits):  # a cache is refused when it is made
                continue
            if not are_numbers(logits.logits if isinstance(logits, CrossedLogits) else logits):
                return "the teacher's logits are NaN or infinite"
        return None
