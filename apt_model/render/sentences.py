"""The text of each event, as sentences of the locale. Knows nothing of where or how they are shown.

Sentences are complete; whoever shows one sanitises it as a whole.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from apt_model.events.answer_agreement import answer_agreement
from apt_model.events.cards import ScoredObservation as Card
from apt_model.events.records import ExamTaken, ModelCard, Notice, RunFinished, RunStarted
from apt_model.events.results import Advice, ExamAnswer, TopicScore, Validation
from apt_model.i18n import Phrases
from apt_model.render import readings
from apt_model.render.readings import LatestReadings
from apt_model.render.sanitise import sanitise
from apt_model.render.wrap import shorten

LIGHTS = {"green": "🟢", "yellow": "🟡", "red": "🔴"}
NO_NUMBER = "–"
SIZES = ((1e9, "B"), (1e6, "M"), (1e3, "K"), (1, ""))
MOST_TOPICS = 5  # named in the verdict


def number(value: float | None, digits: int = 4) -> str:
    """A number with fixed digits; a dash for None."""
    return NO_NUMBER if value is None else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 2) -> str:
    """A ratio as percent; a dash for None and for NaN, which is what cannot be computed."""
    return NO_NUMBER if value is None or math.isnan(value) else f"{100 * value:.{digits}f}%"


def duration(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss; a dash for what is no time, as a record may hold."""
    if not 0 <= seconds < math.inf:
        return NO_NUMBER
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def topic_name(topic: str, say: Phrases) -> str:
    """A topic's display name, short enough for a title."""
    return shorten(sanitise(say.topic(topic)), 20)


def settings(run: RunStarted, say: Phrases) -> tuple[str, str]:
    """The run's main settings, and how often it shows a sample."""
    weights = {key: _setting(run, key) for key in ("temperature", "alpha", "beta")}
    if run.trained_by is None:
        how = say("header.config", **weights)
    else:
        how = say("header.trainer", settings=sanitise(run.trained_by, 40), **weights)
    every = say(
        f"header.{'frequency' if run.trained_by is None else 'step_frequency'}", count=_setting(run, "sample_frequency")
    )
    return how, every if run.config.get("show_samples", True) else say("header.no_samples")


def _setting(run: RunStarted, key: str) -> str:
    """A recorded setting as text; a dash where the record of another version, or a damaged one, has none."""
    return sanitise(str(run.config.get(key, NO_NUMBER)), 40)


def model_name(model: ModelCard) -> str:
    """A model by its kind and size, "Llama 260K": teacher and student are often of one class."""
    kind = sanitise(model.name.removesuffix("ForCausalLM").removesuffix("LMHeadModel") or model.name)
    size = next((f"{model.parameters / unit:.3g}{sign}" for unit, sign in SIZES if model.parameters >= unit), "")
    return f"{shorten(kind, 20)} {size}".rstrip()


class Column(NamedTuple):
    """A column of the table of teacher and student."""

    name: str
    heading: str
    teacher: str
    student: str


def models(run: RunStarted, say: Phrases) -> list[Column]:
    """The columns that compare teacher and student."""
    both, all_of = (run.teacher, run.student), run.teacher.parameters  # 0: a server's, without a config
    cells = {
        "role": [say("models.teacher"), say("models.student")],
        "model": [model_name(one) for one in both],
        "layers": [f"{one.layers or '?'} × {one.hidden_size or '?'}" for one in both],
        "parameters": [f"{one.parameters:,}" if one.parameters else "?" for one in both],
        "megabytes": [f"{one.megabytes:.1f} MB" if one.parameters else "?" for one in both],
        "share": [f"{100 * one.parameters / all_of:.1f}%" if all_of else "?" for one in both],
    }
    headings = {name: say(f"models.{name}") if name != "role" else "" for name in cells}
    return [Column(name, headings[name], *pair) for name, pair in cells.items()]


def legend(run: RunStarted, say: Phrases) -> tuple[str, str, str] | None:
    """The legend of the diff marks: the words before, between and after both marks; None without marks."""
    if not (run.config.get("show_samples") and run.config.get("show_diff")):
        return None
    before, between, after = say("header.diff", missing="\0", added="\0").split("\0")
    return before, between, after


def title(card: Card, say: Phrases) -> tuple[str, str]:
    """A card's place in the run, and its topic."""
    return say(f"card.{card.source}_batch", batch=card.batch, step=card.step), say(
        "card.topic", topic=topic_name(card.topic, say)
    )


def exam_title(exam: ExamTaken, say: Phrases) -> str:
    """When in the run an exam was held."""
    return say("exam.title", step=exam.step) if exam.step else say("exam.first")


def exam_prompt(answer: ExamAnswer, say: Phrases) -> str:
    """The label of an exam's question: one of the run's own, or one asked from the page."""
    return say("exam.asked" if answer.asked else "exam.prompt")


def exam_agreement(answer: ExamAnswer, say: Phrases) -> str | None:
    """How far the whole answer of the student agrees with the teacher's, as they are shown; None without the latter."""
    if answer.teacher is None:
        return None
    share = answer_agreement(sanitise(answer.teacher), sanitise(answer.student))
    return say("exam.agreement", share=f"{math.floor(100 * share)}%")  # 100 % is the same answer; halves as on the page


def laziness(card: Card, say: Phrases) -> str:
    """The label of a card's laziness; it tells of token ids where there was no text to compare."""
    return say("card.laziness" if card.compared == "text" else "card.laziness_of_tokens")


def agreement(card: Card, say: Phrases) -> str:
    """On what share of a card's tokens both models agree."""
    return say("card.agreement", agreement=percent(card.agreement, 0))


def remark(card: Card, say: Phrases) -> str:
    """A card's remark in the reader's language; one of a user's own, or of an old record, as it was made."""
    return say.remark(card.remark_key, card.remark_variant, card.remark)


def loss(card: Card, say: Phrases) -> str:
    """A card's loss, and how much of it the student could still gain, where that is known."""
    said = say(f"card.{card.source}_loss", loss=number(card.loss))
    return said if card.gain is None else say("card.gain", loss=said, gain=number(max(card.gain, 0.0), 2))


def topic(score: TopicScore, say: Phrases, *, words: str = "epoch_card.topic") -> str:
    """A topic's samples and laziness, and its mastery where fixed rows show it; `words`: the sentence's key."""
    name, lazy = topic_name(score.topic, say), percent(score.mean_laziness)
    said = say(words, topic=name, samples=score.samples, laziness=lazy)
    if score.mastery is None:
        return said
    return say("epoch_card.mastery", topic=said, mastery=readings.share(score.mastery), rows=score.rows)


def validation(seen: Validation | None, say: Phrases) -> list[str]:
    """The results on validation data; empty without it."""
    if seen is None:
        return []
    said = [say("validation.loss", loss=number(seen.loss), agreement=percent(seen.agreement))]
    lazy = seen.mean_laziness
    return said if lazy is None else [*said, say("validation.laziness", laziness=percent(lazy))]


def notice(said: Notice, say: Phrases) -> str:
    """One sentence between cards; the page's address has a mark of its own."""
    return ("🔧 " if said.key.startswith("notice.") else "") + plain_notice(said, say)


def plain_notice(said: Notice, say: Phrases) -> str:
    """A notice without a mark, for a log; the step chooses among its variants."""
    values = {key: sanitise(value, 500) if isinstance(value, str) else value for key, value in said.values.items()}
    return sanitise(say.recorded(said.key, said.step, values), 2_000)


class Verdict(NamedTuple):
    """The texts at the end of a run; `advice` and `failures` may be empty."""

    title: str
    results: list[str]
    advice: list[str]
    failures: list[str]


def verdict(run: RunFinished, say: Phrases) -> Verdict:
    """Results, advice and display failures at the end of a run; what fixed rows show comes first."""
    measured = _measured(run, say)
    results = list(measured)
    if run.samples:
        ends = {"first": percent(run.first_laziness), "last": percent(run.last_laziness)}
        if measured:
            results += [say("final.headline", laziness=ends["last"])]
        results += [say("final.samples", samples=run.samples)]
        results += [say("final.laziness", laziness=percent(run.mean_laziness))]
        results += [say("final.course", **ends)] if run.change is None else []
    if run.step:
        results += [say("final.loss", first=number(run.first_loss), last=number(run.last_loss))]
        results += validation(run.validation, say)
        time = duration(run.seconds)
        counted = run.tokens is not None
        results += [
            say("final.time", time=time, tokens=f"{run.tokens:,}") if counted else say("final.time_only", time=time)
        ]
    if run.samples and not measured:
        results += [say("final.trend", trend=say(f"trend.{run.trend}"))]
    advice = run.advice if run.step else ()
    return Verdict(
        title=say("final.title" if run.step else "final.empty"),
        results=results,
        advice=[advised(one, say) for one in advice],
        failures=[sanitise(failure, 500) for failure in run.failures],
    )


def _measured(run: RunFinished, say: Phrases) -> list[str]:
    """What the run's fixed rows show: unseen text, learned text, the grade, the trend with its error, topics."""
    lines = LatestReadings(unseen=run.unseen, learned=run.learned).lines(say, final=True)
    if not lines:
        return []
    grade = [] if run.grade is None else [say("final.grade", grade=say(f"grade.{run.grade}"))]
    trend, change = say("final.trend", trend=say(f"trend.{run.trend}")), readings.change(run, say)
    return [*lines, *grade, trend, *([f"🎯 {change}"] if change else []), *_mastery(run.topics, say)]


def _mastery(topics: Sequence[TopicScore], say: Phrases) -> list[str]:
    """Mastery of the topics with the most fixed rows; none is claimed of a topic without any."""
    read = sorted((score for score in topics if score.mastery is not None), key=lambda score: -score.rows)[:MOST_TOPICS]
    named = [f"{topic_name(one.topic, say)} {readings.share(one.mastery)}" for one in read if one.mastery is not None]
    return [say("final.mastery", topics=say("evaluation.joint").join(named))] if named else []


def advised(one: Advice, say: Phrases) -> str:
    """One piece of advice."""
    setting, value = (sanitise(text or "", 60) for text in (one.setting, one.value))
    topic = topic_name(one.topic or "", say)
    values = {"topic": topic, "share": f"{one.share or 0:.0%}", "setting": setting, "value": value}
    return sanitise(say.recorded(f"advice.{one.key}", 0, values), 2_000)
