"""The fixed rows of a run, chosen before the first step, and both models' numbers on them.

Does not influence the training: eval mode, no gradient, random generators restored, no iterator advanced. Knows nothing
of when rows are read, or of what the numbers mean.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn

from apt_model.data.batch import Batch, steps_per_epoch
from apt_model.data.encoded import IGNORED
from apt_model.data.rng import undisturbed
from apt_model.data.rows import (
    collated,
    evenly_spaced,
    is_read_by_index,
    joined,
    plain_row,
    row_of,
    shortened,
    single_rows,
)
from apt_model.distill.losses.teacher_logits import TeacherLogits
from apt_model.events.results import RowReading
from apt_model.models.modes import looking_at

MOST_ROWS, ENOUGH_ROWS, ENOUGH_TOKENS = 32, 16, 2_048  # above 16 rows, no more once so many labels are there
ROWS_AT_ONCE, FLOATS_AT_ONCE = 16, 2**24  # of the logits of each model: 64 MiB
KEPT_FLOATS = 2**24  # of the teacher's logits: 64 MiB; above that they are computed anew at each reading

Asked = tuple[Tensor, TeacherLogits, Batch]  # the student's logits, the teacher's, and the batch on their device
Ask = Callable[[Batch, TeacherLogits | None], Asked]


class BothModels(Protocol):
    """Checks batches, and asks both models: `Grader` in our own loop."""

    def check(self, batch: Batch) -> None:
        """Refuse a batch, still on the CPU, that a model cannot read."""

    def logits(self, student: nn.Module, batch: Batch, known: TeacherLogits | None = None) -> Asked:
        """Both models' logits on a batch; `known`: the teacher's, if they have been computed before."""


class RowReader:
    """Reads both models on the same rows, again and again.

    Args:
        rows: at least one batch, of one row each.
        columns: width of the logits, as far as it is known: it bounds how many rows are read at once.
    """

    def __init__(self, rows: Sequence[Batch], *, columns: int | None) -> None:
        longest = max(row.input_ids.shape[1] for row in rows)
        most = min(ROWS_AT_ONCE, max(1, FLOATS_AT_ONCE // (longest * (columns or 1))))
        self._batches = [joined(rows[start : start + most]) for start in range(0, len(rows), most)]
        self._known: dict[int, TeacherLogits] = {}
        self._kept = 0

    def read(self, ask: Ask) -> tuple[RowReading, ...]:
        """The rows' numbers, in their order.

        Args:
            ask: `(batch, the teacher's logits if they are known) -> both models' logits`.
        """
        return tuple(reading for turn in range(len(self._batches)) for reading in self._read(turn, ask))

    def _read(self, turn: int, ask: Ask) -> list[RowReading]:
        own, theirs, moved = ask(self._batches[turn], self._known.get(turn))
        if turn not in self._known and self._kept + own.numel() <= KEPT_FLOATS:  # the teacher does not change
            self._known[turn] = theirs
            self._kept += own.numel()
        return row_readings(theirs, own, moved)


def row_readings(theirs: TeacherLogits, own: Tensor, moved: Batch) -> list[RowReading]:
    """Both models' numbers on each row of a batch, every row of which has a label."""
    found = theirs.at_labels(own, moved)
    known = {name: part for name, part in found._asdict().items() if len(part)}
    counts = (moved.labels[:, 1:] != IGNORED).sum(dim=1).tolist()
    rows = torch.split(torch.stack(list(known.values())).cpu().double(), counts, dim=1)
    return [_reading(dict(zip(known, row.mean(dim=1).tolist(), strict=True)), row.shape[1]) for row in rows]


def _reading(means: Mapping[str, float], tokens: int) -> RowReading:
    return RowReading(
        tokens=tokens,
        kl=means["kl_nats"],
        normalised_kl=means["normalised_kl"],
        agreement=means["agreed"],
        ce=means["ce"],
        teacher_ce=means.get("teacher_ce"),
        echo=means["echo"],
    )


class RowSet:
    """The fixed rows of one kind: unseen (validation data), or learned (training data).

    Args:
        source: yields batches with these rows; None: they are those that `choose` is given.
        unseen: which kind.
        collate: makes a `Batch` of what the source yields.
        models: checks batches, and asks both.
        device: its random generators are restored.
        columns: width of the logits; None if unknown.
        cuts: whether long rows may be cut, so that the logits of one stay below FLOATS_AT_ONCE; a cache of the teacher
            knows whole rows only.
    """

    def __init__(
        self,
        source: Callable[[], list[Any]] | None,
        *,
        unseen: bool,
        collate: Callable[[Any], Batch],
        models: BothModels,
        device: torch.device,
        columns: int | None,
        cuts: bool,
    ) -> None:
        self.unseen = unseen
        self._longest = max(2, FLOATS_AT_ONCE // columns) if cuts and columns else None
        self._source, self._collate, self._models = source, collate, models
        self._device, self._columns = device, columns
        self._rows: list[Batch] = []
        self._reader: RowReader | None = None

    def choose(self, given: Sequence[Batch] = ()) -> None:
        """Choose the rows: the same in every process that resumes the run. `given` serves where there is no source.

        Raises:
            DataError: a model cannot read one of them, or none has a label.
        """
        if self._source is None:
            self._rows = self._rows or self._short(_bounded(given))
            return
        with undisturbed(self._device):
            set_seed(0)  # undone by `undisturbed`: a collator that draws numbers makes the same rows in a resumed run
            self._rows = self._short(_bounded(list(self._checked(self._source()))))

    def _short(self, rows: Sequence[Batch]) -> list[Batch]:
        """The rows, cut where they are too long; beside another tokenizer a row stays whole, as its spans do."""
        most = self._longest
        return [row if most is None or row.teachers is not None else shortened(row, most) for row in rows]

    @property
    def fingerprint(self) -> str:
        """Hash of the rows' tokens and labels: on other text, readings are not to be compared."""
        found = hashlib.sha256()
        for row in self._rows:
            found.update(row.input_ids.numpy().tobytes() + row.labels.numpy().tobytes())
        return found.hexdigest()[:16]

    def _checked(self, raw: Iterable[Any]) -> Iterator[Batch]:
        for some in raw:
            batch = self._collate(some)
            self._models.check(batch)
            yield batch

    def texts(self, decode: Callable[[Sequence[int]], str]) -> tuple[str, ...]:
        """Each row's own text."""
        return tuple(decode(row.input_ids[0].tolist()) for row in self._rows)

    def read(self, student: nn.Module) -> tuple[RowReading, ...]:
        """Both models on the rows; empty if there are none."""
        if not self._rows:
            return ()
        reader = self._reader = self._reader or RowReader(self._rows, columns=self._columns)
        with looking_at(student, self._device) as module:
            return reader.read(lambda batch, known: self._models.logits(module, batch, known))

    def state_dict(self) -> list[Any]:
        """The rows, as JSON values, if they came from a window: nowhere else are they found again."""
        return [plain_row(row) for row in self._rows] if self._source is None else []

    def load_state_dict(self, state: list[Any]) -> None:
        """Restore the rows of `state_dict`."""
        self._rows = [row_of(plain) for plain in state]


def _bounded(batches: Sequence[Batch]) -> list[Batch]:
    """Rows with a label, some of each batch: 32, or fewer down to 16 where they are long."""
    most = math.ceil(MOST_ROWS / max(1, len(batches)))
    rows: list[Batch] = []
    tokens = 0
    for batch in batches:
        found = single_rows(batch)
        for index in sorted(evenly_spaced(len(found), most)):
            rows.append(found[index])
            tokens += found[index].label_count
            if len(rows) == MOST_ROWS or (len(rows) >= ENOUGH_ROWS and tokens >= ENOUGH_TOKENS):
                return rows
    return rows


def spread_source(data: Iterable[Any], device: torch.device) -> Callable[[], list[Any]] | None:
    """Rows spread over data that can be read by index without a trace, in batches; None for other data."""
    if isinstance(data, list | tuple):
        return lambda: _spread(data)
    if not is_read_by_index(data):
        return None
    loader: Any = data
    return lambda: [collated(loader, evenly_spaced(len(loader.dataset), MOST_ROWS), device)]


def learned_source(
    data: Iterable[Any], *, steps: int | None, accumulation: int, device: torch.device
) -> Callable[[], list[Any]] | None:
    """Rows spread over training data that the run learns from whole, in batches, without advancing an iterator.

    None for other data, and where the run ends before its first epoch does: it learns from its first accumulation
    window, but not from every row.

    Args:
        data: the training data, as all processes see it.
        steps: optimizer steps of the run, times the processes; None if unknown.
        accumulation: batches of a step.
        device: its random generators are restored.
    """
    if isinstance(data, list | tuple):
        return lambda: _spread(data if steps is None else data[: steps * accumulation])
    whole = steps_per_epoch(data, accumulation)
    if not is_read_by_index(data) or whole is None or steps is None or steps < whole:
        return None
    return spread_source(data, device)


def _spread(batches: Sequence[Any]) -> list[Any]:
    """Batches spread over a list: so few that all are needed stay in order."""
    chosen = evenly_spaced(len(batches), MOST_ROWS)
    return [batches[index] for index in (sorted(chosen) if len(chosen) <= ENOUGH_ROWS else chosen)]
