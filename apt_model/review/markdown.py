"""Summary of a run as one Markdown page: models, settings, results, plots, verdict and advice.

Events in, text out; every text from data is sanitised and escaped in one place, `verbatim`. Knows nothing of how plots
are drawn.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean

from apt_model.errors import StorageError
from apt_model.events.cards import ScoredObservation as Card
from apt_model.events.event import Event
from apt_model.events.recorded import Damage, WholeEvents, name_of
from apt_model.events.records import EpochFinished, RunFinished, RunStarted
from apt_model.events.runfile import record_of
from apt_model.i18n import Phrases
from apt_model.render import sentences
from apt_model.render.readings import LatestReadings, reported, share
from apt_model.render.sanitise import sanitise
from apt_model.render.sentences import number, percent, topic_name
from apt_model.review import plots

PAGE, PLOTS = "summary.md", "plots"
MOST_EPOCHS = 100
MOST_CHARACTERS = 300  # of a setting
LEAST_COLUMNS = 3  # of the report cards' table: epoch, loss, laziness; those after them only where they hold something
_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
_LINKS = re.compile(r"(?i)(?<=\bhttp)(?=s?:)|(?<=\bftp)(?=:)|(?<=\bwww)(?=\.)|(?=@)")
_BEGINS_A_BLOCK = re.compile(r"^(\d*)([#+=.)-])(?=[ #=-]|$)")


def write_summary(run: str | Path, directory: str | Path, lang: str) -> Path:
    """Write `summary.md`, and its plots as PNG files in `plots` beside it; returns the page's path.

    Args:
        run: a run directory; the run may still be training.
        directory: created if missing; files of the same names are replaced.
        lang: "zh", "en", or the path of a locale .toml.

    Raises:
        ConfigError: no such language, or matplotlib is not installed.
        DataError: no line of the record is an event.
        StorageError: there is no record, or the directory cannot be written.
    """
    say, recorded, target = Phrases.load(lang), WholeEvents(record_of(run)), Path(directory) / PAGE
    events = list(recorded)
    pictures = {name: f"{PLOTS}/{path.name}" for name, path in plots.save(events, target.parent / PLOTS, say).items()}
    page = summary(events, say, name=name_of(Path(run).resolve()), pictures=pictures, damage=recorded.damage)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page, encoding="utf-8", newline="\n")
    except OSError as error:
        raise StorageError(f"summary cannot be written to {target}", got=error.strerror) from error
    return target


def summary(
    events: Sequence[Event],
    say: Phrases,
    *,
    name: str,
    pictures: Mapping[str, str],
    damage: Damage | None = None,
) -> str:
    """The Markdown page.

    Args:
        events: of one run.
        say: the language.
        name: what the run is called.
        pictures: paths of the plots' files by plot name.
        damage: of its record, whose damaged lines are not among the events.
    """
    started = next((event for event in events if isinstance(event, RunStarted)), None)
    say = say.of_run(learns_from_teacher=started is None or started.learns_from_teacher)
    parts = [
        [f"# {verbatim(say('summary.title', name=name))}"],
        [] if damage is None else [verbatim(say("record.damaged", name=name, **vars(damage)))],
        _began(events, say),
        _ended(events, say),
        *(
            [f"## {heading}", f"![{heading}]({file})"]
            for heading, file in ((verbatim(plots.heading(plot, events, say)), file) for plot, file in pictures.items())
        ),
        _report_cards(reported(events), say),
        _topics(events, say),
        _settings(events, say),
    ]
    return "\n\n".join(block for part in parts for block in part) + "\n"


def _began(events: Sequence[Event], say: Phrases) -> Iterator[str]:
    run = next((event for event in events if isinstance(event, RunStarted)), None)
    if run is None:
        return
    columns = sentences.models(run, say)
    yield f"## {verbatim(say('summary.models'))}"
    yield _table(
        [one.heading for one in columns], [[getattr(one, role) for one in columns] for role in ("teacher", "student")]
    )
    yield _list(sentences.settings(run, say))


def _ended(events: Sequence[Event], say: Phrases) -> Iterator[str]:
    yield f"## {verbatim(say('summary.verdict'))}"
    last = events[-1] if events else None
    if not isinstance(last, RunFinished):
        yield verbatim(say("summary.unfinished", step=last.step if last is not None else 0))
        return
    title, results, advice, failures = sentences.verdict(last, say)
    yield f"**{verbatim(title)}**"
    yield _list(results)
    for heading, lines in (("advice", advice), ("failures", failures)):
        if lines:
            yield f"**{verbatim(say(f'final.{heading}'))}**"
            yield _list(lines)


def _report_cards(epochs: Sequence[tuple[EpochFinished, LatestReadings]], say: Phrases) -> Iterator[str]:
    if not epochs:
        return
    yield f"## {verbatim(say('notebook.report_cards'))}"
    if len(epochs) > MOST_EPOCHS:
        yield verbatim(say("notebook.left_out", count=len(epochs) - MOST_EPOCHS))
    rows = []
    for epoch, readings in epochs[-MOST_EPOCHS:]:
        seen, read = epoch.validation, (readings.unseen, readings.learned)
        measured = [percent(epoch.mean_laziness), *((number(seen.loss), percent(seen.agreement)) if seen else ("", ""))]
        agreed = ["" if summary is None else share(summary.agreement) for summary in read]
        rows.append([str(epoch.epoch), number(epoch.mean_loss), *measured, *agreed])
    words = ["notebook.epoch", "notebook.loss", "notebook.laziness", "plots.validation_loss", "plots.agreement"]
    words += ["plots.unseen_agreement", "plots.learned_agreement"]
    filled = [column for column in range(len(words)) if column < LEAST_COLUMNS or any(row[column] for row in rows)]
    yield _table([say(words[column]) for column in filled], [[row[column] for column in filled] for row in rows])


def _topics(events: Sequence[Event], say: Phrases) -> Iterator[str]:
    lazy: dict[str, list[float]] = {}
    for card in events:
        if isinstance(card, Card):
            lazy.setdefault(card.topic, []).append(card.laziness)
    ends = [score for event in events if isinstance(event, RunFinished) for score in event.topics]
    mastered = {score.topic: share(score.mastery) for score in ends if score.mastery is not None}
    if not lazy:
        return
    yield f"## {verbatim(say('summary.topics'))}"
    rows = []
    for topic, found in sorted(lazy.items(), key=lambda one: -len(one[1])):
        known = [one for one in found if not math.isnan(one)]
        mean = percent(fmean(known) if known else None)
        rows.append([topic_name(topic, say), str(len(found)), mean, mastered.get(topic, sentences.NO_NUMBER)])
    heads = [say("summary.topic"), say("summary.samples"), say("notebook.laziness"), say("summary.mastery")]
    shown = len(heads) if mastered else len(heads) - 1
    yield _table(heads[:shown], [row[:shown] for row in rows])


def _settings(events: Sequence[Event], say: Phrases) -> Iterator[str]:
    run = next((event for event in events if isinstance(event, RunStarted)), None)
    if run is None:
        return
    yield f"## {verbatim(say('summary.settings'))}"
    rows = [[key, sentences.NO_NUMBER if value is None else str(value)] for key, value in run.config.items()]
    yield _table([say("summary.setting"), say("summary.value")], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first, *others = ([verbatim(cell) for cell in line] for line in (head, *rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in (first, ["---"] * len(head), *others))


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {verbatim(line)}" for line in lines)


def verbatim(text: str) -> str:
    """Any text as one line of Markdown that shows exactly that text: no mark-up, HTML or links."""
    text = escape(_SPECIAL.sub(r"\\\1", sanitise(text, MOST_CHARACTERS).strip()), quote=False)
    return _LINKS.sub("<!-- -->", _BEGINS_A_BLOCK.sub(r"\1\\\2", text))
