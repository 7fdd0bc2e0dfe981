"""Emit a run's events to its sinks, with token ids decoded to text, isolated from the training.

Knows the events' common fields and how rows become texts; knows nothing of losses, steps or who listens.
"""

import uuid
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any, TypeVar
from unicodedata import category

import numpy as np
import torch

from apt_model.data.rng import undisturbed
from apt_model.data.token_text import TokenTexts, mended
from apt_model.distill.continuations import Continued, echo
from apt_model.distill.losses.readout import MAX_PROMPT_TOKENS, RowReadout
from apt_model.errors import StorageError
from apt_model.events.cards import Observation, Source
from apt_model.events.event import Event
from apt_model.events.records import Notice
from apt_model.events.sinks import Audience, Guard
from apt_model.events.tokens import Candidate, TokenDetail

MAX_CHARACTERS = 1_000
DIGITS = 4  # significant digits of the numbers of a card's tokens
BLANK = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf"})  # spaces, line ends, zero-width and control characters
E = TypeVar("E", bound=Event)


class Decoder:
    """Decodes token ids; if the tokenizer fails, returns a placeholder and reports to the guard.

    A text is shown without pieces of characters (see `mended`), and a blank one is empty.
    """

    def __init__(self, tokenizer: Any, guard: Guard) -> None:
        self._tokenizer, self._guard = tokenizer, guard
        self._size = len(tokenizer) if hasattr(tokenizer, "__len__") else None
        self._tells = hasattr(tokenizer, "convert_ids_to_tokens")  # a transformers tokenizer; False: not seen yet

    def __call__(self, ids: Sequence[int]) -> str:
        """The text of `ids` without special tokens; ids outside the tokenizer (-100, a padded head's) are dropped."""
        return self._shown(self.raw(ids), ids)

    def both(self, teacher: Sequence[int], student: Sequence[int]) -> tuple[str, str, bool]:
        """Both texts, and whether they can be compared: not if placeholders, blank, or the same for all ids."""
        raw = self.raw(teacher), self.raw(student)
        shown = self._shown(raw[0], teacher), self._shown(raw[1], student)
        says_nothing = not any(shown) and list(teacher) != list(student)
        return *shown, None not in raw and not says_nothing and self._tells_apart({*teacher, *student})

    def raw(self, ids: Sequence[int]) -> str | None:
        """The text as the tokenizer gives it; None if it gives none."""
        if self._tokenizer is None or not ids:
            return None if ids else ""
        return self._guard.run("tokenizer", lambda: self._decode(ids), None)

    @staticmethod
    def _shown(raw: str | None, ids: Sequence[int]) -> str:
        if raw is None:
            return f"⟨{len(ids)} tokens⟩"
        text = "".join(mended([raw]))
        return text if any(category(letter) not in BLANK for letter in text) else ""

    def _tells_apart(self, ids: Collection[int]) -> bool:
        """Whether two of the ids, or two seen before, have different texts; True for fewer than two."""
        if not self._tells and len(ids) > 1:
            texts = (self._guard.run("tokenizer", lambda one=one: self._decode([one]), "") for one in sorted(ids))  # type: ignore[misc]
            first = next(texts)
            self._tells = any(text != first for text in texts)
        return self._tells or len(ids) < 2

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
        self._early: list[tuple[str, dict[str, str | int | float]]] | None = []  # None once the run has started

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

    def notice(self, key: str, /, **values: str | int | float) -> None:
        """Emit a notice of the data (a `Tell`): what is told before the run has started waits for `begin`."""
        if self._early is None:
            self.say(f"notice.{key}", **values)
        else:
            self._early.append((key, values))

    def begin(self) -> None:
        """Emit the notices that have waited for the run's first event."""
        early, self._early = self._early or (), None
        for key, values in early:
            self.notice(key, **values)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the student's ids, at most 1,000 characters of it."""
        return self.whole_text(ids)[:MAX_CHARACTERS]

    def whole_text(self, ids: Sequence[int]) -> str:
        """The text of the student's ids, whole: its topic is found in it."""
        with undisturbed(self._device):
            return self._decode(ids)

    def decode_teacher(self, ids: Sequence[int]) -> str:
        """The text of the teacher's ids, by the teacher's tokenizer, at most 1,000 characters of it."""
        with undisturbed(self._device):
            return self._decode_teacher(ids)[:MAX_CHARACTERS]

    def observe(
        self,
        readout: RowReadout,
        *,
        batch: int,
        epoch: int,
        loss: float,
        source: Source = "train",
        continued: Continued | None = None,
    ) -> None:
        """Emit an `Observation`: teacher's and student's texts and statistics on a row.

        The texts are the predictions that were read, or what both `continued` with.
        """
        card, measures = readout.card, readout.measures()
        said = continued or Continued(readout.teacher_ids, readout.student_ids, card.original_ids)
        if continued is not None:
            measures["echo"] = echo(card.given_ids, said.student)
        with undisturbed(self._device):
            teacher, student, is_text = self._both(said)
            shown = [card.given_ids[-MAX_PROMPT_TOKENS:], said.original]
            given, original, sample = map(self._decode, [*shown, card.input_ids])
            detail = self._audience.guard.run("tokenizer", lambda: self._detail(readout), None)
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
            card_text="predicted" if continued is None else "continued",
            original=original[:MAX_CHARACTERS],
            token_ids=None if is_text else (tuple(said.teacher), tuple(said.student)),
            **measures,
        )

    def _both(self, said: Continued) -> tuple[str, str, bool]:
        """Both models' texts, and whether they are texts; with two tokenizers they are."""
        if self._decode_teacher is self._decode:
            return self._decode.both(said.teacher, said.student)
        return self._decode_teacher(said.teacher), self._decode(said.student), True

    def _detail(self, readout: RowReadout) -> TokenDetail | None:
        """Texts and statistics of a card's single tokens; None if the tokenizer gives no text of a token."""
        token_texts = self._token_texts
        if token_texts is None:
            return None
        both = readout.teacher_ids, readout.student_ids
        teacher, student = (mended(token_texts.split(ids, self._decode.raw(ids) or "")) for ids in both)
        return TokenDetail(
            teacher=teacher,
            student=student,
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
