"""Where a cache's top-k logits come from: the `TopKSource` protocol, and the source that runs a model.

Knows batches and logits; knows nothing of rows, blocks or files. `writer.CacheWriter` takes any such source:

    class Served:                      # a model behind a server, say
        def answers(self, batches, *, k, temperature):
            for batch in batches:      # may read ahead, to keep requests in flight
                ids, log_probs = ...   # (N, k) each, at `learned_positions(batch.labels)`, row after row
                yield from_log_probs(ids, log_probs, vocabulary=...)

    CacheWriter(Served(), rows, settings=settings, tokenizer=tokenizer).run(directory)
"""

from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from typing import Any, Protocol

import torch
from torch import nn

from apt_model.config.sections import WideMatmul
from apt_model.data.batch import Batch, learned_positions
from apt_model.distill.teachers.cache.topk import MeasuredTopK, keep_top_k, real_vocabulary
from apt_model.distill.teachers.live import LiveTeacher
from apt_model.events.records import ModelCard
from apt_model.models.causality import refuse_not_causal
from apt_model.models.fingerprints import hash_model
from apt_model.models.modes import frozen
from apt_model.models.wide_matmul import full_width, uses_onednn

CHUNK_LOGITS = 2**22  # looked at together


class TopKSource(Protocol):
    """Gives a teacher's top-k logits for batches of rows: a model that is run, or one that a server runs."""

    @property
    def card(self) -> ModelCard:
        """Summary of the teacher: class, parameters, megabytes, layers, width."""

    @property
    def fingerprint(self) -> str:
        """Hash that tells this teacher from all others: parts of one cache, and its resumed runs, must agree on it."""

    @property
    def config(self) -> Any:
        """The teacher's Hugging Face config, saved with the cache to make students from; None without one."""

    @property
    def generation_config(self) -> Any:
        """The teacher's Hugging Face generation config, saved beside it; None without one."""

    def check(self, batch: Batch) -> None:
        """Refuse a batch on the CPU that the teacher cannot read: called once with every row, before any answer.

        Raises:
            DataError: names what cannot be read.
        """

    def begin(self, batch: Batch) -> None:
        """Refuse a teacher or server that cannot serve, tried with a batch; called once, before any answer.

        Raises:
            ModelError, ConfigError: says why.
        """

    def answers(self, batches: Iterable[Batch], *, k: int, temperature: float) -> Iterator[MeasuredTopK]:
        """The top k at every position that predicts a label.

        Args:
            batches: on the CPU; each of rows whose real tokens come first. They may be read ahead of what is yielded.
            k: tokens at each position; fewer, if the vocabulary has fewer.
            temperature: of the training; the tail's mass is given at it and at 1.

        Yields:
            Any number of positions each; together all of `learned_positions(batch.labels)` of every batch, in order.

        Raises:
            NumericError: logits that are not finite.
        """


class LiveTopK:
    """The top-k source that runs a model.

    Args:
        model: the teacher, in any float dtype, or quantized.
        tokenizer: the teacher's; columns of the head beyond its ids are left out. None: none are.
        device: where the teacher runs; None: the CPU.
        wide_matmul: as in `TrainConfig`; no part of the cache's identity, for both ways compute in float32.

    Attributes:
        uses_onednn: whether float32 products went through oneDNN.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        tokenizer: Any = None,
        device: torch.device | None = None,
        wide_matmul: WideMatmul = "auto",
    ) -> None:
        self._model, self._tokenizer, self._device = model, tokenizer, device or torch.device("cpu")
        self._full_width = partial(full_width, model if self._device.type == "cpu" else None, setting=wide_matmul)
        self._teacher, self.uses_onednn = LiveTeacher(model, self._device), False

    @property
    def card(self) -> ModelCard:
        """Summary of the model."""
        return self._teacher.card

    @cached_property
    def fingerprint(self) -> str:
        """Hash of its weights and config."""
        return hash_model(self._model)

    @property
    def config(self) -> Any:
        """Its Hugging Face config; None without one."""
        return getattr(self._model, "config", None)

    @property
    def generation_config(self) -> Any:
        """Its Hugging Face generation config; None without one."""
        return getattr(self._model, "generation_config", None)

    def check(self, batch: Batch) -> None:
        """Refuse a batch on the CPU that the model cannot take."""
        self._teacher.check(batch)

    def begin(self, batch: Batch) -> None:
        """Refuse a model that is not causal.

        Raises:
            ModelError: it sees later tokens.
        """
        refuse_not_causal(self._model, batch, role="teacher", device=self._device)

    def answers(self, batches: Iterable[Batch], *, k: int, temperature: float) -> Iterator[MeasuredTopK]:
        """Top-k logits of these batches, a chunk of positions at a time."""
        with frozen(self._model):
            for batch in batches:
                with self._full_width():
                    logits = self._teacher.logits(batch.to(self._device)).logits.flatten(0, 1)
                    self.uses_onednn = self.uses_onednn or uses_onednn()
                vocabulary = real_vocabulary(logits.shape[-1], self._tokenizer)
                places = learned_positions(batch.labels).to(self._device)
                for some in torch.split(places, max(1, CHUNK_LOGITS // vocabulary)):
                    yield keep_top_k(logits[some, :vocabulary], k, temperature)
