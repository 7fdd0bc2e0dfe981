"""Chat templates: what a tokenizer's template takes, and a chat as the text that it writes.

Knows jinja templates and chats; knows nothing of labels, batches or models.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

from apt_model.data.json_text import parse_json
from apt_model.data.notices import Tell, untold
from apt_model.data.placing import readable
from apt_model.data.template_run import GENERATION, apply, read_template
from apt_model.data.turns import ASSISTANT, CALL, SYSTEM, Chat, Turn, chat_of, is_text_part, parsed
from apt_model.errors import DataError, brief

SENTINEL = "\ue0a1\ue0a2\ue0a1"  # private use: no text contains it
REASONING = {"reasoning_content", "reasoning", "thinking"}  # transformers gives a template each under all three names
KNOWN = {
    "role",
    "content",
    "tool_calls",
    "tool_call_id",
}  # keys of a turn that need no telling: the last only links turns


@dataclass(frozen=True)
class Template:
    """A tokenizer's chat template.

    Attributes:
        variables: the names that it takes: `messages`, `tools`, `enable_thinking` …
        words: the keys and constants in it: what it looks up in a turn, and compares roles with.
        controls: the tokenizer's special tokens as they are spelled.
        marks: whether it marks what the assistant says, with `{% generation %}`.
        takes_text, takes_part, takes_parts: whether it writes a content that is a string, and one that is a list of a
            text part, or of several.
    """

    tokenizer: Any
    variables: frozenset[str]
    words: frozenset[str]
    controls: frozenset[str]
    marks: bool
    takes_text: bool
    takes_part: bool
    takes_parts: bool

    @classmethod
    def of(cls, tokenizer: Any, given: Mapping[str, Any]) -> "Template":
        """The template for these arguments: some tokenizers have another one for `tools`.

        Raises:
            DataError: the tokenizer has none.
        """
        if not has_template(tokenizer):
            fix = "use a tokenizer with a chat_template, or rows with text"
            raise DataError("data is chats, but the tokenizer has no chat template", fix=fix)
        try:
            source = tokenizer.get_chat_template(tools=given.get("tools"))
        except ValueError as error:
            names, fix = (
                ", ".join(map(str, tokenizer.chat_template)),
                "set the tokenizer's chat_template to one of them",
            )
            raise DataError("the tokenizer has several chat templates and no default", got=names, fix=fix) from error
        return _template(tokenizer, source)

    def write(self, chat: Chat, **how: Any) -> str:
        """The chat as text, without lone surrogates.

        Raises:
            DataError: the template refuses it.
        """
        text: str = apply(self.tokenizer, chat, tokenize=False, **how)
        return readable(text)

    def fitted(self, chat: Chat, tell: Tell) -> Chat:
        """The chat in the form that the template takes, the tool calls of ShareGPT among the turns as its own.

        Told once: arguments and keys of turns that the template does not use.

        Raises:
            DataError: the template has no place for a speaker, or for what a turn says.
        """
        turns = [self._turn(turn, number) for number, turn in enumerate(chat.turns, start=1)]
        unused = sorted(chat.given.keys() - self.variables)
        if unused:
            tell("template_arguments", names=", ".join(unused))
        reads = self.words | (REASONING if self.words & REASONING else set())
        keys = sorted({key for turn in turns for key in turn} - KNOWN - reads)
        if keys:
            tell("turn_keys", names=", ".join(keys))
        given = {name: value for name, value in chat.given.items() if name in self.variables}
        fitted = Chat(turns=turns, learned=chat.learned, given=given)
        return self._with_calls_spelled(fitted) if any("tool_calls" in turn for turn in turns) else fitted

    def _turn(self, turn: Turn, number: int) -> Turn:
        """A turn whose role and content the template takes."""
        role = turn["role"]
        if role == CALL:
            return self._call(turn, number)
        if role == "developer" and role not in self.words:
            role = SYSTEM
        is_ours = role in (ASSISTANT, SYSTEM, "user", "tool")
        if not is_ours and role not in self.words:
            expected = "user, assistant, system or tool"
            raise DataError(f"turn {number} of a chat has an unknown speaker", got=brief(role), expected=expected)
        calls = turn.get("tool_calls")
        if calls and "tool_calls" not in self.words:
            fix = "use a tokenizer whose template writes tool calls, or put them into content"
            raise DataError(f"the chat template leaves out the tool calls of turn {number}", got=brief(calls), fix=fix)
        return {**turn, "role": role, "content": self._content(turn["content"])}

    def _content(self, content: Any) -> Any:
        if content is None or (
            isinstance(content, list) and (self.takes_parts or (self.takes_part and len(content) == 1))
        ):
            return content
        text = content_text(content)
        return text if self.takes_text or not self.takes_part else _parts(text)

    def _call(self, turn: Turn, number: int) -> Turn:
        """ShareGPT's function_call: a tool call where the template writes them, else words."""
        rest = {key: value for key, value in turn.items() if key not in ("role", "content")}
        if "tool_calls" not in self.words:
            return {**rest, "role": ASSISTANT, "content": self._content(turn["content"])}
        calls = parsed(turn["content"]) if isinstance(turn["content"], str) else None
        calls = calls if isinstance(calls, list) else [calls]
        if not all(isinstance(call, Mapping) and isinstance(call.get("name"), str) for call in calls):
            got, expected = brief(turn["content"]), '{"name": ..., "arguments": {...}}'
            raise DataError(f"turn {number} of a chat is no function call", got=got, expected=expected)
        calls = [{"type": "function", "function": {"arguments": {}, **call}} for call in calls]
        return {**rest, "role": ASSISTANT, "content": "", "tool_calls": calls}

    def _with_calls_spelled(self, chat: Chat) -> Chat:
        """The chat in the form in which the template writes its tool calls.

        Most templates take the arguments as objects, some as JSON in a string; and a turn with calls and no words has
        None as content, or an empty string.

        Raises:
            DataError: the template writes the calls in no form.
        """
        refused = None
        for spelled in (_as_objects, _as_strings):
            for empty in (None, ""):
                form = replace(chat, turns=[_with_calls(turn, spelled, empty) for turn in chat.turns])
                try:
                    text = self.write(form)
                except DataError as error:
                    refused = refused or error
                    continue
                if self._writes_calls(form, text):
                    return form
        got = refused.got if refused is not None else "a call that is not in its text"
        fix = "use a tokenizer whose template writes tool calls, or put them into content"
        raise DataError("the chat template does not write the tool calls of a chat", got=got, fix=fix) from refused

    def _writes_calls(self, chat: Chat, text: str) -> bool:
        """Whether the chat's text has the name of each function that is called, every time that it is."""
        names = [call["function"]["name"] for turn in chat.turns for call in turn.get("tool_calls") or ()]
        if not all(name in text for name in names):
            return False
        others = [f"{SENTINEL}{number}{SENTINEL}" for number in range(len(names))]
        following = iter(others)
        try:  # a name may also stand among the tools, or in another call
            text = self.write(replace(chat, turns=[calling(turn, following) for turn in chat.turns]))
        except DataError:
            return True
        return all(name in text for name in others)


def calling(turn: Turn, names: Iterator[str]) -> Turn:
    """The turn with other functions called, by the next of these names."""
    calls = [{**call, "function": {**call["function"], "name": next(names)}} for call in turn.get("tool_calls") or ()]
    return {**turn, "tool_calls": calls} if calls else turn


def _with_calls(turn: Turn, spelled: Callable[[Any], Any], empty: str | None) -> Turn:
    """A turn whose tool calls have their arguments spelled so, and whose content is `empty` if it has no words."""
    calls = []
    for call in turn.get("tool_calls") or ():
        function = dict(call.get("function") or call)
        function["arguments"] = spelled(function.get("arguments"))
        beside = call if "type" in call else {"type": "function", **(call if "function" in call else {})}
        calls.append({**beside, "function": function})
    return {**turn, "content": turn["content"] or empty, "tool_calls": calls} if calls else turn


def _as_objects(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments if arguments is not None else {}
    try:
        return parse_json(arguments)
    except ValueError:
        return arguments


def _as_strings(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)


@lru_cache(maxsize=16)
def _template(tokenizer: Any, source: str) -> Template:
    from jinja2 import nodes

    tree, variables = read_template(tokenizer, source)
    words = {str(node.value) for node in tree.find_all(nodes.Const)}
    words |= {node.attr for node in tree.find_all(nodes.Getattr)}
    return Template(
        tokenizer=tokenizer,
        variables=variables,
        words=frozenset(words),
        controls=frozenset(map(str, tokenizer.all_special_tokens))
        | {token.content for token in tokenizer.added_tokens_decoder.values() if token.special},
        marks=GENERATION.search(source) is not None,
        takes_text=_writes(tokenizer, SENTINEL),
        takes_part=_writes(tokenizer, _parts(SENTINEL)),
        takes_parts=_writes(tokenizer, _parts(SENTINEL, "-")) and _writes(tokenizer, _parts("-", SENTINEL)),
    )


def _parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def _writes(tokenizer: Any, content: Any) -> bool:
    """Whether the template writes such a content of a user's turn as its words alone."""
    try:
        text = apply(tokenizer, Chat(turns=[{"role": "user", "content": content}], learned=[False]), tokenize=False)
    except DataError:
        return False
    return SENTINEL in text and "'type'" not in text


def has_template(tokenizer: Any) -> bool:
    """Whether a tokenizer has a chat template."""
    return getattr(tokenizer, "chat_template", None) is not None


def render_chat(
    chat: Chat | Sequence[Mapping[str, Any]],
    tokenizer: Any,
    *,
    tell: Tell = untold,
    add_generation_prompt: bool = False,
) -> str:
    """Render a chat, or a list of turns, as text with the tokenizer's chat template; `tell` as in `fitted`.

    Raises:
        DataError: there is no template, or it refuses the chat.
    """
    found = chat if isinstance(chat, Chat) else cast("Chat", chat_of({"messages": chat}))
    template = Template.of(tokenizer, found.given)
    return template.write(template.fitted(found, tell), add_generation_prompt=add_generation_prompt)


def content_text(content: Any) -> str:
    """The words of a content: a string, a list of text parts, or None."""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content or () if is_text_part(part))
