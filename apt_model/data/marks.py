"""Marks: where the words of each turn stand in the text that a chat template writes, from one rendering for all turns.

Knows chats and templates; knows nothing of labels or tokenizers. The words get marks around them; that counts only if
the template writes the same text otherwise.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from apt_model.data.template import Template
from apt_model.data.turns import Chat, Turn
from apt_model.errors import DataError

OPENED, CLOSED = "\ue0a4", "\ue0a5"  # private use, as SENTINEL is
MARK = re.compile(f"\ue0a3([0-9]+)([{OPENED}{CLOSED}])")


@dataclass(frozen=True)
class Marks:
    """Where the turns of a chat stand in its text.

    Attributes:
        words: first letter, and one past the last, of a turn's words without outer whitespace, by the number of a turn
            from 0; turns that are written in part, twice, or have no words are not in it.
        seen: the numbers of turns of whose words something is written.
    """

    words: Mapping[int, tuple[int, int]]
    seen: frozenset[int]


def marks_of(template: Template, chat: Chat, whole: str) -> Marks | None:
    """Where the turns stand in `whole`, the text of the chat; None if the template writes marked words otherwise."""
    turns = [_marked(turn, number) for number, turn in enumerate(chat.turns)]
    try:
        parts = MARK.split(template.write(replace(chat, turns=turns)))
    except DataError:
        return None
    texts, numbers, kinds = parts[::3], parts[1::3], parts[2::3]
    if "".join(texts) != whole:
        return None
    found: dict[int, list[tuple[str, int]]] = {}
    for number, kind, at in zip(numbers, kinds, accumulate(map(len, texts[:-1])), strict=True):
        found.setdefault(int(number), []).append((kind, at))
    words = {
        number: (marks[0][1], marks[1][1])
        for number, marks in found.items()
        if [kind for kind, _ in marks] == [OPENED, CLOSED]
    }
    return Marks(words, frozenset(found))


def _marked(turn: Turn, number: int) -> Turn:
    """The turn with marks inside the whitespace around its words, where templates trim."""
    content = turn["content"]
    if isinstance(content, str):
        return {**turn, "content": _around(content, number, OPENED + CLOSED)}
    parts = [dict(part) for part in content or ()]
    said = [part for part in parts if part["text"].strip()]
    if said:
        said[0]["text"] = _around(said[0]["text"], number, OPENED)
        said[-1]["text"] = _around(said[-1]["text"], number, CLOSED)
    return {**turn, "content": parts if content is not None else None}


def _around(text: str, number: int, kinds: str) -> str:
    words: Any = text.strip()
    before, after = (f"\ue0a3{number}{kind}" if kind in kinds else "" for kind in (OPENED, CLOSED))
    return text.replace(words, f"{before}{words}{after}", 1) if words else text
