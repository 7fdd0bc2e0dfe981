"""What to do next, from what a run measured; and how its laziness went.

Knows nothing of events before they were summed up, and nothing of words: advice is a key and what fills its sentence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from apt_model.events.records import Advice, TopicScore, Trend
from apt_model.teaching.laziness import SCALE

EXCELLENT_BELOW = 0.2
GREAT_FALL, FALL, RISE = 0.15, 0.03, 0.03
NOTICEABLE_RISE = 1.05  # of a loss, as a ratio
BY_HEART = 1.25  # the loss on other text over that on the student's own
ENOUGH = 20  # cards: of a topic, with fewer, when they came says more than what they were about; of a run, likewise
SOFT = 0.85  # of the most entropy a teacher can have: hardly a token is named before another
UNHEARD = 0.25  # of both pulls at the logits, the teacher's


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A run in a few numbers; None for what was not measured.

    Attributes:
        samples: cards scored.
        first, last: mean laziness of the first and the last quarter of the cards.
        before_last: of the quarter before that.
        topics: scores by topic.
        losses: mean of each epoch.
        validation_losses: after each epoch, where there is validation data; made of the same terms.
        say: the teacher's share of both pulls at the student's logits, mean over the cards.
        softness: the teacher's entropy at the training temperature over the most it can be, mean over the cards.
        temperature, alpha: of the lesson.
    """

    samples: int
    first: float | None
    last: float | None
    before_last: float | None = None
    topics: Sequence[TopicScore] = ()
    losses: Sequence[float] = ()
    validation_losses: Sequence[float] = ()
    say: float | None = None
    softness: float | None = None
    temperature: float = 1.0
    alpha: float = 0.0


def trend(first: float | None, last: float | None, *, samples: int) -> Trend:
    """How laziness went from the first quarter of the cards to the last; unknown below two cards."""
    if first is None or last is None or samples < 2:
        return "unknown"
    if first - last >= GREAT_FALL:
        return "great_progress"
    if first - last >= FALL:
        return "progress"
    return "decline" if last - first >= RISE else "steady"


def advice(run: Measured) -> tuple[Advice, ...]:
    """How good the student is; if it is not, why, and what to do; the most important first."""
    if run.first is None or run.last is None:
        return (Advice(key="no_samples"),)
    of_losses = _of_losses(run)
    found = [Advice(key=_level(run.last))]
    if run.last >= SCALE.green_below:
        found += _of_teacher(run)
        found += [] if of_losses else [Advice(key=_course(run, run.first, run.last))]
    return (*found, *of_losses, *_of_topics(run.topics))


def _level(last: float) -> str:
    levels = (("excellent", EXCELLENT_BELOW), ("good", SCALE.green_below), ("fair", SCALE.yellow_below))
    return next((key for key, below in levels if last < below), "poor")


def _of_teacher(run: Measured) -> list[Advice]:
    """Whether the teacher could be understood: said something definite, and was listened to."""
    if run.softness is not None and run.softness >= SOFT and run.temperature > 1:
        return [Advice(key="temperature_blunts", share=run.softness)]
    if run.say is not None and run.say < UNHEARD:
        return [Advice(key="teacher_unheard", share=run.say)]
    return []


def _course(run: Measured, first: float, last: float) -> str:
    """What the course of laziness asks for. A student that has learned and no longer does, on text that it knows no
    better than other text, has no room for more."""
    if last - first >= RISE:
        return "gets_lazier"
    if first - last < FALL:
        return "not_learning"
    has_stopped = run.before_last is not None and run.samples >= ENOUGH and run.before_last - last < FALL / 3
    return "too_small" if has_stopped else "still_learning"


def _of_losses(run: Measured) -> list[Advice]:
    """What the losses say against going on as before."""
    losses, validation = run.losses, run.validation_losses
    if len(losses) >= 2 and losses[-1] > losses[-2] * NOTICEABLE_RISE:
        return [Advice(key="loss_rises")]
    if validation and validation[-1] > min(validation) * NOTICEABLE_RISE:
        found = Advice(key="overfits")
    elif validation and losses and validation[-1] > losses[-1] * BY_HEART > 0:
        found = Advice(key="by_heart", share=validation[-1] / losses[-1] - 1)
    else:
        return []
    return [found, Advice(key="teacher_alone")] if run.alpha < 1 else [found]


def _of_topics(topics: Sequence[TopicScore]) -> list[Advice]:
    seen_often = [score for score in topics if score.samples >= ENOUGH]
    if len(seen_often) < 2:
        return []
    laziest = max(seen_often, key=lambda score: score.mean_laziness)
    easiest = min(seen_often, key=lambda score: score.mean_laziness)
    is_apart = laziest.mean_laziness - easiest.mean_laziness >= FALL
    return [Advice(key="laziest_topic", topic=laziest.topic)] if is_apart else []
