"""The lesson's pieces as rich renderables: header, card, report card, verdict.

Pure: events in, renderables out. Knows nothing of terminals, beyond a width, an encoding and whether there is colour.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from wcwidth import width as cells

from apt_model.events.records import EpochFinished, EpochStarted, Notice, RunFinished, RunStarted, Validation
from apt_model.events.records import ScoredObservation as Card
from apt_model.i18n import Phrases
from apt_model.render.diff import ADDED, MISSING, inline_diff, mark
from apt_model.render.sanitise import fit_encoding, sanitise
from apt_model.render.wrap import shorten, wrap

LIGHTS = {"green": "🟢", "yellow": "🟡", "red": "🔴"}
COLOURS = {"green": "green", "yellow": "yellow", "red": "red"}
WIDEST, NARROWEST = 70, 24
BAR_CELLS = 30
NO_NUMBER = "–"


def number(value: float | None, digits: int = 4) -> str:
    """A number as the lesson shows it; a dash where there is none."""
    return NO_NUMBER if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A ratio as percent; a dash where there is none."""
    return NO_NUMBER if value is None else f"{100 * value:.2f}%"


def duration(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@dataclass(frozen=True, kw_only=True)
class CardStyle:
    """How to draw.

    Attributes:
        phrases: the language.
        columns: cells from border to border; 70 at most, as in the guide.
        colour: whether colours may be used; nothing is told by colour alone.
        encoding: of the output; what it cannot say is replaced.
        max_text_length: characters of a text.
        show_diff: add the line that shows where the student departs.
    """

    phrases: Phrases
    columns: int = WIDEST
    colour: bool = True
    encoding: str = "utf-8"
    max_text_length: int = 100
    show_diff: bool = False


class CardPainter:
    """Draws the lesson in one style."""

    def __init__(self, style: CardStyle) -> None:
        self._style, self._say = style, style.phrases
        self._columns = max(NARROWEST, min(WIDEST, style.columns))
        self._inner = self._columns - 4

    def header(self, run: RunStarted) -> Iterator[RenderableType]:
        """The run's title and settings."""
        config, say = run.config, self._say
        yield self._rule("=")
        yield from self._centre(say("header.title"))
        yield self._rule("=")
        yield from self._plain(say("header.config", **{k: config[k] for k in ("temperature", "alpha", "beta")}))
        shows = say("header.frequency", count=config["sample_frequency"])
        yield from self._plain(shows if config["show_samples"] else say("header.no_samples"))
        if config["show_samples"] and config["show_diff"]:
            marks = {"missing": ("…", MISSING), "added": ("…", ADDED)}
            before, between, after = say("header.diff", missing="\0", added="\0").split("\0")
            legend = Text.assemble(
                before,
                mark(*marks["missing"], colour=self._style.colour),
                between,
                mark(*marks["added"], colour=self._style.colour),
                after,
            )
            yield from self._lines(Text(), legend, self._columns, hang=0)
        yield self._models(run)
        yield self._rule("=")

    def epoch(self, epoch: EpochStarted) -> Iterator[RenderableType]:
        """The line between epochs."""
        yield Text()
        yield self._rule("─")
        yield from self._centre(self._say("header.epoch", epoch=epoch.epoch, epochs=epoch.num_epochs))
        yield self._rule("─")

    def card(self, card: Card) -> Iterator[RenderableType]:
        """One sample: what both said, how lazy the student is, on which topic, with a remark."""
        say, table = self._say, self._table(box.SQUARE)
        batch, topic = (
            say(f"card.{'batch' if card.source == 'train' else 'validation_batch'}", batch=card.batch),
            say("card.topic", topic=self._topic(card.topic)),
        )
        title = f"{batch:<16} │ {topic}"
        for line in [title] if cells(self._clean(title)) <= self._inner else [batch, topic]:
            self._add(table, line)
        table.add_section()
        teacher, student = (self._text(text) for text in (card.teacher_text, card.student_text))
        hang = cells(self._clean(say("card.teacher"))) if self._columns >= 56 else 2
        if card.given:
            self._add(table, Text(sanitise(card.given), style="dim"), label=say("card.given"), hang=hang)
        self._add(table, teacher, label=say("card.teacher"), hang=hang)
        self._add(table, student, label=say("card.student"), hang=hang)
        if self._style.show_diff:
            diff = inline_diff(teacher, student, colour=self._style.colour)
            self._add(table, diff, label=say("card.diff"), hang=hang)
        table.add_section()
        self._add(table, self._bar(card))
        self._add(table, say(f"card.{'loss' if card.source == 'train' else 'validation_loss'}", loss=number(card.loss)))
        self._add(table, sanitise(card.remark, 500), label=say("card.remark"), hang=3)
        yield Text()
        yield table

    def report_card(self, epoch: EpochFinished) -> Iterator[RenderableType]:
        """The end of an epoch."""
        say, table = self._say, self._table(box.DOUBLE)
        self._add(table, say("epoch_card.title", epoch=epoch.epoch), new_section=True)
        self._add(table, say("epoch_card.loss", loss=number(epoch.mean_loss)))
        if epoch.mean_laziness is not None:
            self._add(table, say("epoch_card.laziness", laziness=percent(epoch.mean_laziness)))
        self._validation(table, epoch.validation)
        if epoch.topics:
            self._add(table, say("epoch_card.topics"))
        for score in epoch.topics:
            values = {"topic": self._topic(score.topic), "laziness": percent(score.mean_laziness)}
            self._add(table, say("epoch_card.topic", samples=score.samples, **values), label="   ", hang=3)
        if epoch.skipped_batches:
            self._add(table, say("epoch_card.skipped", count=epoch.skipped_batches))
        yield Text()
        yield table

    def verdict(self, run: RunFinished) -> Iterator[RenderableType]:
        """The end of the run."""
        say, table = self._say, self._table(box.DOUBLE)
        self._add(table, say("final.title" if run.step else "final.empty"), new_section=True)
        if run.samples:
            self._add(table, say("final.samples", samples=run.samples))
            self._add(table, say("final.laziness", laziness=percent(run.mean_laziness)))
            ends = {"first": percent(run.first_laziness), "last": percent(run.last_laziness)}
            self._add(table, say("final.course", **ends))
        if run.step:
            self._add(table, say("final.loss", first=number(run.first_loss), last=number(run.last_loss)))
            self._validation(table, run.validation)
            self._add(table, say("final.time", time=duration(run.seconds), tokens=f"{run.tokens:,}"))
        if run.samples:
            self._add(table, say("final.trend", trend=say(f"trend.{run.trend}")))
        if run.step and run.advice:
            table.add_section()
            self._add(table, say("final.advice"))
            for advice in run.advice:
                sentence = say(f"advice.{advice.key}", topic=self._topic(advice.topic or ""))
                self._add(table, sentence, label="   ", hang=6)
        if run.failures:
            table.add_section()
            self._add(table, say("final.failures"))
            for failure in run.failures:
                self._add(table, sanitise(failure, 500), label="   ", hang=3)
        yield Text()
        yield table

    def notice(self, notice: Notice) -> Iterator[RenderableType]:
        """One sentence between cards."""
        values = {
            key: sanitise(value, 500) if isinstance(value, str) else value for key, value in notice.values.items()
        }
        yield from self._plain("🔧 " + self._say(notice.key, **values))

    def _models(self, run: RunStarted) -> Table:
        """Teacher and student side by side; where there is no room, without their names and sizes in layers."""
        say, wide = self._say, self._columns >= 60
        names = ["", "model", "layers", "parameters", "megabytes", "share"] if wide else ["", "parameters", "share"]
        table = Table(box=None, width=self._columns, padding=(0, 1), pad_edge=False)
        for name in names:
            heading = Text(self._clean(say(f"models.{name}")) if name else "", style="bold")
            table.add_column(
                heading, justify="left" if name in ("", "model") else "right", no_wrap=True, overflow="crop"
            )
        for role, model in (("teacher", run.teacher), ("student", run.student)):
            cells_of = {
                "": say(f"models.{role}"),
                "model": shorten(sanitise(model.name), 20),
                "layers": f"{model.layers or '?'} × {model.hidden_size or '?'}",
                "parameters": f"{model.parameters:,}",
                "megabytes": f"{model.megabytes:.1f} MB",
                "share": f"{100 * model.parameters / max(run.teacher.parameters, 1):.1f}%",
            }
            table.add_row(*(Text(self._clean(cells_of[name])) for name in names))
        return table

    def _validation(self, table: Table, seen: Validation | None) -> None:
        if seen is not None:
            values = {"loss": number(seen.loss), "agreement": percent(seen.agreement)}
            self._add(table, self._say("validation.loss", **values))
            if seen.mean_laziness is not None:
                self._add(table, self._say("validation.laziness", laziness=percent(seen.mean_laziness)))

    def _table(self, borders: box.Box) -> Table:
        table = Table(box=borders, show_header=False, width=self._columns, padding=(0, 1))
        table.add_column(width=self._inner, no_wrap=True, overflow="crop")
        return table

    def _add(
        self, table: Table, content: str | Text, *, label: str = "", hang: int = 0, new_section: bool = False
    ) -> None:
        content = content if isinstance(content, Text) else Text(content)
        lines = list(self._lines(Text(label, style="bold"), content, self._inner, hang=hang))
        for line in lines:
            table.add_row(line)
        if new_section:
            table.add_section()

    def _lines(self, label: Text, content: Text, columns: int, *, hang: int) -> Iterator[Text]:
        """`content` after `label`, wrapped; every line after the first is indented by `hang` cells."""
        label, content = self._fit(label), self._fit(content)
        indent = Text(" " * hang)
        text = content.plain
        spans = wrap(text, columns - hang, first=columns - cells(label.plain))
        for index, (start, end) in enumerate(spans):
            yield Text.assemble(label if index == 0 else indent, content[start:end] if start < end else "")

    def _fit(self, text: Text) -> Text:
        """The same text, replaced where the encoding cannot say it (its styles are lost then)."""
        plain = self._clean(text.plain)
        return text if plain == text.plain else Text(plain, style=text.style)

    def _clean(self, text: str) -> str:
        return fit_encoding(sanitise(text), self._style.encoding)

    def _text(self, text: str) -> str:
        return shorten(sanitise(text), self._style.max_text_length)

    def _topic(self, topic: str) -> str:
        return shorten(sanitise(self._say.topic(topic)), 20)

    def _plain(self, text: str) -> Iterator[Text]:
        return self._lines(Text(), Text(text), self._columns, hang=0)

    def _centre(self, text: str) -> Iterator[Text]:
        for line in self._plain(text):
            indent = " " * ((self._columns - cells(line.plain)) // 2)
            yield Text(indent + line.plain, style="bold")

    def _rule(self, character: str) -> Text:
        return Text((character if self._clean(character) == character else "-") * self._columns)

    def _bar(self, card: Card) -> Text:
        """The light, the bar and the percentage on one line; the bar gives way where the line is short."""
        light = self._clean(f"{LIGHTS[card.light]} ") + self._say("card.laziness")
        light, after = self._clean(light), f" {percent(card.laziness)}"
        full, empty = self._clean("█")[:1], self._clean("░")[:1]
        size = max(4, min(BAR_CELLS, self._inner - cells(light) - len(after) - 2))
        filled = round(min(max(card.laziness, 0.0), 1.0) * size)
        return Text.assemble(
            light, "[", (full * filled, COLOURS[card.light]), (empty * (size - filled), "dim"), "]", after
        )
