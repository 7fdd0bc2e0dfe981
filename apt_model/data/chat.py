"""Labels of a chat: which part of the text that a chat template writes is what the assistant says.

Knows chats and templates; knows nothing of batches or models. The whole chat is rendered, as it is when the student is
used, and in that text each answer is found: from what a generation prompt ends with to the end of the turn. A template
may write an earlier turn otherwise once later ones follow (Qwen 3 drops its thinking): what counts is the whole chat.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

from apt_model.data.marks import marks_of
from apt_model.data.notices import Tell
from apt_model.data.placing import pieces_of, place
from apt_model.data.template import REASONING, SENTINEL, Template, apply, content_text
from apt_model.data.turns import ASSISTANT, Chat, Turn
from apt_model.errors import DataError, brief

SPECIAL = re.compile(r"<[^<>\s]{1,40}>")  # a special token as templates spell them
Span = tuple[int, int]  # first letter, and one past the last
Frame = tuple[bool, bool, tuple[str, ...], str, str]  # first, last; roles; the text before and behind a turn's words


@dataclass(frozen=True)
class Rendered:
    """A chat as text, and which of it is learned.

    Attributes:
        text: what the template writes, without lone surrogates, which break tokenizers.
        answers: where each learned turn stands in it, in letters, its end-of-turn token included, in order.
        turns: the number of the turn of each answer, from 0.
        chat: the chat in the form that the template takes.
    """

    text: str
    answers: list[Span]
    turns: list[int]
    chat: Chat


def render(chat: Chat, tokenizer: Any, tell: Tell) -> Rendered:
    """Render a chat with the tokenizer's chat template, and find its answers.

    Raises:
        DataError: there is no template, it refuses the chat, or it leaves out what a turn says; names the turn.
    """
    template = Template.of(tokenizer, chat.given)
    chat = template.fitted(chat, tell)
    whole = template.write(chat)
    marks = marks_of(template, chat, whole)
    for number, turn in enumerate(chat.turns):
        words = content_text(turn["content"]).strip()
        is_written = words in whole and (marks is None or number in marks.seen)
        if words and not is_written and _is_left_out(template, chat, number, whole):
            got = f"{turn['role']}: {brief(words)}"
            what, those = ("the words of turn", "those words") if turn.get("tool_calls") else ("turn", "the turn")
            fix = f"leave {those} out, or use a template that writes them all"
            raise DataError(f"the chat template leaves out {what} {number + 1} of a chat", got=got, fix=fix)
    if any(thought not in whole for turn in chat.turns for thought in _thoughts(turn, template.words)):
        tell("thoughts_left_out")
    forged = sorted(
        {token for turn in chat.turns for token in template.controls if token in content_text(turn["content"])}
    )
    if forged:
        tell("control_tokens", tokens=", ".join(forged))
    turns = [number for number, is_learned in enumerate(chat.learned) if is_learned]
    if template.marks and turns:
        marked = _marked(chat, whole, turns, tokenizer)
        if marked is not None:
            return Rendered(whole, marked, turns, chat)
    last = content_text(chat.turns[-1]["content"]).strip()
    if turns and last and chat.learned[-1] and whole.rstrip().endswith(last):
        tell("template_open")
    finder = _Finder(template, chat, whole, marks.words if marks is not None else {})
    return Rendered(whole, [finder.answer(number) for number in turns], turns, chat)


def _thoughts(turn: Turn, read: Collection[str]) -> list[str]:
    """What a turn thinks: in a key for it, if the template reads one, or before the end of a thought in its words."""
    words, end, _ = content_text(turn["content"]).rpartition("</think>")
    said = [
        words.rpartition("<think>")[2] if end else "",
        *(turn.get(key) for key in REASONING if not REASONING.isdisjoint(read)),
    ]
    return [thought.strip() for thought in said if isinstance(thought, str)]


def _is_left_out(template: Template, chat: Chat, number: int, whole: str) -> bool:
    """Whether the text of a chat does not depend on what a turn says, whatever it calls."""
    other = silenced(chat, number)
    other.turns[number] = {**chat.turns[number], "content": other.turns[number]["content"]}
    try:
        return template.write(other) == whole
    except DataError:
        return False


def silenced(chat: Chat, number: int) -> Chat:
    """The chat with other words in a turn: SENTINEL alone, as text or as the parts that the template takes."""
    turn = chat.turns[number]
    is_parts = isinstance(turn["content"], list)
    words = [{"type": "text", "text": SENTINEL}] if is_parts else SENTINEL
    other = {key: turn[key] for key in ("role", "name", "tool_call_id") if key in turn} | {"content": words}
    return replace(chat, turns=[*chat.turns[:number], other, *chat.turns[number + 1 :]])


def _marked(chat: Chat, whole: str, turns: Sequence[int], tokenizer: Any) -> list[Span] | None:
    """The answers where the template marks them; None if it marks another number of turns than the assistant has."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    how = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
    mask = apply(tokenizer, chat, **how)["assistant_masks"]
    ids, placed = place(whole, tokenizer, pieces_of(tokenizer))
    if len(ids) != len(mask):
        return None
    letters = letters_of(whole)
    edges = [(placed[start], placed[stop - 1]) for start, stop in _runs(mask)]
    runs = [(letters.get(a[0], -1), letters.get(b[1], -1)) for a, b in edges if a is not None and b is not None]
    said = [number for number, turn in enumerate(chat.turns) if turn["role"] == ASSISTANT]
    if len(runs) != len(said) or any(-1 in run for run in runs):
        return None
    return [run for run, number in zip(runs, said, strict=True) if number in turns]


def _runs(mask: Sequence[int]) -> list[Span]:
    """The stretches of ones, as (first, one past the last)."""
    edges = [index for index, (one, other) in enumerate(pairwise([0, *mask, 0])) if one != other]
    return list(zip(edges[::2], edges[1::2], strict=True))


class _Finder:
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
                self._edges[frame] = start - begin, end - stop
            before, behind = self._edges[frame]
            found = start - before, stop + behind
        first = bisect_left(self._ordered, (found[0],))
        inside = next((n for start, _, n in self._ordered[first : first + 2] if n != number and start < found[1]), None)
        if inside is not None:
            got, fix = repr(self._whole[slice(*found)])[:200], "leave the words out of turns that call tools"
            raise DataError(f"the chat template writes turn {inside + 1} within turn {number + 1}", got=got, fix=fix)
        return found

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
        begin = self._after_prompt(number) if number else self._first(start)
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
        return before + _common_tokens(self._whole[before:], self._behind(number - 1, add_generation_prompt=True))

    def _end(self, stop: int, behind: str) -> int:
        """Where an answer ends: behind its words and what ends a turn there.

        Where that is not what ends a chat, or nothing is written at the end of one, it is the token that follows.
        """
        rest = self._whole[stop:]
        size = _common_tokens(rest, behind)
        token = SPECIAL.match(rest) if not size else None
        return stop + (token.end() if token else size)

    def _first(self, start: int) -> int:
        """Where an answer begins that nobody asked for, the first turn of all: its words, or right behind a prompt."""
        try:
            whole = self._template.write(self._chat, add_generation_prompt=True)
        except DataError:
            return start
        prompt = whole[len(self._whole) :] if whole.startswith(self._whole) else ""
        at = self._whole.rfind(prompt, 0, start) if prompt else -1
        return at + len(prompt) if at >= 0 else start


def _renamed(chat: Chat, number: int) -> Chat:
    """The chat with other names of the functions that a turn calls."""
    turn = chat.turns[number]
    calls = [{**call, "function": {**call["function"], "name": SENTINEL}} for call in turn["tool_calls"]]
    return replace(chat, turns=[*chat.turns[:number], {**turn, "tool_calls": calls}, *chat.turns[number + 1 :]])


def _common_tokens(one: str, other: str) -> int:
    """Length of the common prefix, without a line or a special token that only begins alike."""
    size = _common(one, other)
    while 0 < size < len(other) and other[size - 1] != "\n" and other[size] != "<":
        size -= 1
    return size


def _common(one: str, other: str) -> int:
    """Length of the common prefix."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def letters_of(text: str) -> dict[int, int]:
    """The index of the letter that begins at each byte of the text's UTF-8 form, and of its end."""
    return {at: index for index, at in enumerate(bytes_of(text))}


def bytes_of(text: str) -> list[int]:
    """The byte at which each letter of the text begins, and of its end."""
    return list(accumulate((len(letter.encode()) for letter in text), initial=0))
