"""The wire formats of servers that give log-probabilities of a prompt: requests made, answers read.

Knows JSON values and token ids; knows nothing of connections, batches or caches. The formats were read in the servers'
own source: vLLM 0.32 `entrypoints/openai/completion/{protocol,serving}.py` and `sampling_params.py`; SGLang 0.5.23
`srt/entrypoints/http_server.py`, `srt/managers/{io_struct,tokenizer_manager}.py`.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from apt_model.errors import ModelError, NumericError, brief, reason_of

ServerKind = Literal["vllm", "sglang", "openai"]
Prompt = Sequence[int] | str
Pairs = list[tuple[int, float]]  # (token id, log-probability) of one position
Position = tuple[int | None, Pairs | None]

HAVE_THEM = (
    "vLLM has them (--server vllm) and SGLang (--server sglang), also behind /v1/completions with echo, logprobs and "
    "return_tokens_as_token_ids (--server openai); llama.cpp and transformers serve give generated tokens' only"
)
LOWEST = -9999.0  # what vLLM writes for minus infinity, which JSON does not have


@dataclass(frozen=True, kw_only=True)
class PromptTopK:
    """The likeliest tokens behind each of the first L - 1 tokens of a prompt of L.

    Attributes:
        ids: (L - 1, k) int64, likeliest first.
        log_probs: (L - 1, k) float64, natural; minus infinity where the server rules a token out.
    """

    ids: NDArray[np.int64]
    log_probs: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Wire:
    """One kind of request with its answer.

    Attributes:
        path: of the request, behind the server's address.
        body: (prompt, model's name, k, temperature) → the request's JSON value.
        positions: the answer's JSON value → the token that the server read, None where it does not tell, and the pairs
            at each position, None at the first. Raises what indexing JSON raises, where the answer has another form.
    """

    path: str
    body: Callable[[Prompt, str, int, float], dict[str, Any]]
    positions: Callable[[Any], list[Position]]

    def read(self, answer: Any, prompt: Sequence[int], k: int) -> PromptTopK:
        """The top k of an answer.

        Raises:
            ModelError: it has no log-probabilities of the prompt, no integer ids, or another number of positions,
                tokens or other tokens than asked for. NumericError: NaN.
        """
        found = self._told(answer)
        if len(found) != len(prompt):
            got, expected = f"{len(found)} positions", f"{len(prompt)}, one for each token sent"
            raise ModelError("the teacher's server gives another number of positions", got=got, expected=expected)
        top = [_top(pairs or [], read, token, k) for (read, pairs), token in zip(found[1:], prompt[1:], strict=True)]
        values = np.array([[value for _, value in pairs] for pairs in top], dtype=np.float64).reshape(-1, k)
        if np.isnan(values).any():
            raise NumericError("the teacher's server gives a log-probability that is no number", got="NaN or null")
        return PromptTopK(
            ids=np.array([[token for token, _ in pairs] for pairs in top], dtype=np.int64).reshape(-1, k),
            log_probs=np.where(values <= LOWEST, -np.inf, values),
        )

    def tokens(self, answer: Any) -> list[int | None]:
        """The tokens that the server read.

        Raises:
            ModelError: the answer has no log-probabilities of the prompt, or no integer ids.
        """
        return [token for token, _ in self._told(answer)]

    def _told(self, answer: Any) -> list[Position]:
        try:
            return self.positions(answer)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            what = "the teacher's server gives no log-probabilities of a prompt with token ids"
            raise ModelError(what, got=brief(answer), expected=f"not {reason_of(error)}", fix=HAVE_THEM) from error


def _top(pairs: Pairs, read: int | None, token: int, k: int) -> Pairs:
    """The k likeliest of a position's pairs: servers add the prompt's own token where it is not among them."""
    if read not in (None, token) or (read is None and pairs and token not in dict(pairs)):
        got, expected = f"{read if read is not None else 'another token'}", f"token {token}"
        raise ModelError("the teacher's server read other tokens than were sent", got=got, expected=expected)
    if len(pairs) == k + 1:
        pairs = [pair for pair in pairs if pair[0] != token]
    if len(pairs) != k or len(dict(pairs)) != k:
        got = f"{len(pairs)}, {len(dict(pairs))} of them different"
        raise ModelError("the teacher's server gives another number of tokens at a position", got=got, expected=str(k))
    return pairs


def _falling(pairs: Pairs) -> Pairs:
    """JSON objects have no order: sorted, likeliest first."""
    return sorted(pairs, key=lambda pair: -pair[1])


def _of_completions(prompt: Prompt, model: str, temperature: float) -> dict[str, Any]:
    return {"model": model, "prompt": prompt if isinstance(prompt, str) else list(prompt), "temperature": temperature}


def _vllm_body(prompt: Prompt, model: str, k: int, temperature: float) -> dict[str, Any]:
    return {**_of_completions(prompt, model, temperature), "max_tokens": 1, "prompt_logprobs": k}


def _vllm_positions(answer: Any) -> list[Position]:
    """`prompt_logprobs`: null, then {id: {logprob, rank, decoded_token}} with the prompt's own token among them."""
    told = answer["choices"][0]["prompt_logprobs"]
    return [(None, at and _falling([(int(one), _number(of["logprob"])) for one, of in at.items()])) for at in told]


def _openai_body(prompt: Prompt, model: str, k: int, temperature: float) -> dict[str, Any]:
    asked = {"max_tokens": 0, "echo": True, "logprobs": k, "return_tokens_as_token_ids": True}
    return {**_of_completions(prompt, model, temperature), **asked}


def _openai_positions(answer: Any) -> list[Position]:
    """`logprobs`: `tokens` and `top_logprobs` side by side, tokens as "token_id:403": texts are not unique."""
    told = answer["choices"][0]["logprobs"]
    return [
        (_token_of(token), at and _falling([(_token_of(one), _number(value)) for one, value in at.items()]))
        for token, at in zip(told["tokens"], told["top_logprobs"], strict=True)
    ]


def _token_of(text: str) -> int:
    return int(text[text.index("token_id:") + len("token_id:") :])


def _sglang_body(prompt: Prompt, model: str, k: int, temperature: float) -> dict[str, Any]:
    return {
        **({"text": prompt} if isinstance(prompt, str) else {"input_ids": list(prompt)}),
        "sampling_params": {"max_new_tokens": 0, "temperature": temperature},
        "return_logprob": True,
        "logprob_start_len": 0,
        "top_logprobs_num": k,
    }


def _sglang_positions(answer: Any) -> list[Position]:
    """`meta_info`: lists of [log-probability, id, text or null], the first position's null; likeliest first."""
    told = answer["meta_info"]
    return [
        (operator.index(token), at and [(operator.index(one), _number(value)) for value, one, *_ in at])
        for (_, token, *_), at in zip(told["input_token_logprobs"], told["input_top_logprobs"], strict=True)
    ]


def _number(value: float | None) -> float:
    """Some servers write null for what JSON has no number for."""
    return float("nan") if value is None else float(value)


_OPENAI = Wire(path="/v1/completions", body=_openai_body, positions=_openai_positions)
_SGLANG = Wire(path="/generate", body=_sglang_body, positions=_sglang_positions)
WIRES: dict[ServerKind, Wire] = {
    "vllm": Wire(path="/v1/completions", body=_vllm_body, positions=_vllm_positions),
    "openai": _OPENAI,
    "sglang": _SGLANG,
}
FOR_TEXT: dict[ServerKind, Wire] = {"vllm": _OPENAI, "openai": _OPENAI, "sglang": _SGLANG}
