"""Talk to a model by greedy decoding: complete a text, or ask in its chat template. Knows nothing of training."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from apt_model.data.encode import UNLIMITED, encode, question_ids
from apt_model.data.notices import Tell, warn
from apt_model.data.template_run import file_of
from apt_model.data.turns import Chat, chat_of
from apt_model.errors import DataError
from apt_model.models.directory import TOKENIZER
from apt_model.models.generate import answer_ids
from apt_model.models.out_of_memory import out_of_memory_told


def continue_text(model: Any, tokenizer: Any, prompt: str, *, max_new_tokens: int = 60) -> str:
    """The prompt with its greedy completion, up to one of `models.generate.end_ids` or `max_new_tokens`.

    Raises:
        DataError: there is no tokenizer, the prompt is empty, or it fills all positions of the model.
    """
    if tokenizer is None:
        raise DataError("the model has no tokenizer", fix="save one into the model's directory")
    (row,) = encode([prompt], tokenizer, UNLIMITED, end=False)
    new = _answer(model, tokenizer, row, max_new_tokens, written_by=TOKENIZER)
    text: str = tokenizer.decode([*row, *new], skip_special_tokens=True)
    return text


class Conversation:
    """A chat with a model in its tokenizer's chat template: each question is asked behind the turns before it.

    Args:
        model: a causal language model with `generate()`.
        tokenizer: has a chat template.
        system: instructions that stand before the chat.
        tools: functions that the model may call, as a list of JSON schemas; the template writes them.
        max_new_tokens: length of an answer at most.
        tell: told once if the first turns no longer fit into the model's positions and are left out.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        system: str | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        max_new_tokens: int = 60,
        tell: Tell = warn,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._beside = {"system": system, "tools": list(tools)}
        self._max_new_tokens, self._tell = max_new_tokens, tell
        self._turns: list[dict[str, str]] = []

    def begin(self) -> None:
        """Begin a new chat: forget all turns."""
        self._turns.clear()

    def ask(self, question: str) -> str:
        """The model's greedy answer, up to the end of its turn; a thought that the template opened is part of it.

        Raises:
            DataError: the question alone fills all positions of the model, or the template refuses it.
        """
        self._turns.append({"role": "user", "content": question})
        ids = self._ids()
        while len(ids) >= _positions(self._model) and len(self._turns) > 1:
            self._tell("forgotten_turns")
            del self._turns[:2]
            ids = self._ids()
        writer = file_of(self._tokenizer)
        new = _answer(self._model, self._tokenizer, ids, self._max_new_tokens, written_by=writer)
        answer: str = self._tokenizer.decode(new, skip_special_tokens=True).strip()
        self._turns.append({"role": "assistant", "content": answer})
        return answer

    def _ids(self) -> list[int]:
        chat = cast("Chat", chat_of({"messages": self._turns, **self._beside}))
        return question_ids(chat, self._tokenizer, tell=self._tell)


def _answer(model: Any, tokenizer: Any, ids: list[int], max_new_tokens: int, *, written_by: str) -> list[int]:
    room = _positions(model) - len(ids)
    if not ids or room < 1:
        what = "too long for the model" if ids else "empty, and the tokenizer has no start token"
        fix = f"give another prompt, or check {written_by}"
        raise DataError(f"the prompt is {what}", got=f"{len(ids):,} tokens", fix=fix)
    with out_of_memory_told("the model", "free some memory, or take a smaller model"):
        (new,) = answer_ids(model, tokenizer, [ids], max_new_tokens=min(max_new_tokens, room), role="model")
    return new


def _positions(model: Any) -> int:
    """How many tokens a model was made for: rotary models go on behind that, and get worse."""
    positions = getattr(model.config, "max_position_embeddings", None)
    return positions if isinstance(positions, int) and positions > 0 else UNLIMITED
