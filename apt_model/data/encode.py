"""Tokenize rows: texts, chats, and prompts with completions become token ids and labels.

Knows tokenizers and chat templates; knows nothing of batches, models or losses.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from apt_model.data.encoded import IGNORED as IGNORED
from apt_model.data.encoded import Encoded as Encoded
from apt_model.data.token_rows import row_of_ids
from apt_model.errors import DataError

COLUMNS = (("input_ids",), ("messages",), ("prompt", "completion"), ("text",))  # kinds of rows; the first found counts
UNLIMITED = 10**9
ROLES = {"human": "user", "gpt": "assistant"}  # ShareGPT's names of the roles

ONE_TOKENIZER = "use a student with the teacher's tokenizer"
OR_CROSS = f"{ONE_TOKENIZER}, or set cross_tokenizer=kl"


def encode_rows(rows: Sequence[Mapping[str, Any]], tokenizer: Any, max_length: int) -> list[Encoded]:
    """Token ids and labels of each row, truncated to `max_length`.

    A row has one of:
        text: every token is learned.
        messages: a chat, `[{"role": ..., "content": ...}, ...]`, in the tokenizer's own template; the assistant's
            turns are learned, the rest is given (label -100).
        prompt, completion: strings; the completion is learned, the prompt given.
        input_ids: as they are, not truncated; see `row_of_ids`.

    Raises:
        DataError: no callable tokenizer, another kind of row, or a chat template whose turns cannot be told apart.
    """
    texts = [_text(row, "text") for row in rows if "text" in row and "input_ids" not in row]
    from_texts = iter(encode(texts, tokenizer, max_length) if texts else [])
    return [_encode_row(row, from_texts, tokenizer, max_length) for row in rows]


def encode(texts: Sequence[str], tokenizer: Any, max_length: int, *, end: bool = True) -> list[list[int]]:
    """Token ids of each text: BOS, text, EOS, as far as the tokenizer has them; truncated to `max_length`.

    A BOS token that the tokenizer has but does not add itself is put before the text: models trained with one do badly
    without it. An empty text has no tokens. `end=False` leaves out EOS, for a prompt to generate from; an empty prompt
    gives BOS alone, or nothing.

    Raises:
        DataError: there is no callable tokenizer.
    """
    _refuse_no_tokenizer(tokenizer)
    bos = getattr(tokenizer, "bos_token_id", None)
    eos = getattr(tokenizer, "eos_token_id", None)
    rows = []
    readable = [text.encode("utf-8", "replace").decode() for text in texts]  # a lone surrogate breaks tokenizers
    encoded = tokenizer(readable, add_special_tokens=True, **without_warning(tokenizer))["input_ids"]
    for text, ids in zip(readable, encoded, strict=True):
        body = ids[:-1] if eos is not None and ids[-1:] == [eos] else ids
        start = [bos] if bos is not None and body[:1] != [bos] else []
        close = [eos] if eos is not None and end else []
        rows.append([*start, *body, *close][:max_length] if text or not end else [])
    return rows


def _refuse_no_tokenizer(tokenizer: Any) -> None:
    if not callable(tokenizer):
        raise DataError(
            "data is text, but there is no tokenizer that can encode it",
            got=f"tokenizer {type(tokenizer).__name__}",
            fix="pass a Hugging Face tokenizer, or batches of token ids",
        )


def without_warning(tokenizer: Any) -> dict[str, bool]:
    """Arguments that keep a Hugging Face tokenizer from warning of a text longer than its model: we truncate it."""
    return {"verbose": False} if hasattr(tokenizer, "model_max_length") else {}


def prompt_and_reference(row: Mapping[str, Any], tokenizer: Any) -> tuple[list[int], str] | None:
    """A row's prompt as token ids and its reference answer as text; None if the row has no prompt.

    `prompt` and `completion` are such a pair; so are `messages` whose last turn, if not the only one, is the
    assistant's. Nothing is truncated.
    """
    if "messages" in row and "input_ids" not in row:
        chat = [message_of(message) for message in row["messages"]]
        if len(chat) < 2 or chat[-1]["role"] != "assistant":
            return None
        ids, reference = _template(chat[:-1], tokenizer, add_generation_prompt=True), chat[-1]["content"]
    elif {"prompt", "completion"} <= row.keys() and "input_ids" not in row:
        (ids,), reference = encode([row["prompt"]], tokenizer, UNLIMITED, end=False), row["completion"]
    else:
        return None
    return (ids, reference) if ids else None


def _encode_row(row: Mapping[str, Any], texts: Iterator[list[int]], tokenizer: Any, max_length: int) -> Encoded:
    if "input_ids" in row:
        return row_of_ids(row)
    if "text" in row:
        ids = next(texts)
        return Encoded(ids, ids)
    if "messages" in row:
        ids, labels = _encode_chat(row["messages"], tokenizer)
    elif {"prompt", "completion"} <= row.keys():
        ids, labels = _encode_pair(_text(row, "prompt"), _text(row, "completion"), tokenizer)
    else:
        expected = "text, messages, prompt and completion, or input_ids"
        raise DataError("row has no column to learn from", got=f"keys {sorted(map(str, row))}", expected=expected)
    return Encoded(ids[:max_length], labels[:max_length])


def _text(row: Mapping[str, Any], key: str) -> str:
    if isinstance(row[key], str):
        return str(row[key])
    if row[key] is None:  # an empty cell
        return ""
    raise DataError(f"{key} of a row is no string", got=type(row[key]).__name__, expected="a string or null")


def _encode_pair(prompt: str, completion: str, tokenizer: Any) -> tuple[list[int], list[int]]:
    (given,) = encode([prompt], tokenizer, UNLIMITED, end=False)
    eos = getattr(tokenizer, "eos_token_id", None)
    learned = [
        *tokenizer([completion], add_special_tokens=False, **without_warning(tokenizer))["input_ids"][0],
        *([eos] if eos is not None else []),
    ]
    return given + learned, [IGNORED] * len(given) + learned


def _encode_chat(messages: Sequence[Mapping[str, str]], tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids and labels of a chat. What the template adds after the generation prompt of an assistant turn is learned."""
    if getattr(tokenizer, "chat_template", None) is None:
        fix = "use a tokenizer with a chat_template, or rows with text"
        raise DataError("data is chats, but the tokenizer has no chat template", fix=fix)
    if not isinstance(messages, Sequence) or not all(isinstance(message, Mapping) for message in messages):
        expected = '[{"role": ..., "content": ...}, ...]'
        raise DataError("messages of a row is no list of turns", got=type(messages).__name__, expected=expected)
    chat = [message_of(message) for message in messages]
    whole = _template(chat, tokenizer)
    labels = [IGNORED] * len(whole)
    for turn, message in enumerate(chat):
        if message["role"] != "assistant":
            continue
        before = _template(chat[:turn], tokenizer, add_generation_prompt=True)
        after = _template(chat[: turn + 1], tokenizer)
        if whole[: len(before)] == before and whole[: len(after)] == after:
            labels[len(before) : len(after)] = whole[len(before) : len(after)]
        elif turn == len(chat) - 1:
            fix = "use a template that only appends turns, or rows with prompt and completion"
            raise DataError("the chat template changes earlier turns when one is added", got=repr(message), fix=fix)
    return whole, labels


def _template(chat: Sequence[Mapping[str, str]], tokenizer: Any, **how: bool) -> list[int]:
    quietly = {"tokenizer_kwargs": without_warning(tokenizer)}
    ids: list[int] = _apply(chat, tokenizer, tokenize=True, return_dict=False, **quietly, **how)
    return ids


def render_chat(chat: Sequence[Mapping[str, str]], tokenizer: Any, **how: bool) -> str:
    """Render a chat as text with the tokenizer's chat template.

    Raises:
        DataError: the template refuses the chat.
    """
    text: str = _apply(chat, tokenizer, tokenize=False, **how)
    return text


def _apply(chat: Sequence[Mapping[str, str]], tokenizer: Any, **how: Any) -> Any:
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(list(chat), **how)
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
        got = f"{type(error).__name__}: {error}"[:300]
        raise DataError(
            "the tokenizer's chat template refuses a chat", got=got, fix="check its roles and turns"
        ) from error


def message_of(message: Mapping[str, str]) -> dict[str, str]:
    """A chat turn as a dict with `role` and `content`; ShareGPT's `from` and `value` are renamed.

    Raises:
        DataError: it has neither pair of keys.
    """
    if isinstance(message.get("role"), str) and "content" in message:  # content is null in a tool call
        return dict(message)
    if isinstance(message.get("from"), str) and "value" in message:
        return {"role": ROLES.get(message["from"], message["from"]), "content": message["value"]}
    got = f"keys {sorted(map(str, message))}"
    raise DataError("chat message has no role or no content", got=got, expected="role and content, or from and value")


def refuse_other_tokenizer(teacher: Any, student: Any, *, fix: str = ONE_TOKENIZER) -> None:
    """Refuse two tokenizers whose ids stand for different tokens; if one of them is None there is nothing to compare.

    Raises:
        DataError: names the first ids that differ.
    """
    differ = differing_ids(teacher, student) if student is not None and teacher is not None else []
    if differ:
        first = ", ".join(f"id {index}: teacher {taught!r}, student {known!r}" for index, taught, known in differ[:3])
        raise DataError(
            f"teacher and student have different tokenizers, {len(differ)} ids differ",
            got=first,
            fix=fix,
        )


def differing_ids(teacher: Any, student: Any) -> list[tuple[int, str | None, str | None]]:
    """Ids that stand for different tokens, as (id, teacher's token, student's token); None for an id that one lacks."""
    taught, known = ({index: token for token, index in t.get_vocab().items()} for t in (teacher, student))
    ids = sorted(taught.keys() | known.keys())
    return [(id_, taught.get(id_), known.get(id_)) for id_ in ids if taught.get(id_) != known.get(id_)]
