"""Grade, trend and advice of a run, from paired readings of the same rows with their standard errors.

Knows nothing of single events, nor of words: advice is a key of the locale and the values of its placeholders.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import hypot, log
from typing import Any

from apt_model.config.sections import DisplayConfig
from apt_model.events.records import RunStarted
from apt_model.events.results import Advice, Grade, MeanEstimate, ReadingSummary, TopicScore, Trend
from apt_model.teaching.comments import GRADES, fitting, grade
from apt_model.teaching.course import Course, Signal, judging
from apt_model.teaching.laziness import light

MOST_ADVICE = 2
CERTAIN = 3.0  # standard errors; the number of comparisons in a run makes two too few
NOTICEABLE = 0.01  # of laziness: a smaller change is no news, however certain
GREAT = 0.15
STALLED = 0.04  # the most that a student can have gained in the run's second half and still be said to stand still
GAP = 0.1  # of laziness or agreement, between rows of two kinds
NATS = 0.3  # of cross-entropy, likewise
RISE = 0.03  # of the lowest KL or cross-entropy, as a ratio
GUESSING = 0.97  # of log V: a teacher with such a cross-entropy does no better than chance
SOFT = 0.85  # of the maximal entropy: the teacher hardly prefers any token to another
UNHEARD = 0.25  # the teacher's share of both gradients at the logits
SUSPECT_RATE = 1e-2  # AdamW's rates of use end here; `doctor` warns from here on
WILD_RATE = 3e-2  # from here on it is to blame for a student that knows next to nothing, even if it still learns
OF_OUR_LOSS = frozenset({"temperature_blunts", "teacher_unheard", "teacher_alone"})  # other trainers do not read these


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a run has shown of its student.

    Attributes:
        unseen, learned: readings of text that nobody learned from, and of training text.
        share_of_teacher: the teacher's share of the gradient at the student's logits, mean over the cards.
        softness: the teacher's entropy at the training temperature, divided by its maximum, mean over the cards.
        topics: scores by topic, with mastery on the fixed rows.
        peak_rate: the highest learning rate of a step; None if none was told.
        run: settings, vocabulary, and who trains; None if the run's start was not seen.
        step: the last.
    """

    unseen: Course
    learned: Course
    share_of_teacher: float | None = None
    softness: float | None = None
    topics: tuple[TopicScore, ...] = ()
    peak_rate: float | None = None
    run: RunStarted | None = None
    step: int = 0

    @property
    def course(self) -> Course:
        """The readings that judge."""
        return judging(self.unseen, self.learned)

    @property
    def learns_from_teacher(self) -> bool:
        """Whether the student is to become like its teacher."""
        return self.run is None or self.run.learns_from_teacher

    @property
    def is_ours(self) -> bool:
        """Whether our loop trains, and not another trainer."""
        return self.run is None or self.run.trained_by is None

    @property
    def settings(self) -> Mapping[str, Any]:
        """The run's settings, as flat keys."""
        return {} if self.run is None else self.run.config

    @property
    def rate(self) -> float:
        """The learning rate that the run had at its highest; the setting where no step told it."""
        return float(self.settings.get("learning_rate", 0.0)) if self.peak_rate is None else self.peak_rate

    @property
    def signal(self) -> Signal:
        """What a student loses that learns by heart: closeness to the teacher, or to the labels without one."""
        return "kl" if self.learns_from_teacher else "ce"


def is_certain(found: MeanEstimate, least: float = 0.0) -> bool:
    """Whether a mean is further from 0 than `least` and than chance explains."""
    return found.error is not None and abs(found.value) > max(least, CERTAIN * found.error)


def direction(change: MeanEstimate | None) -> Trend:
    """The direction of a paired change of laziness; unknown without one of at least two rows."""
    if change is None or change.error is None:
        return "unknown"
    if not is_certain(change, NOTICEABLE):
        return "steady"
    if change.value > 0:
        return "decline"
    return "great_progress" if -change.value >= GREAT else "progress"


def final_grade(run: Evidence, thresholds: DisplayConfig) -> Grade | None:
    """The student's grade at the end, on the fixed rows alone; None without a reading.

    The loss that is judged is what the student could still gain there, at temperature 1: alpha · KL + beta · (CE − the
    teacher's CE).
    """
    read = run.course.summary
    if read is None:
        return None
    alpha = float(run.settings.get("alpha", 1.0))
    behind = 0.0 if read.teacher_ce is None else read.ce.value - read.teacher_ce.value
    gain = alpha * read.kl.value + (1 - alpha) * behind if run.learns_from_teacher else 0.0
    lazy = read.laziness.value
    return fitting(grade(lazy, gain, thresholds), light(lazy))


def advice(run: Evidence, grade: Grade | None) -> tuple[Advice, ...]:
    """At most two pieces of advice that do not contradict each other; the most important comes first."""
    if not run.learns_from_teacher:
        return (Advice(key="observed"), *_of_memory(run)[:1])
    if grade is None:
        return (Advice(key="not_measured"),) if run.step else ()
    lost = _of_lost_teacher(run)
    if lost:
        return tuple(lost)
    found = [*(_of_memory(run) or _of_course(run, grade)), *_of_weak_topic(run)]
    return tuple(one for one in found if run.is_ours or one.key not in OF_OUR_LOSS)[:MOST_ADVICE]


def _of_lost_teacher(run: Evidence) -> list[Advice]:
    """A teacher that predicts the labels no better than chance: nothing else that was measured means anything."""
    read, vocabulary = run.course.summary, None if run.run is None else run.run.vocabulary
    if read is None or read.teacher_ce is None or not vocabulary:
        return []
    guess = log(vocabulary)
    if read.teacher_ce.value < GUESSING * guess:
        return []
    return [Advice(key="teacher_lost", share=read.teacher_ce.value / guess, value=f"{read.teacher_ce.value:.2f}")]


def _of_memory(run: Evidence) -> list[Advice]:
    """Overfitting: unseen text was better read before, or learned text has gained more than unseen text."""
    learns_labels = run.learns_from_teacher and run.settings.get("alpha", 1.0) < 1
    alone = [Advice(key="teacher_alone", setting="alpha", value="1")] if learns_labels else []
    best = run.unseen.best(run.signal)
    share, nats = _ahead(run, "laziness", GAP), _ahead(run, "ce", NATS)
    if best > 0 and _has_risen(run, best) and (share is not None or nats is not None):
        return [Advice(key="overfits_since", setting="max_steps", value=str(run.unseen.step_of(best))), *alone]
    if share is not None:
        return [Advice(key="from_memory", share=share), *alone]
    return [] if nats is None else [Advice(key="labels_by_heart", value=f"{nats:.2f}"), *alone]


def _ahead(run: Evidence, signal: Signal, least: float) -> float | None:
    """By how much more learned text has gained than unseen text since the start, if that is certain; else None.

    A difference of paired differences: what one text is harder than the other, for the teacher too, drops out.
    """
    unseen, learned = (course.difference(0, signal) for course in (run.unseen, run.learned))
    if unseen is None or learned is None or unseen.error is None or learned.error is None:
        return None
    ahead = unseen.value - learned.value
    return ahead if ahead > max(least, CERTAIN * hypot(unseen.error, learned.error)) else None


def _has_risen(run: Evidence, best: int) -> bool:
    rise = run.unseen.difference(best, run.signal)
    return rise is not None and rise.value > RISE * run.unseen.mean(best, run.signal) and is_certain(rise)


def _of_course(run: Evidence, grade: Grade) -> list[Advice]:
    """Advice from the trend, from its second half, and from what the step measured of the teacher's signal."""
    course, rate, level = run.course, run.rate, GRADES.index(grade)
    moved, late = direction(course.difference(0, "laziness")), direction(_late(course))
    if grade == "excellent" and "decline" not in (moved, late):
        return [Advice(key="excellent")]
    still_learns = late in ("progress", "great_progress")
    is_wild = (level > 1 and rate >= SUSPECT_RATE and late == "steady") or (level > 2 and rate >= WILD_RATE)
    if "decline" in (moved, late) or is_wild:
        return [_rate("rate_down", min(rate, SUSPECT_RATE) / 3)]
    found = _of_teacher(run) if level > 1 else []
    if moved == "steady" and level > 0 and rate < SUSPECT_RATE / 10:
        return [*found, _rate("rate_up", max(10 * rate, 1e-4))]
    if still_learns:
        return [*found, _longer(run, "train_longer")]
    if (moved != "steady" or level == 1) and _stands_still(course.at_high_rate("laziness")):
        return [*found, Advice(key="too_small" if level > 1 else "good_enough")]
    return [*found, _longer(run, "longer_to_tell")]


def _late(course: Course) -> MeanEstimate | None:
    """The change of laziness in the second half of the steps; None without a reading between the start and the end."""
    return course.difference(course.middle(), "laziness") if course.middle() else None


def _rate(key: str, value: float) -> Advice:
    return Advice(key=key, setting="learning_rate", value=f"{value:.1g}")


def _stands_still(late: MeanEstimate | None) -> bool:
    """Whether even the most progress that the readings allow for is little."""
    return late is not None and late.error is not None and -late.value + 2 * late.error < STALLED


def _of_teacher(run: Evidence) -> list[Advice]:
    """The teacher's signal: too flat a distribution, or too small a share of the gradient."""
    temperature = float(run.settings.get("temperature", 1.0))
    if run.softness is not None and run.softness >= SOFT and temperature > 1:
        return [Advice(key="temperature_blunts", share=run.softness, setting="temperature", value="1")]
    if run.share_of_teacher is not None and run.share_of_teacher < UNHEARD:
        return [Advice(key="teacher_unheard", share=run.share_of_teacher, setting="alpha", value="0.9")]
    return []


def _of_weak_topic(run: Evidence) -> list[Advice]:
    """The topic on which the student agrees less with its teacher than on all rows, if that is certain."""
    read = run.course.summary
    if read is None:
        return []
    behind = [
        (score.mastery.value, score.topic)
        for score in run.topics
        if score.mastery is not None and _is_behind(score.mastery, read)
    ]
    return [Advice(key="laziest_topic", topic=min(behind)[1])] if behind else []


def _is_behind(mastery: MeanEstimate, read: ReadingSummary) -> bool:
    if mastery.error is None or read.agreement.error is None:
        return False
    gap = read.agreement.value - mastery.value
    return gap > max(GAP, CERTAIN * hypot(mastery.error, read.agreement.error))


def _longer(run: Evidence, key: str) -> Advice:
    """Twice the length of the run, in the setting that gave it."""
    steps = run.settings.get("max_steps")
    if steps:
        return Advice(key=key, setting="max_steps", value=str(2 * run.step))
    name = "num_epochs" if run.is_ours else "num_train_epochs"
    epochs = run.run.num_epochs if run.run is not None else 0
    return Advice(key=key, setting=name, value=str(2 * max(epochs, 1)))
