"""Columns: which columns of a row take part, by the kind of row that they make; the others are told of, or refuse it.

Knows names; knows nothing of what stands in a column.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache

from apt_model.errors import DataError

SYSTEMS = ("system", "system_prompt")
CHAT = ("tools", "documents", "chat_template_kwargs", *SYSTEMS)  # what a chat template may be given beside the turns
MASKS = ("assistant_masks", "completion_mask")  # 1 where a token is to be learned, if there are no labels
QUESTIONS = ("instruction", "question", "query", "prompt")
ANSWERS = ("output", "answer", "response", "completion")
CONTEXTS = ("input", "context")
PREFERENCES = ("chosen", "rejected")

UNHEARD = {  # columns of token ids that say what to learn in a way that no loss here reads, and what to give instead
    "loss_mask": "call it completion_mask if it is 1 at each token that is to be learned",
    "response_mask": "call it completion_mask if it is 1 at each token that is to be learned",
    "shift_labels": "give labels that stand at their own tokens",
    "loss_weights": "give labels, -100 where nothing is to be learned: tokens have no weights",
    "loss_scale": "give labels, -100 where nothing is to be learned: tokens have no weights",
}

RENAMING = (
    "rename the columns, as in --columns messages=CHAT, --columns question=ASK answer=REPLY, or --columns text=STORY"
)
LIKELY = {  # what columns are called that are probably ours, in lower case: to name the renaming, not to guess it
    "messages": ("message", "messages", "conversations", "conversation", "dialog", "dialogue", "chat", "turns"),
    "question": (*QUESTIONS, "problem", "ask", "source", "input", "src", "questions", "user", "human"),
    "answer": (*ANSWERS, "solution", "target", "reply", "tgt", "label", "answers", "assistant", "gpt", "summary"),
    "text": ("text", "content", "contents", "story", "document", "article", "body", "sentence", "passage"),
}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of row.

    Attributes:
        name: "ids", "chat", "pair", "text" or "question".
        needs: the columns that make it.
        may: the columns that may stand beside them, and then take part.
    """

    name: str
    needs: tuple[str, ...]
    may: tuple[str, ...] = ()

    def used(self, names: Iterable[str]) -> list[str]:
        """Those of the names that take part, in their order."""
        return [name for name in names if name in self.needs or name in self.may]


KINDS = (  # the first whose columns are all there counts
    Kind(name="ids", needs=("input_ids",), may=("labels", "attention_mask", "position_ids", "seq_lengths", *MASKS)),
    Kind(name="chat", needs=("messages",), may=CHAT),
    Kind(name="chat", needs=("conversations",), may=CHAT),
    Kind(name="pair", needs=("prompt", "completion"), may=CHAT),
    Kind(name="text", needs=("text",)),
    *(
        Kind(name="question", needs=(question, answer), may=(*CONTEXTS, "history", *CHAT))
        for question in QUESTIONS
        for answer in ANSWERS
    ),
)


def kind_of(names: Collection[str], *, of: str = "a row") -> Kind:
    """The kind of rows that have these columns.

    Raises:
        DataError: there is none; names the columns of `of`, and how to rename them.
    """
    return _kind_of(tuple(sorted(map(str, names))), of)


def listed(names: Iterable[str]) -> str:
    """Names in a line; those that are empty, or begin or end with a space, in quotes."""
    return ", ".join(name if name and name == name.strip() else f'"{name}"' for name in names) or "none"


def named_twice(names: Iterable[str]) -> str | None:
    """The first name that stands there for the second time, if one does."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


@lru_cache(maxsize=64)
def _kind_of(names: tuple[str, ...], of: str) -> Kind:
    found = next((kind for kind in KINDS if set(kind.needs) <= set(names)), None)
    if found is not None:
        if found.name == "ids":
            refuse_unheard_columns(names)
        return found
    asked = next((question for question in QUESTIONS if question in names), None)
    ours = "messages" if asked is None else "completion" if asked == "prompt" else "answer"
    fix = (
        f"rename chosen to {ours}, --columns {ours}=chosen: distillation learns one answer"
        if set(PREFERENCES) & set(names)
        else _renaming(names)
    )
    expected = "text, messages, conversations, prompt and completion, or input_ids"
    raise DataError(f"{of} has no column to learn from", got=listed(names), expected=expected, fix=fix)


def _renaming(names: Iterable[str]) -> str:
    """How the columns of a row are to be renamed: those of its own that are probably a chat, a question or a text."""
    theirs = {ours: next((name for name in names if name.lower() in likely), None) for ours, likely in LIKELY.items()}
    for kind in (("messages",), ("question", "answer"), ("text",)):
        if all(theirs[ours] for ours in kind):
            pairs = " ".join(f"{ours}={theirs[ours]}" for ours in kind)
            return f"rename the columns: --columns {pairs}, if that is what they are"
    return RENAMING


def refuse_unheard_columns(names: Iterable[str]) -> None:
    """Refuse columns beside token ids that say what to learn, but not in a way that is read here (`UNHEARD`).

    Raises:
        DataError: names the first one, and what to give instead.
    """
    for name in names:
        if name in UNHEARD:
            raise DataError(f"{name} beside input_ids is not read", got=name, fix=UNHEARD[name])
