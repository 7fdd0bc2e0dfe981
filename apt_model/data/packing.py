"""Sequence packing: rows side by side in blocks, each with positions of its own, so that none sees its neighbours.

Knows rows in tokens; knows nothing of models or batches.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from apt_model.data.encode import UNLIMITED, encode_rows
from apt_model.data.encoded import IGNORED, Encoded
from apt_model.data.notices import Tell, warn


def pack_rows(
    rows: Sequence[Mapping[str, Any]], tokenizer: Any, max_length: int, *, tell: Tell = warn
) -> list[Encoded]:
    """The rows of `encode_rows`, untruncated, packed into blocks of at most `max_length` tokens.

    A row stands whole in one block: the longest ones are placed first, each where the least room is left behind it
    (best fit, decreasing). Blocks and their rows stand in the order of the data. Positions begin anew with each row,
    and its first token, which nothing predicts, has label -100 behind another row.

    A row that is longer than a block is cut. What is left of it begins anew, behind the BOS token if there is one, else
    behind the last token before the cut; neither is learned there, so every label is learned once.
    """
    return pack(encode_rows(rows, tokenizer, UNLIMITED, tell=tell), tokenizer, max_length)


def pack(rows: Sequence[Encoded], tokenizer: Any, max_length: int) -> list[Encoded]:
    """`pack_rows` for rows that are in tokens already."""
    bos = getattr(tokenizer, "bos_token_id", None)
    pieces = [piece for row in rows for piece in _pieces(row, bos, max_length)]
    return [_joined([pieces[index] for index in block]) for block in best_fit([len(p.ids) for p in pieces], max_length)]


def best_fit(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Which pieces share a block of `size` tokens: their indices, ascending, and the blocks by their first one."""
    blocks: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens that are left, block), ascending
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        at = bisect_left(room, (lengths[index], 0))
        if at == len(room):
            blocks.append([])
            room.append((size, len(blocks) - 1))
        left, block = room.pop(at)
        blocks[block].append(index)
        insort(room, (left - lengths[index], block))
    return sorted(map(sorted, blocks))


def _pieces(row: Encoded, bos: int | None, size: int) -> Iterator[Encoded]:
    """The row, cut into pieces of at most `size` tokens; a row without a token has none."""
    if row.ids:
        yield Encoded(row.ids[:size], row.labels[:size], row.positions and row.positions[:size])
    at = size
    while at < len(row.ids):
        lead = [bos if bos is not None else row.ids[at - 1]] if size > 1 and row.ids[at] != bos else []
        end = at + size - len(lead)
        positions = row.positions and _anew(row.positions[at - len(lead) : end])
        yield Encoded(lead + row.ids[at:end], [IGNORED] * len(lead) + row.labels[at:end], positions)
        at = end


def _anew(positions: list[int]) -> list[int]:
    """A row's own positions behind a cut: those of the text that was cut begin at 0."""
    rest = next((at for at in range(1, len(positions)) if positions[at] <= positions[at - 1]), len(positions))
    return [position - positions[0] for position in positions[:rest]] + positions[rest:]


def _joined(pieces: Sequence[Encoded]) -> Encoded:
    first, *others = pieces
    positions = (piece.positions or range(len(piece.ids)) for piece in pieces)
    return Encoded(
        list(chain.from_iterable(piece.ids for piece in pieces)),
        [*first.labels, *chain.from_iterable([IGNORED, *piece.labels[1:]] for piece in others)],
        list(chain.from_iterable(positions)) if others else first.positions,
    )
