"""Tells the audience what happens in a run, without letting it touch the training.

Knows the events' common fields and how rows become texts; knows nothing of losses, steps or who listens.
"""

import uuid
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from apt_model.distill.readout import CardRow, Decoder, RowReadout, undisturbed
from apt_model.events.records import Event, Notice, Observation, Source
from apt_model.events.sinks import Audience

MAX_CHARACTERS = 1_000
E = TypeVar("E", bound=Event)


@dataclass(frozen=True, kw_only=True)
class SeenRow:
    """A row that a card will show: read during the step, told after it."""

    batch: int
    card: CardRow
    readout: RowReadout


class Reporter:
    """Speaks to the audience on behalf of one run.

    Args:
        audience: gets every event.
        tokenizer: decodes what is shown.
        device: whose random generators the audience must not disturb.
        speaks: False on every process but the main one.
    """

    def __init__(self, audience: Audience, *, tokenizer: Any, device: torch.device, speaks: bool) -> None:
        self.speaks = speaks
        self.step = 0
        self._audience, self._device = audience, device
        self._decode = Decoder(tokenizer, audience.guard)
        self._run_id = uuid.uuid4().hex[:12]
        self._said: set[str] = set()

    def tell(self, kind: type[E], **values: Any) -> E:
        """Pass an event on; returns it as the audience scored it."""
        event = kind(run_id=self._run_id, step=self.step, **values)
        if not self.speaks:
            return event
        with undisturbed(self._device):
            scored = self._audience(event)
        return scored if isinstance(scored, kind) else event

    def say(self, key: str, **values: str | int | float) -> None:
        """A notice, the first time its key comes up."""
        if key not in self._said:
            self._said.add(key)
            self.tell(Notice, key=key, values=values)

    def observe(self, seen: SeenRow, *, epoch: int, loss: float, source: Source = "training") -> None:
        """Pass on what teacher and student said on a row."""
        card, readout = seen.card, seen.readout
        ids = (card.given_ids, readout.teacher_ids, readout.student_ids, card.input_ids)
        with undisturbed(self._device):
            given, teacher, student, text = (self._decode(row) for row in ids)
        self.tell(
            Observation,
            epoch=epoch,
            batch=seen.batch,
            loss=loss,
            given=given[-MAX_CHARACTERS:],
            teacher_text=teacher[:MAX_CHARACTERS],
            student_text=student[:MAX_CHARACTERS],
            input_text=text[:MAX_CHARACTERS],
            normalised_kl=readout.normalised_kl,
            agreement=readout.agreement,
            tokens=len(readout.teacher_ids),
            source=source,
        )
