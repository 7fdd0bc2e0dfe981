"""Cross-tokenizer KD: KL or ULD between models of different vocabularies, on aligned spans of text.

Pure functions of logits and spans. They know nothing of tokenizers, models, or where spans come from.

At the first token of a span both models have read the same bytes, and after its last one again. There, both
distributions are summed into the same outcomes: the span's own text (the product of its tokens' probabilities); any
other text, by the longest token of both vocabularies that its first token begins with; any other text without one.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from apt_model.config.sections import CrossTokenizer
from apt_model.data.batch import Batch
from apt_model.data.encoded import IGNORED
from apt_model.data.teachers_rows import TeachersRows
from apt_model.distill.losses.divergences import TINY
from apt_model.distill.losses.label_numbers import LabelNumbers, label_numbers
from apt_model.distill.losses.logit_blocks import FLOOR
from apt_model.distill.losses.metrics import are_numbers
from apt_model.distill.losses.objective import Objective
from apt_model.distill.losses.readout import CardRow, RowReadout, numbers, share_of_equal

FLOATS_AT_ONCE = 2**24  # of a chunk of spans, of each model


@dataclass(frozen=True, kw_only=True)
class Beginnings:
    """Tokens of two vocabularies, grouped by their longest prefix that is a token of both (their "beginning").

    Attributes:
        count: number of beginnings.
        student, teacher: (V) int64 each, the beginning of every token; `count` for tokens that have none.
    """

    count: int
    student: Tensor
    teacher: Tensor

    @classmethod
    def of(
        cls, found: tuple[int, dict[int, int], dict[int, int]], *, student_width: int, teacher_width: int
    ) -> "Beginnings":
        """From the result of `data.alignment.common_beginnings`, for heads of these widths."""
        count, *sides = found
        tables = []
        for ids, width in zip(sides, (student_width, teacher_width), strict=True):
            table = torch.full((width,), count)
            fit = {token: begin for token, begin in ids.items() if token < width}
            table[torch.tensor(list(fit), dtype=torch.int64)] = torch.tensor(list(fit.values()), dtype=torch.int64)
            tables.append(table)
        return cls(count=count, student=tables[0], teacher=tables[1])

    def to(self, device: torch.device) -> "Beginnings":
        """The same on another device."""
        return Beginnings(count=self.count, student=self.student.to(device), teacher=self.teacher.to(device))


@dataclass(frozen=True, kw_only=True)
class SpanSide:
    """One model's log-probabilities of S spans.

    Attributes:
        first: (S, V) float32, log-probabilities at each span's first token.
        text: (S) the log-probability of the whole span: the sum of its tokens'.
        rest: (S) the log-probability of its tokens after the first.
        token: (S) int64, its first token.
    """

    first: Tensor
    text: Tensor
    rest: Tensor
    token: Tensor


def span_side(logits: Tensor, ids: Tensor, spans: Tensor, *, temperature: float) -> SpanSide:
    """One model's log-probabilities of spans, at a temperature.

    Shapes: logits (B, L, V), any float dtype; ids (B, L); spans (S, 3): row, index of the first token (not 0, since
    logits at l predict token l + 1), number of tokens (at least 1).
    """
    row, first, count = spans.unbind(dim=1)
    places, starts = _places(row * ids.shape[1] + first, count), count.cumsum(0) - count
    tokens = ids.flatten()[places]
    # the chain rule: log p(span) = Σ log p(token | before it); `own` are its terms, all spans' one after the other
    log_probs = (logits.flatten(0, 1)[places - 1].float() / temperature).log_softmax(dim=-1)
    own = log_probs.gather(1, tokens.unsqueeze(1)).squeeze(1)
    owner = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    rest = own.new_zeros(len(count)).index_add(0, owner, own.index_fill(0, starts, 0.0))
    return SpanSide(first=log_probs[starts], text=own[starts] + rest, rest=rest, token=tokens[starts])


def outcome_kl(student: SpanSide, teacher: SpanSide, beginnings: Beginnings) -> Tensor:
    """KL(teacher ‖ student) over the outcomes of each span, in nats, (S): never negative, 0 for equal probabilities.

    The outcomes: the span's text; for each beginning, any other continuation with it; everything without one. With one
    vocabulary and spans of one token these are the tokens. Gradient flows to the student only.
    Source: the chain rule and the data processing inequality of KL (Cover & Thomas, sections 2.5 and 2.8), the product
    along a span as in TRL's GOLD.
    """
    p, q = (
        _others(teacher, beginnings.teacher, beginnings.count),
        _others(student, beginnings.student, beginnings.count),
    )
    # Σ p (log p − log q): first over the other outcomes, then the span's text, whose log-probability is known directly
    others = (p * (p.clamp(min=TINY).log() - q.clamp(min=TINY).log())).sum(dim=1)
    return others + teacher.text.exp() * (teacher.text.clamp(min=FLOOR) - student.text.clamp(min=FLOOR))


def _others(side: SpanSide, beginning: Tensor, count: int) -> Tensor:
    """The probabilities of all outcomes but the span's text, (S, count + 1).

    The span's first token counts only with continuations other than the span's: p(first) (1 − p(rest | first)),
    computed with expm1, since 1 − exp cancels where the rest is nearly certain.
    """
    token = side.token.unsqueeze(1)
    left = side.first.gather(1, token).exp() * -torch.expm1(side.rest.unsqueeze(1))
    probs = side.first.exp().scatter(1, token, left)
    return probs.new_zeros(len(probs), count + 1).index_add(1, beginning, probs)


def sorted_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """L1 distance of two probability vectors, each sorted in descending order, the shorter padded with 0, (S).

    Shapes: (S, any) and (S, any). Gradient flows to the student only.
    Source: Boizard et al. 2024 (ULD), arXiv:2402.12030, section 3.2.
    """
    width = max(student.shape[1], teacher.shape[1])
    one, other = (
        F.pad(probs.sort(dim=1, descending=True).values, (0, width - probs.shape[1])) for probs in (student, teacher)
    )
    return (one - other).abs().sum(dim=1)


def span_distance(
    student: SpanSide, teacher: SpanSide, beginnings: Beginnings, *, kind: CrossTokenizer, temperature: float
) -> Tensor:
    """The distance to the teacher at each span, (S).

    kl: T² · the outcomes' KL.
    uld: T · the sorted distance of all probabilities at the span's first token, each times the probability of the
        span's other tokens (Source: ULD; the product as in TRL's GOLD, `uld_token_merge_strategy="observed"`).
    """
    if kind == "kl":
        return temperature**2 * outcome_kl(student, teacher, beginnings)
    merged = [(side.first + side.rest.unsqueeze(1)).exp() for side in (student, teacher)]
    return temperature * sorted_distance(*merged)


@dataclass(frozen=True, kw_only=True)
class CrossedLogits:
    """A teacher's logits over its own vocabulary, for a batch whose rows are encoded with both tokenizers.

    Attributes:
        logits: (B, M, the teacher's V), without gradient.
        beginnings: those of both vocabularies' tokens.
    """

    logits: Tensor
    beginnings: Beginnings

    def width_beside(self, columns: int) -> int:
        """All columns of the student: none is matched with a column of the teacher."""
        return columns

    def cut(self, columns: int) -> "CrossedLogits":
        """Unchanged: no column is matched with a column of the student."""
        return self

    def sums(self, student_logits: Tensor, batch: Batch, objective: Objective) -> tuple[Tensor, Tensor]:
        """KD summed over spans, and CE summed over labels, both to be divided by the number of labels.

        A span's KL is about as large as those of its tokens together (the chain rule), so dividing by tokens is right.
        """
        has_label = batch.labels[:, 1:] != IGNORED
        ce = F.cross_entropy(student_logits[:, :-1][has_label].float(), batch.labels[:, 1:][has_label], reduction="sum")
        kd, kind, temperature = ce.new_zeros(()), objective.cross_tokenizer, objective.temperature
        for spans in self._chunks(batch, student_logits.shape[-1]):
            student, teacher = self._sides(student_logits, batch, spans, temperature=temperature)
            kd = kd + span_distance(student, teacher, self.beginnings, kind=kind, temperature=temperature).sum()
        return kd, ce

    @torch.no_grad()
    def agreed(self, student_logits: Tensor, batch: Batch) -> Tensor:
        """Number of the student's tokens in spans at whose start both models' argmax has the same beginning."""
        count = torch.zeros((), dtype=torch.int64, device=student_logits.device)
        for spans in self._chunks(batch, student_logits.shape[-1]):
            sides = self._sides(student_logits, batch, spans, temperature=1.0)
            count += spans[:, 2][self._is_same(*sides)].sum()
        return count

    @torch.no_grad()
    def read(self, card: CardRow, student_logits: Tensor, batch: Batch) -> RowReadout:
        """The numbers of a card: each model's argmax along the spans; the spans' KL over their outcomes and agreement.

        All at temperature 1. No candidates or entropies: those of two vocabularies cannot be shown side by side.
        """
        spans = _teachers(batch).spans
        spans = spans[spans[:, 0] == card.row]
        shown = spans[torch.isin(spans[:, 1] - 1, card.positions.to(spans.device))]
        spans = shown if len(shown) else spans
        student, teacher = self._sides(student_logits, batch, spans, temperature=1.0)
        kl = outcome_kl(student, teacher, self.beginnings).clamp(min=0)
        normalised_kl, agreement = numbers([-torch.expm1(-kl).mean(), self._is_same(student, teacher).float().mean()])
        read, theirs = (_places(spans[:, 1 + 2 * side], spans[:, 2 + 2 * side]) - 1 for side in (0, 1))
        student_ids = student_logits[card.row, read].argmax(dim=-1).tolist()
        teacher_ids = self.logits[card.row, theirs].argmax(dim=-1).tolist()
        return RowReadout(
            card=card,
            teacher_ids=teacher_ids,
            student_ids=student_ids,
            normalised_kl=normalised_kl,
            agreement=agreement,
            kl_nats=kl.tolist(),
            echo=share_of_equal(student_ids, batch.input_ids[card.row, read].tolist()),
        )

    @torch.no_grad()
    def at_labels(self, student_logits: Tensor, batch: Batch) -> LabelNumbers:
        """Both models at each label: a span's KL at its first token, its agreement at each; 0 outside of spans."""
        has_label = F.pad(batch.labels[:, 1:] != IGNORED, (1, 0)).flatten()
        entries = (has_label.cumsum(0) - 1).masked_fill(~has_label, -1)  # of each token of the batch, -1: no label
        kl, normalised, agreed = torch.zeros(3, int(has_label.sum()), device=student_logits.device)
        for spans in self._chunks(batch, student_logits.shape[-1]):
            student, teacher = self._sides(student_logits, batch, spans, temperature=1.0)
            first, count = spans[:, 0] * batch.labels.shape[1] + spans[:, 1], spans[:, 2]
            own = outcome_kl(student, teacher, self.beginnings).clamp(min=0)
            tokens = entries[_places(first, count)]
            kl[entries[first]] = own
            normalised[tokens] = torch.repeat_interleave(-torch.expm1(-own), count)
            agreed[tokens] = torch.repeat_interleave(self._is_same(student, teacher).float(), count)
        alone = label_numbers(student_logits, batch, lambda some: (kl[some.part], agreed[some.part], kl.new_empty(0)))
        return alone._replace(normalised_kl=normalised)

    def gain(self, card: CardRow, student_logits: Tensor, batch: Batch, objective: Objective) -> None:
        """None: spans have no cross-entropy that both models could be compared by."""

    def are_numbers(self) -> bool:
        """Whether the logits have no NaN, no +inf, and no row that is -inf throughout."""
        return are_numbers(self.logits)

    def _is_same(self, student: SpanSide, teacher: SpanSide) -> Tensor:
        begins = self.beginnings
        return begins.teacher[teacher.first.argmax(dim=1)] == begins.student[student.first.argmax(dim=1)]

    def _chunks(self, batch: Batch, width: int) -> tuple[Tensor, ...]:
        spans = _teachers(batch).spans
        rows = max(1, FLOATS_AT_ONCE // max(width, self.logits.shape[-1]))
        return torch.split(spans, rows) if len(spans) else ()

    def _sides(
        self, student_logits: Tensor, batch: Batch, spans: Tensor, *, temperature: float
    ) -> tuple[SpanSide, SpanSide]:
        theirs = _teachers(batch).input_ids
        return (
            span_side(student_logits, batch.input_ids, spans[:, :3], temperature=temperature),
            span_side(self.logits, theirs, spans[:, [0, 3, 4]], temperature=temperature),
        )


def _teachers(batch: Batch) -> TeachersRows:
    assert batch.teachers is not None  # noqa: S101 - `CrossTeacher.check` let it pass
    return batch.teachers


def _places(first: Tensor, count: Tensor) -> Tensor:
    """The token indices of all spans, concatenated."""
    starts = torch.repeat_interleave(first - (count.cumsum(0) - count), count)
    return starts + torch.arange(len(starts), device=starts.device)
