"""A teacher without its model: the top k of its logits for every row are looked up in a cache.

Knows caches and batches; knows nothing of students, losses or lessons.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig

from apt_model.config import DistillConfig
from apt_model.data.batch import Batch, to_batch
from apt_model.data.encode import IGNORED
from apt_model.distill.losses.logit_blocks import FLOOR, TopRows, TopSignal
from apt_model.distill.losses.topk_logits import SparseLogits, refuse_narrow
from apt_model.distill.teachers.cache.codec import StoredTopK, concatenate, empty
from apt_model.distill.teachers.cache.manifest import TEACHER, CacheIdentity, differing
from apt_model.distill.teachers.cache.reader import Cache
from apt_model.errors import ConfigError, DataError, StorageError
from apt_model.events.records import ModelCard
from apt_model.models.fingerprints import hash_config, hash_model, hash_tokenizer, row_keys

ROWS_AT_ONCE = 256


class CachedTeacher:
    """A finished cache of a teacher's logits in the teacher's place.

    A row is found by its token ids and labels, so neither shuffling nor padding nor the batch size matters.

    Args:
        directory: a finished cache.

    Raises:
        DataError: no cache, or an unfinished one. StorageError: a damaged one.
    """

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)
        self._cache = Cache(self._directory)

    @property
    def identity(self) -> CacheIdentity:
        """What the cache belongs to."""
        return self._cache.identity

    def load_config(self) -> tuple[PretrainedConfig, Any]:
        """The teacher's config, to make a student from, and its tokenizer, or None.

        Raises:
            DataError: the teacher had no config. StorageError: they are not what the cache was made with.
        """
        path = self._directory / TEACHER
        if not (path / "config.json").exists():
            raise DataError(f"{self._directory} has no config of its teacher", fix="pass a student model of your own")
        try:
            config = AutoConfig.from_pretrained(path)
            tokenizer = AutoTokenizer.from_pretrained(path) if self.identity.tokenizer is not None else None
        except (OSError, ValueError, KeyError) as error:
            got = str(error).strip().split("\n")[0][:300]
            raise StorageError(f"{path} cannot be read", got=got, fix="cache the teacher again") from error
        if hash_config(config) != self.identity.config or hash_tokenizer(tokenizer) != self.identity.tokenizer:
            raise StorageError(f"{path} is not what the cache was made with", fix="cache the teacher again")
        return config, tokenizer

    def refuse_other(self, *, teacher: nn.Module | None = None, tokenizer: Any = None, **settings: Any) -> None:
        """Refuse a cache that was made from something else than what is given.

        Args:
            teacher: the model that the signals should be from.
            tokenizer: the one that the data is encoded with.
            settings: fields of `CacheSettings` that should have these values.

        Raises:
            DataError: names all that differs.
        """
        differ = differing(self.identity.settings.model_dump(), settings)
        if teacher is not None and hash_model(teacher) != self.identity.teacher:
            differ.append("another teacher")
        if tokenizer is not None and hash_tokenizer(tokenizer) != self.identity.tokenizer:
            differ.append("another tokenizer")
        if differ:
            fix = "cache the teacher anew, or train as it was cached"
            raise DataError(f"cache {self._directory} is of something else", got=", ".join(differ), fix=fix)

    @property
    def card(self) -> ModelCard:
        """The teacher's name and sizes."""
        return self.identity.card

    @property
    def model(self) -> None:
        """None: the cache has no model."""

    @property
    def vocabulary(self) -> int:
        """Size of the teacher's vocabulary."""
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
            fix = "loss_kind=forward_kl, or the teacher itself"
            raise ConfigError("a cache of the likeliest tokens cannot do this loss", got=config.loss_kind, fix=fix)
        beyond = {
            "hidden_weight": "a cache has what the teacher said, not its layers",
            "attention_weight": "a cache has what the teacher said, not its layers",
            "on_policy": "a cache has what the teacher said of its own rows, not of what the student will write",
        }
        for key, why in beyond.items():
            if value := getattr(config, key):
                raise ConfigError(why, got=f"{key}={value:g}", fix=f"{key}=0, or the teacher itself")

    def check(self, batch: Batch) -> None:
        """Refuse a batch on the CPU that has a row which was not cached.

        Raises:
            DataError: how many, and how the first one begins.
        """
        learned = (batch.labels[:, 1:] != IGNORED).any(dim=1).tolist()
        unknown = [row for row, key in enumerate(row_keys(batch)) if learned[row] and key not in self._cache]
        if unknown:
            ids = batch.input_ids[unknown[0]][batch.attention_mask[unknown[0]] != 0][:8].tolist()
            raise DataError(
                f"{len(unknown)} of {len(learned)} rows are not in cache {self._directory}",
                got=f"a row that begins with the ids {ids}",
                expected="rows with the very token ids and labels that were cached",
                fix="cache this data, or train on the data that was cached",
            )

    def check_rows(self, rows: Any, *, tokenizer: Any = None, max_length: int = 512) -> None:
        """Refuse data that has a row which was not cached: all of it, before a lesson begins.

        Args:
            rows: a `datasets.Dataset`, or a sequence of rows that `to_batch` takes.
            tokenizer, max_length: for rows of text.

        Raises:
            DataError: as `check` does.
        """
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = [rows[index] for index in range(start, min(start + ROWS_AT_ONCE, len(rows)))]
            self.check(to_batch(some, tokenizer=tokenizer, max_length=max_length))

    def logits(self, batch: Batch) -> SparseLogits:
        """The top k of the teacher's logits, for a batch that `check` let pass, on the batch's device."""
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
        """The same for the fused loss; `positions` have to be those with a label, at the temperature of the cache."""
        refuse_narrow(columns, self.identity.vocabulary)
        rows = self.top_rows(batch)

        return TopSignal(lambda start, stop: rows.at(slice(start, stop)), width=self.identity.vocabulary)

    def top_rows(self, batch: Batch) -> TopRows:
        """The top k at the positions that have a label, row by row, of a batch that `check` let pass."""
        rows = to_rows(self._stored(batch.to(torch.device("cpu"))), self.identity.settings.temperature)
        return TopRows(*(part.to(batch.input_ids.device) for part in rows))

    def _stored(self, batch: Batch) -> StoredTopK:
        learned = (batch.labels[:, 1:] != IGNORED).any(dim=1).tolist()
        found = [self._cache[key] for key, some in zip(row_keys(batch), learned, strict=True) if some]
        return concatenate(found) if found else empty(self.identity.settings.k)


def to_rows(stored: StoredTopK, temperature: float) -> TopRows:
    """Stored gaps as log-probabilities at `temperature`, the one whose tail was stored first.

    Within the top k, p ∝ exp(−gap / T); together they have the mass that the tail leaves: log(1 − exp(tail)).
    """
    ids, gaps, tails = (torch.from_numpy(part) for part in (stored.ids, stored.gaps, stored.tails))
    known = torch.log(-torch.expm1(tails[:, :1]))
    log_probs = (-gaps / temperature).log_softmax(dim=-1) + known
    return TopRows(ids, log_probs.clamp(min=FLOOR), tails[:, 0], tails[:, 1])
