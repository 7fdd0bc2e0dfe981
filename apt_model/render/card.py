"""Header, cards, exams, report cards and verdict of a run as rich renderables.

Pure: events in, renderables out. Of the terminal it knows only width, encoding and whether there is colour.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rich import box
from rich.console import JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text
from wcwidth import width as cells

from apt_model.events.cards import ScoredObservation as Card
from apt_model.events.records import EpochFinished, EpochStarted, ExamTaken, Notice, RunFinished, RunStarted
from apt_model.i18n import Phrases
from apt_model.render import sentences
from apt_model.render.diff import ADDED, MISSING, inline_diff, mark
from apt_model.render.readings import NO_READINGS, LatestReadings
from apt_model.render.sanitise import fit_encoding, sanitise
from apt_model.render.sentences import LIGHTS, number, percent
from apt_model.render.wrap import shorten, wrap

COLOURS = {"green": "green", "yellow": "yellow", "red": "red"}
WIDEST, NARROWEST = 70, 24
BAR_CELLS, SHORTEST_BAR = 30, 10  # the longest, and the shortest beside which the agreement stands


@dataclass(frozen=True, kw_only=True)
class CardStyle:
    """Style of the cards.

    Attributes:
        phrases: the language.
        columns: cells from border to border; 70 at most, as in the guide.
        colour: whether colours may be used; they never carry information alone.
        encoding: of the output; characters that it lacks are replaced.
        max_text_length: maximum characters of a text.
        show_diff: add a line that marks the differences between the texts.
    """

    phrases: Phrases
    columns: int = WIDEST
    colour: bool = True
    encoding: str = "utf-8"
    max_text_length: int = 100
    show_diff: bool = False


class CardPainter:
    """Draws the events of a run in one style."""

    def __init__(self, style: CardStyle) -> None:
        self._style, self._say = style, style.phrases
        self._columns = max(NARROWEST, min(WIDEST, style.columns))
        self._inner = self._columns - 4

    def header(self, run: RunStarted) -> Iterator[RenderableType]:
        """The run's title and settings."""
        say = self._say
        yield self._rule("=")
        yield from self._centre(say("header.title"))
        yield self._rule("=")
        for line in sentences.settings(run, say):
            yield from self._plain(line)
        legend = sentences.legend(run, say)
        if legend is not None:
            before, between, after = legend
            missing, added = (mark("…", style, colour=self._style.colour) for style in (MISSING, ADDED))
            text = Text.assemble(before, missing, between, added, after)
            yield from self._lines(Text(), text, self._columns, hang=0)
        yield self._models(run)
        yield self._rule("=")

    def epoch(self, epoch: EpochStarted) -> Iterator[RenderableType]:
        """The heading of an epoch."""
        yield Text()
        yield self._rule("─")
        yield from self._centre(self._say("header.epoch", epoch=epoch.epoch, epochs=epoch.num_epochs))
        yield self._rule("─")

    def card(self, card: Card) -> Iterator[RenderableType]:
        """One sample: its own text, both models' texts, laziness, topic, loss and remark."""
        say, table = self._say, self._table(box.SQUARE)
        batch, topic = sentences.title(card, say)
        title = f"{batch:<16} │ {topic}"
        for line in [title] if cells(self._clean(title)) <= self._inner else [batch, topic]:
            self._add(table, line)
        table.add_section()
        hang = cells(self._clean(say("card.teacher"))) if self._columns >= 56 else 2
        if card.given:
            self._add(table, Text(sanitise(card.given), style="dim"), label=say("card.given"), hang=hang)
        if card.original:
            self._add(table, Text(self._text(card.original), style="dim"), label=say("card.original"), hang=hang)
        if card.card_text == "predicted":
            self._add(table, Text(say("card.predicted"), style="dim"))
        texts = card.teacher_text, card.student_text
        self._voices(table, *texts, hang=hang)
        if self._style.show_diff:
            diff = inline_diff(*map(self._text, texts), colour=self._style.colour)
            self._add(table, diff, label=say("card.diff"), hang=hang)
        table.add_section()
        bar, agreement = self._bar(card), sentences.agreement(card, say)
        self._add(table, bar)
        if not bar.plain.endswith(agreement):
            self._add(table, agreement, label="   ")
        self._add(table, sentences.loss(card, say), hang=3)
        self._add(table, sanitise(sentences.remark(card, say), 500), label=say("card.remark"), hang=3)
        yield Text()
        yield table

    def exam(self, exam: ExamTaken) -> Iterator[RenderableType]:
        """Both models' completions of the exam prompts."""
        say, table = self._say, self._table(box.SQUARE)
        self._add(table, sentences.exam_title(exam, say))
        hang = cells(self._clean(say("card.teacher"))) if self._columns >= 56 else 2
        for one in exam.answers:
            table.add_section()
            self._add(
                table, Text(self._text(one.prompt), style="dim"), label=sentences.exam_prompt(one, say), hang=hang
            )
            self._voices(table, one.teacher, one.student, hang=hang)
            agreement = sentences.exam_agreement(one, say)
            if agreement is not None:
                self._add(table, agreement, hang=3)
        yield Text()
        yield table

    def report_card(self, epoch: EpochFinished, readings: LatestReadings = NO_READINGS) -> Iterator[RenderableType]:
        """The end of an epoch, with what the latest readings of the fixed rows show."""
        say, table = self._say, self._table(box.DOUBLE)
        self._add(table, say("epoch_card.title", epoch=epoch.epoch), new_section=True)
        self._add(table, say("epoch_card.loss", loss=number(epoch.mean_loss)))
        if epoch.mean_laziness is not None:
            self._add(table, say("epoch_card.laziness", laziness=percent(epoch.mean_laziness)))
        for line in [*sentences.validation(epoch.validation, say), *readings.lines(say)]:
            self._add(table, line, hang=3)
        if epoch.topics:
            self._add(table, say("epoch_card.topics"))
        for score in epoch.topics:
            self._add(table, sentences.topic(score, say), label="   ", hang=3)
        if epoch.skipped_batches:
            self._add(table, say("epoch_card.skipped", count=epoch.skipped_batches))
        yield Text()
        yield table

    def verdict(self, run: RunFinished) -> Iterator[RenderableType]:
        """The end of the run."""
        table, verdict = self._table(box.DOUBLE), sentences.verdict(run, self._say)
        self._add(table, verdict.title, new_section=True)
        for result in verdict.results:
            self._add(table, result, hang=3)
        for heading, lines, hang in (("advice", verdict.advice, 6), ("failures", verdict.failures, 3)):
            if lines:
                table.add_section()
                self._add(table, self._say(f"final.{heading}"))
            for line in lines:
                self._add(table, line, label="   ", hang=hang)
        yield Text()
        yield table

    def notice(self, notice: Notice) -> Iterator[RenderableType]:
        """One sentence between cards."""
        yield from self._plain(sentences.notice(notice, self._say))

    def _models(self, run: RunStarted) -> Table:
        """Table of teacher and student; on a narrow terminal without names, shapes and megabytes."""
        table = Table(box=None, width=self._columns, padding=(0, 1), pad_edge=False)
        columns = sentences.models(run, self._say)
        shown = [one for one in columns if self._columns >= 60 or one.name in ("role", "parameters", "share")]
        for one in shown:
            justify: JustifyMethod = "left" if one.name in ("role", "model") else "right"
            heading = Text(self._clean(one.heading), style="bold")
            table.add_column(heading, justify=justify, no_wrap=True, overflow="crop")
        for role in ("teacher", "student"):
            table.add_row(*(Text(self._clean(getattr(one, role))) for one in shown))
        return table

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
        """The text with characters that the encoding lacks replaced (which drops its styles)."""
        plain = self._clean(text.plain)
        return text if plain == text.plain else Text(plain, style=text.style)

    def _clean(self, text: str) -> str:
        return fit_encoding(sanitise(text), self._style.encoding)

    def _text(self, text: str) -> str:
        return shorten(sanitise(text), self._style.max_text_length)

    def _plain(self, text: str) -> Iterator[Text]:
        return self._lines(Text(), Text(text), self._columns, hang=0)

    def _centre(self, text: str) -> Iterator[Text]:
        for line in self._plain(text):
            indent = " " * ((self._columns - cells(line.plain)) // 2)
            yield Text(indent + line.plain, style="bold")

    def _rule(self, character: str) -> Text:
        return Text((character if self._clean(character) == character else "-") * self._columns)

    def _voices(self, table: Table, teacher: str | None, student: str, *, hang: int) -> None:
        """What the teacher (if it is there) and the student said; a blank text is silence."""
        silence = Text(self._say("card.silence"), style="dim")
        for label, text in (("card.teacher", teacher), ("card.student", student)):
            if text is not None:
                self._add(table, self._text(text) if text.strip() else silence, label=self._say(label), hang=hang)

    def _bar(self, card: Card) -> Text:
        """The light, the bar, the percentage and, if there is room for it, the agreement on one line."""
        light = self._clean(f"{LIGHTS[card.light]} {sentences.laziness(card, self._say)}")
        after = f" {percent(card.laziness)}"
        agreement = self._clean(f"  {sentences.agreement(card, self._say)}")
        full, empty = self._clean("█")[:1], self._clean("░")[:1]
        room = self._inner - cells(light) - len(after) - 2
        if room - cells(agreement) >= SHORTEST_BAR:
            room, after = room - cells(agreement), after + agreement
        size = max(4, min(BAR_CELLS, room))
        filled = 0 if math.isnan(card.laziness) else round(min(max(card.laziness, 0.0), 1.0) * size)
        return Text.assemble(
            light, "[", (full * filled, COLOURS[card.light]), (empty * (size - filled), "dim"), "]", after
        )
