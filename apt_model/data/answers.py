"""Answers: where the assistant's turns stand in the text of a chat, from a generation prompt to the end of the turn.

Knows chats and templates; knows nothing of tokenizers or labels. An answer is found by what changes in the text when
its turn says something else; in a long chat most turns stand in the same frame, and one of them tells for all.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import repeat
from typing import Any

from apt_model.data.template import SENTINEL, Template, calling, content_text, render_chat
from apt_model.data.template_run import file_of
from apt_model.data.turns import Chat
from apt_model.errors import DataError, brief

SPECIAL = re.compile(r"<[^<>\s]{1,40}>")  # a special token as templates spell them
Span = tuple[int, int]  # first letter, and one past the last
Frame = tuple[bool, bool, tuple[str, ...], str, str]  # first, last; roles; the text before and behind a turn's words


class Finder:
    """Finds where the assistant's turns stand in the text of a chat.

    A turn is found by what changes in the text when the turn says something else.
    """

    def __init__(self, template: Template, chat: Chat, whole: str, words: Mapping[int, Span]) -> None:
        self._template, self._chat, self._whole, self._marked = template, chat, whole, words
        self._changes: dict[int, Callable[[Chat, int], Chat]] = {}
        self._edges: dict[Frame, Span] = {}
        self._ordered = sorted((*at, number) for number, at in words.items())

    def answer(self, number: int) -> Span:
        """From the end of the generation prompt to the end of the turn.

        Looked for once in each frame, since looking renders the chat anew: in a long chat most turns stand in the same.

        Raises:
            DataError: the answer is not found, or another turn stands in it.
        """
        frame = self._frame(number)
        if frame is None:
            found = self._found(number)
        else:
            start, stop = self._marked[number]
            if frame not in self._edges:
                begin, end = self._found(number)
                end = self._without_prompt(begin, stop, end) if number + 1 == len(self._chat.turns) else end
                self._edges[frame] = start - begin, end - stop
            before, behind = self._edges[frame]
            found = start - before, stop + behind
        first = bisect_left(self._ordered, (found[0],))
        inside = next((n for start, _, n in self._ordered[first : first + 2] if n != number and start < found[1]), None)
        if inside is not None:
            got, fix = repr(self._whole[slice(*found)])[:200], "leave the words out of turns that call tools"
            raise DataError(f"the chat template writes turn {inside + 1} within turn {number + 1}", got=got, fix=fix)
        return found

    def _without_prompt(self, begin: int, stop: int, end: int) -> int:
        """The end of the last answer, whose words end at `stop`, without a prompt that a template always writes.

        Then what stands before an answer stands behind the last one too, where another question would stand otherwise.
        """
        tail = self._whole[stop:].lstrip()
        if not tail or not self._whole[:begin].endswith(tail):
            return end
        asked = replace(self._chat, turns=[*self._chat.turns, {"role": "user", "content": SENTINEL}])
        if not self._takes(asked):
            return end
        return stop + (_common_tokens(self._whole[stop:], self._template.write(asked)[stop:]) or end - stop)

    def _frame(self, number: int) -> Frame | None:
        """What stands around a turn's words, up to those of its neighbours; None if that is not known."""
        turns, last = self._chat.turns, len(self._chat.turns) - 1
        beside = [n for n in (number - 1, number, number + 1) if 0 <= n <= last]
        if any(n not in self._marked for n in beside) or turns[number].keys() != {"role", "content"}:
            return None
        start, stop = self._marked[number]
        before = self._marked[number - 1][1] if number else 0
        behind = self._marked[number + 1][0] if number < last else len(self._whole)
        if not before <= start or not stop <= behind:
            return None
        roles = tuple(turns[n]["role"] for n in beside)
        return number == 0, number == last, roles, self._whole[before:start], self._whole[stop:behind]

    def _found(self, number: int) -> Span:
        asked, told = self._written(number, add_generation_prompt=True), self._written(number + 1)
        if asked and told and self._whole.startswith(told) and told.startswith(asked):
            return len(asked), self._end(len(told), "") if self._is_open(number, told) else len(told)  # it only appends
        start, stop = self._words(number)
        begin = self._after_prompt(number) if number else self._prompted(0, start) or start
        end = self._end(stop, self._behind(number))
        if begin >= end:
            got = repr(self._chat.turns[number])[:200]
            raise DataError(f"turn {number + 1} is not found in what the chat template writes", got=got)
        return begin, end

    def _is_open(self, number: int, told: str) -> bool:
        """Whether the template writes nothing but space behind a turn's words."""
        words = content_text(self._chat.turns[number]["content"]).strip()
        return bool(words) and told.rstrip().endswith(words)

    def _written(self, count: int, **how: bool) -> str | None:
        """The first turns as text; None if the template refuses them alone."""
        try:
            return self._template.write(self._chat.until(count), **how) if count else None
        except DataError:
            return None

    def _words(self, number: int) -> Span:
        """What differs in the whole text from one in which this turn says something else."""
        other = self._changed(self._chat, number)
        if self._changes[number] is _renamed:  # what answers a call may have its name too, but stands behind it
            names = [call["function"]["name"] for call in self._chat.turns[number]["tool_calls"]]
            before = other.split(SENTINEL)[: len(names)]
            until = "".join(text + name for text, name in zip(before, names, strict=False))
            is_alone = self._changed(self._chat.until(number + 1), number).count(SENTINEL) == len(names)
            if is_alone and self._whole.startswith(until):
                return len(before[0]), len(until)
        start = _common(self._whole, other)
        most = min(len(self._whole), len(other)) - start
        return start, len(self._whole) - min(_common(self._whole[::-1], other[::-1]), most)

    def _changed(self, chat: Chat, number: int, **how: bool) -> str:
        """The text of a chat in which a turn says SENTINEL, or calls a function of that name if it must call one."""
        change = self._changes.get(number)
        if change is None:
            calls = bool(self._chat.turns[number].get("tool_calls"))
            change = self._changes[number] = (
                _renamed if calls and not self._takes(silenced(self._chat, number)) else silenced
            )
        return self._template.write(change(chat, number), **how)

    def _takes(self, chat: Chat) -> bool:
        try:
            return bool(self._template.write(chat))
        except DataError:
            return False

    def _behind(self, number: int, **how: bool) -> str:
        """What the template writes behind a turn's words if the turn is the last."""
        return self._changed(self._chat.until(number + 1), number, **how).rpartition(SENTINEL)[2]

    def _after_prompt(self, number: int) -> int:
        """Where an answer begins: behind the turn before it and the generation prompt, as far as that stands there.

        A prompt that opens a thought may stand there without it.
        """
        before = self._words(number - 1)[1]
        size = _common_tokens(self._whole[before:], self._behind(number - 1, add_generation_prompt=True))
        return before + size if size else max(before, self._prompted(before, self._words(number)[0]))

    def _end(self, stop: int, behind: str) -> int:
        """Where an answer ends: behind its words and what ends a turn there.

        Where that is not what ends a chat, or nothing is written at the end of one, it is the token that follows.
        """
        rest = self._whole[stop:]
        size = _common_tokens(rest, behind)
        token = SPECIAL.match(rest) if not size else None
        return stop + (token.end() if token else size)

    def _prompted(self, first: int, start: int) -> int:
        """Behind the generation prompt that stands last between these letters; 0 if there is none.

        For an answer that nobody asked for, or where what ends a turn is another thing at the end of a chat.
        """
        try:
            whole = self._template.write(self._chat, add_generation_prompt=True)
        except DataError:
            return 0
        prompt = whole[len(self._whole) :] if whole.startswith(self._whole) else ""
        at = self._whole.rfind(prompt, first, start) if prompt else -1
        return at + len(prompt) if at >= 0 else 0


def _renamed(chat: Chat, number: int) -> Chat:
    """The chat with other names of the functions that a turn calls."""
    return chat.with_turn(number, calling(chat.turns[number], repeat(SENTINEL)))


def _common_tokens(one: str, other: str) -> int:
    """Length of the common prefix, without a line or a special token that only begins alike."""
    size = _common(one, other)
    while 0 < size < len(other) and other[size - 1] != "\n" and other[size] != "<":
        size -= 1
    return size


def _common(one: str, other: str) -> int:
    """Length of the common prefix."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def silenced(chat: Chat, number: int) -> Chat:
    """The chat with other words in a turn: SENTINEL alone, as text or as the parts that the template takes."""
    turn = chat.turns[number]
    is_parts = isinstance(turn["content"], list)
    words = [{"type": "text", "text": SENTINEL}] if is_parts else SENTINEL
    other = {key: turn[key] for key in ("role", "name", "tool_call_id") if key in turn} | {"content": words}
    return chat.with_turn(number, other)


def refuse_left_out(chat: Chat, tokenizer: Any, text: str) -> None:
    """Refuse a template whose text does not depend on what the last turn says.

    Raises:
        DataError: it does not.
    """
    last = len(chat.turns) - 1
    words = content_text(chat.turns[last]["content"]).strip()
    if not words or words in text:
        return
    with suppress(DataError):
        if render_chat(silenced(chat, last), tokenizer, add_generation_prompt=True) != text:
            return
    fix = f"check {file_of(tokenizer)}, and the roles that it writes"
    raise DataError(f"the chat template leaves out turn {last + 1} of a chat", got=brief(words), fix=fix)
