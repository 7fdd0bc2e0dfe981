"""How far a student is from a teacher with another vocabulary: compared where both have read the same text.

Pure functions of logits and spans. They know nothing of tokenizers, models, or where spans come from.

Before the first token of a span both have read the same bytes, and behind its last one they have again. What both say
there are outcomes of one question, "how does the text go on?": the span's own text, with the product of its tokens'
probabilities; each token that both vocabularies have; and everything else.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from apt_model.config import CrossTokenizer
from apt_model.distill.readout import CardRow, RowReadout, numbers
from apt_model.training.batch import Batch
from apt_model.training.encode import IGNORED

FLOATS_AT_ONCE = 2**24  # of a chunk of spans, of each model
TINY = torch.finfo(torch.float32).tiny
FLOOR = -1e30  # stands for -inf, so that 0 times it is 0


@dataclass(frozen=True, kw_only=True)
class SharedTokens:
    """The tokens that two vocabularies have in common.

    Attributes:
        student, teacher: (K) int64, ids of the same text.
        student_of: (teacher's V) int64, the student's id of each of the teacher's; -1 where it has none.
        student_own, teacher_own: ids that the other one does not have.
    """

    student: Tensor
    teacher: Tensor
    student_of: Tensor
    student_own: Tensor
    teacher_own: Tensor

    @classmethod
    def of(cls, pairs: list[tuple[int, int]], *, student_width: int, teacher_width: int) -> "SharedTokens":
        """From pairs of ids (student's, teacher's), for heads of these widths; ids beyond them are left out."""
        fit = [pair for pair in pairs if pair[0] < student_width and pair[1] < teacher_width]
        student, teacher = torch.tensor(fit, dtype=torch.int64).view(-1, 2).unbind(dim=1)
        student_of = torch.full((teacher_width,), -1)
        student_of[teacher] = student
        owns = []
        for shared, width in ((student, student_width), (teacher, teacher_width)):
            is_own = torch.ones(width, dtype=torch.bool)
            is_own[shared] = False
            owns.append(is_own.nonzero().flatten())
        return cls(student=student, teacher=teacher, student_of=student_of, student_own=owns[0], teacher_own=owns[1])

    def to(self, device: torch.device) -> "SharedTokens":
        """The same on another device."""
        return SharedTokens(**{name: tensor.to(device) for name, tensor in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one model says of S spans.

    Attributes:
        first: (S, V) float32, log-probabilities at each span's first token.
        text: (S) the log-probability of the whole span: the sum of its tokens'.
        rest: (S) of its tokens after the first.
        token: (S) int64, its first token.
    """

    first: Tensor
    text: Tensor
    rest: Tensor
    token: Tensor


def side_of(logits: Tensor, ids: Tensor, spans: Tensor, *, temperature: float) -> Side:
    """One model's word on spans.

    Shapes: logits (B, L, V), any float dtype; ids (B, L); spans (S, 3): row, first token, number of tokens, at least 1,
    the first not 0, since logits at l predict token l + 1.
    """
    row, first, count = spans.unbind(dim=1)
    places, starts = _places(row * ids.shape[1] + first, count), count.cumsum(0) - count
    tokens = ids.flatten()[places]
    log_probs = (logits.flatten(0, 1)[places - 1].float() / temperature).log_softmax(dim=-1)
    own = log_probs.gather(1, tokens.unsqueeze(1)).squeeze(1)
    owner = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    rest = own.new_zeros(len(count)).index_add(0, owner, own.index_fill(0, starts, 0.0))
    return Side(first=log_probs[starts], text=own[starts] + rest, rest=rest, token=tokens[starts])


def outcome_kl(student: Side, teacher: Side, shared: SharedTokens) -> Tensor:
    """KL(teacher ‖ student) over the outcomes of each span, in nats, (S): never negative, 0 for equal outcomes.

    The outcomes: the span's text; each shared token but those that the span begins with; all else. A span of one shared
    token gives the KL over the shared vocabulary and all else. Never more than the KL over texts of any length, of
    which these outcomes are a coarser view. Gradient flows to the student only.
    Source: the data processing inequality of KL (Cover & Thomas, section 2.9).
    """
    begins = (shared.student == student.token.unsqueeze(1)) | (shared.teacher == teacher.token.unsqueeze(1))
    q, p = student.first[:, shared.student], teacher.first[:, shared.teacher]
    kl = torch.where(begins, 0.0, p.exp() * (p.clamp(min=FLOOR) - q.clamp(min=FLOOR))).sum(dim=1)
    kl = kl + teacher.text.exp() * (teacher.text.clamp(min=FLOOR) - student.text.clamp(min=FLOOR))
    others_p, others_q = (
        _others(side, own, ids, begins)
        for side, own, ids in (
            (teacher, shared.teacher_own, shared.teacher),
            (student, shared.student_own, shared.student),
        )
    )
    return kl + others_p * (others_p.clamp(min=TINY).log() - others_q.clamp(min=TINY).log())


def _others(side: Side, own: Tensor, shared: Tensor, begins: Tensor) -> Tensor:
    """The probability of what is no outcome of its own, (S): own tokens and those that begin the span, without it."""
    first = side.first.gather(1, side.token.unsqueeze(1)).squeeze(1)
    left = first.exp() * -torch.expm1(side.rest)
    mass = torch.where(own == side.token.unsqueeze(1), 0.0, side.first[:, own].exp()).sum(dim=1)
    moved = torch.where(begins & (shared != side.token.unsqueeze(1)), side.first[:, shared].exp(), 0.0).sum(dim=1)
    return mass + moved + left


def sorted_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Σ |difference| of two sets of probabilities, each in falling order, the shorter filled up with 0, (S).

    Shapes: (S, any) and (S, any). Gradient flows to the student only.
    Source: Boizard et al. 2024 (ULD), arXiv:2402.12030, section 3.2.
    """
    width = max(student.shape[1], teacher.shape[1])
    one, other = (
        F.pad(probs.sort(dim=1, descending=True).values, (0, width - probs.shape[1])) for probs in (student, teacher)
    )
    return (one - other).abs().sum(dim=1)


def span_distance(
    student: Side, teacher: Side, shared: SharedTokens, *, kind: CrossTokenizer, temperature: float
) -> Tensor:
    """What the student is graded on at each span, (S).

    uld: T · the sorted distance of all probabilities at the span's first token, each times the probability of the
        span's other tokens (Source: ULD; the product as in TRL's GOLD, `uld_token_merge_strategy="observed"`).
    hybrid: T² · the outcomes' KL, and T · the sorted distance of the tokens that only one vocabulary has (after GOLD,
        Patiño et al. 2025; its KL is between masses that do not sum to 1, this one is a true one).
    """
    if kind == "uld":
        merged = [(side.first + side.rest.unsqueeze(1)).exp() for side in (student, teacher)]
        return temperature * sorted_distance(*merged)
    own = [
        torch.where(ids == side.token.unsqueeze(1), 0.0, side.first[:, ids].exp())
        for side, ids in ((student, shared.student_own), (teacher, shared.teacher_own))
    ]
    return temperature**2 * outcome_kl(student, teacher, shared) + temperature * sorted_distance(*own)


@dataclass(frozen=True, kw_only=True)
class CrossedLogits:
    """A teacher's logits over its own tokens, and where they meet the student's.

    Attributes:
        logits: (B, M, the teacher's V), without gradient.
        shared: what both vocabularies have.
        kind: how spans are graded.
        temperature: at which they are.
    """

    logits: Tensor
    shared: SharedTokens
    kind: CrossTokenizer
    temperature: float

    def sums(self, student_logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """KD as a sum over spans, and CE over the labels of a batch, both to be divided by the number of labels.

        A span's KL is about as large as those of its tokens together (the chain rule), so dividing by tokens is right.
        """
        has_label = batch.labels[:, 1:] != IGNORED
        ce = F.cross_entropy(student_logits[:, :-1][has_label].float(), batch.labels[:, 1:][has_label], reduction="sum")
        kd = ce.new_zeros(())
        for spans in self._chunks(batch, student_logits.shape[-1]):
            student, teacher = self._sides(student_logits, batch, spans, temperature=self.temperature)
            how = {"kind": self.kind, "temperature": self.temperature}
            kd = kd + span_distance(student, teacher, self.shared, **how).sum()  # type: ignore[arg-type]
        return kd, ce

    @torch.no_grad()
    def agreed(self, student_logits: Tensor, batch: Batch) -> Tensor:
        """At how many of the student's tokens in spans both find the same text likeliest where the span begins."""
        count = torch.zeros((), dtype=torch.int64, device=student_logits.device)
        for spans in self._chunks(batch, student_logits.shape[-1]):
            sides = self._sides(student_logits, batch, spans, temperature=1.0)
            count += spans[:, 2][self._is_same(*sides)].sum()
        return count

    @torch.no_grad()
    def read(self, card: CardRow, student_logits: Tensor, batch: Batch) -> RowReadout:
        """What a card shows of a row: each one's likeliest tokens along the spans, and numbers a span.

        The numbers are of the outcomes at temperature 1; there are no candidates and no entropies to show side by side.
        """
        assert batch.teachers is not None  # noqa: S101 - `CrossTeacher.check` let it pass
        spans = batch.teachers.spans
        spans = spans[spans[:, 0] == card.row]
        shown = spans[torch.isin(spans[:, 1] - 1, card.positions.to(spans.device))]
        spans = shown if len(shown) else spans
        student, teacher = self._sides(student_logits, batch, spans, temperature=1.0)
        kl = outcome_kl(student, teacher, self.shared).clamp(min=0)
        normalised_kl, agreement = numbers([-torch.expm1(-kl).mean(), self._is_same(student, teacher).float().mean()])
        said = [
            logits[card.row, _places(spans[:, 1 + 2 * side], spans[:, 2 + 2 * side]) - 1].argmax(dim=-1).tolist()
            for side, logits in enumerate((student_logits, self.logits))
        ]
        return RowReadout(
            teacher_ids=said[1],
            student_ids=said[0],
            normalised_kl=normalised_kl,
            agreement=agreement,
            kl_nats=kl.tolist(),
            teacher_top=[],
            student_top=[],
            teacher_entropy=[],
            student_entropy=[],
        )

    def _is_same(self, student: Side, teacher: Side) -> Tensor:
        return self.shared.student_of[teacher.first.argmax(dim=1)] == student.first.argmax(dim=1)

    def _chunks(self, batch: Batch, width: int) -> tuple[Tensor, ...]:
        assert batch.teachers is not None  # noqa: S101 - `CrossTeacher.check` let it pass
        spans = batch.teachers.spans
        rows = max(1, FLOATS_AT_ONCE // max(width, self.logits.shape[-1]))
        return torch.split(spans, rows) if len(spans) else ()

    def _sides(self, student_logits: Tensor, batch: Batch, spans: Tensor, *, temperature: float) -> tuple[Side, Side]:
        assert batch.teachers is not None  # noqa: S101 - `CrossTeacher.check` let it pass
        return (
            side_of(student_logits, batch.input_ids, spans[:, :3], temperature=temperature),
            side_of(self.logits, batch.teachers.input_ids, spans[:, [0, 3, 4]], temperature=temperature),
        )


def _places(first: Tensor, count: Tensor) -> Tensor:
    """The tokens of spans, one after the other."""
    starts = torch.repeat_interleave(first - (count.cumsum(0) - count), count)
    return starts + torch.arange(len(starts), device=starts.device)
