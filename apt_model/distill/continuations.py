"""Greedy continuations of beginnings by both models, for exams and cards.

Does not influence the training: unwrapped models in eval mode, no gradient, random generators restored. Knows models
and token ids; knows nothing of texts, of when something is shown, or of how the student is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import extract_model_from_parallel
from torch import nn

from apt_model.data.batch import to_batch
from apt_model.data.rng import undisturbed
from apt_model.distill.losses.readout import CardRow
from apt_model.models.forward import Forward, limits
from apt_model.models.generate import answer_ids, end_ids
from apt_model.models.modes import in_eval_mode

Role = Literal["teacher", "student"]
LONGEST_CYCLE = 8  # tokens of a beginning that a continuation repeats over and over


class Continued(NamedTuple):
    """Both models' continuations of a card's beginning, without their end, and the text's own, as token ids."""

    teacher: list[int]
    student: list[int]
    original: list[int]


@dataclass(frozen=True, kw_only=True)
class Continuations:
    """Lets the models go on by themselves.

    Attributes:
        teacher: the model, or None for a cached teacher.
        tokenizer: has the EOS token and the chat template; may be None.
        teacher_tokenizer: the teacher's, if it has another one.
        accelerator: has the device and the autocast.
    """

    teacher: nn.Module | None
    tokenizer: Any
    teacher_tokenizer: Any = None
    accelerator: Accelerator

    def tokenizer_of(self, role: Role) -> Any:
        """The tokenizer in whose ids a model reads."""
        return self.teacher_tokenizer or self.tokenizer if role == "teacher" else self.tokenizer

    def hindrance(self, student: nn.Module) -> tuple[str, dict[str, str]] | None:
        """Why not both models can generate, as the key and values of a notice; None if both can."""
        if self.teacher is None:
            return "notice.predicted_cached", {}
        models = (self.teacher, extract_model_from_parallel(student))
        mute = next((type(model).__name__ for model in models if not hasattr(model, "generate")), None)
        return None if mute is None else ("notice.predicted_mute", {"model": mute})

    def of(self, model: nn.Module, role: Role, beginnings: Sequence[list[int]], *, most: int) -> list[list[int]]:
        """At most `most` new tokens behind each beginning, up to one of `end_ids`, which is left out.

        Raises:
            DataError: a beginning fills all positions of the model.
        """
        model, tokenizer = extract_model_from_parallel(model), self.tokenizer_of(role)
        device = self.accelerator.device
        with undisturbed(device), in_eval_mode(model), self.accelerator.autocast():
            if hasattr(model, "generate"):
                return answer_ids(model, tokenizer, beginnings, max_new_tokens=most, role=role)
            ends = end_ids(model, tokenizer)
            return [_greedy(model, role, ids, ends=ends, most=most, place=device) for ids in beginnings]

    def of_cards(self, student: nn.Module, cards: Sequence[CardRow], *, most: int) -> list[Continued]:
        """Both models' continuations of the cards' rows, no longer than the rows themselves go on."""
        assert self.teacher is not None  # noqa: S101 - nothing is in the way, see `hindrance`
        said = []
        for role, model in (("teacher", self.teacher), ("student", student)):
            beginnings = [card.beginning(role) for card in cards]
            room = [min(most, left) for _, left in beginnings]
            answers = self.of(model, role, [ids for ids, _ in beginnings], most=max(room))  # type: ignore[arg-type]
            said.append([ids[:own] for ids, own in zip(answers, room, strict=True)])
        return [
            Continued(theirs, own, card.original_ids[: min(most, card.left)])
            for theirs, own, card in zip(*said, cards, strict=True)
        ]


def echo(given: list[int], continuation: list[int]) -> float:
    """Share of a continuation's tokens that repeat the token before them; the first follows the last given one.

    Or the share that says the last n given tokens over and over, if that is more, for any n of 2 to LONGEST_CYCLE which
    the continuation has room for twice. 0 if nothing is said.
    """
    if not continuation:
        return 0.0
    longest = min(LONGEST_CYCLE, len(given), len(continuation) // 2)
    parrots = [[*given[-1:], *continuation], *(given[-n:] * len(continuation) for n in range(2, longest + 1))]
    return max(
        sum(said == heard for said, heard in zip(continuation, parrot, strict=False)) / len(continuation)
        for parrot in parrots
    )


def _greedy(
    model: nn.Module, role: Role, beginning: Sequence[int], *, ends: Sequence[int], most: int, place: torch.device
) -> list[int]:
    """Greedy continuation, one full forward pass a token, for a model without `generate()`."""
    forward, (_, positions), ids = Forward(model, role), limits(model), list(beginning)
    for _ in range(most if positions is None else min(most, positions - len(ids))):
        logits = forward(model, to_batch(torch.tensor([ids])).to(place))
        token = int(logits[0, -1].argmax())
        if token in ends:
            break
        ids.append(token)
    return ids[len(beginning) :]
