"""Ready batches: tensors of token ids and what collators put beside them; each key takes part, is told of, or refused.

Knows the keys that collators of transformers and TRL put out; knows nothing of texts, tokenizers or models.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from apt_model.data.columns import MASKS, refuse_unheard_columns
from apt_model.data.encoded import IGNORED
from apt_model.data.notices import Tell
from apt_model.data.segments import beginnings_of
from apt_model.errors import DataError

LENGTHS = ("cu_seq_lens_q", "cu_seq_lens_k", "cu_seqlens")  # where the texts of a flattened batch begin, and its end
LONGEST = ("max_length_q", "max_length_k", "max_seqlen")  # say nothing beyond these
FLATTENED = (*LENGTHS, "seq_idx")
TAKEN = ("input_ids", "attention_mask", "labels", "position_ids", *MASKS, *FLATTENED)
NUMBERS = ("input_ids", "labels", "position_ids")  # truth values are none
ANEW = "give position_ids that begin anew with each text, and no such mask"


class ReadyColumns(NamedTuple):
    """Token ids, mask, labels and positions, (B, L) int64 each, padded on the right; positions None if they are usual.

    Usual are positions that count the tokens of a row from 0.
    """

    ids: Tensor
    mask: Tensor
    labels: Tensor
    positions: Tensor | None


def read_tensors(raw: Mapping[Any, Any], tell: Tell) -> ReadyColumns:
    """The columns of a batch with `input_ids`.

    Missing labels are the ids wherever the mask is 1, and `completion_mask` and `assistant_masks`, if given, are 1 too.
    Padding (mask 0) is not learned, whatever its label. Rows padded on the left are moved to the left. Positions
    follow from `position_ids`, `cu_seq_lens_q` or `seq_idx`; a text that begins behind another has no first label.

    Raises:
        DataError: no integers, shapes that differ, a mask of other values than 0 and 1, columns that do not agree,
            labels that are shifted already.
    """
    refuse_unheard_columns(key for key in raw if raw[key] is not None)
    if raw.get("seq_lengths") is not None:
        fix = "give position_ids that begin anew with each text, as TRL's collator does, or rows of lists"
        raise DataError("seq_lengths beside tensors is not read", got="seq_lengths", fix=fix)
    taken = {*TAKEN, *(() if raw.keys().isdisjoint(LENGTHS) else LONGEST)}
    unused = sorted(str(key) for key in raw if key not in taken and raw[key] is not None)
    if unused:
        tell("keys_unused", keys=", ".join(unused))
    ids = as_rows("input_ids", raw["input_ids"])
    columns = {key: _beside(ids, key, raw[key]) for key in TAKEN[1:4] + MASKS if raw.get(key) is not None}
    mask = columns.get("attention_mask", torch.ones_like(ids))
    for key in ("attention_mask", *MASKS):
        _refuse_other_values(key, columns.get(key, mask))
    positions = _positions(ids, columns.get("position_ids"), raw)
    labels = _labels(ids, mask, {key: columns[key] for key in MASKS if key in columns}, columns.get("labels"))
    is_lost = (mask == 0) & (labels != IGNORED)
    if is_lost.any():
        tell("labels_on_padding", labels=int(is_lost.sum()))
    labels = labels.masked_fill(is_lost, IGNORED)
    if "labels" in columns:
        _look_at_others(ids, labels, tell)
    return _tidied(ids, mask, labels, positions)


def _look_at_others(ids: Tensor, labels: Tensor, tell: Tell) -> None:
    """Tell of labels that are not the tokens in their places.

    Raises:
        DataError: they are the tokens behind them.
    """
    is_other = (labels != IGNORED) & (labels != ids)
    if not is_other.any():
        return
    early = labels[:, :-1]
    if early[is_other[:, :-1]].numel() and ((early == ids[:, 1:]) | (early == IGNORED)).all():
        raise shifted(f"row {int(is_other.nonzero()[0, 0])}")
    if is_other[:, 1:].any():  # nothing predicts the first one
        tell("labels_other")


def shifted(row: str) -> DataError:
    """The refusal of a row whose labels are each the token behind theirs."""
    fix = "give labels as transformers does, each the token in its own place: the loss shifts them"
    return DataError("labels are shifted already", got=f"{row}: each label is the next token", fix=fix)


def _tidied(ids: Tensor, mask: Tensor, labels: Tensor, positions: Tensor | None) -> ReadyColumns:
    """The columns with padding on the right, without labels that nothing predicts, and without usual positions."""
    shift = (mask != 0).int().argmax(dim=1, keepdim=True)  # the padding on the left of each row
    usual = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    if shift.any():
        moved = (usual + shift) % ids.shape[1]
        ids, mask, labels = (column.gather(1, moved) for column in (ids, mask, labels))
        positions = None if positions is None else positions.gather(1, moved)
    if positions is None:
        return ReadyColumns(ids, mask, labels, None)
    positions = positions.gather(1, usual.masked_fill(mask == 0, 0).cummax(dim=1).values)  # padding: as before it
    if torch.equal(positions.masked_fill(mask == 0, 0), usual.masked_fill(mask == 0, 0)):
        return ReadyColumns(ids, mask, labels, None)
    return ReadyColumns(ids, mask, labels.masked_fill(beginnings_of(positions, mask), IGNORED), positions)


def _labels(ids: Tensor, mask: Tensor, marks: Mapping[str, Tensor], labels: Tensor | None) -> Tensor:
    """The batch's own labels, or else the ids where they are to be learned.

    Raises:
        DataError: there are both labels and masks, and they do not agree.
    """
    learned = mask != 0
    for marked in marks.values():
        learned = learned & (marked != 0)
    if labels is None:  # the first token behind padding has no text before it that could predict it
        own = ids.masked_fill(~learned, IGNORED)
        own[:, 1:].masked_fill_(mask[:, :-1] == 0, IGNORED)
        return own
    differ = ((labels != IGNORED) != learned) & (mask != 0)
    differ[:, 0] = False  # nothing predicts it
    if marks and differ.any():
        row, place = differ.nonzero()[0].tolist()
        names = " and ".join(marks)
        is_marked = "marked" if learned[row, place] else "not marked"
        got = f"row {row}, token {place}: label {int(labels[row, place])}, {is_marked}"
        raise DataError(f"labels and {names} do not agree", got=got, fix=f"leave out the labels, or {names}")
    return labels


def _positions(ids: Tensor, given: Tensor | None, raw: Mapping[Any, Any]) -> Tensor | None:
    """Positions by `position_ids`, or by where the texts of a flattened batch begin; None without either.

    Raises:
        DataError: the keys do not agree.
    """
    found = {"position_ids": given} if given is not None else {}
    for key in LENGTHS:
        if raw.get(key) is not None:
            found[key] = _by_lengths(ids, key, raw[key])
    if raw.get("seq_idx") is not None:
        texts = _beside(ids, "seq_idx", raw["seq_idx"])
        found["seq_idx"] = _counted(torch.nn.functional.pad(texts.diff(dim=1) != 0, (1, 0), value=True))
    if not found:
        return None
    (first, positions), *others = found.items()
    for key, other in others:
        if not torch.equal(other, positions):
            got = f"row {int((other != positions).nonzero()[0, 0])}"
            raise DataError(f"{first} and {key} of a batch do not agree", got=got, fix="leave out one of them")
    return positions


def _by_lengths(ids: Tensor, key: str, value: Any) -> Tensor:
    bounds = as_rows(key, value)[0]
    expected = f"0 to {ids.shape[1]}, rising, for one row"
    if len(ids) != 1 or bounds[0] != 0 or bounds[-1] != ids.shape[1] or (bounds.diff() < 0).any():
        raise DataError(
            f"{key} does not fit the batch", got=f"{bounds.tolist()[:8]}, {len(ids)} rows", expected=expected
        )
    begins = torch.zeros(1, ids.shape[1], dtype=torch.bool, device=ids.device)
    begins[0, bounds[:-1][bounds.diff() > 0]] = True
    return _counted(begins)


def _counted(begins: Tensor) -> Tensor:
    """Positions (B, L) that begin anew where (B, L) is True, as it is in the first column."""
    places = torch.arange(begins.shape[1], device=begins.device).expand(begins.shape)
    return places - places.masked_fill(~begins, 0).cummax(dim=1).values


def _refuse_other_values(name: str, mask: Tensor) -> None:
    others = mask[(mask != 0) & (mask != 1)]
    if len(others):
        raise DataError(
            f"{name} has values other than 0 and 1",
            got=f"values up to {int(mask.max())}",
            fix="in a tuple the second tensor is the mask: give labels as the third, or pass a dict; "
            f"for a mask that numbers the texts of a row, {ANEW}",
        )


def _beside(ids: Tensor, name: str, value: Any) -> Tensor:
    """A column of the shape of the ids; positions of one row may serve all."""
    dimensions = getattr(value, "ndim", 2)
    if dimensions > 2:
        fix = ANEW if name == "attention_mask" else None
        got, expected = f"shape {tuple(value.shape)}", f"{tuple(ids.shape)}, as of input_ids"
        raise DataError(f"{name} has {dimensions} dimensions", got=got, expected=expected, fix=fix)
    column = as_rows(name, value)
    if name == "position_ids" and len(column) == 1:
        column = column.expand(len(ids), -1)
    if column.shape != ids.shape:
        raise DataError(f"input_ids and {name} differ in shape", got=f"{tuple(ids.shape)} and {tuple(column.shape)}")
    return column


def as_rows(name: str, value: Any) -> Tensor:
    """A tensor (B, L) int64 of integers or truth values; a single row may come without its first dimension.

    Raises:
        DataError: it is none.
    """
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:  # torch raises all three for what it cannot make one of
        raise DataError(f"{name} cannot be made a tensor", got=f"{type(value).__name__}: {error}") from error
    is_no_number = tensor.dtype == torch.bool and name in NUMBERS
    if tensor.is_floating_point() or tensor.is_complex() or is_no_number:
        raise DataError(f"{name} does not hold integers", got=str(tensor.dtype), expected="an integer dtype")
    if tensor.is_nested:
        raise DataError(f"{name} is a nested tensor", fix="pad it with torch.nested.to_padded_tensor, and give a mask")
    if tensor.ndim == 1:
        tensor = tensor.unsqueeze(0)
    if tensor.ndim != 2 or tensor.numel() == 0:
        raise DataError(f"{name} has no rows of tokens", got=f"shape {tuple(tensor.shape)}", expected="(rows, tokens)")
    return tensor.to(torch.int64)
