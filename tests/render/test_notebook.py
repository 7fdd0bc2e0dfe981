"""In a notebook: the same lesson as HTML, inert whatever it says, redrawn in place and seldom enough."""

import re
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings

from apt_model.config.sections import DisplayConfig
from apt_model.events.event import Event
from apt_model.events.records import EpochFinished, ExamTaken, Notice, RunFinished, RunStarted
from apt_model.events.results import Advice, ExamAnswer, TopicScore
from apt_model.events.sinks import Audience
from apt_model.i18n import Phrases
from apt_model.render.diff import departures
from apt_model.render.html import HtmlPainter
from apt_model.render.notebook import EARLIER_CARDS, LATEST_EPOCHS, LATEST_NOTICES, REFRESH_SECONDS, NotebookSink
from apt_model.render.progress import RunProgress
from tests.events.test_events import CARD, STEP
from tests.render.test_cards import EPOCH, LESSON, LESSON_CARD, RUN
from tests.render.test_sanitise import hostile

HOSTILE = [
    "<script>alert(1)</script>",
    "</details></div></style><img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    '" onmouseover="alert(1)',
    "' style='position:fixed",
    "{{ 7*7 }} {% x %} ${x} {0} {name}",
    "$x$ \\(y\\) $$z$$",
    "**bold** [a](http://x) `code` # title",
    "\x1b[31m\x9b2J\x00\r\n\u202e\u2066\ud800",
    "<!-- --><![CDATA[ &lt; &#60; &amp;lt;",
]
TAGS = {"div", "style", "span", "b", "mark", "ins", "details", "summary"} | {
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
}
ATTRIBUTES = {"class", "lang", "style", "scope", "colspan", "role", "aria-valuemin", "aria-valuemax", "aria-valuenow"}
THEMES = {  # text and ground below a cell
    "JupyterLab light": ((0, 0, 0, 0.87), (255, 255, 255, 1)),
    "JupyterLab dark": ((255, 255, 255, 1), (17, 17, 17, 1)),
    "VS Code light": ((59, 59, 59, 1), (255, 255, 255, 1)),
    "VS Code dark": ((204, 204, 204, 1), (31, 31, 31, 1)),
}


class Page(HTMLParser):
    """A page's tags in order, its attributes, and what it says; fails where tags do not match."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


class Cell:
    """A notebook's cell: its outputs as they stand, and how often each was drawn, by a clock that we move."""

    def __init__(self) -> None:
        self.outputs: list[str] = []
        self.drawn: list[list[float]] = []
        self.now = 0.0

    def show(self, html: str) -> Callable[[str], None]:
        index = len(self.outputs)
        self.outputs.append(html)
        self.drawn.append([self.now])

        def redraw(newer: str) -> None:
            self.outputs[index] = newer
            self.drawn[index].append(self.now)

        return redraw

    def sink(self, **settings: Any) -> NotebookSink:
        return NotebookSink(DisplayConfig(**settings), show=self.show, clock=lambda: self.now)

    @property
    def text(self) -> str:
        return Page("".join(self.outputs)).text


def played(events: list[Event], **settings: Any) -> Cell:
    """What stands below the cell after the events."""
    cell = Cell()
    sink = cell.sink(**settings)
    for event in events:
        sink.emit(event)
    sink.close()
    return cell


def test_a_card_in_full() -> None:
    painter = HtmlPainter(Phrases.load("zh"), show_diff=True)
    card = replace(LESSON_CARD, teacher_text="最大的网络", student_text="的大网络", loss=1.8765)
    assert painter.card(card) == (
        '<div class="apt-card apt-yellow"><div class="apt-top">'
        "<b>📍 Batch 0</b> <span>Epoch 1</span> <span>📚 教学主题:【互联网】</span></div>"
        '<div class="apt-row apt-said"><b>📝 开头:</b> <span>互联网是</span></div>'
        '<div class="apt-row apt-said"><b>📄 原文:</b> '
        '<span><span class="apt-quiet">由许多网络连成的网络</span></span></div>'
        '<div class="apt-row apt-said"><b>👨‍🏫 教师模型:</b> <span><mark>最</mark>大<mark>的</mark>网络</span></div>'
        '<div class="apt-row apt-said"><b>👨‍🎓 学生模型:</b> <span><ins>的</ins>大网络</span></div>'
        '<div class="apt-judged">🟡 偷懒程度: <b>52.37%</b> · 还有进步空间 · 一致 25%</div>'
        '<div class="apt-bar" role="meter" aria-valuemin="0" aria-valuemax="100" aria-valuenow="52.4">'
        '<div style="width:52.4%"></div></div>'
        "<div>📉 训练损失: 1.8765，其中还能降 0.43</div><div><b>💬 评语:</b> 📚 主题不够熟练，需要再多学习</div></div>"
    )


@pytest.mark.parametrize(
    ("lang", "words"),
    [
        (
            "zh",
            "🎓 可视化知识蒸馏训练|教师M 10? × ?101.5 MB100.0%|温度=4.0|每 50 个batch|Epoch 1/1|3/100|10.0 步/秒|"
            "剩余 0:10|损失 0.50|没有 cuda|教师模型|每个 epoch 的总结|互联网（2）50.00%|我的题目（1）20.00%|"
            "跳过了 2 个|🧪 没学过的文本（32 条）: 与教师一致 46.3% ± 3.1%|"
            "知识蒸馏训练完成|90.00% → 10.00%|💡 建议|最偷懒的主题是【科技】|X: no ink",
        ),
        (
            "en",
            "🎓 Knowledge distillation|StudentM 10? × ?101.5 MB100.0%|α=0.7|every 50 batches|10.0 steps/s|0:10 left|"
            "loss 0.50|cuda is not available|Topic: [internet]|Report cards|Mean laziness|42.15%|internet (2) 50.00%|"
            "The lesson is over!|great progress",
        ),
    ],
)
def test_the_whole_lesson_is_told_in_the_language_asked_for(lang: str, words: str) -> None:
    cell = played(LESSON, lang=lang)
    for word in words.split("|"):
        assert word in cell.text
    assert f'lang="{lang}"' in cell.outputs[0]


def test_the_header_explains_the_marks_exactly_where_there_are_some() -> None:
    legend = "<mark>…</mark> 教师说了学生没说，<ins>…</ins> 学生自己说的"
    plain = replace(RUN, config={**RUN.config, "show_diff": False})
    assert legend in "".join(played([RUN, LESSON_CARD], show_diff=True).outputs)
    without = "".join(played([plain, LESSON_CARD], show_diff=False).outputs)
    assert "<mark>" not in without
    assert "<ins>" not in without


@given(teacher=hostile, student=hostile)
def test_the_departures_give_both_texts_back(teacher: str, student: str) -> None:
    stretches = list(departures(teacher, student))
    assert "".join(text for kind, text in stretches if kind != "added") == teacher[:1000]
    assert "".join(text for kind, text in stretches if kind != "missing") == student[:1000]


def lesson_with(text: str) -> list[Event]:
    """A lesson that says `text` wherever an event can carry one."""
    model = replace(RUN.teacher, name=text)
    topics = (TopicScore(topic=text, samples=1, mean_laziness=0.5),)
    card = replace(CARD, given=text, teacher_text=text, student_text=text + "!", topic=text, remark=text)
    over = LESSON[-1]
    assert isinstance(over, RunFinished)
    return [
        replace(RUN, teacher=model, student=model),
        card,
        card,
        STEP,
        Notice(run_id="r", step=1, key="notice.display_failed", values={"failure": text}),
        replace(EPOCH, topics=topics),
        replace(over, failures=(text,), advice=(Advice(key="laziest_topic", topic=text),)),
    ]


def check_inert(text: str) -> None:
    for show_diff in (False, True):
        html = "".join(played(lesson_with(text), show_diff=show_diff).outputs)
        page, benign = Page(html), Page("".join(played(lesson_with("学"), show_diff=show_diff).outputs))
        assert set(page.tags) <= TAGS
        assert page.attributes == benign.attributes, "no text gets into an attribute"
        skeleton, expected = ([tag for tag in p.tags if tag not in ("mark", "ins")] for p in (page, benign))
        assert skeleton == expected
        assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", html)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_can_add_a_tag_or_an_attribute(text: str) -> None:
    check_inert(text)
    shown = played(lesson_with(text)).text
    if text.isprintable():
        assert shown.count(text) >= 4, "and yet it is shown as it is"


@settings(max_examples=30)
@given(text=hostile)
def test_no_mixture_of_hostile_text_can_either(text: str) -> None:
    check_inert("学" + text)


def test_there_is_nothing_to_run_to_fetch_or_to_typeset() -> None:
    for html in played(LESSON, show_diff=True).outputs:
        page = Page(html)
        assert {name for name, _ in page.attributes} <= ATTRIBUTES
        assert html.startswith('<div class="apt-lesson tex2jax_ignore mathjax_ignore"')
        assert {
            value for name, value in page.attributes if name == "style" and not re.fullmatch(r"width:[\d.]+%", value)
        } == set()


def rules() -> Iterator[tuple[str, dict[str, str]]]:
    """The stylesheet's rules, as (selector, declarations)."""
    sheet = HtmlPainter(Phrases.load("zh")).page().partition("<style>")[2].partition("</style>")[0]
    for selectors, body in re.findall(r"([^{}]+)\{([^{}]*)\}", sheet):
        pairs = (line.split(":", 1) for line in body.split(";") if line.strip())
        yield selectors.strip(), {name.strip(): value.strip() for name, value in pairs}


def test_the_styles_touch_nothing_but_the_lesson() -> None:
    found = list(rules())
    assert len(found) > 20
    for selectors, declared in found:
        assert all(one.strip().startswith(".apt-lesson") for one in selectors.split(","))
        assert declared.get("color", "inherit") == "inherit", "text has the colour of the theme"
        assert not re.search(r"url|import|expression|@", " ".join(declared.values()))


def luminance(colour: tuple[float, ...]) -> float:
    """WCAG 2.2, relative luminance."""
    channels = (c / 255 for c in colour[:3])
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """WCAG 2.2, contrast ratio."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def over(top: tuple[float, ...], ground: tuple[float, ...], opacity: float = 1.0) -> tuple[float, ...]:
    share = top[3] * opacity
    return tuple(share * t + (1 - share) * g for t, g in zip(top[:3], ground[:3], strict=True))


def colour(value: str) -> tuple[float, ...]:
    if value.startswith("#"):
        return (*(int(value[i : i + 2], 16) for i in (1, 3, 5)), 1)
    return tuple(float(part) for part in re.findall(r"[\d.]+", value))


@pytest.mark.parametrize("theme", THEMES)
def test_text_and_bars_can_be_read_on_every_theme(theme: str) -> None:
    """WCAG AA: 4.5 for text, 3 for what is not text."""
    ink, ground = THEMES[theme]
    checked = 0
    for selector, declared in rules():
        background = declared.get("background", "none")
        if selector.endswith((" mark", " ins")):
            tinted = over(colour(background), ground)
            assert contrast(over(ink, tinted), tinted) >= 4.5
            assert contrast(over(ink, tinted, opacity=0.8), tinted) >= 4.5, "in the header's legend"
        elif background != "none":
            assert contrast(colour(background), ground) >= 3
        elif "opacity" in declared:
            assert contrast(over(ink, ground, float(declared["opacity"])), ground) >= 4.5
        else:
            continue
        checked += 1
    assert checked == 7


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_nothing_is_told_by_colour_alone(lang: str) -> None:
    painter = HtmlPainter(Phrases.load(lang))
    said = set()
    for light in ("green", "yellow", "red"):
        card = replace(LESSON_CARD, light=light)
        said.add(re.sub("[🟢🟡🔴]", "", Page(painter.card(card)).text))
    assert len(said) == 3


@pytest.mark.parametrize(
    ("ratio", "width"), [(0.0, "0.0"), (1.0, "100.0"), (7.0, "100.0"), (-1.0, "0.0"), (float("nan"), "0.0")]
)
def test_a_bar_stays_within_its_frame(ratio: float, width: str) -> None:
    assert f'style="width:{width}%"' in HtmlPainter(Phrases.load("zh")).card(replace(CARD, laziness=ratio))


def test_it_is_redrawn_at_most_twice_a_second_and_the_last_state_is_always_shown() -> None:
    cell = Cell()
    sink = cell.sink()
    sink.emit(replace(RUN, total_steps=1000))
    for step in range(1, 601):  # a minute
        cell.now = step / 10
        sink.emit(replace(STEP, step=step))
        sink.emit(replace(CARD, batch=step))
    head, lesson = cell.drawn
    for drawn in (head, lesson):
        assert 100 < len(drawn) <= 121
        assert min(later - earlier for earlier, later in pairwise(drawn)) > REFRESH_SECONDS - 1e-9
    cell.now += 0.01
    sink.emit(replace(STEP, step=601))
    sink.emit(replace(CARD, batch=601))
    assert "601" not in cell.text
    sink.close()
    assert "601/1000" in cell.text
    assert "Batch 601" in cell.text
    count = len(head)
    sink.close()
    assert len(head) == count, "what has not changed is not drawn again"


@pytest.mark.parametrize("event", [EPOCH, LESSON[-1]], ids=["epoch", "run"])
def test_the_end_of_an_epoch_and_of_the_run_are_shown_at_once(event: Event) -> None:
    cell = Cell()
    sink = cell.sink()
    for seen in (RUN, replace(CARD, batch=1), replace(STEP, step=42), replace(CARD, batch=777), event):
        sink.emit(seen)
    assert "42/100" in cell.text
    assert "Batch 777" in cell.text
    assert ("Epoch 1" if event is EPOCH else "训练完成") in cell.text


def test_a_card_does_not_wait_for_the_progress_bar_and_a_step_leaves_the_opened_cards_alone() -> None:
    cell = Cell()
    sink = cell.sink()
    for seen in (RUN, STEP, CARD):
        sink.emit(seen)
    assert len(cell.outputs) == 2
    cell.now = 10.0
    sink.emit(STEP)
    sink.emit(replace(CARD, batch=9))
    assert "Batch 9" in cell.text
    before = len(cell.drawn[1])
    cell.now = 20.0
    sink.emit(replace(STEP, step=50))
    assert "50/100" in cell.text
    assert len(cell.drawn[1]) == before


def test_however_long_the_run_memory_and_page_stay_small() -> None:
    cell = Cell()
    sink = cell.sink(show_diff=True)
    texts = ["<&" * 500, "全球最大的网络" * 100]
    cards = [replace(CARD, given=texts[0], teacher_text=texts[0], student_text=texts[1]) for _ in range(10)]
    epochs = [replace(EPOCH, epoch=i) for i in range(1, 26)]
    used = []
    tracemalloc.start()
    sink.emit(RUN)
    for epoch in epochs:
        for i in range(4000):
            sink.emit(cards[i % 10])
        sink.emit(next(event for event in LESSON if isinstance(event, Notice)))
        sink.emit(epoch)
        used.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    sink.close()
    page = Page("".join(cell.outputs))
    assert used[-1] - used[LATEST_EPOCHS] < 20_000
    assert sum(map(len, cell.outputs)) < 100_000
    assert page.tags.count("details") == EARLIER_CARDS + 1
    assert page.text.count("改用 CPU") == LATEST_NOTICES
    assert f"前面的 {25 - LATEST_EPOCHS} 个 epoch 不再显示" in page.text
    assert page.tags.count("tr") == LATEST_EPOCHS + 2 + 3  # and the table of teacher and student


def test_samples_can_be_switched_off_and_the_report_cards_stay() -> None:
    cell = played(LESSON, show_samples=False)
    assert "教师模型" not in cell.text
    assert "每个 epoch 的总结" in cell.text


def test_the_first_card_stays_to_be_compared_with_the_latest() -> None:
    titles = [f"Batch {batch} · Epoch" for batch in range(20)]

    def earlier(count: int) -> list[int]:
        text = played([RUN, *(replace(CARD, batch=batch) for batch in range(count))]).text
        return sorted((i for i, title in enumerate(titles) if title in text), key=lambda i: text.index(titles[i]))

    assert earlier(1) == []
    assert earlier(6) == [4, 3, 2, 1, 0]
    assert earlier(7) == [5, 4, 3, 2, 1, 0]
    assert earlier(20) == [18, 17, 16, 15, 14, 0]


def test_without_a_length_there_is_no_bar_and_no_time_left() -> None:
    cell = played([replace(RUN, total_steps=None), STEP])
    assert "progressbar" not in cell.outputs[0]
    assert "剩余" not in cell.text
    assert "步/秒" in cell.text


def test_a_second_run_gets_outputs_of_its_own() -> None:
    cell = Cell()
    sink = cell.sink()
    for event in [*LESSON, *LESSON[:-1]]:
        sink.emit(event)
    sink.close()
    assert len(cell.outputs) == 4
    assert "训练完成" in cell.outputs[1]
    assert "训练完成" not in cell.outputs[3]


def test_a_display_that_raises_is_told_of_once_and_detached(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(html: str) -> Callable[[str], None]:
        raise RuntimeError("the notebook was closed")

    audience = Audience([NotebookSink(DisplayConfig(), show=broken)])
    for event in LESSON:
        heard = audience(event)
    audience.close()
    assert isinstance(heard, RunFinished)
    assert heard.failures == ("NotebookSink: RuntimeError: the notebook was closed",)
    assert capsys.readouterr().err.count("the notebook was closed") == 1


def test_a_run_that_is_cut_off_has_no_verdict_and_shows_its_last_step() -> None:
    assert isinstance(LESSON[0], RunStarted)
    assert isinstance(LESSON[-2], EpochFinished)
    cell = played([RUN, STEP, replace(STEP, step=7)])
    assert len(cell.outputs) == 1
    assert "7/100" in cell.text


def test_the_rate_follows_a_new_pace_by_a_tenth_at_each_step() -> None:
    course = RunProgress()
    for event in (RUN, replace(STEP, step=1, step_seconds=1.0), replace(STEP, step=2, step_seconds=2.0)):
        course.follow(event)
    assert list(course.parts(Phrases.load("en")))[1:4] == ["2/100", "0.9 steps/s", "1:48 left"]


def test_exams_grow_from_the_oldest_answer_to_the_newest_with_the_agreement_of_the_whole_answer() -> None:
    shown: list[str] = []
    sink = NotebookSink(DisplayConfig(), show=lambda html: (shown.append(html), shown.append)[1], clock=lambda: 0.0)
    sink.emit(RUN)
    for step in range(12):  # the teacher's 4 characters, and of them 0, 1, 2, 3, 4, 4 …
        asked = ExamAnswer(prompt="<b>网", teacher="一二三四", student="一二三四"[:step], asked=True)
        sink.emit(ExamTaken(run_id="r", step=step, epoch=step, answers=(asked,)))
    sink.close()
    page = Page(shown[-1])
    assert "🙋 课堂提问: <b>网" in " ".join(" ".join(page.words).split())
    titles = [word for word in page.words if "考试（" in word]
    assert titles == ["📋 入学考试（还没开始上课）", *(f"📋 随堂考试（第 {step} 步）" for step in range(7, 12))]
    shares = [word.rpartition(" ")[2] for word in page.words if "整个答案" in word]
    assert shares == ["0%", *["100%"] * 5]
