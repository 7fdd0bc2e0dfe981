"""Two tokenizations of one text, cut where both end at the same byte.

Knows tokenizers and bytes; knows nothing of rows, models or losses. Positions are bytes of the text in UTF-8, so that a
character which a tokenizer cuts into several tokens is measured in its parts.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from wcwidth import wcswidth

from apt_model.data.token_text import Pieces, visible_bytes
from apt_model.errors import ConfigError

Range = tuple[int, int]  # first byte and the one past the last
Placed = list[Range | None]  # one a token; None: it is no part of the text


class Span(NamedTuple):
    """The tokens of both sides that stand for the same bytes, as few as can be.

    Attributes:
        one, one_count: index of the first token and number of tokens of the one side.
        other, other_count: of the other side.
    """

    one: int
    one_count: int
    other: int
    other_count: int


def place(text: str, tokenizer: Any, pieces: Pieces) -> tuple[list[int], Placed]:
    """Token ids of `text`, without special tokens around it, and the bytes that each stands for.

    Where the bytes of the tokens are the bytes of the text (byte-level BPE, most of sentencepiece), they are counted;
    the space that sentencepiece puts before a text counts nothing. Else (a tokenizer that changes what it reads) the
    tokenizer's own offsets tell: spaces that it drops belong to the token after them, and tokens that share a character
    without adding up to it end together where it ends.

    Raises:
        ConfigError: neither is to be had.
    """
    fast = bool(getattr(tokenizer, "is_fast", False))
    encoded = tokenizer([text], add_special_tokens=False, **({"return_offsets_mapping": True} if fast else {}))
    ids, whole = list(encoded["input_ids"][0]), text.encode()
    said = [pieces.bytes_of(token) for token in ids]
    joined = b"".join(said)
    if joined == b" " + whole:
        said[0], joined = said[0][1:], whole
    if joined == whole:
        return ids, list(pairwise(accumulate(map(len, said), initial=0)))
    if not fast:
        fix = "a tokenizer from a tokenizer.json"
        raise ConfigError("a tokenizer does not tell which text its tokens are", got=type(tokenizer).__name__, fix=fix)
    at = list(accumulate((len(letter.encode()) for letter in text), initial=0))
    return ids, _from_offsets([(at[start], at[end]) for start, end in encoded["offset_mapping"][0]], said, whole)


def _from_offsets(offsets: Sequence[Range], said: Sequence[bytes], whole: bytes) -> Placed:
    placed: Placed = []
    end, index = 0, 0
    while index < len(offsets):
        start, stop, last = *offsets[index], index + 1
        while last < len(offsets) and offsets[last][0] < stop:  # they share a character
            stop, last = max(stop, offsets[last][1]), last + 1
        if not whole[end:start].strip():
            start = end
        lengths = [len(one) for one in said[index:last]]
        if sum(lengths) != stop - start:
            lengths = [0] * (last - index - 1) + [stop - start]
        placed += pairwise(accumulate(lengths, initial=start))
        end, index = stop, last
    return placed


def align(one: Sequence[Range | None], other: Sequence[Range | None]) -> list[Span]:
    """The smallest spans of which both sides have the first byte, the last one, and all between.

    Bytes that only one side has are in no span. Linear in the number of tokens.
    """
    spans: list[Span] = []
    first, second = 0, 0
    while first < len(one) and second < len(other):
        mine, theirs = one[first], other[second]
        if mine is None or (theirs is not None and mine[0] < theirs[0]):
            first += 1
        elif theirs is None or theirs[0] < mine[0]:
            second += 1
        else:
            end, other_end = first, second
            while mine is not None and theirs is not None and mine[1] != theirs[1]:
                if mine[1] < theirs[1]:
                    end += 1
                    mine = _next(one, end)
                else:
                    other_end += 1
                    theirs = _next(other, other_end)
            if mine is not None and theirs is not None:
                spans.append(Span(first, end + 1 - first, second, other_end + 1 - second))
            first, second = end + 1, other_end + 1
    return spans


def _next(side: Sequence[Range | None], index: int) -> Range | None:
    """A token's bytes, if they go on where those of the token before ended."""
    before, here = side[index - 1], side[index] if index < len(side) else None
    return here if before is not None and here is not None and here[0] == before[1] else None


def shared_tokens(one: Any, other: Any) -> list[tuple[int, int]]:
    """Ids that stand for the same bytes in both tokenizers, as pairs; the ends of text are a pair too.

    Special tokens are left out. Of several ids of one text (sentencepiece has letters, and bytes besides) the last is
    taken, as a vocabulary has its bytes before its letters.
    """
    ends = [getattr(tokenizer, "eos_token_id", None) for tokenizer in (one, other)]
    mine, theirs = ({said: token for token, said in _texts(tokenizer).items()} for tokenizer in (one, other))
    pairs = [(mine[said], theirs[said]) for said in mine.keys() & theirs.keys()]
    pairs += [(ends[0], ends[1])] if ends[0] is not None and ends[1] is not None else []
    return sorted(pairs)


def common_beginnings(one: Any, other: Any) -> tuple[int, dict[int, int], dict[int, int]]:
    """Every token of two tokenizers by the longest text it begins with that is a token of both.

    So a long token of the one and the first of several short ones of the other, which say the same, count as one: they
    begin alike. Tokenizers of bytes have at least the bytes in common, and every token a beginning.

    Returns:
        How many beginnings there are, and for both tokenizers the beginning of each id; ids without one (special
        tokens) are left out. The ends of text are a beginning too.
    """
    pairs = shared_tokens(one, other)
    found: list[dict[int, int]] = []
    for side, tokenizer in enumerate((one, other)):
        texts = _texts(tokenizer)
        begins = {texts[pair[side]]: number for number, pair in enumerate(pairs) if pair[side] in texts}
        ids = {pair[side]: number for number, pair in enumerate(pairs)}
        for token, said in texts.items():
            longest = next((said[:size] for size in range(len(said), 0, -1) if said[:size] in begins), None)
            if longest is not None:
                ids[token] = begins[longest]
        found.append(ids)
    return len(pairs), found[0], found[1]


def _texts(tokenizer: Any) -> dict[int, bytes]:
    """The bytes of each id that has some, to itself."""
    pieces = Pieces.of(tokenizer)
    if pieces is None:
        raise ConfigError("a tokenizer does not name its tokens", got=type(tokenizer).__name__)
    ids = (token for token in sorted(tokenizer.get_vocab().values()) if not pieces.is_special(token))
    return {token: said for token in ids if (said := pieces.bytes_of(token))}


def alignment_table(text: str, one: Any, other: Any) -> str:
    """How two tokenizers cut a text, span by span, to be printed.

    A line a span: its text, the tokens of the one, the tokens of the other, each between bars; a byte that is no whole
    character stands as ⟨F0⟩.

    Args:
        text: any text.
        one, other: Hugging Face tokenizers.
    """
    sides = []
    for tokenizer in (one, other):
        pieces = Pieces.of(tokenizer)
        if pieces is None:
            raise ConfigError("a tokenizer does not name its tokens", got=type(tokenizer).__name__)
        ids, placed = place(text, tokenizer, pieces)
        sides.append((pieces.names(ids), placed))
    (names, placed), (other_names, other_placed) = sides
    whole, rows = text.encode(), []
    for span in align(placed, other_placed):
        ranges = [r for r in placed[span.one : span.one + span.one_count] if r is not None]
        said = visible_bytes(whole[ranges[0][0] : ranges[-1][1]])
        mine = names[span.one : span.one + span.one_count]
        theirs = other_names[span.other : span.other + span.other_count]
        rows.append([_visible(said), "|".join(map(_visible, mine)), "|".join(map(_visible, theirs))])
    widths = [max((wcswidth(row[column]) for row in rows), default=0) for column in range(2)]
    return "\n".join(
        "  ".join([*(cell + " " * (width - wcswidth(cell)) for cell, width in zip(row, widths, strict=False)), row[2]])
        for row in rows
    )


def _visible(piece: str) -> str:
    return piece.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
