"""A row for a teacher and a student with different tokenizers: each in its own tokens, and where these stand for the
same text.

Knows rows and tokenizers; knows nothing of batches, models or losses. What is aligned is the text to learn: a text's,
a completion's, what an assistant says; each with its end, where both tokenizers mark it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

from apt_model.data.alignment import Placed, Span, align, place
from apt_model.data.encode import IGNORED, UNLIMITED, encode, encode_rows, message_of, render_chat
from apt_model.data.token_text import Pieces
from apt_model.errors import ConfigError, DataError

ASSISTANT = "assistant"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A row in both tokenizers' tokens.

    Attributes:
        ids, labels: the student's, as `encode_rows` gives them.
        teachers: the teacher's ids, as far as there is something to compare.
        spans: tokens of both that stand for the same bytes; each token in them has a label and one before it.
    """

    ids: list[int]
    labels: list[int]
    teachers: list[int]
    spans: list[Span]


def encode_for_both(row: Mapping[str, Any], tokenizer: Any, teacher_tokenizer: Any, max_length: int) -> Pair:
    """A row of text, a chat, or a prompt with its completion, at most `max_length` of the student's tokens long.

    A chat goes through each tokenizer's own template. The teacher's row ends where the student's was cut.

    Raises:
        DataError: a row that `encode_rows` refuses. ConfigError: a tokenizer that does not tell its tokens' text.
    """
    ids, labels, mine = _placed(row, tokenizer)
    ids, labels = ids[:max_length], labels[:max_length]
    teachers, taught, theirs = _placed(row, teacher_tokenizer)
    mine, theirs = _learned(mine[:max_length], labels), _learned(theirs, taught)
    spans = align(mine, theirs)
    end = spans[-1].other + spans[-1].other_count if spans else 1
    return Pair(ids=ids, labels=labels, teachers=teachers[:end], spans=spans)


def _learned(placed: Placed, labels: Sequence[int]) -> Placed:
    """Without what is given, and without the first token, which nothing predicts."""
    return [
        r if index and label != IGNORED else None for index, (r, label) in enumerate(zip(placed, labels, strict=True))
    ]


def _placed(row: Mapping[str, Any], tokenizer: Any) -> tuple[list[int], list[int], Placed]:
    """Ids, labels, and the bytes of the text to learn that each token stands for; its end counts one byte."""
    ((ids, labels),) = encode_rows([row], tokenizer, UNLIMITED)
    if "messages" in row:
        return ids, labels, _place_chat(row["messages"], ids, tokenizer)
    is_pair = "text" not in row
    text = _readable(row["completion"] if is_pair else row["text"])
    given = encode([row["prompt"] or ""], tokenizer, UNLIMITED, end=False)[0] if is_pair else []
    body, placed = place(text, tokenizer, _pieces(tokenizer))
    start = next((at for at in range(len(given), len(ids)) if ids[at : at + len(body)] == body), None)
    if start is None:
        return ids, labels, [None] * len(ids)
    size, after = len(text.encode()), ids[start + len(body) :]
    is_end = [token == getattr(tokenizer, "eos_token_id", None) for token in after]
    return ids, labels, [*[None] * start, *placed, *((size, size + 1) if end else None for end in is_end)]


def _place_chat(messages: Sequence[Mapping[str, str]], ids: list[int], tokenizer: Any) -> Placed:
    """The assistant's turns, one behind the other: their words without the space around them, and their end."""
    chat, pieces = [message_of(message) for message in messages], _pieces(tokenizer)
    whole = render_chat(chat, tokenizer)
    rendered, placed = place(whole, tokenizer, pieces)
    if rendered != ids:
        fix = "a tokenizer whose chat template gives the text that it encodes"
        raise DataError("a chat's text and its tokens differ", got=type(tokenizer).__name__, fix=fix)
    found: Placed = [None] * len(ids)
    bytes_before = list(accumulate((len(letter.encode()) for letter in whole), initial=0))
    base = 0
    for turn, message in enumerate(chat):
        if message["role"] != ASSISTANT:
            continue
        words = (message["content"] or "").strip()  # a call of a tool has none
        before = render_chat(chat[:turn], tokenizer, add_generation_prompt=True)
        at = whole.find(words, len(before)) if whole.startswith(before) else -1
        size = len(words.encode())
        if at >= 0:
            first = bytes_before[at]
            for index, here in enumerate(placed):
                if here is None:
                    continue
                if first <= here[0] and here[1] <= first + size:
                    found[index] = (here[0] - first + base, here[1] - first + base)
                elif here[0] == first + size and pieces.is_special(ids[index]):
                    found[index] = (base + size, base + size + 1)
        base += size + 2  # a byte for its end, and one that nobody has: no span goes over two turns
    return found


@lru_cache(maxsize=4)
def _pieces(tokenizer: Any) -> Pieces:
    pieces = Pieces.of(tokenizer)
    if pieces is None:
        fix = "a Hugging Face tokenizer"
        raise ConfigError("a tokenizer does not tell which text its tokens are", got=type(tokenizer).__name__, fix=fix)
    return pieces


def _readable(text: str | None) -> str:
    return (text or "").encode("utf-8", "replace").decode()  # as `encode` does
