"""The probe: fixed rows on which teacher and student are compared while another trainer trains the student.

No side effects: eval mode, no gradient; random generators, modes and data are left as they were. Knows nothing of the
trainer's steps, or of how the result is judged and shown.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from apt_model.config import LessonConfig
from apt_model.data.batch import Batch, to_batch
from apt_model.data.notices import untold
from apt_model.data.ready import LENGTHS
from apt_model.data.rows import collated, single_rows
from apt_model.data.token_rows import TOKENWISE
from apt_model.distill.fixed_rows import RowSet
from apt_model.distill.losses.objective import Objective
from apt_model.distill.losses.readout import RowReadout, choose_row, numbers
from apt_model.distill.losses.teacher_logits import TeacherLogits
from apt_model.distill.teachers.live import LiveTeacher
from apt_model.errors import DataError
from apt_model.models.forward import Forward, vocabulary_of
from apt_model.models.modes import in_eval_mode, looking_at

PROBE_ROWS = 16
GIVE_ONE = "pass probe=, a batch or a list of texts"


@dataclass(frozen=True, kw_only=True)
class RowComparison:
    """The result on one row: the part to show, both models' predictions, and the row's own loss."""

    readout: RowReadout
    loss: float


class FixedRows:
    """Runs both models on the same rows, again and again.

    Args:
        batch: the rows; padding is removed, and a row is cut to `max_length` tokens.
        teacher: moved to `device`, otherwise unchanged.
        student: the trainer's model.
        config: temperature and weights of the row's loss, whose divergence is KL(teacher ‖ student) whatever the
            trainer's is; and where the shown part starts.
        device: the student's.
        bos: the start token, which is none of a card's given tokens.

    Raises:
        DataError: no row has a label, or one of the models cannot take a row.
    """

    def __init__(
        self,
        batch: Batch,
        *,
        teacher: nn.Module,
        student: nn.Module,
        config: LessonConfig,
        device: torch.device,
        bos: int | None = None,
    ) -> None:
        weights = config.distill
        self._config, self._device, self._bos = config, device, bos
        self._objective = Objective(temperature=weights.temperature, alpha=weights.alpha, beta=weights.beta)
        self._rows = single_rows(batch, config.train.max_length)
        if not self._rows:
            raise DataError("no probe row has a label", got=f"shape {tuple(batch.input_ids.shape)}", fix=GIVE_ONE)
        self._teacher_model = teacher
        self._teacher, self._forward = LiveTeacher(teacher, device), Forward(student, "student")
        self._widths: tuple[int, int] | None = None  # of both heads, the teacher's first
        for row in self._rows:
            self.check(row)

    def __len__(self) -> int:
        return len(self._rows)

    def compare(self, student: nn.Module, *, turn: int, say: Callable[..., None]) -> RowComparison:
        """Compare both models on row `turn` (modulo the rows); `say` gets a notice if their vocabularies differ."""
        row = self._rows[turn % len(self._rows)]
        card = choose_row(row, turn=0, given_tokens=self._config.display.given_tokens, bos=self._bos)
        assert card is not None  # noqa: S101 - rows without a label were left out
        with looking_at(student, self._device) as module:
            own, theirs, moved = self.logits(module, row)
            kd, ce = theirs.sums(own, moved, self._objective)
            (loss,) = numbers([(self._objective.alpha * kd + self._objective.beta * ce) / row.label_count])
            gain = theirs.gain(card, own, moved, self._objective)
            readout = replace(theirs.read(card, own, moved), gain=gain)
        if self._widths is not None and len(set(self._widths)) > 1:
            teachers, students = self._widths
            say("notice.vocabulary_cut", teacher=teachers, student=students, shared=min(self._widths))
        return RowComparison(readout=readout, loss=loss)

    def check(self, batch: Batch) -> None:
        """Refuse a batch, still on the CPU, that one of the models cannot take."""
        self._forward.check(batch)
        self._teacher.check(batch)

    def logits(
        self, student: nn.Module, batch: Batch, known: TeacherLogits | None = None
    ) -> tuple[Tensor, TeacherLogits, Batch]:
        """Both models' logits on a batch, cut to the shared vocabulary; the teacher answers in eval mode."""
        moved = batch.to(self._device)
        own = self._forward(student, moved)
        if known is None:
            with in_eval_mode(self._teacher_model):
                known = self._teacher.logits(moved)
            self._widths = known.logits.shape[-1], own.shape[-1]
        shared = min(self._widths or (own.shape[-1],))
        return own[..., :shared], known.cut(shared), moved

    def row_set(self, student: nn.Module, *, unseen: bool) -> RowSet:
        """All the rows, to be read by `Readings`; `unseen`: the trainer does not learn from them."""
        rows: list[Any] = self._rows
        return RowSet(
            lambda: rows,
            unseen=unseen,
            collate=lambda row: row,
            models=self,
            device=self._device,
            columns=vocabulary_of(student),
            cuts=True,
        )


def first_rows(loader: DataLoader[Any], *, tokenizer: Any, max_length: int, device: torch.device) -> Batch:
    """The first rows of a trainer's data, through its own collator, without advancing the loader.

    If the collator returns more rows than it got (chosen and rejected answers, one after the other), the first ones;
    rows with only a prompt are taken as texts. Sampler, workers and random generators are not touched; only a dataset
    that counts its own reads is.

    Raises:
        DataError: the data is a stream, is empty, or is not collated to a batch.
    """
    dataset: Any = loader.dataset
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise DataError(
            "the training data is a stream: rows taken for the cards would be missing from it", fix=GIVE_ONE
        )
    if not len(dataset):
        raise DataError("no row for the cards: the data is empty", fix=GIVE_ONE)
    indices = range(min(PROBE_ROWS, len(dataset)))
    raw = _to_learn_from(collated(loader, indices, device), len(indices), tokenizer)
    try:
        return to_batch(raw, tokenizer=tokenizer, max_length=max_length, tell=untold)
    except DataError as error:
        raise DataError("no cards can be made from the trainer's data", got=str(error), fix=GIVE_ONE) from error


def _to_learn_from(raw: Any, count: int, tokenizer: Any) -> Any:
    """The first `count` rows of a collator's batch, with labels by its `completion_mask`; rows of text as they are."""
    if isinstance(raw, Mapping) and "input_ids" in raw:
        first = {key: raw[key][:count] for key in ("input_ids", "seq_idx", *TOKENWISE) if raw.get(key) is not None}
        return first | {key: raw[key] for key in LENGTHS if key in raw}
    if isinstance(raw, Sequence) and all(isinstance(row, Mapping) for row in raw):
        return [_with_something_to_learn(row, tokenizer) for row in raw]
    return raw


def _with_something_to_learn(row: Mapping[str, Any], tokenizer: Any) -> Mapping[str, Any]:
    """The prompt as a text, for a row that has no completion (an on-policy trainer's)."""
    if "prompt" not in row or "completion" in row or tokenizer is None:
        return row
    prompt = row["prompt"]
    if isinstance(prompt, str):
        return {"text": prompt}
    how = {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
    return {"input_ids": tokenizer.apply_chat_template(prompt, **how)}
