"""Tokenizer alignment: the shortest spans of two tokenizations of one text that cover the same UTF-8 bytes.

Knows tokenizers and bytes; knows nothing of rows, models or losses. Positions are byte offsets, so that a character
which a tokenizer splits into several tokens is measured in its parts.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from wcwidth import wcswidth

from apt_model.data.placing import Range, place
from apt_model.data.token_text import TokenTexts, visible_bytes
from apt_model.errors import ConfigError


class Span(NamedTuple):
    """A run of tokens on the left and a run of tokens on the right that cover the same bytes.

    Attributes:
        left, left_count: index of the first token, and number of tokens, of the left tokenization.
        right, right_count: the same of the right one.
    """

    left: int
    left_count: int
    right: int
    right_count: int


def align(left: Sequence[Range | None], right: Sequence[Range | None]) -> list[Span]:
    """The shortest spans that begin and end at the same byte on both sides, with no gap in between.

    Bytes that only one side covers are in no span. Linear in the number of tokens.
    """
    spans: list[Span] = []
    first, second = 0, 0
    while first < len(left) and second < len(right):
        here, there = left[first], right[second]
        if here is None or (there is not None and here[0] < there[0]):
            first += 1
        elif there is None or there[0] < here[0]:
            second += 1
        else:  # both begin at this byte
            last, right_last, is_span = _common_end(left, first, right, second)
            if is_span:
                spans.append(Span(first, last + 1 - first, second, right_last + 1 - second))
            first, second = last + 1, right_last + 1
    return spans


def _common_end(
    left: Sequence[Range | None], last: int, right: Sequence[Range | None], right_last: int
) -> tuple[int, int, bool]:
    """Indices of the tokens at which both sides end alike: the side that ends earlier takes one more token until then.

    The third value is False if a gap comes before.
    """
    here, there = left[last], right[right_last]
    while here is not None and there is not None and here[1] != there[1]:
        if here[1] < there[1]:
            last += 1
            here = _next(left, last)
        else:
            right_last += 1
            there = _next(right, right_last)
    return last, right_last, here is not None and there is not None


def _next(side: Sequence[Range | None], index: int) -> Range | None:
    """The byte range of token `index` if it begins where the token before ended, else None."""
    before, here = side[index - 1], side[index] if index < len(side) else None
    return here if before is not None and here is not None and here[0] == before[1] else None


def shared_tokens(one: Any, other: Any) -> list[tuple[int, int]]:
    """Pairs of ids (one's, other's) whose tokens have the same bytes; the two end-of-text ids are a pair too.

    Special tokens are left out. Of several ids with the same bytes (sentencepiece has a letter also as a byte token)
    the last is taken, as a vocabulary has its byte tokens before its letters.
    """
    ends = [getattr(tokenizer, "eos_token_id", None) for tokenizer in (one, other)]
    ids, other_ids = ({text: token for token, text in _texts(tokenizer).items()} for tokenizer in (one, other))
    pairs = [(ids[text], other_ids[text]) for text in ids.keys() & other_ids.keys()]
    pairs += [(ends[0], ends[1])] if ends[0] is not None and ends[1] is not None else []
    return sorted(pairs)


def common_beginnings(one: Any, other: Any) -> tuple[int, dict[int, int], dict[int, int]]:
    """Map every token of two tokenizers to its longest prefix that is a token of both.

    So a long token of one tokenizer and the first of the short tokens that spell the same text in the other have the
    same prefix. Byte-level tokenizers share at least the 256 bytes, so there every token has a prefix.

    Returns:
        The number of prefixes, and for each tokenizer the prefix number of each id; ids without one (special tokens)
        are left out. The end of text counts as a prefix.
    """
    pairs = shared_tokens(one, other)
    found: list[dict[int, int]] = []
    for side, tokenizer in enumerate((one, other)):
        texts = _texts(tokenizer)
        begins = {texts[pair[side]]: number for number, pair in enumerate(pairs) if pair[side] in texts}
        ids = {pair[side]: number for number, pair in enumerate(pairs)}
        for token, text in texts.items():
            longest = next((text[:size] for size in range(len(text), 0, -1) if text[:size] in begins), None)
            if longest is not None:
                ids[token] = begins[longest]
        found.append(ids)
    return len(pairs), found[0], found[1]


def _texts(tokenizer: Any) -> dict[int, bytes]:
    """The bytes of each id on its own; ids without any (special tokens) are left out."""
    token_texts = TokenTexts.of(tokenizer)
    if token_texts is None:
        raise _no_token_texts(tokenizer)
    ids = (token for token in sorted(tokenizer.get_vocab().values()) if not token_texts.is_special(token))
    return {token: text for token in ids if (text := token_texts.bytes_of(token))}


def _no_token_texts(tokenizer: Any) -> ConfigError:
    fix = "pass a Hugging Face tokenizer"
    return ConfigError("a tokenizer does not give the text of a single token", got=type(tokenizer).__name__, fix=fix)


def alignment_table(text: str, one: Any, other: Any) -> str:
    """A printable table of how two tokenizers split a text, one aligned span a line.

    The columns: the span's text, its tokens by `one`, its tokens by `other`, with | between tokens; a byte that is no
    whole character is written as ⟨F0⟩.

    Args:
        text: any text.
        one, other: Hugging Face tokenizers.
    """
    sides = []
    for tokenizer in (one, other):
        token_texts = TokenTexts.of(tokenizer)
        if token_texts is None:
            raise _no_token_texts(tokenizer)
        ids, placed = place(text, tokenizer, token_texts)
        sides.append((token_texts.names(ids), placed))
    (names, placed), (other_names, other_placed) = sides
    whole, rows = text.encode(), []
    for span in align(placed, other_placed):
        ranges = [r for r in placed[span.left : span.left + span.left_count] if r is not None]
        covered = visible_bytes(whole[ranges[0][0] : ranges[-1][1]])
        tokens = names[span.left : span.left + span.left_count]
        other_tokens = other_names[span.right : span.right + span.right_count]
        rows.append([_visible(covered), "|".join(map(_visible, tokens)), "|".join(map(_visible, other_tokens))])
    widths = [max((wcswidth(row[column]) for row in rows), default=0) for column in range(2)]
    return "\n".join(
        "  ".join([*(cell + " " * (width - wcswidth(cell)) for cell, width in zip(row, widths, strict=False)), row[2]])
        for row in rows
    )


def _visible(piece: str) -> str:
    return piece.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
