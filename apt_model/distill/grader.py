"""Forward and backward of one step: both models on its batches, the loss, its gradient, and the rows for cards.

The loss is fused: if the student's head can be called separately, only a chunk of logits is in memory at a time, else
all logits of the student. Knows how a batch is graded; knows nothing of optimizers, epochs or displays.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from apt_model.config.sections import DistillConfig, TrainConfig
from apt_model.data.batch import Batch, learned_positions
from apt_model.distill.graded import Graded, LossTerms
from apt_model.distill.losses.fused import HeadInput, StudentOutput, WrittenLogits, fused_distillation
from apt_model.distill.losses.layer_matching import ForwardPair, Matcher
from apt_model.distill.losses.logit_blocks import Buffer, Signal
from apt_model.distill.losses.objective import Objective
from apt_model.distill.losses.readout import CardRow, RowReadout, moved_card, readout_of
from apt_model.distill.losses.teacher_logits import TeacherLogits, as_teacher_logits
from apt_model.distill.teachers.live import TeacherSource
from apt_model.errors import ModelError
from apt_model.models.forward import Forward
from apt_model.models.modes import looking_at
from apt_model.models.output_head import OutputHead, find_head
from apt_model.models.router_loss import router_coefficient, router_losses
from apt_model.models.wide_matmul import uses_onednn
from apt_model.ranks.collective import sum_unwrapped_gradients
from apt_model.ranks.group import ranks

T = TypeVar("T", float, Tensor)


class Grader:
    """Computes the distillation loss of batches and its gradient.

    Args:
        student: calls the student's forward pass.
        teacher: source of the teacher's logits.
        accelerator: moves batches, casts, scales gradients.
        config: temperature, weights, kind of loss.
        train: dtype of the heads' products, and rows of a chunk.
        matcher: compares the models' layers; None without layer matching.
        say: emits a notice; each is shown once.
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
        self._accelerator, self._say, self._matcher = accelerator, say, matcher
        self._objective, self._layer_weights = Objective.of(config), (config.hidden_weight, config.attention_weight)
        self._head_of = cache(find_head)  # of the student as it is wrapped: looked for once
        self._router_weight: float | None = None  # of the student's router loss, once it is known
        self._buffer = Buffer()
        self._chunk_rows, self._dtype = train.chunk_rows, torch.bfloat16 if train.head_dtype == "bf16" else None

    @property
    def device(self) -> torch.device:
        """Where the student is trained."""
        return torch.device(self._accelerator.device)

    def check(self, batch: Batch) -> None:
        """Refuse a batch, still on the CPU, that student or teacher cannot take."""
        self._forward.check(batch)
        self._teacher.check(batch)

    def weigh(self, kd: T, ce: T, hidden: T | float = 0.0, attention: T | float = 0.0, router: T | float = 0.0) -> T:
        """The loss: `alpha * kd + beta * ce + hidden_weight * hidden + attention_weight * attention`, and the router's.

        The last is that of a student with experts, by its own coefficient.
        """
        inner = self._weigh_layers(hidden, attention) if self._matcher else 0.0
        return self._objective.alpha * kd + self._objective.beta * ce + inner + (self._router_weight or 0.0) * router

    def _weigh_layers(self, hidden: T | float, attention: T | float) -> T | float:
        hidden_weight, attention_weight = self._layer_weights
        return hidden_weight * hidden + attention_weight * attention

    def learn(
        self, student: nn.Module, batches: Sequence[Batch], rows: Sequence[CardRow | None], tokens: int
    ) -> tuple[Tensor, list[RowReadout | None]]:
        """Add the gradient of the mean loss over `tokens` to the student's and the layer matcher's parameters.

        Args:
            student: the module, as it is wrapped for training.
            batches: of one optimizer step.
            rows: the row to read for a card from each of them, or None.
            tokens: positions to learn from in the whole step, over all processes.

        Returns:
            The sums of `LossTerms` over this process's part, (4,), and the card statistics of each batch.
        """
        self._tell_of_routers(student)
        accelerator, readouts = self._accelerator, []
        sums = torch.zeros(len(LossTerms._fields), device=accelerator.device)
        for left, batch, row in zip(reversed(range(len(batches))), batches, rows, strict=True):
            with nullcontext() if not left else accelerator.no_sync(student):
                graded = self._grade(student, batch, row, 1 / tokens)
                accelerator.backward(graded.loss)
            sums += torch.stack(graded.terms)
            readouts.append(graded.readout)
        if self._matcher is not None:
            sum_unwrapped_gradients(self._matcher)
        if uses_onednn():
            self._say("notice.wide_matmul")
        return sums, readouts

    def _tell_of_routers(self, student: nn.Module) -> None:
        self._router_weight = router_coefficient(student)
        if self._router_weight:
            self._say("notice.router_loss", coefficient=self._router_weight)
        elif self._router_weight is not None:
            self._say("notice.router_loss_off")

    def _grade(self, student: nn.Module, batch: Batch, row: CardRow | None, weight: float) -> Graded:
        if self._matcher is not None and batch.segments is not None and batch.segments.is_packed:
            found = self._grade(student, batch.apart, row and moved_card(row, batch), weight)  # layers are of one text
            return found if row is None else found.of_card(row)
        ranks().at("teacher")
        learned = learned_positions(batch.labels)  # known on the CPU
        head = self._head_of(student)  # looked for before the layers are watched
        with (
            nullcontext() if self._matcher is None else self._matcher.recording() as seen,
            router_losses(student) as routers,
        ):
            if batch.teachers is None:
                graded = self._fused(student, head, batch, row, learned, weight)
            else:
                graded = self._crossed(student, batch, row, weight)
        graded = graded if seen is None else self._matched(graded, seen, batch, learned, weight)
        ranks().at("backward")
        return self._balanced(graded, routers, len(learned), weight)

    def _crossed(self, student: nn.Module, batch: Batch, row: CardRow | None, weight: float) -> Graded:
        """The loss with a teacher of another tokenizer, from the full logits of both."""
        student_logits, teacher_logits, moved = self.logits(student, batch)
        kd, ce = self.sums(student_logits, teacher_logits, moved)
        ce = torch.zeros_like(ce) if batch.is_written else ce
        readout = teacher_logits.read(row, student_logits.detach(), moved) if row is not None else None
        return Graded(self.weigh(kd, ce) * weight, self._terms(kd, ce), readout)

    def _fused(
        self,
        student: nn.Module,
        head: OutputHead | None,
        batch: Batch,
        row: CardRow | None,
        learned: Tensor,
        weight: float,
    ) -> Graded:
        """The fused loss, in one pass over the positions with a label. Student-generated text has no CE term."""
        labels = batch.labels.flatten()[learned + 1].to(self._accelerator.device, non_blocking=True)
        shown = () if row is None else torch.searchsorted(learned, row.row * batch.labels.shape[1] + row.positions)
        with self._accelerator.autocast():
            output, signal = self._outputs(student, head, batch, learned)
            found = fused_distillation(
                output,
                signal,
                labels,
                objective=replace(self._objective, beta=0.0) if batch.is_written else self._objective,
                weight=weight,
                chunk_rows=self._chunk_rows,
                shown=[int(index) for index in shown],
            )
        ce = torch.zeros_like(found.ce) if batch.is_written else found.ce
        readout = None if row is None or found.shown is None else readout_of(row, found.shown, found.pulls)
        return Graded(found.loss, self._terms(found.kd, ce), readout)

    def _outputs(
        self, student: nn.Module, head: OutputHead | None, batch: Batch, learned: Tensor
    ) -> tuple[StudentOutput, Signal]:
        """Forward passes of both models; the student's ends before its head, if that can be called separately."""
        device = self._accelerator.device
        positions, moved = learned.to(device, non_blocking=True), batch.to(device)
        if head is None:
            self._say("notice.head_hidden")
            logits = self._forward(student, moved).flatten(0, 1)
            signal = self._signal(batch, moved, positions, logits.shape[-1])
            return WrittenLogits(logits=logits, positions=positions), signal
        signal = self._signal(batch, moved, positions, head.linear.out_features)
        hidden = self._forward.hidden(student, moved, head).flatten(0, 1).index_select(0, positions)
        return HeadInput(hidden=hidden, head=head, product_dtype=self._dtype, buffer=self._buffer), signal

    def _signal(self, batch: Batch, moved: Batch, positions: Tensor, columns: int) -> Signal:
        """The teacher's logits at `positions`, cut to the student's `columns`."""
        signal = self._teacher.signal(
            moved, positions, temperature=self._objective.temperature, columns=columns, dtype=self._dtype
        )
        self._shared(batch, signal.columns, columns)
        ranks().at("forward")
        return signal

    @staticmethod
    def _terms(kd: Tensor, ce: Tensor) -> LossTerms:
        return LossTerms(kd.detach(), ce.detach(), *torch.zeros(3, device=kd.device))

    def _balanced(self, graded: Graded, routers: Sequence[Tensor], tokens: int, weight: float) -> Graded:
        """Add the router loss of the batch, which counts by its tokens among those of the step."""
        if not routers or not self._router_weight:
            return graded
        router = routers[-1].float() * tokens
        loss = graded.loss + weight * self._router_weight * router.to(graded.loss.device)
        return Graded(loss, graded.terms._replace(router=router.detach()), graded.readout)

    def _matched(self, graded: Graded, seen: ForwardPair, batch: Batch, learned: Tensor, weight: float) -> Graded:
        """Add the layer matching terms at the same positions."""
        assert self._matcher is not None  # noqa: S101 - it has seen something
        device = self._accelerator.device
        positions, mask = learned.to(device, non_blocking=True), batch.attention_mask.to(device, non_blocking=True)
        hidden, attention = self._matcher.sums(seen, positions, mask)
        inner = self._weigh_layers(hidden, attention)
        terms = graded.terms._replace(hidden=hidden.detach(), attention=attention.detach())
        return Graded(graded.loss + weight * inner, terms, graded.readout)

    def sums(self, student_logits: Tensor, teacher_logits: TeacherLogits, batch: Batch) -> tuple[Tensor, Tensor]:
        """KD and CE of a batch as sums over its labels."""
        return teacher_logits.sums(student_logits, batch, self._objective)

    def read_alone(self, student: nn.Module, batch: Batch, before: RowReadout) -> RowReadout:
        """The numbers of a card's row once more, in eval mode; what only the step could measure stays as it was."""
        row = before.card.row
        alone = batch.part(slice(row, row + 1))
        with looking_at(student, self._accelerator.device) as module:
            own, theirs, moved = self.logits(module, alone)
            found = self.read(replace(before.card, row=0), own, theirs, moved)
        return replace(found, **{name: getattr(before, name) for name in ("card", "kd_pull", "ce_pull", "softness")})

    def read(self, card: CardRow, student_logits: Tensor, teacher_logits: TeacherLogits, batch: Batch) -> RowReadout:
        """The numbers of a card on whole logits."""
        gain = teacher_logits.gain(card, student_logits, batch, self._objective)
        return replace(teacher_logits.read(card, student_logits, batch), gain=gain)

    def logits(
        self, student: nn.Module, batch: Batch, known: TeacherLogits | None = None
    ) -> tuple[Tensor, TeacherLogits, Batch]:
        """Logits of student and teacher, cut to the vocabulary that both heads have, and the batch on their device.

        `known`: the teacher's, if they have been computed before.

        Raises:
            ModelError: a label of the batch (still on the CPU) has no column in them.
        """
        moved = batch.to(self._accelerator.device)
        with self._accelerator.autocast():
            theirs = as_teacher_logits(self._teacher.logits(moved)) if known is None else known
            own = self._forward(student, moved)
        columns = own.shape[-1]
        shared = self._shared(batch, theirs.width_beside(columns), columns)
        return own[..., :shared], theirs.cut(shared), moved

    def _shared(self, batch: Batch, teacher: int, student: int) -> int:
        """The number of columns that heads of these widths share; a notice, shown once, tells that they differ.

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
        """After a non-finite step: say so if the teacher's logits are to blame. Its -inf only exclude tokens."""
        for batch in batches:
            if not as_teacher_logits(self._teacher.logits(batch.to(self._accelerator.device))).are_numbers():
                return "the teacher's logits are NaN or infinite"
        return None
