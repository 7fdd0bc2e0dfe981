"""Encode a row with the student's and the teacher's tokenizer, and align the tokens that are learned.

Knows rows and tokenizers; knows nothing of batches, models or losses. Aligned is the text with labels: a plain text, a
completion, or the assistant's turns of a chat, each with its end-of-text token if both tokenizers add one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apt_model.data.alignment import Span, align
from apt_model.data.chat import Rendered, bytes_of, render
from apt_model.data.encode import as_chat, labelled, pair_of, place_pair, tell_unwritten
from apt_model.data.encoded import IGNORED, Encoded
from apt_model.data.notices import Tell, warn
from apt_model.data.placing import Placed, pieces_of, place, readable
from apt_model.data.template import content_text
from apt_model.data.token_text import TokenTexts


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


def encode_for_both(
    row: Mapping[str, Any], tokenizer: Any, teacher_tokenizer: Any, max_length: int, *, tell: Tell = warn
) -> Pair:
    """Encode a row of text, a chat, or a prompt with its completion, at most `max_length` student tokens long.

    A chat goes through each tokenizer's own chat template. The teacher's row ends where the student's was truncated.

    Raises:
        DataError: a row that `encode_rows` refuses. ConfigError: a tokenizer that cannot map its tokens to the text.
    """
    *whole, ranges = _placed(row, tokenizer, tell)
    ids, labels = (column[:max_length] for column in whole)
    teachers, teacher_labels, teacher_ranges = _placed(row, teacher_tokenizer, tell)
    spans = align(_learned(ranges[:max_length], labels), _learned(teacher_ranges, teacher_labels))
    end = spans[-1].right + spans[-1].right_count if spans else 1
    return Pair(whole=Encoded(*whole), ids=ids, labels=labels, teachers=teachers[:end], spans=spans)


def _learned(placed: Placed, labels: Sequence[int]) -> Placed:
    """Only the ranges of tokens with a label, without the first token, which nothing predicts."""
    return [
        r if index and label != IGNORED else None for index, (r, label) in enumerate(zip(placed, labels, strict=True))
    ]


def _placed(row: Mapping[str, Any], tokenizer: Any, tell: Tell) -> tuple[list[int], list[int], Placed]:
    """Ids, labels, and each token's byte range in the learned text; the end-of-text token counts as one more byte."""
    pieces = pieces_of(tokenizer)
    chat = as_chat(row, tokenizer)
    if chat is not None:
        rendered = render(chat, tokenizer, tell)
        ids, labels = labelled(rendered, tokenizer)
        return ids, labels, _place_answers(rendered, ids, tokenizer, pieces, tell)
    tell_unwritten(row, tell)
    prompt, completion = pair_of(row)
    ids, labels, ranges = place_pair(prompt, completion, tokenizer)
    cut, size = len(readable(prompt).encode()), len(readable(completion).encode())
    inside = [None if here is None or here[1] <= cut else (here[0] - cut, here[1] - cut) for here in ranges]
    is_end = bool(ids) and ids[-1] == getattr(tokenizer, "eos_token_id", None)
    return ids, labels, [*inside[:-1], (size, size + 1)] if is_end else inside


def _place_answers(rendered: Rendered, ids: Sequence[int], tokenizer: Any, pieces: TokenTexts, tell: Tell) -> Placed:
    """Byte ranges in the answers joined: their words without outer whitespace, and the end of each turn.

    The words are found in each tokenizer's rendered template, so that both count bytes of the same text although their
    templates write different text around it.
    """
    _, placed = place(rendered.text, tokenizer, pieces)
    found: Placed = [None] * len(ids)
    for first, size, base in _answers_words(rendered, tell):
        for index, here in enumerate(placed):
            if here is None:
                continue
            if first <= here[0] and here[1] <= first + size:
                found[index] = (here[0] - first + base, here[1] - first + base)
            elif here[0] == first + size and pieces.is_special(ids[index]):
                found[index] = (base + size, base + size + 1)
    return found


def _answers_words(rendered: Rendered, tell: Tell) -> Iterator[tuple[int, int, int]]:
    """Where each answer's words begin in the rendered chat, their size, and where they begin in all of them joined.

    All in bytes. Of words with a thought that the template leaves out, those behind it count. An answer whose words are
    not in the text, such as a tool call, is left out, and told of.
    """
    at, base = bytes_of(rendered.text), 0
    for (start, stop), turn in zip(rendered.answers, rendered.turns, strict=True):
        words = readable(content_text(rendered.chat.turns[turn]["content"])).strip()
        shown = next(
            (part for part in (words, words.rpartition("</think>")[2].strip()) if part in rendered.text[start:stop]), ""
        )
        if shown:
            place_of_words, size = rendered.text.rindex(shown, start, stop), len(shown.encode())
            yield at[place_of_words], size, base + len(words.encode()) - size
        else:
            tell("answers_unaligned")
        base += len(words.encode()) + 2  # a byte for the end of turn, and one that no token covers: no span crosses two
