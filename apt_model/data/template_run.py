"""Run the program that a chat template is: whatever it raises, or that it does not end, is an error of the data.

Knows jinja and `apply_chat_template` of transformers; knows nothing of what chats mean. Caught by place, not by a list
of types: a template can raise anything.
"""

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from apt_model.data.deadline import TimeUpError, deadline
from apt_model.data.template_trial import SECONDS, why_endless
from apt_model.data.turns import Chat
from apt_model.errors import DataError

FILE = "chat_template.jinja"
GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")


def apply(tokenizer: Any, chat: Chat, *, tokenize: bool = False, **how: Any) -> Any:
    """`apply_chat_template` of transformers. Only writing the text is limited in time: a long one has many tokens.

    Raises:
        DataError: the template refuses the chat, fails on it, or does not end.
    """
    try:
        with nullcontext() if tokenize else deadline(SECONDS):
            return tokenizer.apply_chat_template(chat.turns, tokenize=tokenize, **chat.given, **how)
    except (Exception, TimeUpError) as error:  # by place: a program that came with a model runs
        is_late = isinstance(error, TimeUpError)
        got = f"it does not end within {SECONDS} seconds" if is_late else f"{type(error).__name__}: {error}"[:300]
        fix = f"check its roles and turns, and {file_of(tokenizer)}"
        raise DataError("the tokenizer's chat template refuses a chat", got=got, fix=fix) from error


def read_template(tokenizer: Any, source: str) -> tuple[Any, frozenset[str]]:
    """The template's syntax tree and the names that it takes, once it is sure to end.

    Raises:
        DataError: it does not end, fills the memory, or is no jinja.
    """
    from jinja2 import Environment, meta

    why = why_endless(GENERATION.sub("", source)) if isinstance(source, str) else "it is no text"
    if why is not None:
        fix = f"correct {file_of(tokenizer)}, or take another tokenizer"
        raise DataError("the tokenizer's chat template cannot be used", got=why, fix=fix)
    try:
        tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(GENERATION.sub("", source))
        return tree, frozenset(meta.find_undeclared_variables(tree))
    except Exception as error:  # by place too
        fix = f"correct {file_of(tokenizer)}"
        raise DataError("the tokenizer's chat template is no jinja", got=str(error)[:200], fix=fix) from error


def file_of(tokenizer: Any) -> str:
    """The file that a tokenizer's chat template stands in, or what else it is called."""
    directory = Path(str(getattr(tokenizer, "name_or_path", None) or "."))
    return next((name for name in (FILE, "tokenizer_config.json") if (directory / name).is_file()), "the template")


def refuse_broken_template(tokenizer: Any) -> None:
    """Refuse chat templates that do not end, or are no jinja; what they write is seen where a chat is encoded.

    Raises:
        DataError: names the template's file.
    """
    templates = getattr(tokenizer, "chat_template", None)
    for source in templates.values() if isinstance(templates, dict) else [templates]:
        if source is not None:
            read_template(tokenizer, source)
