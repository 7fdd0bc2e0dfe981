"""Labels of a chat: which part of the text that a chat template writes is what the assistant says.

Knows chats and templates; knows nothing of batches or models. The whole chat is rendered, as it is when the student is
used, and in that text each answer is found: from what a generation prompt ends with to the end of the turn. A template
may write an earlier turn otherwise once later ones follow (Qwen 3 drops its thinking): what counts is the whole chat.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from apt_model.data.answers import Finder, Span, silenced
from apt_model.data.marks import marks_of
from apt_model.data.notices import Tell
from apt_model.data.placing import pieces_of, place
from apt_model.data.template import REASONING, Template, content_text
from apt_model.data.template_run import apply
from apt_model.data.turns import ASSISTANT, Chat, Turn
from apt_model.errors import DataError, brief


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
    finder = Finder(template, chat, whole, marks.words if marks is not None else {})
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
    words = silenced(chat, number).turns[number]["content"]
    try:
        return template.write(chat.with_turn(number, {**chat.turns[number], "content": words})) == whole
    except DataError:
        return False


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


def letters_of(text: str) -> dict[int, int]:
    """The index of the letter that begins at each byte of the text's UTF-8 form, and of its end."""
    return {at: index for index, at in enumerate(bytes_of(text))}


def bytes_of(text: str) -> list[int]:
    """The byte at which each letter of the text begins, and of its end."""
    return list(accumulate((len(letter.encode()) for letter in text), initial=0))
