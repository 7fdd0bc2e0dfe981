"""The top-k source of a cache that asks a server, instead of running a model.

Knows batches and answers; knows nothing of rows, shards or files.
"""

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from apt_model.data.batch import Batch, learned_positions
from apt_model.distill.teachers.cache.manifest import TEACHER
from apt_model.distill.teachers.cache.store import Store
from apt_model.distill.teachers.cache.topk import MeasuredTopK, from_log_probs
from apt_model.distill.teachers.served.connection import TeacherServer, calling
from apt_model.distill.teachers.served.limits import refuse_temperature
from apt_model.distill.teachers.served.probe import SAME, Query, apart, probe
from apt_model.distill.teachers.served.wire import WIRES, PromptTopK, ServerKind
from apt_model.errors import DataError, ModelError
from apt_model.events.records import ModelCard
from apt_model.models.directory import CONFIG
from apt_model.models.fingerprints import hash_config, hash_json, hash_tokenizer
from apt_model.models.forward import model_card
from apt_model.models.reading import reading
from apt_model.models.text_part import loader_of

MODELS = "/v1/models"
ANSWER = f"{TEACHER}/answer.json"
PADDED = 1e-2  # probability that columns of a head for no token may have
PROBED = 256  # tokens of the prompt that a server is tried with, at most
ROOM = 1  # tokens behind a prompt that a server wants to write at least


class ServedTopK:
    """The top-k source that asks a server for the log-probabilities of prompts.

    The server gives them at temperature 1, from which the tail's mass at no other can be told.

    Args:
        server: where it is.
        kind: vllm, sglang or openai (any `/v1/completions` with echo, logprobs and token ids).
        tokenizer: of the served model, which is the student's too.
        config: of the served model, kept with the cache to make students from; None: it is not known.
        k: tokens that will be asked for.
        model: its name at the server; None: the only one there.

    Attributes:
        rounding: nats between two answers to the same request, of the token that differs most; 0: none differs, and a
            resumed cache has the same bytes.

    Raises:
        ModelError: the server does not answer, or has not one model of that name.
    """

    def __init__(
        self,
        server: TeacherServer,
        *,
        kind: ServerKind,
        tokenizer: Any,
        config: Any = None,
        k: int = 64,
        model: str | None = None,
    ) -> None:
        self._server, self._kind, self._tokenizer, self.config = server, kind, tokenizer, config
        ids = max(tokenizer.get_vocab().values()) + 1
        self._vocabulary = min(ids, getattr(config, "vocab_size", None) or ids)
        self._k, self.rounding = k, 0.0
        with calling(server) as calls:
            self._model, self._longest = _served(calls.ask(MODELS, is_first=True), model)

    @cached_property
    def card(self) -> ModelCard:
        """Summary of the model: its name at the server, and its size by its config; 0 parameters where none is known.

        Raises:
            ModelError: its config makes no model.
        """
        if self.config is None:
            return ModelCard(name=self._model, parameters=0, megabytes=0.0)
        with reading(self._model, CONFIG), torch.device("meta"):
            model = loader_of(self.config).from_config(self.config)
        return replace(model_card(model), name=self._model)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of its name, config and tokenizer: a server does not tell its weights, nor do rounded answers."""
        return hash_json(["served", self._model, hash_config(self.config), hash_tokenizer(self._tokenizer)])

    @property
    def generation_config(self) -> None:
        """None: it is not known."""

    def check(self, batch: Batch) -> None:
        """Refuse rows that the server cannot read.

        Raises:
            DataError: a row is longer than its context, or counts its positions in its own way.
        """
        texts = batch.apart
        if texts.segments is not None and not texts.segments.is_plain:
            got, fix = "rows with position_ids", "leave them out, or cache from the model itself"
            raise DataError("a server counts the positions of each row from 0", got=got, fix=fix)
        longest = int(texts.attention_mask.sum(dim=1).max())
        if self._longest is not None and longest + ROOM > self._longest:
            got, expected = f"a row of {longest:,} tokens", f"at most {self._longest - ROOM:,}"
            fix = "give a smaller --max-length, or start the server with a longer context (vLLM: --max-model-len)"
            raise DataError("a row is too long for the teacher's server", got=got, expected=expected, fix=fix)

    def begin(self, batch: Batch) -> None:
        """Try the server with the first row.

        Raises:
            ModelError, ConfigError: as `probe`.
        """
        prompt, asked = next(ids for ids, _ in _rows(batch))[:PROBED], self._asked(self._k)
        with calling(self._server) as calls:
            self._probed, self.rounding = probe(calls, asked, prompt, self._tokenizer, self._vocabulary)

    def refuse_other_weights(self, store: Store) -> None:
        """Keep the answer of `begin` with a new cache; refuse a cache that was begun with another model's answer.

        Its name, config and tokenizer, which the cache's identity holds, can be those of other weights.

        Raises:
            DataError: the answer kept there differs by more than rounding.
        """
        now = {"ids": self._probed.ids.tolist(), "log_probs": self._probed.log_probs.tolist()}
        before = store.read(ANSWER)
        if before is None:
            store.write(ANSWER, json.dumps(now).encode())
            return
        told = json.loads(before)
        kept = PromptTopK(ids=np.array(told["ids"]), log_probs=np.array(told["log_probs"]))
        if (nats := apart(kept, self._probed)) > SAME:
            got, fix = (
                f"{nats:.3g} nats apart on its first row",
                "serve the model that it was begun with, or begin anew",
            )
            raise DataError(f"{store} was begun with another model of this name", got=got, fix=fix)

    def answers(self, batches: Iterable[Batch], *, k: int, temperature: float) -> Iterator[MeasuredTopK]:
        """The top k at every position that predicts a label, row after row; several rows are in flight at once.

        Raises:
            ConfigError: another temperature than 1. ModelError: the server does not answer, or not as asked.
            NumericError: values that cannot be log-probabilities.
        """
        refuse_temperature(temperature)
        asked = self._asked(k)
        with calling(self._server) as calls:
            waiting: deque[tuple[Future[PromptTopK], NDArray[np.int64]]] = deque()
            for ids, places in (row for batch in batches for row in _rows(batch)):
                if len(waiting) == self._server.in_flight:
                    yield self._measured(*waiting.popleft())
                answer = calls.begin(WIRES[self._kind].path, asked.body(ids), _reader(asked, ids))
                waiting.append((answer, places))
            while waiting:
                yield self._measured(*waiting.popleft())

    def _asked(self, k: int) -> Query:
        return Query(kind=self._kind, model=self._model, k=min(k, self._vocabulary))

    def _measured(self, answer: Future[PromptTopK], places: NDArray[np.int64]) -> MeasuredTopK:
        told = answer.result()
        ids, log_probs = _real(told.ids[places], told.log_probs[places], self._vocabulary)
        return from_log_probs(ids, log_probs.astype(np.float32), vocabulary=self._vocabulary)


def _served(told: Any, wanted: str | None) -> tuple[str, int | None]:
    """The name and context length of the served model.

    Raises:
        ModelError: no such model, or several and none wanted.
    """
    try:
        models = {str(one["id"]): one.get("max_model_len") for one in told["data"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError("the teacher's server does not list its models", fix="check the address") from error
    names = [wanted] if wanted is not None else list(models)
    if len(names) != 1 or names[0] not in models:
        expected = "one model" if wanted is None else repr(wanted)
        got, fix = ", ".join(models) or "none", "name one of them: --served-model"
        raise ModelError("the teacher's server has other models", got=got, expected=expected, fix=fix)
    return names[0], models[names[0]]


def _rows(batch: Batch) -> Iterator[tuple[Sequence[int], NDArray[np.int64]]]:
    """(token ids up to the last label, positions that predict a label) of each row with a label."""
    for row in range(len(batch.input_ids)):
        places = learned_positions(batch.labels[row : row + 1]).numpy()
        if len(places):
            yield batch.input_ids[row, : int(places[-1]) + 2].tolist(), places


def _reader(asked: Query, ids: Sequence[int]) -> Any:
    return lambda answer: asked.read(answer, ids)


def _real(
    ids: NDArray[np.int64], log_probs: NDArray[np.float64], vocabulary: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Without columns of a padded head that stand for no token: their mass goes to the tail.

    In their place come tokens that are not among the k, ruled out: less likely than the k-th, they are next to nothing.

    Raises:
        ModelError: such columns have more than next to nothing.
    """
    padded = (ids >= vocabulary) | (ids < 0)
    if not padded.any():
        return ids, log_probs
    mass = np.exp(np.where(padded, log_probs, -np.inf)).sum(axis=1)
    if mass.max() > PADDED:
        got, expected = f"id {ids[padded].max()}, probability {mass.max():.2g}", f"ids below {vocabulary:,}"
        fix = "name the served model's own tokenizer: --tokenizer DIR_OR_ID"
        raise ModelError(
            "the teacher's server finds ids likely that are no tokens", got=got, expected=expected, fix=fix
        )
    ids, log_probs = ids.copy(), np.where(padded, -np.inf, log_probs)
    for at in np.flatnonzero(padded.any(axis=1)):
        unused = np.setdiff1d(np.arange(vocabulary), ids[at])
        ids[at, padded[at]] = unused[: padded[at].sum()]
    order = np.argsort(-log_probs, axis=1, kind="stable")
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(log_probs, order, axis=1)
