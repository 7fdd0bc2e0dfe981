"""How a tokenizer's chat template asks a question and ends an answer. Knows templates; knows nothing of models."""

from collections.abc import Iterable, Mapping
from typing import Any

from apt_model.data.batch import Batch
from apt_model.data.template import has_template, render_chat
from apt_model.errors import DataError

ASKED, ANSWERED = "wozu", "dazu"  # words that no template has in it
THOUGHT = "<think>"


def with_template(first: Any, second: Any) -> Any:
    """Of two tokenizers with the same ids (or None) the first, unless only the second has a chat template."""
    return second if first is None or (has_template(second) and not has_template(first)) else first


def turn_end(tokenizer: Any) -> int | None:
    """The special token behind the assistant's words in the chat template; None if there is none, or no template."""
    tail = _behind(ANSWERED, tokenizer, {"role": "assistant", "content": ANSWERED})
    known = {
        token.content: id_ for id_, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special
    }
    found = [content for content in known if tail.startswith(content)]
    return known[max(found, key=len)] if found else None


def is_asked_in_template(batches: Iterable[Batch], tokenizer: Any) -> bool:
    """Whether a row has a question in the tokenizer's chat template: then the data is chats, rendered by whomever.

    Told by what the template writes where it turns to the assistant.
    """
    tail = "".join(_behind(ASKED, tokenizer, add_generation_prompt=True).partition(THOUGHT)[0].split())
    rows = (
        ids[mask.bool()].tolist()
        for batch in batches
        for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
    )
    return tail != "" and any(tail in "".join(tokenizer.decode(ids).split()) for ids in rows)


def _behind(word: str, tokenizer: Any, *more: Mapping[str, str], add_generation_prompt: bool = False) -> str:
    """What the template writes behind a word of a short chat, spaces before it left out; empty if it does not."""
    if not has_template(tokenizer):
        return ""
    try:
        chat = [{"role": "user", "content": ASKED}, *more]
        text = render_chat(chat, tokenizer, add_generation_prompt=add_generation_prompt)
    except DataError:
        return ""
    return text.rpartition(word)[2].lstrip() if word in text else ""
