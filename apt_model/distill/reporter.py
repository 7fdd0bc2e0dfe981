"""Tells the audience what happens in a run, without letting it touch the training.

Knows the events' common fields and how rows become texts; knows nothing of losses, steps or who listens.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from apt_model.distill.readout import CardRow, Decoder, RowReadout, undisturbed
from apt_model.errors import StorageError
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

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs so that its record goes on as one."""
        return {"run_id": self._run_id, "said": sorted(self._said)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Speak on as the run that `state_dict` kept."""
        self._run_id, self._said = str(state["run_id"]), set(state["said"])

    def tell(self, kind: type[E], **values: Any) -> E:
        """Pass an event on; returns it as the audience scored it."""
        event = kind(run_id=self._run_id, step=self.step, **values)
        if not self.speaks:
            return event
        with undisturbed(self._device):
            scored = self._audience(event)
        return scored if isinstance(scored, kind) else event

    @property
    def lost(self) -> StorageError | None:
        """Why the record can no longer be written, if it cannot."""
        return self._audience.lost

    def say(self, key: str, **values: str | int | float) -> None:
        """A notice, the first time its key comes up."""
        if key not in self._said:
            self._said.add(key)
            self.tell(Notice, key=key, values=values)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, at most 1,000 characters of it."""
        with undisturbed(self._device):
            return self._decode(ids)[:MAX_CHARACTERS]

    def observe(self, seen: SeenRow, *, epoch: int, loss: float, source: Source = "train") -> None:
        """Pass on what teacher and student said on a row."""
        card, readout = seen.card, seen.readout
        self.tell(
            Observation,
            epoch=epoch,
            batch=seen.batch,
            loss=loss,
            given=self.decode(card.given_ids),
            teacher_text=self.decode(readout.teacher_ids),
            student_text=self.decode(readout.student_ids),
            input_text=self.decode(card.input_ids),
            normalised_kl=readout.normalised_kl,
            agreement=readout.agreement,
            tokens=len(readout.teacher_ids),
            source=source,
        )
