"""Place tokens in their text: the range of UTF-8 bytes that each token of a text stands for.

Knows tokenizers and bytes; knows nothing of rows, labels or models. Positions are byte offsets, so that a character
which a tokenizer splits into several tokens is measured in its parts.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

from apt_model.data.token_text import TokenTexts
from apt_model.errors import ConfigError, DataError

LONGEST_TEXT = 10_000_000  # letters
Range = tuple[int, int]  # first byte, and one past the last
Placed = list[Range | None]  # byte range of each token; None for a token that stands for no byte of the text


def without_warning(tokenizer: Any) -> dict[str, bool]:
    """Arguments that keep a Hugging Face tokenizer from warning of a text longer than its model: we truncate it."""
    return {"verbose": False} if hasattr(tokenizer, "model_max_length") else {}


def readable(text: str) -> str:
    """A text as a tokenizer takes it, with "?" for each lone surrogate.

    Raises:
        DataError: it is so long that a tokenizer, which keeps up to a few hundred bytes for each letter, might end the
            process.
    """
    if len(text) > LONGEST_TEXT:
        got, expected = f"{len(text):,} letters", f"at most {LONGEST_TEXT:,}"
        raise DataError("the text of a row is too long", got=got, expected=expected, fix="split it into several rows")
    return text.encode("utf-8", "replace").decode()


@lru_cache(maxsize=4)
def pieces_of(tokenizer: Any) -> TokenTexts:
    """The bytes of a transformers tokenizer's tokens.

    Raises:
        ConfigError: it is another tokenizer.
    """
    pieces = TokenTexts.of(tokenizer)
    if pieces is None:
        fix = "pass a Hugging Face tokenizer"
        raise ConfigError("a tokenizer cannot map its tokens to the text", got=type(tokenizer).__name__, fix=fix)
    return pieces


def place(text: str, tokenizer: Any, token_texts: TokenTexts) -> tuple[list[int], Placed]:
    """Token ids of `text`, without special tokens around it, and the byte range that each token stands for.

    Where the tokens' bytes joined are the text's bytes (byte-level BPE, most of sentencepiece), ranges are sums of
    lengths; the space that sentencepiece puts before a text has length 0. Else (a tokenizer that normalises its input)
    they come from the tokenizer's `offset_mapping`: spaces that it drops belong to the token after them, and tokens
    that share a character without adding up to it end together where it ends.

    Raises:
        ConfigError: the tokens' bytes are not the text's, and a slow tokenizer has no offsets.
    """
    fast = bool(getattr(tokenizer, "is_fast", False))
    offsets = {"return_offsets_mapping": True} if fast else {}
    encoded = tokenizer([text], add_special_tokens=False, **offsets, **without_warning(tokenizer))
    ids, whole = list(encoded["input_ids"][0]), text.encode()
    parts = [token_texts.bytes_of(token) for token in ids]
    joined = b"".join(parts)
    if joined == b" " + whole:
        parts[0], joined = parts[0][1:], whole
    if joined == whole:
        return ids, list(pairwise(accumulate(map(len, parts), initial=0)))
    if not fast:
        fix = "load a fast tokenizer, one that has a tokenizer.json"
        raise ConfigError("a tokenizer cannot map its tokens to the text", got=type(tokenizer).__name__, fix=fix)
    at = list(accumulate((len(letter.encode()) for letter in text), initial=0))
    return ids, _from_offsets([(at[start], at[end]) for start, end in encoded["offset_mapping"][0]], parts, whole)


def _from_offsets(offsets: Sequence[Range], parts: Sequence[bytes], whole: bytes) -> Placed:
    """Byte ranges by the tokenizer's offsets, already in bytes; `parts` divides a character that tokens share."""
    placed: Placed = []
    end, index = 0, 0
    while index < len(offsets):
        start, stop, last = *offsets[index], index + 1
        while last < len(offsets) and offsets[last][0] < stop:  # they share a character
            stop, last = max(stop, offsets[last][1]), last + 1
        if not whole[end:start].strip():
            start = end
        lengths = [len(part) for part in parts[index:last]]
        if sum(lengths) != stop - start:
            lengths = [0] * (last - index - 1) + [stop - start]
        placed += pairwise(accumulate(lengths, initial=start))
        end, index = stop, last
    return placed
