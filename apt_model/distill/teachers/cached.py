"""A teacher source that reads top-k logits from a cache on disk instead of running a model.

Knows caches and batches; knows nothing of students, losses or lessons.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, GenerationConfig, PretrainedConfig

from apt_model.config.sections import DistillConfig
from apt_model.data.batch import Batch, to_batch
from apt_model.data.encoded import IGNORED
from apt_model.distill.losses.logit_blocks import FLOOR, TopRows, TopSignal
from apt_model.distill.losses.topk_logits import SparseLogits, refuse_narrow
from apt_model.distill.teachers.cache.codec import StoredTopK, concatenate, empty
from apt_model.distill.teachers.cache.manifest import TEACHER, CacheIdentity, differing
from apt_model.distill.teachers.cache.reader import Cache
from apt_model.errors import AptModelError, ConfigError, DataError, StorageError
from apt_model.events.records import ModelCard
from apt_model.models.directory import CONFIG, GENERATION, check_directory
from apt_model.models.fingerprints import hash_config, hash_json, hash_model, hash_tokenizer, text_keys
from apt_model.models.loading import patience
from apt_model.models.reading import reading
from apt_model.models.tokenizer import load_tokenizer

ROWS_AT_ONCE = 256


class CachedTeacher:
    """A teacher source backed by a finished cache (`cache.writer`).

    A text is found by its token ids, labels and positions, so neither shuffling nor padding nor the batch size matters,
    nor what it is packed with.

    Args:
        directory: of the cache, or its fsspec URL.

    Raises:
        DataError: no cache, or an unfinished one. StorageError: a damaged one.
    """

    def __init__(self, directory: str | Path) -> None:
        self._cache = Cache(directory)
        self._where = self._cache.store

    @property
    def identity(self) -> CacheIdentity:
        """The teacher, tokenizer, data and settings that the cache was made with."""
        return self._cache.identity

    def load_config(self) -> tuple[PretrainedConfig, Any]:
        """Load the teacher's config, to make a student from, and its tokenizer, or None.

        Raises:
            DataError: the teacher had no config. StorageError: they cannot be read, or are not those of the cache.
        """
        path = self._where.local(TEACHER)
        if not (path / CONFIG).exists():
            fix = "make the student in Python, and pass it to a plugin"
            raise DataError(f"cache {self._where} has no config of its teacher", fix=fix)
        with self._reading():
            check_directory(path)
            with reading(path, CONFIG, seconds=patience(path)):
                config = AutoConfig.from_pretrained(path)
            tokenizer = load_tokenizer(path, path) if self.identity.tokenizer is not None else None
        if hash_config(config) != self.identity.config or hash_tokenizer(tokenizer) != self.identity.tokenizer:
            what = f"config or tokenizer in {path} differs from the one that the cache was made with"
            raise StorageError(what, fix="cache the teacher again")
        return config, tokenizer

    @property
    def generation_config(self) -> GenerationConfig | None:
        """The teacher's; None if it had none, or the cache is from before it was kept.

        Raises:
            StorageError: it cannot be read.
        """
        path = self._where.local(TEACHER)
        if not (path / GENERATION).exists():
            return None
        with self._reading():
            check_directory(path)
            return GenerationConfig.from_pretrained(path)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Context manager: whatever goes wrong over the teacher's files, by place, is damage of the cache."""
        try:
            with reading(self._where.local(TEACHER), "config, generation config or tokenizer"):
                yield
        except AptModelError as error:
            path, fix = self._where.local(TEACHER), "cache the teacher again"
            raise StorageError(f"{path} cannot be read", got=f"{error.what}: {error.got}", fix=fix) from error

    def refuse_other(self, *, teacher: nn.Module | None = None, tokenizer: Any = None, **settings: Any) -> None:
        """Refuse a cache that was made with another teacher, tokenizer or settings than those given.

        Args:
            teacher: the model whose logits should be cached.
            tokenizer: the one that encodes the data.
            settings: values that fields of `CacheSettings` should have.

        Raises:
            DataError: names everything that differs.
        """
        differ = differing(self.identity.settings.model_dump(), settings)
        if teacher is not None and hash_model(teacher) != self.identity.teacher:
            differ.append("another teacher")
        if tokenizer is not None and hash_tokenizer(tokenizer) != self.identity.tokenizer:
            differ.append("another tokenizer")
        if differ:
            fix = "cache the teacher again, or use the values that it was cached with"
            raise DataError(f"cache {self._where} does not match this run", got=", ".join(differ), fix=fix)

    @property
    def card(self) -> ModelCard:
        """Summary of the cached model: class, parameters, megabytes, layers, width."""
        return self.identity.card

    @property
    def model(self) -> None:
        """None: there is no model to run."""

    @property
    def fingerprint(self) -> str:
        """Hash of the teacher and of how its logits are stored."""
        return hash_json([self.identity.teacher, self.identity.settings.model_dump()])

    @property
    def vocabulary(self) -> int:
        """Size of the vocabulary that the teacher's logits were over."""
        return self.identity.vocabulary

    def begin(self, config: DistillConfig) -> None:
        """Refuse a run whose loss needs more than the top k.

        Raises:
            DataError: another temperature than that of the cache.
            ConfigError: another loss than the forward KL: the others need the whole distribution; layers that are to
                be compared; texts that the student has yet to write.
        """
        self.refuse_other(temperature=config.temperature)
        if config.loss_kind != "forward_kl":
            fix = "set loss_kind=forward_kl, or train with the teacher itself"
            raise ConfigError("a cache of top-k logits cannot serve this loss", got=config.loss_kind, fix=fix)
        needs_a_model = {
            "hidden_weight": "a cache has the teacher's logits, not its hidden states",
            "attention_weight": "a cache has the teacher's logits, not its attention",
            "on_policy": "a cache has the teacher's logits for its own rows, not for texts that the student will write",
        }
        for key, why in needs_a_model.items():
            if value := getattr(config, key):
                raise ConfigError(why, got=f"{key}={value:g}", fix=f"set {key}=0, or train with the teacher itself")

    def check(self, batch: Batch) -> None:
        """Refuse a batch on the CPU with a row that is not in the cache.

        Raises:
            DataError: says how many, and how the first one begins.
        """
        texts = batch.apart
        learned = (texts.labels[:, 1:] != IGNORED).any(dim=1).tolist()
        unknown = [row for row, key in enumerate(text_keys(batch)) if learned[row] and key not in self._cache]
        if unknown:
            ids = texts.input_ids[unknown[0]][texts.attention_mask[unknown[0]] != 0][:8].tolist()
            raise DataError(
                f"{len(unknown)} of {len(learned)} rows are not in cache {self._where}",
                got=f"a row that begins with the ids {ids}",
                expected="rows with exactly the token ids, labels and positions that were cached",
                fix="cache this data, or train on the data that was cached",
            )

    def check_rows(self, rows: Any, *, tokenizer: Any = None, max_length: int = 512) -> None:
        """Check all rows of a data set before training, as `check` does a batch.

        Args:
            rows: a `datasets.Dataset`, or a sequence of rows that `to_batch` takes.
            tokenizer, max_length: to encode rows of text.

        Raises:
            DataError: a row is not in the cache.
        """
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = [rows[index] for index in range(start, min(start + ROWS_AT_ONCE, len(rows)))]
            self.check(to_batch(some, tokenizer=tokenizer, max_length=max_length))

    def logits(self, batch: Batch) -> SparseLogits:
        """The teacher's top-k logits, for a batch that `check` let pass, on the batch's device."""
        has_label = torch.zeros_like(batch.labels, dtype=torch.bool)
        has_label[:, :-1] = batch.labels[:, 1:] != IGNORED
        identity = self.identity
        return SparseLogits(
            rows=self.top_rows(batch),
            has_label=has_label,
            width=identity.vocabulary,
            temperature=identity.settings.temperature,
        )

    def signal(
        self, batch: Batch, positions: Tensor, *, temperature: float, columns: int, dtype: torch.dtype | None
    ) -> TopSignal:
        """Top-k logits for the fused loss; `positions` must be all those with a label, `temperature` the cache's."""
        refuse_narrow(columns, self.identity.vocabulary)
        rows = self.top_rows(batch)

        return TopSignal(lambda start, stop: rows.at(slice(start, stop)), width=self.identity.vocabulary)

    def top_rows(self, batch: Batch) -> TopRows:
        """Top-k log-probabilities at all positions that predict a label, for a batch that `check` let pass."""
        rows = to_rows(self._stored(batch.to(torch.device("cpu"))), self.identity.settings.temperature)
        return TopRows(*(part.to(batch.input_ids.device) for part in rows))

    def _stored(self, batch: Batch) -> StoredTopK:
        learned = (batch.apart.labels[:, 1:] != IGNORED).any(dim=1).tolist()
        found = [self._cache[key] for key, some in zip(text_keys(batch), learned, strict=True) if some]
        return concatenate(found) if found else empty(self.identity.settings.k)


def to_rows(stored: StoredTopK, temperature: float) -> TopRows:
    """Top-k log-probabilities at the cache's training temperature, and the tail's log mass at it and at 1.

    Stored are ids, the logits' gaps to the largest, and the tails' log masses: the softmax over the k tokens is scaled
    to the 1 − tail that they hold of the full distribution.
    """
    ids, gaps, tails = (torch.from_numpy(part) for part in (stored.ids, stored.gaps, stored.tails))
    known = torch.log(-torch.expm1(tails[:, :1]))
    log_probs = (-gaps / temperature).log_softmax(dim=-1) + known
    return TopRows(ids, log_probs.clamp(min=FLOOR), tails[:, 0], tails[:, 1])
