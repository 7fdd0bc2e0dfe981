"""Rows of token ids: what stands beside the ids (labels, masks, positions) takes part, or the row is refused.

Knows the columns of one row; knows nothing of texts, tokenizers or tensors.
"""

from collections.abc import Mapping
from itertools import chain
from operator import index
from typing import Any

from apt_model.data.columns import MASKS
from apt_model.data.encoded import IGNORED, Encoded
from apt_model.data.notices import Tell, warn
from apt_model.data.ready import NUMBERS, shifted
from apt_model.errors import DataError

POSITIONS = ("position_ids", "seq_lengths", "attention_mask")  # columns that can give a row positions of its own
TOKENWISE = ("attention_mask", "labels", "position_ids", *MASKS)  # columns with a value for each token


def row_of_ids(row: Mapping[str, Any], name: str = "a row", *, tell: Tell = warn) -> Encoded:
    """A row with `input_ids`, as it is: not truncated.

    `labels` are taken; without them every token is learned, or those whose `completion_mask` and `assistant_masks` are
    1. Tokens whose `attention_mask` is 0 are neither read nor learned; the others keep their positions.
    `position_ids`, or TRL's `seq_lengths` of the rows packed in this one, tell where positions begin anew.

    Args:
        row: a column that is null counts as missing.
        name: of the row, for messages.
        tell: gets a notice of labels on padding, or that are other tokens than those in their places.

    Raises:
        DataError: no list of ids; columns of different length; masks that contradict the labels; shifted labels.
    """
    ids = _numbers(row, "input_ids", name)
    columns = {key: _numbers(row, key, name) for key in TOKENWISE if row.get(key) is not None}
    differ = {key: len(column) for key, column in columns.items() if len(column) != len(ids)}
    if differ:
        got = ", ".join(f"{count} {key}" for key, count in differ.items())
        what = f"columns of {name} differ in length"
        raise DataError(what, got=f"{len(ids)} input_ids, {got}", expected="a value for each token")
    marks = {key: columns[key] for key in ("attention_mask", *MASKS) if key in columns}
    labels = _marked(ids, columns.get("labels"), marks, name) if marks else columns.get("labels", ids)
    if "labels" in columns:
        _look_at_others(ids, labels, name, tell)
    positions = columns.get("position_ids") or _packed(row, len(ids), name)
    if "attention_mask" in columns:
        ids, labels, positions = _without_padding(ids, labels, positions, columns["attention_mask"], tell)
    if positions is None or positions == list(range(len(ids))):
        return Encoded(ids, labels)
    pairs = zip(labels[1:], positions[1:], positions[:-1], strict=True)  # nothing predicts what begins behind a text
    return Encoded(ids, labels[:1] + [IGNORED if at <= last else label for label, at, last in pairs], positions)


def _look_at_others(ids: list[int], labels: list[int], name: str, tell: Tell) -> None:
    """Tell of labels that are not the tokens in their places; refuse those that are the tokens behind them."""
    others = [place for place, label in enumerate(labels) if label not in (IGNORED, ids[place])]
    if not others:
        return
    early = zip(labels[:-1], ids[1:], strict=True)
    if others[0] < len(ids) - 1 and all(label in (IGNORED, behind) for label, behind in early):
        raise shifted(name)
    if others[-1]:  # nothing predicts the first one
        tell("labels_other")


def _without_padding(
    ids: list[int], labels: list[int], positions: list[int] | None, mask: list[int], tell: Tell
) -> tuple[list[int], list[int], list[int]]:
    """The tokens whose mask is 1; padding on the left shifts positions that were not given."""
    real = [place for place, here in enumerate(mask) if here]
    lost = sum(label != IGNORED for label, here in zip(labels, mask, strict=True) if not here)
    if lost:
        tell("labels_on_padding", labels=lost)
    shift = real[0] if real else 0
    own = [place - shift if positions is None else positions[place] for place in real]
    return [ids[place] for place in real], [labels[place] for place in real], own


def _marked(ids: list[int], given: list[int] | None, marks: Mapping[str, list[int]], name: str) -> list[int]:
    """The row's own labels if they agree with its masks; without labels, those by the masks."""
    for key, values in marks.items():
        others = sorted(set(values) - {0, 1})
        if others:
            raise DataError(f"{key} of {name} has values other than 0 and 1", got=others[-1], expected="0 or 1")
    learned = [all(values) for values in zip(*marks.values(), strict=True)]
    mask = marks.get("attention_mask", [1] * len(ids))
    if given is None:  # behind padding there is no text that could predict a token
        return [
            id_ if is_learned and before else IGNORED
            for id_, is_learned, before in zip(ids, learned, [1, *mask[:-1]], strict=True)
        ]
    names = " and ".join(key for key in MASKS if key in marks)
    for place, (label, is_learned) in enumerate(zip(given, learned, strict=True)):
        if names and place and mask[place] and (label != IGNORED) != is_learned:
            got = f"token {place}: label {label}, {'marked' if is_learned else 'not marked'}"
            fix = f"leave out the labels, or {names}"
            raise DataError(f"labels and {names} of {name} do not agree", got=got, fix=fix)
    return given


def _packed(row: Mapping[str, Any], length: int, name: str) -> list[int] | None:
    """Positions by `seq_lengths`, the lengths of the rows that TRL has packed into this one; None without them."""
    if row.get("seq_lengths") is None:
        return None
    lengths = _numbers(row, "seq_lengths", name)
    if sum(lengths) != length or min(lengths, default=0) < 0:
        got, expected = f"lengths of together {sum(lengths)}", f"{length}, the number of its ids"
        raise DataError(f"seq_lengths of {name} do not fit it", got=got, expected=expected)
    return list(chain.from_iterable(map(range, lengths)))


def _numbers(row: Mapping[str, Any], key: str, name: str) -> list[int]:
    try:
        if key in NUMBERS and bool in map(type, row[key]):
            raise TypeError(f"{key} has truth values")
        return [index(value) for value in row[key]]
    except (TypeError, ValueError) as error:
        expected = "token ids" if key in ("input_ids", "labels") else "integers"
        raise DataError(f"{key} of {name} is no list of ids", got=type(row[key]).__name__, expected=expected) from error
