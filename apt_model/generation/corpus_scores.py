"""Score a corpus in one pass: per-document sums (cross-entropy, KL, matches, bytes) and greedy answers of each model.

Knows models and batches; knows nothing of the figures made from the sums.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from apt_model.data.batch import Batch, rows_of, to_batch
from apt_model.data.encode import prompt_and_reference
from apt_model.data.notices import Tell, once
from apt_model.distill.losses.metrics import RowSums, row_sums
from apt_model.errors import DataError, NumericError
from apt_model.generation.answer_scores import need_sacrebleu
from apt_model.generation.bootstrap import Numbers
from apt_model.generation.byte_counts import scored_bytes
from apt_model.models.forward import Forward
from apt_model.models.generate import answer
from apt_model.ranks.group import Ranks

Asked = tuple[list[int], str]  # a prompt's token ids, and its reference answer


class BatchScores(NamedTuple):
    """Of one batch, by role: sums of each document by name, and the answers to its prompts."""

    sums: dict[str, dict[str, Numbers]]
    answers: dict[str, list[str]]


class CorpusScores:
    """What was read so far.

    Args:
        models: by role, "student" and perhaps "control" and "teacher", that one last; in eval mode.
        tokenizer: encodes and decodes; None where the data is token ids.
        places: where each takes its input.
        max_length: tokens of a text at most.
        max_new_tokens: length of an answer at most; 0 asks nothing.
        max_prompts: how many prompts are answered; None for all.
        tell: told of what is not scored: rows that are cut, columns that take no part.

    Attributes:
        answers: by role, in the order of `references`.
        references: what should have been answered.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        tokenizer: Any,
        places: Mapping[str, torch.device],
        *,
        max_length: int,
        max_new_tokens: int,
        max_prompts: int | None,
        tell: Tell,
    ) -> None:
        self._models, self._tokenizer, self._places = models, tokenizer, places
        self._max_length, self._max_new_tokens, self._max_prompts = max_length, max_new_tokens, max_prompts
        self._tell = once(tell)
        self._forwards = {role: Forward(model, role) for role, model in models.items()}
        self._sums: dict[str, list[dict[str, Numbers]]] = {role: [] for role in models}
        self.answers: dict[str, list[str]] = {role: [] for role in models}
        self.references: list[str] = []

    def read(self, batches: Iterable[Any], team: Ranks) -> None:
        """Take in every batch: of W ranks, rank r runs the models on batches r, r + W, r + 2W …; each finds the whole.

        Every rank reads all batches, and so knows which prompts are the first `max_prompts`, and what is to be told.

        Raises:
            ConfigError, DataError, ModelError, NumericError: as `evaluate_text_quality` says.
        """
        with team.agreed("score the data"):
            own, count = self._read(batches, team)
        parts = [own] if team.size == 1 else _exchanged(own, team)
        for index in range(count):
            scored = parts[index % team.size][index // team.size]
            for role, sums in scored.sums.items():
                self._sums[role].append(sums)
            for role, answers in scored.answers.items():
                self.answers[role] += answers
        if not self._sums["student"]:
            raise DataError("no token has a label to score", got=f"{count} batches", fix="give rows with labels")

    def _read(self, batches: Iterable[Any], team: Ranks) -> tuple[list[BatchScores], int]:
        """The scores of this rank's batches, and the number of all batches."""
        own, count = list[BatchScores](), 0
        for index, raw in enumerate(batches):
            batch = to_batch(raw, tokenizer=self._tokenizer, max_length=self._max_length, tell=self._tell).apart
            asked = self._asked(raw)
            if asked:
                need_sacrebleu()
            if index % team.size == team.rank:
                sums = self._score(index, batch) if batch.label_count else {}
                own.append(BatchScores(sums, self._answers(asked) if asked else {}))
            self.references += [reference for _, reference in asked]
            count = index + 1
        return own, count

    def documents(self, role: str) -> dict[str, Numbers]:
        """Sums of each document, by name, (documents,) each: those of `RowSums`, and `bytes` of the scored text."""
        parts = self._sums[role]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _score(self, index: int, batch: Batch) -> dict[str, dict[str, Numbers]]:
        """By role, the sums of a batch's documents."""
        for forward in self._forwards.values():
            forward.check(batch)
        spelled = {"bytes": scored_bytes(batch, self._tokenizer)} if hasattr(self._tokenizer, "decode") else {}
        place = self._places["student"]
        labels = batch.labels.to(place)
        logits = {
            role: forward(self._models[role], batch.to(self._places[role])).to(place)
            for role, forward in self._forwards.items()
        }
        found = dict[str, dict[str, Numbers]]()
        for role in reversed(logits):
            other = logits.get("teacher") if role != "teacher" else None
            sums = _columns(row_sums(logits[role], labels, other), spelled)
            if not all(np.isfinite(column).all() for column in sums.values()):
                raise NumericError(f"the {role}'s logits are not finite in batch {index}", fix="check that batch")
            scored = sums["tokens"] > 0
            found[role] = {name: column[scored] for name, column in sums.items()}
        return found

    def _asked(self, raw: Any) -> list[Asked]:
        """Prompts and references of a batch, at most as many as `max_prompts` leaves."""
        left = None if self._max_prompts is None else self._max_prompts - len(self.references)
        if not self._max_new_tokens or left == 0:
            return []
        asked = [prompt_and_reference(row, self._tokenizer) for row in rows_of(raw) or ()]
        return [one for one in asked if one is not None][:left]

    def _answers(self, asked: list[Asked]) -> dict[str, list[str]]:
        """By role, the answers to prompts."""
        prompts = [prompt for prompt, _ in asked]
        return {
            role: answer(model, self._tokenizer, prompts, max_new_tokens=self._max_new_tokens, role=role)
            for role, model in self._models.items()
        }


def _exchanged(own: list[BatchScores], team: Ranks) -> list[list[BatchScores]]:
    """The scores of every rank's batches, by rank."""
    told = [{"sums": _lists(one.sums), "answers": one.answers} for one in own]
    heard = team.gather(told, "put the scores together")
    return [[BatchScores(_arrays(one["sums"]), one["answers"]) for one in part] for part in heard]


def _lists(sums: Mapping[str, Mapping[str, Numbers]]) -> dict[str, dict[str, list[float]]]:
    return {role: {name: column.tolist() for name, column in columns.items()} for role, columns in sums.items()}


def _arrays(sums: Mapping[str, Mapping[str, list[float]]]) -> dict[str, dict[str, Numbers]]:
    return {role: {name: np.array(column) for name, column in columns.items()} for role, columns in sums.items()}


def _columns(sums: RowSums, more: Mapping[str, Tensor]) -> dict[str, Numbers]:
    """The sums of a batch as arrays; one transfer from the device for all of them."""
    named = {field.name: getattr(sums, field.name) for field in fields(sums)}
    found = {name: value for name, value in named.items() if value is not None}
    table = torch.stack(list(found.values())).cpu().double().numpy()
    return dict(zip(found, table, strict=True)) | {name: value.double().numpy() for name, value in more.items()}
