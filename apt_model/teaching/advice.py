"""Advice and trend of a run, from its summary statistics.

Knows nothing of single events, nor of words: advice is a key of the locale and the values of its placeholders.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from apt_model.events.records import RunStarted, Trend
from apt_model.events.results import Advice, TopicScore
from apt_model.teaching.laziness import SCALE

EXCELLENT_BELOW = 0.2
GREAT_FALL, FALL, RISE = 0.15, 0.03, 0.03
NOTICEABLE_RISE = 1.05  # of a loss, as a ratio
BY_HEART = 1.25  # the loss on other text over that on the student's own
ENOUGH = 20  # cards; with fewer of a topic (or in a run), a mean depends more on when they came than on what they show
SOFT = 0.85  # of the maximal entropy: the teacher hardly prefers any token to another
UNHEARD = 0.25  # the teacher's share of both gradients at the logits
OF_OUR_LOSS = frozenset({"temperature_blunts", "teacher_unheard", "teacher_alone"})  # other trainers do not read these
OF_ANY_TRAINING = frozenset({"loss_rises", "overfits", "by_heart", "no_samples"})  # true without a teacher too


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Summary statistics of a run; None for what was not measured.

    Attributes:
        samples: number of cards.
        first, last: mean laziness of the first and the last quarter of the cards.
        before_last: of the third quarter.
        topics: scores by topic.
        losses: mean training loss of each epoch.
        validation_losses: after each epoch, if there is validation data; of the same terms.
        say: the teacher's share of the gradient at the student's logits, mean over the cards.
        softness: the teacher's entropy at the training temperature, divided by its maximum, mean over the cards.
        temperature, alpha: settings of the run.
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
    """The change of laziness from the first quarter of the cards to the last; unknown below two cards."""
    if first is None or last is None or samples < 2:
        return "unknown"
    if first - last >= GREAT_FALL:
        return "great_progress"
    if first - last >= FALL:
        return "progress"
    return "decline" if last - first >= RISE else "steady"


def advice(run: Measured) -> tuple[Advice, ...]:
    """How good the student is; if it is not good, why, and what to do. The most important advice comes first."""
    if run.first is None or run.last is None:
        return (Advice(key="no_samples"),)
    of_losses = _of_losses(run)
    found = [Advice(key=_level(run.last))]
    if run.last >= SCALE.green_below:
        found += _of_teacher(run)
        found += [] if of_losses else [Advice(key=_course(run, run.first, run.last))]
    return (*found, *of_losses, *_of_topics(run.topics))


def advice_for(run: RunStarted, found: Sequence[Advice]) -> tuple[Advice, ...]:
    """The advice that is true of this run.

    Settings of our loss do nothing in another trainer's; a student that does not learn from the teacher is not judged
    by it.
    """
    if not run.learns_from_teacher:
        return (Advice(key="observed"), *(one for one in found if one.key in OF_ANY_TRAINING))
    return tuple(one for one in found if run.trained_by is None or one.key not in OF_OUR_LOSS)


def _level(last: float) -> str:
    levels = (("excellent", EXCELLENT_BELOW), ("good", SCALE.green_below), ("fair", SCALE.yellow_below))
    return next((key for key, below in levels if last < below), "poor")


def _of_teacher(run: Measured) -> list[Advice]:
    """Advice on the teacher's signal: too flat a distribution, or too small a share of the gradient."""
    if run.softness is not None and run.softness >= SOFT and run.temperature > 1:
        return [Advice(key="temperature_blunts", share=run.softness)]
    if run.say is not None and run.say < UNHEARD:
        return [Advice(key="teacher_unheard", share=run.say)]
    return []


def _course(run: Measured, first: float, last: float) -> str:
    """Advice from the trend of laziness. A student that has stopped learning and does not overfit is too small."""
    if last - first >= RISE:
        return "gets_lazier"
    if first - last < FALL:
        return "not_learning"
    has_stopped = run.before_last is not None and run.samples >= ENOUGH and run.before_last - last < FALL / 3
    return "too_small" if has_stopped else "still_learning"


def _of_losses(run: Measured) -> list[Advice]:
    """Advice from the losses: rising, or overfitting."""
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
