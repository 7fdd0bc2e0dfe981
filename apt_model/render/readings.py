"""The text of readings of fixed rows: agreement, perplexity and KL with 95 % intervals, and the change.

Knows readings and the locale; knows nothing of where or how they are shown, nor how intervals are estimated.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from apt_model.events.cards import Reading
from apt_model.events.event import Event
from apt_model.events.records import EpochFinished, RunFinished
from apt_model.events.results import MeanEstimate, ReadingSummary, RowReading
from apt_model.i18n import Phrases

NORMAL_95 = 1.96  # standard errors on either side of a mean in a 95 % interval
MARKS = {True: "🧪", False: "📖"}  # of unseen and of learned text


@dataclass(frozen=True, kw_only=True)
class LatestReadings:
    """Summaries of the readings of unseen and of learned rows after one step; None for a kind that was not read then.

    Attributes:
        step: of the readings.
    """

    unseen: ReadingSummary | None = None
    learned: ReadingSummary | None = None
    step: int = -1

    def after(self, event: Event) -> "LatestReadings":
        """The same with the event's, if it is a reading; those of an earlier step say nothing of the student now."""
        if not isinstance(event, Reading):
            return self
        kept = self if event.step == self.step else LatestReadings(step=event.step)
        read = summary_of(event)
        return replace(kept, unseen=read) if event.unseen else replace(kept, learned=read)

    def lines(self, say: Phrases, *, final: bool = False) -> list[str]:
        """A sentence for each of them, unseen rows first; `final` for the end of a run.

        Only beside unseen text is learned text called known by heart.
        """
        both = ((True, self.unseen), (False, self.learned))
        has_unseen = self.unseen is not None
        read = [(unseen, summary) for unseen, summary in both if summary is not None]
        said = [
            f"{MARKS[unseen]} {sentence(summary, say, unseen=unseen, final=final and has_unseen)}"
            for unseen, summary in read
        ]
        return [f"{MARKS[False]} {say('reading.only_learned')}", *said] if final and said and not has_unseen else said


NO_READINGS = LatestReadings()


def reported(events: Iterable[Event]) -> list[tuple[EpochFinished, LatestReadings]]:
    """The report cards of a recorded run, each with the latest readings by then."""
    found, latest = [], NO_READINGS
    for event in events:
        latest = latest.after(event)
        if isinstance(event, EpochFinished):
            found.append((event, latest))
    return found


def summary_of(reading: Reading) -> ReadingSummary | None:
    """The reading's summary; in a run without a scorer the means over its tokens, without errors."""
    if reading.measured is not None or not reading.rows:
        return reading.measured
    parts = {name: _mean(reading.rows, name) for name in ("agreement", "kl", "ce", "normalised_kl")}
    knows_teacher = all(row.teacher_ce is not None for row in reading.rows)
    return ReadingSummary(
        rows=len(reading.rows),
        tokens=sum(row.tokens for row in reading.rows),
        agreement=parts["agreement"],
        kl=parts["kl"],
        ce=parts["ce"],
        laziness=MeanEstimate(value=math.nan, error=None),
        teacher_ce=_mean(reading.rows, "teacher_ce") if knows_teacher else None,
    )


def _mean(rows: Sequence[RowReading], name: str) -> MeanEstimate:
    tokens = sum(row.tokens for row in rows)
    return MeanEstimate(value=sum(row.tokens * getattr(row, name) for row in rows) / max(tokens, 1), error=None)


def sentence(summary: ReadingSummary, say: Phrases, *, unseen: bool, final: bool = False) -> str:
    """Agreement, perplexity and KL of one reading."""
    perplexity = f"{perplexity_of(summary.ce):.1f}"
    if summary.teacher_ce is not None:
        teacher = f"{perplexity_of(summary.teacher_ce):.1f}"
        perplexity = say("reading.beside_teacher", student=perplexity, teacher=teacher)
    return say(
        f"reading.{'final_' if final else ''}{'unseen' if unseen else 'learned'}",
        rows=summary.rows,
        agreement=share(summary.agreement),
        perplexity=perplexity,
        kl=interval(summary.kl, 2),
    )


def perplexity_of(ce: MeanEstimate) -> float:
    """exp of a mean cross-entropy in nats; infinite where float64 ends."""
    return math.exp(ce.value) if ce.value < 700 else math.inf


def interval(mean: MeanEstimate, digits: int, *, scale: float = 1.0, sign: str = "", unit: str = "") -> str:
    """A mean with its 95 % interval, as `0.71 ± 0.05`; without an error the mean alone."""
    value = f"{scale * mean.value:{sign}.{digits}f}{unit}".replace("-", "−")
    known = mean.error is not None and math.isfinite(mean.error)
    return f"{value} ± {NORMAL_95 * scale * mean.error:.{digits}f}{unit}" if known and mean.error is not None else value


def share(mean: MeanEstimate) -> str:
    """A ratio with its 95 % interval, in percent."""
    return interval(mean, 1, scale=100, unit="%")


def change(run: RunFinished, say: Phrases) -> str | None:
    """How laziness on the same rows changed over the run; None if it was not measured."""
    rows = run.unseen or run.learned
    if run.change is None or rows is None or run.change.laziness.error is None:
        return None
    moved = interval(run.change.laziness, 1, scale=100, sign="+")
    return say("reading.change", change=moved, level=f"{100 * rows.laziness.value:.1f}%", rows=rows.rows)
