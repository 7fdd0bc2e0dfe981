"""Rows taken out of batches, put together again, and read from a loader's data set without advancing the loader.

Knows batches and loaders; knows nothing of models, or of what the rows are for.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import datasets
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
)

from apt_model.data.batch import Batch
from apt_model.data.data_state import left_as_it_was
from apt_model.data.encoded import IGNORED
from apt_model.data.rng import undisturbed
from apt_model.data.teachers_rows import TeachersRows


def single_rows(batch: Batch, most: int | None = None) -> list[Batch]:
    """Each text with something to learn as a batch of its own, without padding, at most `most` tokens long."""
    batch = batch.apart
    real = (batch.attention_mask != 0) | (batch.labels != IGNORED)
    rows = []
    for index, places in enumerate(real):
        inside = _span(places, most)
        row = batch.part(slice(index, index + 1), inside)
        if batch.teachers is not None:
            row = replace(row, teachers=_teachers_row(batch.teachers, index, inside.start))
        if row.label_count:
            rows.append(row)
    return rows


def _span(places: Tensor, most: int | None = None) -> slice:
    """From the first to the last True of (L)."""
    found = places.nonzero().flatten().tolist()
    start, stop = (found[0], found[-1] + 1) if found else (0, 0)
    return slice(start, stop if most is None else min(stop, start + most))


def _teachers_row(teachers: TeachersRows, index: int, start: int) -> TeachersRows:
    inside = _span(teachers.attention_mask[index] != 0)
    spans = teachers.spans[teachers.spans[:, 0] == index]
    return TeachersRows(
        input_ids=teachers.input_ids[index : index + 1, inside],
        attention_mask=teachers.attention_mask[index : index + 1, inside],
        spans=spans - torch.tensor([index, start, 0, inside.start, 0]),
    )


def shortened(row: Batch, most: int) -> Batch:
    """A batch of one row cut to `most` tokens, at least 2: its beginning, or the stretch around its first label."""
    length = row.input_ids.shape[1]
    if length <= most:
        return row
    first = int((row.labels[0, 1:] != IGNORED).nonzero()[0]) + 1
    start = 0 if first < most else min(first - most // 2, length - most)
    return row.part(slice(None), slice(start, start + most))


def joined(rows: Sequence[Batch]) -> Batch:
    """Batches of one row each as one batch, padded on the right."""
    teachers = [row.teachers for row in rows if row.teachers is not None]
    return Batch(
        input_ids=_padded([row.input_ids for row in rows], 0),
        attention_mask=_padded([row.attention_mask for row in rows], 0),
        labels=_padded([row.labels for row in rows], IGNORED),
        position_ids=_joined_positions(rows),
        teachers=_joined_teachers(teachers) if teachers else None,
        is_written=rows[0].is_written,
    )


def _joined_positions(rows: Sequence[Batch]) -> Tensor | None:
    if all(row.position_ids is None for row in rows):
        return None
    usual = torch.arange(max(row.input_ids.shape[1] for row in rows)).unsqueeze(0)
    given = ((row.position_ids, usual[:, : row.input_ids.shape[1]]) for row in rows)
    return _padded([usually if own is None else own for own, usually in given], 0)


def _joined_teachers(rows: Sequence[TeachersRows]) -> TeachersRows:
    spans = [row.spans + torch.tensor([index, 0, 0, 0, 0]) for index, row in enumerate(rows)]
    return TeachersRows(
        input_ids=_padded([row.input_ids for row in rows], 0),
        attention_mask=_padded([row.attention_mask for row in rows], 0),
        spans=torch.cat(spans),
    )


def _padded(rows: Sequence[Tensor], value: int) -> Tensor:
    return pad_sequence([row[0] for row in rows], batch_first=True, padding_value=value)


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` indices spread over `count` rows: first every other one of them, then those between."""
    few = min(count, most)
    spread = [turn * count // few for turn in range(few)]
    return spread[::2] + spread[1::2]


def is_read_by_index(loader: Any) -> bool:
    """Whether a loader draws each row of a data set with indices once an epoch, and collates them itself."""
    if not isinstance(loader, DataLoader) or type(loader.batch_sampler) is not BatchSampler:
        return False
    sampler: Any = loader.sampler
    dataset: Any = loader.dataset
    if isinstance(sampler, RandomSampler) and (sampler.replacement or sampler.num_samples != len(dataset)):
        return False
    usual = type(sampler) in (SequentialSampler, RandomSampler, DistributedSampler)
    return usual and is_stateless(dataset) and is_known_collator(loader.collate_fn)


def is_stateless(dataset: Any) -> bool:
    """Whether reading a row changes nothing that later rows depend on: lists, tensors, data sets of `datasets` without
    a transform, and parts of these.

    A data set of somebody's own may draw random numbers, count its reads, or open a file that its workers share.
    """
    if isinstance(dataset, Subset):
        return is_stateless(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        return all(map(is_stateless, dataset.datasets))
    if isinstance(dataset, datasets.Dataset):
        return bool(dataset.format["type"] != "custom")
    return type(dataset) in (list, tuple, TensorDataset)


def is_known_collator(collate: Any) -> bool:
    """Whether a collator draws its random numbers, if any, from the global generators."""
    home = getattr(collate, "__module__", None) or type(collate).__module__
    return collate is list or home.partition(".")[0] in ("torch", "transformers", "apt_model")


def collated(loader: DataLoader[Any], indices: Sequence[int], device: torch.device) -> Any:
    """These rows of the data set as a batch of the loader's own collator.

    Sampler, workers and random generators are not touched, nor those that data set or collator own; only a data set
    that counts its own reads is.
    """
    dataset: Any = loader.dataset
    with undisturbed(device), left_as_it_was(loader):
        return loader.collate_fn([dataset[index] for index in indices])


def plain_row(row: Batch) -> list[Any]:
    """A batch of one row as JSON values."""
    own = (row.input_ids, row.attention_mask, row.labels, row.position_ids)
    parts = [part.tolist() for part in own if part is not None]
    theirs = row.teachers
    of_teacher = theirs and [part.tolist() for part in (theirs.input_ids, theirs.attention_mask, theirs.spans)]
    return [*parts, of_teacher, row.is_written]


def row_of(plain: Sequence[Any]) -> Batch:
    """The row of `plain_row`."""
    *parts, of_teacher, is_written = plain
    ids, mask, labels, *positions = map(torch.tensor, parts)
    teachers = None
    if of_teacher:
        own, own_mask, spans = (torch.tensor(part, dtype=torch.int64) for part in of_teacher)
        teachers = TeachersRows(input_ids=own, attention_mask=own_mask, spans=spans.view(-1, 5))
    return Batch(
        input_ids=ids,
        attention_mask=mask,
        labels=labels,
        position_ids=positions[0] if positions else None,
        teachers=teachers,
        is_written=is_written,
    )
