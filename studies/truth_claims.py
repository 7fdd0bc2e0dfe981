"""What a lesson claimed of its student, and whether it was true: the judge of `studies.truth`.

The truth comes from many other rows (`truth_language.true_state`) and from how the set-up was made, never from what the
lesson itself has read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from apt_model.events.cards import ScoredObservation
from apt_model.events.event import Event
from apt_model.events.records import RunFinished
from apt_model.i18n import Phrases
from studies.truth_language import TrueState, TrueStates

SMALL = 0.002
UNSURE = 0.03  # of laziness: a change as small as this may be called one or none
NO_CHANGE = 0.08  # a change as large as this must not be called none
BANDS = {"excellent": (0.0, 0.2), "good": (0.0, 0.4), "fair": (0.2, 0.6), "needs_work": (0.6, 1.0)}
MARGIN = 0.06
PERIOD = 8  # characters
FITTING = {"green": ("🌟", "👍"), "yellow": ("👍", "📚"), "red": ("😓",)}
PULLS = {  # what a piece of advice wants of the run's length and rate, of the student and of the text
    "train_longer": {"longer"},
    "longer_to_tell": {"longer"},
    "overfits_since": {"shorter"},
    "rate_up": {"faster"},
    "rate_down": {"slower"},
    "excellent": {"smaller", "done"},
    "good_enough": {"done"},
    "too_small": {"larger"},
}
OPPOSITE = {("longer", "shorter"), ("faster", "slower"), ("smaller", "larger"), ("done", "longer"), ("done", "faster")}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement of a lesson: whose, what it said, and whether it was true; `contradicts` names another one."""

    by: str
    said: str
    true: bool
    contradicts: str = ""


def claims_of(
    events: Sequence[Event], states: TrueStates, *, advice: Sequence[str], parrots: bool, lang: str
) -> Iterator[Claim]:
    """The claims of a run.

    Args:
        events: of the run, as they were scored.
        states: the student's true states.
        advice: keys that are true of the set-up.
        parrots: whether the student is one; any may be called so whose text repeats itself.
        lang: of the remarks.
    """
    verdict = next(event for event in events if isinstance(event, RunFinished))
    cards = [event for event in events if isinstance(event, ScoredObservation)]
    phrases = Phrases.load(lang)
    yield _trend(verdict, states.after.laziness - states.before.laziness)
    yield _grade(verdict, states.after)
    for one in verdict.advice:
        yield Claim(by="advice", said=one.key, true=one.key in advice and _is_borne_out(one.key, states))
    yield from _remarks(cards, phrases, parrots=parrots)
    yield from _contradictions(verdict, cards)


def _trend(verdict: RunFinished, change: float) -> Claim:
    true = {
        "great_progress": change < -UNSURE,
        "progress": change < -SMALL,
        "steady": abs(change) < NO_CHANGE,
        "decline": change > SMALL,
        "unknown": False,
    }
    return Claim(by="trend", said=verdict.trend, true=true[verdict.trend])


def _is_borne_out(key: str, states: TrueStates) -> bool:
    """Whether what a piece of advice says of the second half of the run is so, whatever the set-up."""
    gained = states.middle.laziness - states.after.laziness
    if key == "train_longer":
        return gained > 0
    if key in ("too_small", "good_enough"):
        return gained < NO_CHANGE
    return key != "excellent" or states.after.laziness < BANDS["excellent"][1] + MARGIN


def _grade(verdict: RunFinished, after: TrueState) -> Claim:
    """True if the student's real laziness lies in the grade's band."""
    low, high = BANDS[verdict.grade or "needs_work"]
    return Claim(by="grade", said=str(verdict.grade), true=low - MARGIN <= after.laziness < high + MARGIN)


def _remarks(cards: Sequence[ScoredObservation], phrases: Phrases, *, parrots: bool) -> Iterator[Claim]:
    kinds = ("excellent", "before", "parrot", "loop", "silent")
    perfect, before, parrot, loop, silent = (set(phrases.variants(f"remarks.{kind}")) for kind in kinds)
    for card in cards:
        said = card.remark
        if said in before:
            yield Claim(by="remark", said="before", true=card.step <= 1)
        elif said in parrot:
            yield Claim(by="remark", said="parrot", true=parrots or _is_periodic(card))
        elif said in loop:
            yield Claim(by="remark", said="loop", true=_is_periodic(card))
        elif said in silent:
            yield Claim(by="remark", said="silent", true=not card.student_text.strip())
        elif said in perfect:
            yield Claim(by="remark", said="perfect", true=card.teacher_text == card.student_text)
        else:
            fits = said[0] in FITTING[card.light]
            yield Claim(by="remark", said=said[0], true=fits, contradicts="" if fits else f"light {card.light}")


def _is_periodic(card: ScoredObservation) -> bool:
    """Whether half of the student's characters repeat those some places before them, the beginning included."""
    said, heard = card.student_text, card.given + card.student_text
    skipped = len(card.given)
    return any(
        sum(heard[skipped + at] == heard[skipped + at - back] for at in range(len(said))) >= 0.5 * len(said) > 0
        for back in range(1, min(PERIOD, max(1, skipped)) + 1)
    )


def _contradictions(verdict: RunFinished, cards: Sequence[ScoredObservation]) -> Iterator[Claim]:
    """Claims that cannot both be true, whatever the student is."""
    pulls = set[str]().union(*(PULLS.get(one.key, set()) for one in verdict.advice))
    for one, other in OPPOSITE:
        if {one, other} <= pulls:
            yield Claim(by="advice", said=one, true=False, contradicts=other)
    keys = {one.key for one in verdict.advice}
    lights = {card.light for card in cards[-max(1, len(cards) // 4) :]}
    if "excellent" in keys and (verdict.trend == "decline" or lights == {"red"}):
        yield Claim(by="advice", said="excellent", true=False, contradicts=f"{verdict.trend}, {lights}")
    if verdict.grade == "excellent" and lights == {"red"}:
        yield Claim(by="grade", said=verdict.grade, true=False, contradicts="lights red")
    if verdict.grade == "needs_work" and lights == {"green"}:
        yield Claim(by="grade", said="needs_work", true=False, contradicts="lights green")
    if verdict.trend == "steady" and "train_longer" in keys:
        yield Claim(by="trend", said="steady", true=False, contradicts="train_longer")
