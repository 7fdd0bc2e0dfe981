"""Turns of a chat: every published form of a conversation as one list of turns in transformers' form.

Read are OpenAI's messages (content parts, tool calls, `weight`), ShareGPT's from and value (function_call, observation,
a system column), TRL's lists of turns as prompt and completion, Alpaca's instruction, input and output with the history
of LLaMA-Factory, and their relatives. Knows rows; knows nothing of tokenizers or templates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from apt_model.data.columns import CONTEXTS, SYSTEMS, Kind, kind_of
from apt_model.data.json_text import RefusedJsonError, parse_json
from apt_model.errors import DataError, brief

Turn = dict[str, Any]

USER, ASSISTANT, SYSTEM, TOOL, CALL = "user", "assistant", "system", "tool", "function_call"
ROLES = {  # other names of the roles, in lower case
    **dict.fromkeys(("user", "human", "prompter"), USER),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot", "bing", "bard", "ai", "llm", "claude"), ASSISTANT),
    "system": SYSTEM,
    **dict.fromkeys(("tool", "function", "observation", "tool_response", "function_response"), TOOL),
    **dict.fromkeys(("function_call", "tool_call", "function-call"), CALL),
}
FLAGS = ("weight", "train", "training", "loss", "loss_scale")  # whether a turn is learned: OpenAI, axolotl, ms-swift
DETAILS = ("train_detail", "training_detail")  # axolotl: which parts of a turn are learned
TEXTS = ("text", "input_text", "output_text")  # types of a part that is text: the latter of OpenAI's Responses
NAMES = (("role", "content"), ("from", "value"))


@dataclass(frozen=True, kw_only=True)
class Chat:
    """A conversation as a chat template takes it.

    Attributes:
        turns: dicts with `role` and `content` (a string, a list of text parts, or None beside tool calls), and further
            keys; the role CALL stands for an assistant's turn whose content is a tool call in JSON.
        learned: for each turn, whether it is learned: the assistant's are, unless they or the row say otherwise.
        given: arguments of the template beside the turns: `tools`, `documents`, and those of `chat_template_kwargs`.
    """

    turns: list[Turn]
    learned: list[bool]
    given: Mapping[str, Any] = field(default_factory=dict)

    def until(self, count: int) -> "Chat":
        """The first `count` turns."""
        return replace(self, turns=self.turns[:count], learned=self.learned[:count])

    def with_turn(self, number: int, turn: Turn) -> "Chat":
        """The same chat with another turn `number`, from 0."""
        return replace(self, turns=[*self.turns[:number], turn, *self.turns[number + 1 :]])


def chat_of(row: Mapping[str, Any]) -> Chat | None:
    """The chat that a row is; None for rows of text, of token ids, and of strings as prompt and completion.

    Raises:
        DataError: a turn without speaker or words, words that are no text, a flag that is neither yes nor no, a column
            of another type; names the turn or the column.
    """
    kind = kind_of(row.keys())
    asked: list[Turn] = []
    if kind.name == "chat":
        answered = _turns(row, kind.needs[0])
    elif kind.name == "question":
        answered = [*_history(row, kind), *_question(row, kind)]
    elif kind.name == "pair" and (sides := _sides(row)) is not None:
        asked, answered = sides
    else:
        return None
    asked = [*_system(row, [*asked, *answered]), *asked]
    turns = [*asked, *answered]
    learned = [_is_learned(turn, number) and number > len(asked) for number, turn in enumerate(turns, start=1)]
    given = _given(row, turns)
    return Chat(turns=[_without(turn, FLAGS) for turn in turns], learned=learned, given=given)


def _turns(row: Mapping[str, Any], column: str) -> list[Turn]:
    """The turns in a column.

    Raises:
        DataError: no list of turns, or an empty one.
    """
    turns = parsed(row[column])
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not all(isinstance(t, Mapping) for t in turns):
        expected = '[{"role": ..., "content": ...}, ...]'
        got = "null" if turns is None else f"{type(turns).__name__} {brief(turns)}"
        raise DataError(f"{column} of a row is no list of turns", got=got, expected=expected)
    if not turns:
        raise DataError(f"{column} of a row has no turn", got="an empty list", fix="delete this row")
    return [_turn(turn, number) for number, turn in enumerate(turns, start=1)]


def _turn(turn: Mapping[str, Any], number: int) -> Turn:
    """A turn with `role` and `content`, the role by our name for it if it is a known one."""
    for speaker, words in NAMES:
        role = turn.get(speaker)
        if isinstance(role, str) and (words in turn or turn.get("tool_calls") or turn.get(CALL)):
            rest = {key: value for key, value in turn.items() if key not in (speaker, words) and value is not None}
            content = turn.get(words)
            rest |= _calls(rest, number)
            _refuse_no_text(content, rest, number)
            if content is not None and not isinstance(content, str):
                content = [{**part, "type": "text"} for part in content]
            return {"role": ROLES.get(role.strip().lower(), role), "content": content, **rest}
    got, expected = f"keys {sorted(map(str, turn))}", "role and content, or from and value"
    raise DataError(f"turn {number} of a chat has no role or no content", got=got, expected=expected)


def _calls(rest: dict[str, Any], number: int) -> dict[str, Any]:
    """The tool calls among a turn's further keys, which are taken out; OpenAI's older function_call is one too."""
    older = parsed(rest.pop(CALL, None))
    calls = parsed(rest.pop("tool_calls", None)) or ([older] if older else [])
    are_calls = isinstance(calls, Sequence) and all(
        isinstance(call, Mapping)
        and isinstance(function := call.get("function") or call, Mapping)
        and function.get("name")
        for call in calls
    )
    if not are_calls:
        got, expected = brief(calls), '[{"function": {"name": ..., "arguments": {...}}}, ...]'
        raise DataError(f"tool_calls of turn {number} of a chat are no calls", got=got, expected=expected)
    return {"tool_calls": [dict(call) for call in calls]} if calls else {}


def _refuse_no_text(content: Any, rest: Mapping[str, Any], number: int) -> None:
    if isinstance(content, str) or (content is None and rest.get("tool_calls")):
        return
    parts = content if isinstance(content, Sequence) else []
    wrong = next((part for part in parts if not is_text_part(part)), None)
    if parts and wrong is None:
        return
    kind = wrong.get("type", "of no type") if isinstance(wrong, Mapping) else None
    got = f"a part {kind!r}" if kind else brief(content)
    fix = "leave out rows with parts that are no text, as images are" if kind else "write the words as a string"
    raise DataError(f"content of turn {number} of a chat is no text", got=got, expected="text", fix=fix)


def is_text_part(part: Any) -> bool:
    """Whether a part of a content is text, `{"type": "text", "text": ...}`."""
    return isinstance(part, Mapping) and part.get("type", "text") in TEXTS and isinstance(part.get("text"), str)


def _sides(row: Mapping[str, Any]) -> tuple[list[Turn], list[Turn]] | None:
    """The turns of a prompt and of a completion if one of them is a list, or both say so in JSON, as in a csv file.

    A string beside a list is one turn. None for two strings of text.
    """
    sides = [row["prompt"], row["completion"]]
    said = [parsed(side) for side in sides]
    if all(isinstance(side, list) and side and all(map(_is_turn, side)) for side in said):
        sides = said
    if all(side is None or isinstance(side, str) for side in sides):
        return None
    prompt, completion = (
        [{"role": role, "content": side}] if isinstance(side, str) else _turns({column: side}, column)
        for side, role, column in zip(sides, (USER, ASSISTANT), ("prompt", "completion"), strict=True)
    )
    is_whole = len(completion) > len(prompt) and completion[: len(prompt)] == prompt  # as chosen has the prompt again
    return prompt, completion[len(prompt) :] if is_whole else completion


def _is_turn(value: Any) -> bool:
    return isinstance(value, Mapping) and any(speaker in value for speaker, _ in NAMES)


def _question_text(row: Mapping[str, Any], kind: Kind) -> str:
    """What a row with a question asks: the question, and on further lines its input or context."""
    parts = [needed_text(row, kind.needs[0]), *(text_of(row, column) for column in CONTEXTS if column in row)]
    return "\n".join(part for part in parts if part)


def _question(row: Mapping[str, Any], kind: Kind) -> list[Turn]:
    answer = needed_text(row, kind.needs[1])
    return [{"role": USER, "content": _question_text(row, kind)}, {"role": ASSISTANT, "content": answer}]


def _history(row: Mapping[str, Any], kind: Kind) -> list[Turn]:
    """The turns before a question, from pairs of question and answer; as in LLaMA-Factory they are learned too."""
    pairs = parsed(row.get("history")) or []
    is_right = isinstance(pairs, Sequence) and all(
        isinstance(pair, Sequence) and len(pair) == 2 and all(isinstance(said, str) for said in pair) for pair in pairs
    )
    if not is_right:
        raise DataError("history of a row is no list of pairs", got=brief(pairs), expected='[["ask", "answer"], ...]')
    return [
        {"role": role, "content": said} for pair in pairs for role, said in zip((USER, ASSISTANT), pair, strict=True)
    ]


def _system(row: Mapping[str, Any], turns: Sequence[Turn]) -> list[Turn]:
    """The turn that a column of SYSTEMS makes, unless the same words are a system turn already."""
    first = [turns[0]["content"]] if turns and turns[0]["role"] == SYSTEM else []
    columns = dict.fromkeys(text_of(row, column) for column in SYSTEMS if row.get(column))
    said = [*first, *(words for words in columns if words not in first)]
    if len(said) > 1:
        what = "a system column and a system turn" if first else "two system columns"
        raise DataError(f"a row has {what}", got=" and ".join(map(brief, said)), fix="leave one of them out")
    return [] if first or not said else [{"role": SYSTEM, "content": said[0]}]


def _is_learned(turn: Turn, number: int) -> bool:
    """Whether an assistant's turn is learned: unless a flag of its own says no."""
    for key in DETAILS:
        if turn.get(key):
            fix = f"delete {key}, or flag whole turns with train"
            raise DataError(f"turn {number} of a chat is to be learned in parts", got=key, fix=fix)
    says = [turn[key] for key in FLAGS if turn.get(key) is not None]
    wrong = next((flag for flag in says if flag not in (0, 1)), None)
    if wrong is not None:
        raise DataError(f"turn {number} of a chat has a weight between", got=brief(wrong), expected="0 or 1")
    return turn["role"] in (ASSISTANT, CALL) and all(says)


def _given(row: Mapping[str, Any], turns: Sequence[Turn]) -> dict[str, Any]:
    """What a template is given beside the turns."""
    given = parsed(row.get("chat_template_kwargs")) or {}
    if not isinstance(given, Mapping):
        raise DataError("chat_template_kwargs of a row is no object", got=brief(given), expected='{"name": value, ...}')
    beside = {column: _list_of_objects(row, column) for column in ("tools", "documents")}
    if not beside["tools"] and turns[0]["role"] == SYSTEM and "tools" in turns[0]:
        beside["tools"] = _list_of_objects(turns[0], "tools")
        del turns[0]["tools"]
    beside["tools"] = [_tool(tool) for tool in beside["tools"]]
    return {**given, **{column: value for column, value in beside.items() if value}}


def _list_of_objects(row: Mapping[str, Any], column: str) -> list[dict[str, Any]]:
    value = parsed(row.get(column)) or []
    if not isinstance(value, Sequence) or not all(isinstance(one, Mapping) for one in value):
        raise DataError(f"{column} of a row is no list of objects", got=brief(value), expected="[{...}, ...]")
    return [dict(one) for one in value]


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool in OpenAI's form, which templates expect; ShareGPT's has the function alone."""
    return tool if "function" in tool or "name" not in tool else {"type": "function", "function": tool}


def needed_text(row: Mapping[str, Any], column: str) -> str:
    """The string in a column.

    Raises:
        DataError: something else, or null.
    """
    if row[column] is None:
        raise DataError(f"{column} of a row is null", expected="a string", fix="write it, or delete this row")
    return text_of(row, column)


def text_of(row: Mapping[str, Any], column: str) -> str:
    """The string in a column; an empty one for null.

    Raises:
        DataError: something else.
    """
    value = row[column]
    if isinstance(value, str):
        return value
    if value is None:  # an empty cell
        return ""
    got, fix = f"{type(value).__name__} {brief(value)}", "write it in quotes, or delete this row"
    raise DataError(f"{column} of a row is no string", got=got, expected="a string or null", fix=fix)


def parsed(value: Any) -> Any:
    """A value; of a string that is a JSON list or object, what it says: csv files have no other way.

    Raises:
        DataError: as JSON it is too deep, or has a key twice.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return parse_json(value)
        except RefusedJsonError as error:
            raise DataError("a JSON text in a row cannot be read", got=str(error)) from error
        except ValueError:
            return value
    return value


def _without(turn: Turn, keys: Sequence[str]) -> Turn:
    return {key: value for key, value in turn.items() if key not in keys}
