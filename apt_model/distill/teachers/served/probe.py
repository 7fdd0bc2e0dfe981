"""Try a teacher's server before anything is cached from it: what it gives must be what a cache needs.

Knows wires and answers; knows nothing of batches or caches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apt_model.distill.teachers.cache.topk import from_log_probs
from apt_model.distill.teachers.served.connection import Calls
from apt_model.distill.teachers.served.wire import FOR_TEXT, WIRES, PromptTopK, ServerKind
from apt_model.errors import ConfigError, ModelError, NumericError, brief

SAME = 0.05  # nats: rounding of bfloat16 and of batches of other sizes is less, another model's answer is more
OTHER_TEMPERATURE = 2.0
SAMPLE = "The river runs to the sea. 人工智能 🙂 naïve x1 = 3.14159;\n"


@dataclass(frozen=True, kw_only=True)
class Query:
    """How a served model is asked.

    Attributes:
        kind: of the server.
        model: its name there.
        k: tokens at each position.
    """

    kind: ServerKind
    model: str
    k: int

    def body(self, prompt: Sequence[int], temperature: float = 1.0) -> Any:
        """The request for the top k behind each token of a prompt."""
        return WIRES[self.kind].body(prompt, self.model, self.k, temperature)

    def read(self, answer: Any, prompt: Sequence[int]) -> PromptTopK:
        """The answer to it.

        Raises:
            ModelError: it has another form, or other numbers of positions or tokens. NumericError: NaN.
        """
        return WIRES[self.kind].read(answer, prompt, self.k)


def probe(
    calls: Calls, asked: Query, prompt: Sequence[int], tokenizer: Any, vocabulary: int
) -> tuple[PromptTopK, float]:
    """Ask for one prompt until it is known that the server can be a teacher.

    Returns:
        Its answer, and the largest difference between two answers to the same request, in nats.

    Raises:
        ModelError: no log-probabilities of prompts, not as many positions as ids, no integer ids, values that cannot
            be log-probabilities, another answer the second time, or another tokenizer.
        NumericError: NaN.
        ConfigError: a k that the server does not give, or log-probabilities that it divides by a temperature.
    """
    first, second, warm = (_answer(calls, asked, prompt, one) for one in (1.0, 1.0, OTHER_TEMPERATURE))
    try:
        from_log_probs(first.ids, first.log_probs.astype(np.float32), vocabulary=vocabulary)
    except NumericError as error:
        raise ModelError(f"the teacher's server gives no {error.what}", got=error.got) from error
    rounding = apart(first, second)
    if rounding > SAME:
        got, fix = f"{rounding:.3g} nats apart", "serve one model, without dropout or sampling of its weights"
        raise ModelError("the teacher's server answers the same request differently", got=got, fix=fix)
    if (scaled := apart(first, warm)) > SAME:
        got = f"{scaled:.3g} nats apart at temperature 1 and {OTHER_TEMPERATURE:g}"
        fix = "let it give raw ones (vLLM: --logprobs-mode raw_logprobs): a cache needs those of temperature 1"
        raise ConfigError("the teacher's server divides log-probabilities by a temperature", got=got, fix=fix)
    _refuse_other_tokenizer(calls, asked, prompt, tokenizer)
    return first, rounding


def _answer(calls: Calls, asked: Query, prompt: Sequence[int], temperature: float) -> PromptTopK:
    return asked.read(calls.ask(WIRES[asked.kind].path, asked.body(prompt, temperature)), prompt)


def apart(one: PromptTopK, other: PromptTopK) -> float:
    """The largest difference in nats between what two answers say of any token.

    A token that only one of them names is at most as likely as the least likely one that the other names.
    """
    most = 0.0
    for mine, theirs in zip(_positions(one), _positions(other), strict=True):
        for here, there in ((mine, theirs), (theirs, mine)):
            least = min(there.values())
            for token, value in here.items():
                difference = abs(value - there[token]) if token in there else max(0.0, value - least)
                most = max(most, difference)  # not a number, of two infinities: no difference
    return most


def _positions(answer: PromptTopK) -> list[dict[int, float]]:
    pairs = zip(answer.ids.tolist(), answer.log_probs.tolist(), strict=True)
    return [dict(zip(ids, values, strict=True)) for ids, values in pairs]


def _refuse_other_tokenizer(calls: Calls, asked: Query, prompt: Sequence[int], tokenizer: Any) -> None:
    """Compare ids of a text, made by the server and here; special tokens aside, for ids are sent, not texts."""
    text = tokenizer.decode(list(prompt), skip_special_tokens=True) + " " + SAMPLE
    wire, special = FOR_TEXT[asked.kind], set(tokenizer.all_special_ids)
    theirs = wire.tokens(calls.ask(wire.path, wire.body(text, asked.model, 1, 1.0)))
    kept, ours = ([one for one in ids if one not in special] for ids in (theirs, tokenizer(text)["input_ids"]))
    if kept != ours:
        at = next((at for at, pair in enumerate(zip(kept, ours, strict=False)) if pair[0] != pair[1]), len(ours))
        got, expected = f"ids {kept[at : at + 4]} for {brief(text)} from token {at} on", f"{ours[at : at + 4]}"
        fix = "name the served model's own tokenizer: --tokenizer DIR_OR_ID"
        raise ModelError("the teacher's server has another tokenizer", got=got, expected=expected, fix=fix)
