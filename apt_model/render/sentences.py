"""The text of each event, as sentences of the locale. Knows nothing of where or how they are shown.

Sentences are complete; whoever shows one sanitises it as a whole.
"""

from typing import NamedTuple

from apt_model.events.cards import ScoredObservation as Card
from apt_model.events.records import ExamTaken, Notice, RunFinished, RunStarted
from apt_model.events.results import Validation
from apt_model.i18n import Phrases
from apt_model.render.sanitise import sanitise
from apt_model.render.wrap import shorten

LIGHTS = {"green": "🟢", "yellow": "🟡", "red": "🔴"}
NO_NUMBER = "–"


def number(value: float | None, digits: int = 4) -> str:
    """A number with fixed digits; a dash for None."""
    return NO_NUMBER if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A ratio as percent; a dash for None."""
    return NO_NUMBER if value is None else f"{100 * value:.2f}%"


def duration(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def topic_name(topic: str, say: Phrases) -> str:
    """A topic's display name, short enough for a title."""
    return shorten(sanitise(say.topic(topic)), 20)


def settings(run: RunStarted, say: Phrases) -> tuple[str, str]:
    """The run's main settings, and how often it shows a sample."""
    config, weights = run.config, {key: run.config[key] for key in ("temperature", "alpha", "beta")}
    if run.trained_by is None:
        how = say("header.config", **weights)
    else:
        how = say("header.trainer", settings=sanitise(run.trained_by, 40), **weights)
    every = say(
        f"header.{'frequency' if run.trained_by is None else 'step_frequency'}", count=config["sample_frequency"]
    )
    return how, every if config["show_samples"] else say("header.no_samples")


class Column(NamedTuple):
    """A column of the table of teacher and student."""

    name: str
    heading: str
    teacher: str
    student: str


def models(run: RunStarted, say: Phrases) -> list[Column]:
    """The columns that compare teacher and student."""
    both = (run.teacher, run.student)
    cells = {
        "role": [say("models.teacher"), say("models.student")],
        "model": [shorten(sanitise(one.name), 20) for one in both],
        "layers": [f"{one.layers or '?'} × {one.hidden_size or '?'}" for one in both],
        "parameters": [f"{one.parameters:,}" for one in both],
        "megabytes": [f"{one.megabytes:.1f} MB" for one in both],
        "share": [f"{100 * one.parameters / max(run.teacher.parameters, 1):.1f}%" for one in both],
    }
    headings = {name: say(f"models.{name}") if name != "role" else "" for name in cells}
    return [Column(name, headings[name], *pair) for name, pair in cells.items()]


def legend(run: RunStarted, say: Phrases) -> tuple[str, str, str] | None:
    """The legend of the diff marks: the words before, between and after both marks; None without marks."""
    if not (run.config["show_samples"] and run.config["show_diff"]):
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


def loss(card: Card, say: Phrases) -> str:
    """A card's loss."""
    return say(f"card.{card.source}_loss", loss=number(card.loss))


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
    return say.variant(said.key, said.step, **values)


class Verdict(NamedTuple):
    """The texts at the end of a run; `advice` and `failures` may be empty."""

    title: str
    results: list[str]
    advice: list[str]
    failures: list[str]


def verdict(run: RunFinished, say: Phrases) -> Verdict:
    """Results, advice and display failures at the end of a run."""
    results = []
    if run.samples:
        ends = {"first": percent(run.first_laziness), "last": percent(run.last_laziness)}
        results += [say("final.samples", samples=run.samples)]
        results += [say("final.laziness", laziness=percent(run.mean_laziness)), say("final.course", **ends)]
    if run.step:
        results += [say("final.loss", first=number(run.first_loss), last=number(run.last_loss))]
        results += validation(run.validation, say)
        time = duration(run.seconds)
        counted = run.tokens is not None
        results += [
            say("final.time", time=time, tokens=f"{run.tokens:,}") if counted else say("final.time_only", time=time)
        ]
    if run.samples:
        results += [say("final.trend", trend=say(f"trend.{run.trend}"))]
    advice = run.advice if run.step else ()
    return Verdict(
        title=say("final.title" if run.step else "final.empty"),
        results=results,
        advice=[
            say(f"advice.{one.key}", topic=topic_name(one.topic or "", say), share=f"{one.share or 0:.0%}")
            for one in advice
        ],
        failures=[sanitise(failure, 500) for failure in run.failures],
    )
