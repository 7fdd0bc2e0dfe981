"""Emit a run's events to its sinks, with token ids decoded to text, isolated from the training.

Knows the events' common fields and how rows become texts; knows nothing of losses, steps or who listens.
"""

import uuid
from collections.abc import Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch

from apt_model.data.rng import undisturbed
from apt_model.data.token_text import TokenTexts
from apt_model.distill.losses.readout import RowReadout
from apt_model.errors import StorageError
from apt_model.events.cards import Observation, Source
from apt_model.events.event import Event
from apt_model.events.records import Notice
from apt_model.events.sinks import Audience, Guard
from apt_model.events.tokens import Candidate, TokenDetail

MAX_CHARACTERS = 1_000
DIGITS = 4  # significant digits of the numbers of a card's tokens
E = TypeVar("E", bound=Event)


class Decoder:
    """Decodes token ids; if the tokenizer fails, returns a placeholder and reports to the guard."""

    def __init__(self, tokenizer: Any, guard: Guard) -> None:
        self._tokenizer, self._guard = tokenizer, guard
        self._size = len(tokenizer) if hasattr(tokenizer, "__len__") else None

    def __call__(self, ids: Sequence[int]) -> str:
        """The text of `ids` without special tokens; ids outside the tokenizer (-100, a padded head's) are dropped."""
        placeholder = f"⟨{len(ids)} tokens⟩"
        if self._tokenizer is None or not ids:
            return placeholder if ids else ""
        return self._guard.run("tokenizer", lambda: self._decode(ids), placeholder)

    def _decode(self, ids: Sequence[int]) -> str:
        real = [token for token in ids if token >= 0 and (self._size is None or token < self._size)]
        text = self._tokenizer.decode(real, skip_special_tokens=True)
        if not isinstance(text, str):
            raise TypeError(f"decode returned {type(text).__name__}, not str")
        return text


class Reporter:
    """Emits the events of one run.

    Args:
        audience: gets every event.
        tokenizer: decodes what is shown.
        teacher_tokenizer: decodes the teacher's tokens, if it has another tokenizer.
        device: its random generators are restored after each event.
        speaks: False on every process but the main one.
    """

    def __init__(
        self, audience: Audience, *, tokenizer: Any, teacher_tokenizer: Any = None, device: torch.device, speaks: bool
    ) -> None:
        self.speaks = speaks
        self.step = 0
        self._audience, self._device = audience, device
        self._decode = Decoder(tokenizer, audience.guard)
        self._decode_teacher, self._token_texts = self._decode, None
        if teacher_tokenizer is not None:  # its tokens and the student's do not stand side by side
            self._decode_teacher = Decoder(teacher_tokenizer, audience.guard)
        else:
            self._token_texts = audience.guard.run("tokenizer", lambda: TokenTexts.of(tokenizer), None)
        self._run_id = uuid.uuid4().hex[:12]
        self._said: set[str] = set()

    def state_dict(self) -> dict[str, Any]:
        """The run id and the notices already given, so that a resumed run continues the same record."""
        return {"run_id": self._run_id, "said": sorted(self._said)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state of `state_dict`."""
        self._run_id, self._said = str(state["run_id"]), set(state["said"])

    def tell(self, kind: type[E], **values: Any) -> E:
        """Emit an event; returns it as the audience scored it."""
        event = kind(run_id=self._run_id, step=self.step, **values)
        if not self.speaks:
            return event
        with undisturbed(self._device):
            scored = self._audience(event)
        return scored if isinstance(scored, kind) else event

    @property
    def lost(self) -> StorageError | None:
        """The error that stopped the run's record from being written; None if it is written."""
        return self._audience.lost

    def say(self, key: str, **values: str | int | float) -> None:
        """Emit a notice, once for each key."""
        if key not in self._said:
            self._said.add(key)
            self.tell(Notice, key=key, values=values)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the student's ids, at most 1,000 characters of it."""
        with undisturbed(self._device):
            return self._decode(ids)[:MAX_CHARACTERS]

    def decode_teacher(self, ids: Sequence[int]) -> str:
        """The text of the teacher's ids, by the teacher's tokenizer, at most 1,000 characters of it."""
        with undisturbed(self._device):
            return self._decode_teacher(ids)[:MAX_CHARACTERS]

    def observe(self, readout: RowReadout, *, batch: int, epoch: int, loss: float, source: Source = "train") -> None:
        """Emit an `Observation`: teacher's and student's texts and statistics on a row."""
        card = readout.card
        with undisturbed(self._device):
            teacher, student = self._decode_teacher(readout.teacher_ids), self._decode(readout.student_ids)
            given, sample = self._decode(card.given_ids), self._decode(card.input_ids)
            detail = self._audience.guard.run("tokenizer", lambda: self._detail(readout, teacher, student), None)
        self.tell(
            Observation,
            epoch=epoch,
            batch=batch,
            loss=loss,
            given=given[:MAX_CHARACTERS],
            teacher_text=teacher[:MAX_CHARACTERS],
            student_text=student[:MAX_CHARACTERS],
            input_text=sample,
            tokens=len(readout.teacher_ids),
            source=source,
            detail=detail,
            **readout.measures(),
        )

    def _detail(self, readout: RowReadout, teacher: str, student: str) -> TokenDetail | None:
        """Texts and statistics of a card's single tokens; None if the tokenizer gives no text of a token."""
        token_texts = self._token_texts
        if token_texts is None:
            return None
        return TokenDetail(
            teacher=token_texts.split(readout.teacher_ids, teacher),
            student=token_texts.split(readout.student_ids, student),
            kl_nats=_rounded(readout.kl_nats),
            teacher_top=_candidates(readout.teacher_top, token_texts),
            student_top=_candidates(readout.student_top, token_texts),
            teacher_entropy=_rounded(readout.teacher_entropy),
            student_entropy=_rounded(readout.student_entropy),
        )


def _candidates(
    top: Sequence[Sequence[tuple[int, float]]], token_texts: TokenTexts
) -> tuple[tuple[Candidate, ...], ...]:
    ids, shares = zip(*(pair for pairs in top for pair in pairs), strict=True) if top else ((), ())
    known = zip(token_texts.names(ids), _rounded(shares), strict=True)
    return tuple(tuple(islice(known, len(pairs))) for pairs in top)


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    """Rounded to DIGITS significant digits, so that they are short in JSON."""
    exact = np.asarray(values, dtype=np.float64)
    with np.errstate(all="ignore"):  # what is 0 or not finite has no digits and stays as it is
        places = DIGITS - 1 - np.floor(np.log10(np.abs(exact)))
        unit = 10.0 ** np.clip(places, 0, 300)
        short = np.rint(exact * unit) / unit
    return tuple(np.where((places >= 0) & (places <= 22), short, exact).tolist())
