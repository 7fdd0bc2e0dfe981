"""Encode a row with the student's and the teacher's tokenizer, and align the tokens that are learned.

Knows rows and tokenizers; knows nothing of batches, models or losses. Aligned is the text with labels: a plain text, a
completion, or the assistant's turns of a chat, each with its end-of-text token if both tokenizers add one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

from apt_model.data.alignment import Placed, Span, align, place
from apt_model.data.encode import UNLIMITED, encode, encode_rows, message_of, render_chat
from apt_model.data.encoded import IGNORED, Encoded
from apt_model.data.token_text import TokenTexts
from apt_model.errors import ConfigError, DataError

ASSISTANT = "assistant"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A row encoded with both tokenizers.

    Attributes:
        whole: the student's, as `encode_rows` returns them, before the row was cut.
        ids, labels: of the student, cut.
        teachers: the teacher's ids, up to the end of the last span.
        spans: student tokens (left) and teacher tokens (right) that cover the same bytes; every token in a span has a
            label and a token before it.
    """

    whole: Encoded
    ids: list[int]
    labels: list[int]
    teachers: list[int]
    spans: list[Span]


def encode_for_both(row: Mapping[str, Any], tokenizer: Any, teacher_tokenizer: Any, max_length: int) -> Pair:
    """Encode a row of text, a chat, or a prompt with its completion, at most `max_length` student tokens long.

    A chat goes through each tokenizer's own chat template. The teacher's row ends where the student's was truncated.

    Raises:
        DataError: a row that `encode_rows` refuses. ConfigError: a tokenizer that cannot map its tokens to the text.
    """
    *whole, ranges = _placed(row, tokenizer)
    ids, labels = (column[:max_length] for column in whole)
    teachers, teacher_labels, teacher_ranges = _placed(row, teacher_tokenizer)
    spans = align(_learned(ranges[:max_length], labels), _learned(teacher_ranges, teacher_labels))
    end = spans[-1].right + spans[-1].right_count if spans else 1
    return Pair(whole=Encoded(*whole), ids=ids, labels=labels, teachers=teachers[:end], spans=spans)


def _learned(placed: Placed, labels: Sequence[int]) -> Placed:
    """Only the ranges of tokens with a label, without the first token, which nothing predicts."""
    return [
        r if index and label != IGNORED else None for index, (r, label) in enumerate(zip(placed, labels, strict=True))
    ]


def _placed(row: Mapping[str, Any], tokenizer: Any) -> tuple[list[int], list[int], Placed]:
    """Ids, labels, and each token's byte range in the learned text; the end-of-text token counts as one more byte."""
    ((ids, labels, _),) = encode_rows([row], tokenizer, UNLIMITED)
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
    """Byte ranges in the assistant's turns joined: their content without outer whitespace, and the end of each turn.

    The turns are found in each tokenizer's rendered template, so that both count bytes of the same text although their
    templates write different text around it.
    """
    chat, pieces = [message_of(message) for message in messages], _pieces(tokenizer)
    whole = render_chat(chat, tokenizer)
    rendered, placed = place(whole, tokenizer, pieces)
    if rendered != ids:
        fix = "use a tokenizer whose rendered chat encodes to the ids of apply_chat_template"
        raise DataError("a chat's rendered text and its token ids differ", got=type(tokenizer).__name__, fix=fix)
    found: Placed = [None] * len(ids)
    for first, size, base in _assistants_turns(chat, whole, tokenizer):
        for index, here in enumerate(placed):
            if here is None:
                continue
            if first <= here[0] and here[1] <= first + size:
                found[index] = (here[0] - first + base, here[1] - first + base)
            elif here[0] == first + size and pieces.is_special(ids[index]):
                found[index] = (base + size, base + size + 1)
    return found


def _assistants_turns(chat: Sequence[Mapping[str, str]], whole: str, tokenizer: Any) -> Iterator[tuple[int, int, int]]:
    """Where the content of each turn begins in the rendered chat, its size, and where it begins in the turns joined.

    All in bytes. A turn that is not found in the rendered chat is left out.
    """
    bytes_before = list(accumulate((len(letter.encode()) for letter in whole), initial=0))
    base = 0
    for turn, message in enumerate(chat):
        if message["role"] != ASSISTANT:
            continue
        words = (message["content"] or "").strip()  # content is None in a tool call
        before = render_chat(chat[:turn], tokenizer, add_generation_prompt=True)
        at = whole.find(words, len(before)) if whole.startswith(before) else -1
        size = len(words.encode())
        if at >= 0:
            yield bytes_before[at], size, base
        base += size + 2  # a byte for the end of turn, and one that no token covers: no span crosses two turns


@lru_cache(maxsize=4)
def _pieces(tokenizer: Any) -> TokenTexts:
    pieces = TokenTexts.of(tokenizer)
    if pieces is None:
        fix = "pass a Hugging Face tokenizer"
        raise ConfigError("a tokenizer cannot map its tokens to the text", got=type(tokenizer).__name__, fix=fix)
    return pieces


def _readable(text: str | None) -> str:
    return (text or "").encode("utf-8", "replace").decode()  # as `encode` does
