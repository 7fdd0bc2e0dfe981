"""Header, cards, report cards and verdict of a run as HTML.

Pure: events in, strings out. Every text is sanitised and escaped in one place, `_safe`; no scripts, links or external
files; colours come from the surrounding page. Knows nothing of notebooks, or of when something is shown.
"""

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from html import escape
from importlib.resources import files

from apt_model.events.cards import ScoredObservation as Card
from apt_model.events.records import EpochFinished, ExamTaken, Notice, RunFinished, RunStarted
from apt_model.events.results import ExamAnswer
from apt_model.i18n import LANGUAGES, Phrases
from apt_model.render import sentences
from apt_model.render.diff import departures
from apt_model.render.palette import COLOURS
from apt_model.render.progress import RunProgress
from apt_model.render.readings import LatestReadings
from apt_model.render.sanitise import sanitise
from apt_model.render.sentences import LIGHTS, number, percent
from apt_model.render.wrap import shorten

NOT_MATHS = "tex2jax_ignore mathjax_ignore"  # else a notebook typesets what stands between dollar signs
PAIRS = {"👨🏫": "👨\u200d🏫", "👨🎓": "👨\u200d🎓"}  # one picture in a browser, two in most terminals


class HtmlPainter:
    """Draws the events of a run in one language.

    Args:
        phrases: the language.
        max_text_length: maximum characters of a text.
        show_diff: mark the differences between both texts.
    """

    def __init__(self, phrases: Phrases, *, max_text_length: int = 100, show_diff: bool = False) -> None:
        self._say, self._max_text_length, self._show_diff = phrases, max_text_length, show_diff
        self._marked = lru_cache(maxsize=16)(_marked)  # each card is drawn again whenever a new one comes

    def page(self, *pieces: str) -> str:
        """The pieces as one block with its own styles, which do not affect the surrounding page."""
        lang = f' lang="{self._say.lang}"' if self._say.lang in LANGUAGES else ""
        return f'<div class="apt-lesson {NOT_MATHS}"{lang}><style>{_styles()}</style>{"".join(pieces)}</div>'

    def header(self, run: RunStarted) -> str:
        """The run's title, its models and settings."""
        say = self._say
        legend = sentences.legend(run, say)
        marks = ""
        if legend is not None:
            before, between, after = map(_safe, legend)
            marks = f"<span>{before}<mark>…</mark>{between}<ins>…</ins>{after}</span>"
        columns = sentences.models(run, say)
        head = "".join(f'<th scope="col">{_safe(one.heading)}</th>' for one in columns)
        rows = ("".join(f"<td>{_safe(getattr(one, role))}</td>" for one in columns) for role in ("teacher", "student"))
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        models = f'<table class="apt-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        settings = "".join(f"<span>{_safe(line)}</span> " for line in sentences.settings(run, say))
        return f'{_line(say("header.title"), "apt-title")}{models}<div class="apt-quiet">{settings}{marks}</div>'

    def progress(self, run: RunProgress) -> str:
        """How far the run is: a bar where its length is known, and the figures in words."""
        bar = _bar(run.step / run.total_steps, "progressbar") if run.total_steps else ""
        parts = "".join(f"<span>{_safe(part)}</span> " for part in run.parts(self._say))
        return f'{bar}<div class="apt-parts">{parts}</div>'

    def card(self, card: Card) -> str:
        """One sample: what both said, how lazy the student is, on which topic, with a remark."""
        say = self._say
        epoch, batch, topic = self._title(card)
        teacher, student = self._said(card)
        given = self._row("card.given", _safe(card.given)) if card.given else ""
        if card.original:
            original = _safe(shorten(sanitise(card.original), self._max_text_length))
            given += self._row("card.original", f'<span class="apt-quiet">{original}</span>')
        if card.card_text == "predicted":
            given += _line(say("card.predicted"), "apt-quiet")
        lazy = f"{_safe(sentences.laziness(card, say).strip())} <b>{percent(card.laziness)}</b>"
        return (
            f'<div class="apt-card apt-{card.light}">'
            f'<div class="apt-top"><b>{batch}</b> <span>{epoch}</span> <span>{topic}</span></div>'
            f"{given}{self._row('card.teacher', teacher)}{self._row('card.student', student)}"
            f'<div class="apt-judged">{LIGHTS[card.light]} {lazy} · {_safe(say(f"light.{card.light}"))}'
            f" · {_safe(sentences.agreement(card, say))}</div>"
            f"{_bar(card.laziness, 'meter')}{_line(sentences.loss(card, say))}"
            f"<div><b>{_safe(say('card.remark').strip())}</b> {_safe(sentences.remark(card, say)[:500])}</div></div>"
        )

    def earlier(self, cards: Sequence[Card]) -> str:
        """Earlier cards, the latest first, each collapsed to a line."""
        if not cards:
            return ""
        return _line(self._say("notebook.earlier"), "apt-heading") + "".join(map(self._folded, cards))

    def exams(self, exams: Sequence[ExamTaken]) -> str:
        """The exams' questions, each with the teacher's answer and those of the student, oldest first."""
        asked: dict[str, list[tuple[ExamTaken, ExamAnswer]]] = {}
        for exam in exams:
            for answer in exam.answers:
                asked.setdefault(answer.prompt, []).append((exam, answer))
        questions = "".join(map(self._question, asked.values()))
        return _line(self._say("notebook.exams"), "apt-heading") + questions if questions else ""

    def report_cards(self, epochs: Sequence[tuple[EpochFinished, LatestReadings]], *, left_out: int = 0) -> str:
        """The epochs, each with the latest readings by then, as a table; `left_out` earlier ones are only counted."""
        if not epochs:
            return ""
        say = self._say
        columns = ("epoch", "loss", "laziness", "topics")
        head = "".join(f'<th scope="col">{_safe(say(f"notebook.{column}"))}</th>' for column in columns)
        before = f'<tr><td colspan="4">{_safe(say("notebook.left_out", count=left_out))}</td></tr>' if left_out else ""
        rows = "".join(self._report_card(*epoch) for epoch in epochs)
        title = _line(say("notebook.report_cards"), "apt-heading")
        table = f"<thead><tr>{head}</tr></thead><tbody>{before}{rows}</tbody>"
        return f'{title}<table class="apt-table">{table}</table>'

    def verdict(self, run: RunFinished) -> str:
        """The end of the run: results and advice."""
        title, results, advice, failures = sentences.verdict(run, self._say)
        said = "".join(map(_line, results))
        for heading, lines in (("advice", advice), ("failures", failures)):
            if lines:
                said += _line(self._say(f"final.{heading}"), "apt-heading") + "".join(map(_line, lines))
        return f'<div class="apt-verdict">{_line(title, "apt-title")}{said}</div>'

    def notice(self, notice: Notice) -> str:
        """One sentence between cards."""
        return _line(sentences.notice(notice, self._say), "apt-quiet")

    def _title(self, card: Card) -> tuple[str, str, str]:
        batch, topic = sentences.title(card, self._say)
        return _safe(f"{self._say('notebook.epoch')} {card.epoch}"), _safe(batch), _safe(topic)

    def _said(self, card: Card) -> tuple[str, str]:
        """Both texts; with `show_diff`, each with its own differing parts marked."""
        texts = [shorten(sanitise(text), self._max_text_length) for text in (card.teacher_text, card.student_text)]
        teacher, student = self._marked(*texts) if self._show_diff else map(_safe, texts)
        silence = f'<span class="apt-quiet">{_safe(self._say("card.silence"))}</span>'
        return teacher if texts[0].strip() else silence, student if texts[1].strip() else silence

    def _row(self, label: str, said: str) -> str:
        return f'<div class="apt-row apt-said"><b>{_safe(self._say(label).strip())}</b> <span>{said}</span></div>'

    def _question(self, answers: Sequence[tuple[ExamTaken, ExamAnswer]]) -> str:
        say, (_, newest) = self._say, answers[-1]
        prompt = f"<b>{_safe(sentences.exam_prompt(newest, say).strip())}</b> <span>{self._text(newest.prompt)}</span>"
        teacher = "" if newest.teacher is None else self._row("card.teacher", self._text(newest.teacher))
        rows = "".join(
            f"<tr><td>{_safe(sentences.exam_title(exam, say))}</td><td>{self._text(answer.student)}</td>"
            f"<td>{_safe(sentences.exam_agreement(answer, say) or '')}</td></tr>"
            for exam, answer in answers
        )
        table = f'<table class="apt-table"><tbody>{rows}</tbody></table>'
        return f'<div class="apt-card"><div class="apt-row apt-said">{prompt}</div>{teacher}{table}</div>'

    def _text(self, text: str) -> str:
        """A text of a model, or the sign of its silence."""
        if not text.strip():
            return f'<span class="apt-quiet">{_safe(self._say("card.silence"))}</span>'
        return _safe(shorten(sanitise(text), self._max_text_length))

    def _folded(self, card: Card) -> str:
        say = self._say
        epoch, batch, topic = self._title(card)
        lazy = f"{LIGHTS[card.light]} {percent(card.laziness)} {_safe(say(f'light.{card.light}'))}"
        return f"<details><summary>{lazy} · {batch} · {epoch} · {topic}</summary>{self.card(card)}</details>"

    def _report_card(self, epoch: EpochFinished, readings: LatestReadings) -> str:
        say = self._say
        bar = "" if epoch.mean_laziness is None else _bar(epoch.mean_laziness, "meter") + " "
        lazy = bar + percent(epoch.mean_laziness)
        topics = [sentences.topic(score, say, words="notebook.topic") for score in epoch.topics]
        topics += [*sentences.validation(epoch.validation, say), *readings.lines(say)]
        if epoch.skipped_batches:
            topics.append(say("epoch_card.skipped", count=epoch.skipped_batches))
        said = "".join(f"<span>{_safe(topic)}</span> " for topic in topics)
        return f"<tr><td>{epoch.epoch}</td><td>{number(epoch.mean_loss)}</td><td>{lazy}</td><td>{said}</td></tr>"


def _safe(text: str) -> str:
    """Any text as harmless HTML: the only way for text to get onto the page."""
    text = escape(sanitise(text))
    for apart, together in PAIRS.items():
        text = text.replace(apart, together)
    return text


def _marked(teacher_text: str, student_text: str) -> tuple[str, str]:
    stretches = [(kind, _safe(text)) for kind, text in departures(teacher_text, student_text)]
    teacher = (f"<mark>{text}</mark>" if kind == "missing" else text for kind, text in stretches if kind != "added")
    student = (f"<ins>{text}</ins>" if kind == "added" else text for kind, text in stretches if kind != "missing")
    return "".join(teacher), "".join(student)


def _line(text: str, kind: str = "") -> str:
    return f'<div class="{kind}">{_safe(text)}</div>' if kind else f"<div>{_safe(text)}</div>"


def _bar(ratio: float, role: str) -> str:
    """A bar that screen readers announce as a number; NaN counts as 0."""
    width = f"{100 * min(1.0, max(0.0, ratio)):.1f}"
    value = f'role="{role}" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{width}"'
    return f'<div class="apt-bar" {value}><div style="width:{width}%"></div></div>'


@cache
def _styles() -> str:
    """The stylesheet, with the palette's colours in place of its variables: a notebook has no :root of ours."""
    sheet = files("apt_model.render").joinpath("lesson.css").read_text("utf-8")
    sheet = re.sub(r"var\(--([\w-]+)\)", lambda name: COLOURS[name[1]], sheet)
    return re.sub(r"\s+", " ", sheet).strip()
