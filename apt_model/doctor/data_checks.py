"""Pre-flight checks of tokenizers and data: ids that differ, masked rows, padding, truncation.

Knows tokenizers and batches; knows nothing of models or losses.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from apt_model.data.alignment import shared_tokens
from apt_model.data.batch import Batch, rows_of, to_batch
from apt_model.data.encode import (
    OR_CROSS,
    UNLIMITED,
    count_answers,
    differing_ids,
    encode_rows,
    refuse_other_tokenizer,
)
from apt_model.data.encoded import IGNORED
from apt_model.data.notices import untold
from apt_model.data.structure import RowError
from apt_model.errors import AptModelError, ConfigError, DataError
from apt_model.events.checkup import Finding, wrong

MUCH_PADDING = 0.5  # share of a batch's places: above it, more than half of the computation is wasted
SPECIAL = ("bos", "eos", "pad")


def look_at_tokenizers(teacher: Any, student: Any, *, may_differ: bool = False) -> Iterator[Finding]:
    """Compare the vocabularies and the special ids of two tokenizers; None for a model without one.

    With `may_differ` (cross_tokenizer) only the number of shared tokens is reported.
    """
    if may_differ:
        counts = {"teacher": len(teacher), "student": len(student), "shared": len(shared_tokens(student, teacher))}
        yield Finding(key="tokenizers_crossed", values={name: f"{count:,}" for name, count in counts.items()})
        return
    try:
        refuse_other_tokenizer(teacher, student, fix=OR_CROSS)
    except DataError as error:
        differ = differing_ids(teacher, student)
        first = ", ".join(f"{index}: {one!r} / {other!r}" for index, one, other in differ[:3])
        yield wrong("tokenizers_differ", error, count=f"{len(differ):,}", first=first)
        return
    tokenizer = teacher if teacher is not None else student
    if tokenizer is None:
        return
    if teacher is not None and student is not None:
        yield Finding(key="tokenizers", values={"count": f"{len(tokenizer):,}"})
        yield from _look_at_special_ids(teacher, student)
    eos = getattr(tokenizer, "eos_token_id", None)
    if eos is not None and eos == getattr(tokenizer, "pad_token_id", None):
        yield Finding(key="pad_is_eos", values={"id": eos})


def _look_at_special_ids(teacher: Any, student: Any) -> Iterator[Finding]:
    ids = {name: [getattr(one, f"{name}_token_id", None) for one in (teacher, student)] for name in SPECIAL}
    special = ", ".join(f"{name} {taught} ≠ {known}" for name, (taught, known) in ids.items() if taught != known)
    if special:
        yield Finding(key="special_differ", state="advice", values={"differ": special})


def look_at_spans(batches: Sequence[Batch]) -> Iterator[Finding]:
    """The share of labels that tokenizer alignment covers."""
    learned = sum(batch.label_count for batch in batches)
    spans = [batch.teachers.spans for batch in batches if batch.teachers is not None]
    covered = sum(int(some[:, 2].sum()) for some in spans)
    if learned:
        values = {"share": f"{100 * covered / learned:.0f}%", "spans": f"{sum(map(len, spans)):,}"}
        yield Finding(key="spans" if covered else "spans_none", state="well" if covered else "advice", values=values)


def read_batches(
    raws: Iterable[Any], tokenizer: Any, max_length: int, *, teacher_tokenizer: Any = None
) -> tuple[list[Batch], list[Finding]]:
    """Collate batches as the training loop will; stops at the first one that is refused, with a finding for it.

    Its error is a `RowError` if one row is to blame: its index is that among all rows read.
    """
    read = partial(
        to_batch, tokenizer=tokenizer, max_length=max_length, teacher_tokenizer=teacher_tokenizer, tell=untold
    )
    batches: list[Batch] = []
    before = 0
    for raw in raws:
        try:
            batches.append(read(raw))
            before += len(rows_of(raw) or ())
        except (ConfigError, DataError) as refused:
            rows = rows_of(raw) or []
            error = _of_row(refused, rows, read, before)
            is_chat = any("messages" in row and "input_ids" not in row for row in rows)
            lacks_template = is_chat and getattr(tokenizer, "chat_template", None) is None
            return batches, [wrong("no_template" if lacks_template else "refused", error)]
    return batches, []


def _of_row(
    error: AptModelError, rows: Sequence[Any], read: Callable[[list[Any]], Batch], before: int
) -> AptModelError:
    """The error of the first row that is refused alone, with its index; that of the batch if there is none."""
    for number, row in enumerate(rows):
        try:
            read([row])
        except DataError as refused:
            return RowError.of(refused, before + number)
        except ConfigError:
            break
    return error


def unigram_cross_entropy(batches: Sequence[Batch], vocabulary: int) -> float | None:
    """Cross-entropy, nats a token, of a unigram model of these texts that has never counted the token it is asked for.

    Each label is predicted from the counts of all others (leave-one-out), smoothed as by Witten and Bell: after N
    tokens of K kinds, a kind counted c times has c / (N + K), and the kinds not met share K / (N + K) equally. So few
    tokens give a high value, not a low one as the entropy of their own frequencies would be. None below two labels.
    Source: Witten and Bell 1991, "The zero-frequency problem", method C.
    """
    labels = [batch.labels[:, 1:][batch.labels[:, 1:] != IGNORED] for batch in batches]
    counts = Counter(torch.cat(labels).tolist()) if labels else Counter()
    others, kinds = counts.total() - 1, len(counts)
    if others < 1:
        return None
    met = sum(count * math.log((others + kinds) / (count - 1)) for count in counts.values() if count > 1)
    new, rest = [*counts.values()].count(1), max(vocabulary - kinds + 1, 1)
    unmet = new * math.log((others + kinds - 1) * rest / (kinds - 1)) if new else 0.0
    return (met + unmet) / (others + 1)


def look_at_masks(batches: Sequence[Batch]) -> Iterator[Finding]:
    """Count labels, rows without a label, and padding."""
    rows = sum(len(batch.labels) for batch in batches)
    places = sum(batch.labels.numel() for batch in batches)
    real = sum(int(batch.attention_mask.sum()) for batch in batches)
    learned = sum(batch.label_count for batch in batches)
    masked = sum(int((batch.labels[:, 1:] == IGNORED).all(dim=1).sum()) for batch in batches)
    seen = {"rows": f"{rows:,}", "masked": f"{masked:,}", "learned": f"{learned:,}"}
    if not learned:
        fix = f"give labels other than {IGNORED}; max_length must not cut the answers off"
        error = DataError("no token has a label to learn from", got=f"{rows} rows, all labels {IGNORED}", fix=fix)
        yield wrong("masked_all", error, **seen)
        return
    share = f"{100 * learned / max(real, 1):.0f}%"
    yield Finding(key="masks", values={**seen, "share": share, "padding": f"{100 * (1 - real / places):.0f}%"})
    if masked:
        yield Finding(key="masked_some", state="advice", values=seen)
    if 1 - real / places > MUCH_PADDING:
        yield Finding(key="padding", state="advice", values={"padding": f"{100 * (1 - real / places):.0f}%"})


def look_at_answers(raws: Iterable[Any], tokenizer: Any, max_length: int) -> Iterator[Finding]:
    """Count the assistant's turns that are learned, of all there are; none for rows that are no chats."""
    rows = [row for raw in raws for row in rows_of(raw) or [] if "input_ids" not in row]
    counts = [count_answers(row, tokenizer, max_length) for row in rows]
    learned, all_ = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0)
    if all_:
        values = {"learned": f"{learned:,}", "all": f"{all_:,}"}
        is_whole = learned == all_
        yield Finding(
            key="answers" if is_whole else "answers_some", state="well" if is_whole else "advice", values=values
        )


def look_at_lengths(raws: Iterable[Any], tokenizer: Any, max_length: int) -> Iterator[Finding]:
    """Count the rows that `max_length` truncates; none for rows of token ids, which are never truncated."""
    lengths: list[int] = []
    for raw in raws:
        rows = [row for row in rows_of(raw) or [] if "input_ids" not in row]
        lengths += [len(row.ids) for row in encode_rows(rows, tokenizer, UNLIMITED, tell=untold)] if rows else []
    if not lengths:
        return
    cut = sum(length > max_length for length in lengths)
    values = {"rows": f"{len(lengths):,}", "cut": f"{cut:,}", "longest": f"{max(lengths):,}", "limit": str(max_length)}
    yield Finding(key="lengths_cut" if cut else "lengths", state="advice" if cut else "well", values=values)
