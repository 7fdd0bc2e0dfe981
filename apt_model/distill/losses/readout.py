"""Card statistics as plain numbers: the one place where tensors end. Nothing here trains.

Knows nothing of what the numbers mean for a lesson.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

import torch
from torch import Tensor

from apt_model.data.batch import Batch
from apt_model.data.encoded import IGNORED
from apt_model.distill.losses.token_stats import Pulls, ShownTokens, SoftmaxRows, join, softmax_rows

MEASURES = ("normalised_kl", "agreement", "entropy_gap", "kd_pull", "ce_pull", "softness", "gain", "echo")
MAX_CARD_TOKENS, MAX_PROMPT_TOKENS = 128, 64
FLOATS_AT_ONCE = 2**18  # of each model: a megabyte, so that what is computed stays in the cache

ReadTokens = Callable[[SoftmaxRows, Tensor, Tensor], ShownTokens]


@dataclass(frozen=True, kw_only=True)
class CardRow:
    """Which part of a batch a card shows: found on the CPU, before the step, without reading a logit.

    Attributes:
        row: index in the batch.
        positions: logits at these positions are shown; each predicts the token after it.
        given_ids: all of the row's own tokens before the shown part, with the start token and the whole prompt.
        input_ids: all of the row's own tokens.
        fed_ids: the tokens at the positions.
        original_ids: the tokens that follow them in the row; empty where the student wrote the row itself.
        left: number of tokens that the row goes on with, from the first of these on and without a gap.
        teachers: the given tokens and the number left in the tokens of a teacher with another tokenizer.
    """

    row: int
    positions: Tensor
    given_ids: list[int]
    input_ids: list[int]
    fed_ids: list[int]
    original_ids: list[int]
    left: int
    teachers: tuple[list[int], int] | None = None

    def beginning(self, role: str) -> tuple[list[int], int]:
        """The given tokens and the number left, in the tokens of "teacher" or "student"."""
        return self.teachers if role == "teacher" and self.teachers is not None else (self.given_ids, self.left)


@dataclass(frozen=True, kw_only=True)
class RowReadout:
    """What a card shows of a row, as numbers at temperature 1. `measures` go into the event under the same names.

    Attributes:
        card: the row.
        teacher_ids, student_ids: the most probable token at each position.
        normalised_kl: mean of 1 - exp(-KL(teacher ‖ student)).
        agreement: share of the positions where both have the same token.
        kl_nats: KL(teacher ‖ student) at each position.
        teacher_top, student_top: at each position the best tokens and their probabilities, the best first.
        teacher_entropy, student_entropy: nats at each position; the teacher's is empty where it is not known.
        kd_pull, ce_pull, softness, gain: means of `token_stats.Pulls`; None where they are not known.
        echo: share of the positions where the student's most probable token is the one that it was just fed.
    """

    card: CardRow
    teacher_ids: list[int]
    student_ids: list[int]
    normalised_kl: float
    agreement: float
    kl_nats: list[float]
    teacher_top: list[list[tuple[int, float]]] = field(default_factory=list)
    student_top: list[list[tuple[int, float]]] = field(default_factory=list)
    teacher_entropy: list[float] = field(default_factory=list)
    student_entropy: list[float] = field(default_factory=list)
    kd_pull: float | None = None
    ce_pull: float | None = None
    softness: float | None = None
    gain: float | None = None
    echo: float | None = None

    @property
    def entropy_gap(self) -> float | None:
        """The student's mean entropy less the teacher's; None where the teacher's is not known."""
        if not self.teacher_entropy:
            return None
        return fmean(self.student_entropy) - fmean(self.teacher_entropy)

    def measures(self) -> dict[str, float | None]:
        """The row's numbers for `events.records.Observation`, by its field names."""
        return {name: getattr(self, name) for name in MEASURES}


def numbers(values: Sequence[Tensor]) -> list[float]:
    """Scalar tensors as floats, in a single transfer from the device: the step's only synchronisation."""
    reading: list[float] = torch.stack([value.detach().float() for value in values]).tolist()
    return reading


def choose_row(batch: Batch, *, turn: int, given_tokens: int, bos: int | None = None) -> CardRow | None:
    """The row to show, round and round by `turn` among those with something to learn; None if there is none.

    Of packed rows it is one text, with nothing of its neighbours.

    The first token of a text is a guess for anyone, so the shown part begins after `given_tokens` real ones, where
    the row is long enough; a start token `bos` is none of them. Of what the student wrote itself, all is shown, and
    its prompt is what was given. Beside a teacher with another tokenizer the shown part begins where a span does.
    """
    if batch.is_written:
        given_tokens = 0
    valid = batch.labels[:, 1:] != IGNORED
    if batch.teachers is not None:
        valid &= batch.teachers.covers(batch.labels.shape[1])[:, 1:]
    texts = torch.zeros_like(batch.labels) if batch.segments is None else batch.segments.numbers
    rows = valid.nonzero()[:, 0].tolist()
    candidates = list(dict.fromkeys(zip(rows, texts[:, 1:][valid].tolist(), strict=True)))
    if not candidates:
        return None
    row, number = candidates[turn % len(candidates)]
    ids, is_own = batch.input_ids[row], texts[row] == number
    text = (is_own & (batch.attention_mask[row] != 0)).nonzero().flatten()
    first, last = int(text[0]), int(text[-1])
    learned = (valid[row] & is_own[1:]).nonzero().flatten()
    begins = learned if batch.teachers is None else learned[torch.isin(learned + 1, batch.teachers.begin(row))]
    starts = begins[begins + 1 >= first + given_tokens + (int(ids[first]) == bos)]
    shown = learned[learned >= (starts if len(starts) else begins)[0]][:MAX_CARD_TOKENS]
    start, left = int(shown[0]) + 1, _without_gap(learned[learned >= shown[0]])
    given = ids[first:start].tolist()
    return CardRow(
        row=row,
        positions=shown,
        given_ids=given,
        input_ids=ids[first : last + 1].tolist(),
        fed_ids=ids[shown].tolist(),
        original_ids=[] if batch.is_written else ids[shown + 1].tolist(),
        left=left,
        teachers=None if batch.teachers is None else batch.teachers.at(row, start, left),
    )


def moved_card(card: CardRow, batch: Batch) -> CardRow:
    """The same part of the text in `batch.apart`."""
    if batch.segments is None:
        return card
    flat = batch.segments.back[card.row * batch.labels.shape[1] + card.positions]
    width = batch.segments.places.shape[1]
    return replace(card, row=int(flat[0]) // width, positions=flat % width)


def _without_gap(positions: Tensor) -> int:
    """How many of the ascending positions follow each other, from the first on."""
    return int((positions - positions[0] == torch.arange(len(positions))).sum())


@torch.no_grad()
def read_row(card: CardRow, student_logits: Tensor, read: ReadTokens) -> RowReadout:
    """Read one row of the student's logits (B, L, V) beside its teacher's, a few positions at a time.

    Args:
        card: the row.
        student_logits: (B, L, V), any float dtype.
        read: `(student, positions, spare) -> ShownTokens`: compares the student's rows with the teacher's at these
            positions of the row; `spare` is room of the shape of the student's rows.
    """
    positions, width = card.positions.to(student_logits.device), student_logits.shape[-1]
    readings = []
    for some in torch.split(positions, max(1, FLOATS_AT_ONCE // width)):
        student = softmax_rows(student_logits[card.row].index_select(0, some), width=width)
        readings.append(read(student, some, torch.empty_like(student.probs)))
    return readout_of(card, join(readings))


def readout_of(card: CardRow, shown: ShownTokens, pulls: Pulls | None = None) -> RowReadout:
    """The statistics of a row's tokens, as numbers."""
    student, teacher = shown.student_best, shown.teacher_best
    known = {} if pulls is None else {name: part.mean() for name, part in pulls._asdict().items() if len(part)}
    normalised_kl, agreement, *moved = numbers(
        [-torch.expm1(-shown.kl_nats).mean(), (student == teacher).float().mean(), *known.values()]
    )
    return RowReadout(
        card=card,
        teacher_ids=teacher.tolist(),
        student_ids=student.tolist(),
        normalised_kl=normalised_kl,
        agreement=agreement,
        kl_nats=shown.kl_nats.tolist(),
        teacher_top=_pairs(shown.teacher_ids, shown.teacher_probs),
        student_top=_pairs(shown.student_ids, shown.student_probs),
        teacher_entropy=shown.teacher_entropy.tolist(),
        student_entropy=shown.student_entropy.tolist(),
        echo=share_of_equal(student.tolist(), card.fed_ids),
        **dict(zip(known, moved, strict=True)),
    )


def share_of_equal(one: Sequence[int], other: Sequence[int]) -> float:
    """Share of the places where both have the same."""
    return fmean(a == b for a, b in zip(one, other, strict=True))


def _pairs(ids: Tensor, probs: Tensor) -> list[list[tuple[int, float]]]:
    return [list(zip(*row, strict=True)) for row in zip(ids.tolist(), probs.tolist(), strict=True)]
