"""Cards line up: in both languages, at any width, with hostile text, on a terminal and in a pipe."""

import io
import math
import re
from dataclasses import replace
from typing import Any

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from wcwidth import width

from apt_model.config.sections import DisplayConfig
from apt_model.events.cards import Reading, ScoredObservation
from apt_model.events.event import Event
from apt_model.events.records import EpochFinished, EpochStarted, ExamTaken, ModelCard, Notice, RunFinished, RunStarted
from apt_model.events.results import (
    Change,
    ExamAnswer,
    MeanEstimate,
    ReadingSummary,
    RowReading,
    TopicScore,
    Validation,
)
from apt_model.i18n import Phrases
from apt_model.render.card import CardPainter, CardStyle
from apt_model.render.diff import inline_diff
from apt_model.render.log import LogSink
from apt_model.render.sentences import duration, model_name, number, percent, verdict
from apt_model.render.terminal import TerminalSink
from tests.events.test_events import CARD, EVENTS, STEP
from tests.render.test_sanitise import hostile

START = EVENTS[0]
assert isinstance(START, RunStarted)
RUN = replace(
    START,
    config=DisplayConfig(show_diff=True).model_dump() | {"temperature": 4.0, "alpha": 0.7, "beta": 0.3},
    total_steps=100,
)
LESSON_CARD = replace(
    CARD,
    card_text="continued",
    original="由许多网络连成的网络",
    gain=0.43,
    given="互联网是",
    teacher_text="全球最大的计算机网络，连接了数十亿设备，让人们可以随时交流信息、获取知识。",
    student_text="全球计算机网络互联网连接了许多设备，让人们可以随时交流。",
    remark="📚 主题不够熟练，需要再多学习",
    laziness=0.5237,
)
EPOCH = EpochFinished(
    run_id="r",
    step=9,
    epoch=1,
    num_epochs=3,
    mean_loss=1.2345,
    tokens=90,
    skipped_batches=2,
    seconds=61.0,
    samples=3,
    mean_laziness=0.4215,
    topics=(
        TopicScore(topic="互联网", samples=2, mean_laziness=0.5),
        TopicScore(topic="我的题目", samples=1, mean_laziness=0.2),
    ),
    validation=Validation(loss=1.5, kd=1.0, ce=2.0, agreement=0.625, tokens=40, pairs=(), mean_laziness=0.5),
)
EXAM = ExamTaken(
    run_id="r",
    step=12,
    epoch=1,
    answers=(
        ExamAnswer(prompt="互联网", teacher="是全球最大的计算机网络，连接了数十亿设备。", student="是网络。"),
        ExamAnswer(prompt="the network", teacher=None, student=""),
    ),
)
ROW = RowReading(tokens=10, kl=0.7, normalised_kl=0.5, agreement=0.5, ce=2.0, teacher_ce=1.5, echo=0.0)


def measured(agreement: float) -> ReadingSummary:
    """What 32 rows show: perplexity e², the teacher's e."""
    kl, ce, teacher_ce = (MeanEstimate(value=value, error=0.05) for value in (0.714, 2.0, 1.0))
    seen = MeanEstimate(value=agreement, error=0.0158)
    return ReadingSummary(rows=32, tokens=900, agreement=seen, kl=kl, ce=ce, laziness=seen, teacher_ce=teacher_ce)


READING = Reading(run_id="r", step=9, epoch=1, unseen=True, rows=(ROW, ROW), measured=measured(0.463))
LEARNED = replace(READING, unseen=False, measured=measured(0.8))
LESSON: list[Event] = [
    RUN,
    replace(EXAM, step=0, epoch=0),
    EpochStarted(run_id="r", step=0, epoch=1, num_epochs=3),
    STEP,
    LESSON_CARD,
    replace(LESSON_CARD, source="validation"),
    Notice(run_id="r", step=1, key="notice.no_cuda", values={"device": "cuda"}),
    EXAM,
    READING,
    LEARNED,
    EPOCH,
    replace(
        EVENTS[-1],
        samples=3,
        mean_laziness=0.35,
        first_laziness=0.9,
        last_laziness=0.1,
        trend="great_progress",
        failures=("X: no ink",),
    ),  # type: ignore[call-arg]
]
ANOTHER_TRAINERS: list[Event] = [
    replace(RUN, trained_by="DistillationConfig"),
    replace(LESSON_CARD, source="probe", step=12345),
    replace(EVENTS[-1], tokens=None),  # type: ignore[call-arg]
]
ALL_EVENTS = [*LESSON, *ANOTHER_TRAINERS]
BORDERS = {"│": "│", "├": "┤", "┌": "┐", "└": "┘", "║": "║", "╠": "╣", "╔": "╗", "╚": "╝"}


class Terminal(io.StringIO):
    """A stream that says it is a terminal of `columns`."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def shown(event: Event, columns: int, lang: str, **style: Any) -> list[str]:
    """What a card looks like in a pipe, line by line."""
    painter = CardPainter(CardStyle(phrases=Phrases.load(lang), columns=columns, colour=False, **style))
    paint = {
        ScoredObservation: painter.card,
        EpochFinished: painter.report_card,
        RunFinished: painter.verdict,
        RunStarted: painter.header,
        EpochStarted: painter.epoch,
        ExamTaken: painter.exam,
        Notice: painter.notice,
    }[type(event)]
    stream = io.StringIO()
    console = Console(file=stream, width=200, color_system=None, markup=False, emoji=False, highlight=False)
    for piece in paint(event):  # type: ignore[operator]
        console.print(piece, crop=False, soft_wrap=True)
    return stream.getvalue().splitlines()


def ragged(lines: list[str], columns: int) -> list[str]:
    """Lines of a box that are not exactly as wide as the box, or whose borders do not match."""
    boxed = [line for line in lines if line and line[0] in BORDERS]
    return [line for line in boxed if width(line) != columns or line[-1] != BORDERS[line[0]]]


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("columns", [24, 39, 55, 70])
def test_every_border_lines_up_and_nothing_is_wider(lang: str, columns: int) -> None:
    for event in ALL_EVENTS:
        if event is STEP or isinstance(event, Reading):
            continue
        lines = shown(event, columns, lang, show_diff=True)
        assert ragged(lines, columns) == []
        assert max(map(width, lines)) <= columns


@given(teacher=hostile, student=hostile, topic=hostile, remark=hostile, columns=st.sampled_from([39, 70]))
def test_hostile_text_keeps_the_borders_where_they_are(
    teacher: str, student: str, topic: str, remark: str, columns: int
) -> None:
    card = replace(CARD, given=teacher, teacher_text=teacher, student_text=student, topic=topic, remark=remark)
    exam = replace(EXAM, answers=(ExamAnswer(prompt=topic, teacher=teacher, student=student),))
    for event in (card, exam):
        lines = shown(event, columns, "zh", show_diff=True)
        assert ragged(lines, columns) == []
        assert all(line[:1] in BORDERS for line in lines if line)


def test_a_card_in_full() -> None:
    assert shown(LESSON_CARD, 70, "zh") == [
        "",
        "┌────────────────────────────────────────────────────────────────────┐",
        "│ 📍 Batch 0        │ 📚 教学主题:【互联网】                         │",
        "├────────────────────────────────────────────────────────────────────┤",
        "│ 📝 开头: 互联网是                                                  │",
        "│ 📄 原文: 由许多网络连成的网络                                      │",
        "│ 👨🏫 教师模型: 全球最大的计算机网络，连接了数十亿设备，让人们可以  │",
        "│                随时交流信息、获取知识。                            │",
        "│ 👨🎓 学生模型: 全球计算机网络互联网连接了许多设备，让人们可以随时  │",
        "│                交流。                                              │",
        "├────────────────────────────────────────────────────────────────────┤",
        "│ 🟡 偷懒程度: [████████████████░░░░░░░░░░░░░░] 52.37%  一致 25%     │",
        "│ 📉 训练损失: 1.5000，其中还能降 0.43                               │",
        "│ 💬 评语: 📚 主题不够熟练，需要再多学习                             │",
        "└────────────────────────────────────────────────────────────────────┘",
    ]


def test_a_card_of_best_guesses_says_so_and_one_that_goes_on_does_not() -> None:
    guessed = replace(LESSON_CARD, card_text="predicted")
    assert "每个词都是看着前面的原文作出的最佳猜测" in "".join(shown(guessed, 70, "zh"))
    assert "each word is the best guess after the true ones" in "".join(shown(guessed, 70, "en"))
    assert "猜测" not in "".join(shown(LESSON_CARD, 70, "zh"))


@pytest.mark.parametrize("columns", [40, 56, 70])
@pytest.mark.parametrize(
    ("lang", "silence", "agree"), [("zh", "（沉默）", "一致 25%"), ("en", "(silence)", "agree 25%")]
)
def test_silence_is_shown_and_agreement_stands_beside_laziness_or_below_it(
    columns: int, lang: str, silence: str, agree: str
) -> None:
    lines = shown(replace(LESSON_CARD, student_text=" \u3000"), columns, lang)
    assert sum(silence in line for line in lines) == 1
    beside = [line for line in lines if agree in line and "52.37%" in line]
    assert len(beside) == (columns >= 56)
    assert sum(agree in line for line in lines) == 1


def test_without_text_the_placeholder_is_shown_and_laziness_says_that_it_compared_token_ids() -> None:
    ids = ((5, 70), (5, 9))
    card = replace(
        LESSON_CARD, student_text="文本 (tokens: 2)", compared="tokens", token_ids=ids, laziness=math.nan, gain=None
    )
    lines = shown(card, 70, "zh")
    assert "│ 👨🎓 学生模型: 文本 (tokens: 2) " in "".join(lines)
    (lazy,) = [line for line in lines if "偷懒程度（按 token id）" in line]
    assert "] –  一致 25%" in lazy
    assert "█" not in lazy


def test_an_exam_in_full() -> None:
    assert shown(EXAM, 70, "zh") == [
        "",
        "┌────────────────────────────────────────────────────────────────────┐",
        "│ 📋 随堂考试（第 12 步）                                            │",
        "├────────────────────────────────────────────────────────────────────┤",
        "│ ❓ 题目开头: 互联网                                                │",
        "│ 👨🏫 教师模型: 是全球最大的计算机网络，连接了数十亿设备。          │",
        "│ 👨🎓 学生模型: 是网络。                                            │",
        "│ 📐 整个答案与教师一致: 32%                                         │",
        "├────────────────────────────────────────────────────────────────────┤",
        "│ ❓ 题目开头: the network                                           │",
        "│ 👨🎓 学生模型: （沉默）                                            │",
        "└────────────────────────────────────────────────────────────────────┘",
    ]
    assert shown(replace(EXAM, step=0), 70, "zh")[2].startswith("│ 📋 入学考试（还没开始上课）")


def test_the_diff_marks_what_only_the_teacher_and_only_the_student_said() -> None:
    assert inline_diff("全球最大的网络", "全球的大网络", colour=False).plain == "全球[-最-]{+的+}大[-的-]网络"
    coloured = inline_diff("ab", "ac", colour=True)
    assert coloured.plain == "abc"
    assert [str(span.style) for span in coloured.spans] == ["red strike", "bold green underline"]


def test_long_texts_are_shortened_to_the_configured_length() -> None:
    lines = "".join(shown(replace(CARD, teacher_text="长" * 500), 70, "zh", max_text_length=50))
    assert lines.count("长") == 49


@pytest.mark.parametrize(("encoding", "teacher"), [("ascii", "[T] Teacher:"), ("gbk", "教师模型:")])
def test_an_output_without_emoji_gets_ascii_symbols_and_no_exception(encoding: str, teacher: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    sink = TerminalSink(DisplayConfig(show_diff=True), file=stream)
    for event in ALL_EVENTS:
        sink.emit(event)
    sink.close()
    stream.flush()
    text = raw.getvalue().decode(encoding)
    assert teacher in text
    boxes = [line for line in text.splitlines() if line[:1] in "|+" and line]
    assert boxes or encoding == "gbk"
    assert {width(line) for line in boxes} <= {70}


def on_screen(columns: int, events: list[Event], config: DisplayConfig, monkeypatch: pytest.MonkeyPatch) -> pyte.Screen:
    """What stands on a terminal emulator of that width after the events."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    sink = TerminalSink(config, file=stream)
    for event in events:
        sink.emit(event)
    sink.close()
    screen = pyte.Screen(columns, 120)
    pyte.Stream(screen).feed(stream.getvalue().replace("\n", "\r\n"))
    return screen


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("lang", ["zh", "en"])
def test_on_a_terminal_the_borders_stand_in_one_column(
    columns: int, lang: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = on_screen(columns, ALL_EVENTS, DisplayConfig(show_diff=True, lang=lang), monkeypatch)
    last = min(70, columns - 1) - 1
    rows = [screen.buffer[y] for y in range(120)]
    boxed = [row for row in rows if row[0].data in BORDERS]
    assert len(boxed) > 20
    assert [row[last].data for row in boxed] == [BORDERS[row[0].data] for row in boxed]
    assert {row[x].data for row in rows for x in range(last + 1, columns)} == {" "}


@given(text=hostile)
def test_a_hostile_card_touches_no_cell_but_its_own(text: str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        card = replace(CARD, teacher_text=text, student_text=text, given="", topic=text, remark=text)
        screen = on_screen(80, [card], DisplayConfig(), monkeypatch)
    lines = [line.rstrip() for line in screen.display]
    used = [y for y, line in enumerate(lines) if line]
    assert used == list(range(1, len(used) + 1))
    assert lines[1].startswith("┌")
    assert lines[used[-1]].startswith("└")
    assert {screen.buffer[y][69].data for y in used} <= set("┐│┤┘")


def test_in_a_pipe_there_is_no_control_character_and_no_progress_line() -> None:
    stream = io.StringIO()
    sink = TerminalSink(DisplayConfig(), file=stream)
    for event in [*ALL_EVENTS[:3], *[STEP] * 50, *ALL_EVENTS[3:]]:
        sink.emit(event)
    sink.close()
    text = stream.getvalue()
    assert "\x1b" not in text
    assert "\r" not in text
    assert ragged(text.splitlines(), 70) == []
    assert "步/秒" not in text


def test_the_progress_line_shows_rate_time_left_loss_and_laziness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    sink = TerminalSink(DisplayConfig(lang="en"), file=stream)
    for event in (RUN, LESSON_CARD, STEP):
        sink.emit(event)
    live = stream.getvalue()
    sink.close()
    for part in ("Epoch 1/1", "3/100", "10.0 steps/s", "0:10 left", "loss 0.50", "laziness 52.37%"):
        assert part in live


def test_samples_can_be_switched_off_and_the_report_cards_stay() -> None:
    stream = io.StringIO()
    sink = TerminalSink(DisplayConfig(show_samples=False), file=stream)
    for event in ALL_EVENTS:
        sink.emit(event)
    assert "教师模型" not in stream.getvalue()
    assert "考试" not in stream.getvalue()
    assert "Epoch 1 总结" in stream.getvalue()


SAID = "与教师一致 46.3% ± 3.1%，困惑度 7.4（教师 2.7），KL 0.71 ± 0.10"  # 1.96 errors of .0158 and .05; e², e


def test_a_report_card_has_the_newest_reading_of_unseen_and_of_learned_text() -> None:
    stream = io.StringIO()
    sink = TerminalSink(DisplayConfig(), file=stream)
    for event in (RUN, replace(READING, measured=measured(0.1)), READING, LEARNED, EPOCH):
        sink.emit(event)
    text = re.sub(r" *║\s*║ *", "", stream.getvalue())
    assert f"🧪 没学过的文本（32 条）: {SAID}" in text
    assert "📖 学过的文本（32 条）: 与教师一致 80.0% ± 3.1%" in text
    assert "10.0%" not in text


def test_a_verdict_begins_with_unseen_text_and_claims_no_mastery_without_rows() -> None:
    over = LESSON[-1]
    assert isinstance(over, RunFinished)
    topics = (
        TopicScore(topic="互联网", samples=9, mean_laziness=0.2, rows=8, mastery=MeanEstimate(value=0.5, error=0.02)),
        TopicScore(topic="体育", samples=9, mean_laziness=0.2),
    )
    change = Change(since=0, laziness=MeanEstimate(value=-0.21, error=0.0158))
    told = replace(over, unseen=measured(0.463), learned=measured(0.8), change=change, grade="fair", topics=topics)
    results = verdict(told, Phrases.load("zh")).results
    assert results[0] == f"🧪 学会了多少（32 条没学过的文本）: {SAID}"
    assert results[1].startswith("📖 背下了多少（32 条学过的文本）: 与教师一致 80.0%")
    assert results[2:8] == [
        "🏅 结业成绩: 中等",
        "🧭 学习趋势: 📈 显著进步！",
        "🎯 逐词计算的偷懒程度变化了 −21.0 ± 3.1 个百分点，现在是 46.3%（同样的 32 条文本）",
        "📚 各主题的掌握（固定文本上与教师一致）: 互联网 50.0% ± 3.9%",
        "😴 偷懒程度（最后四分之一的样本）: 10.00%",
        "📊 总样本数: 3（看过的卡片）",
    ]
    by_heart = verdict(replace(told, unseen=None), Phrases.load("zh")).results
    assert by_heart[1].startswith("📖 学过的文本（32 条）: 与教师一致 80.0%")
    assert by_heart[0] == "📖 只测了学过的文本，没学过的文本上表现如何，这里看不出"
    assert not any("没学过的 32" in line for line in by_heart)
    assert [line[:2] for line in verdict(over, Phrases.load("zh")).results][:3] == ["📊 ", "😴 ", "🎯 "]


def test_the_log_has_a_line_for_each_reading_with_a_scorer_or_without() -> None:
    stream = io.StringIO()
    log = LogSink("zh", every=10, file=stream)
    log.emit(READING)
    log.emit(replace(LEARNED, measured=None, rows=(ROW, replace(ROW, tokens=30, agreement=0.9))))
    assert stream.getvalue().splitlines() == [
        f"第 9 步  没学过的文本（32 条）: {SAID}",
        "第 9 步  学过的文本（2 条）: 与教师一致 80.0%，困惑度 7.4（教师 4.5），KL 0.70",  # (10 · .5 + 30 · .9) / 40
    ]


def test_an_empty_run_has_a_verdict_that_says_so() -> None:
    empty = replace(EVENTS[-1], step=0, first_loss=None, last_loss=None)  # type: ignore[call-arg]
    assert "没有要训练的内容" in "".join(shown(empty, 70, "zh"))


def test_the_log_has_a_line_every_so_many_batches_and_only_numbers() -> None:
    stream = io.StringIO()
    log = LogSink("en", every=10, file=stream)
    for batch in range(25):
        log.emit(replace(STEP, batch=batch, step=batch + 1))
    log.emit(LESSON_CARD)
    log.emit(EPOCH)
    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "step 1",
        "step 11",
        "step 21",
        "epoch 1 done: mean loss 1.2345, 1:01, validation loss 1.5000, agreement with the teacher 62.50%",
    ]
    assert "kd 0.4000" in lines[0]
    log.emit(replace(STEP, step=31, batch=30, kd=None, ce=None, grad_norm=None, tokens=None))
    assert "kd –  ce –" in stream.getvalue().splitlines()[-1]
    assert stream.getvalue().endswith("grad norm –  – tokens/s\n")


def test_a_missing_number_is_a_dash() -> None:
    assert (number(None), percent(None), number(0.5), percent(0.28914)) == ("–", "–", "0.5000", "28.91%")
    assert (duration(61.4), duration(3661)) == ("1:01", "1:01:01")


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("LlamaForCausalLM", 260_032, "Llama 260K"),
        ("LlamaForCausalLM", 51_168, "Llama 51.2K"),
        ("GPT2LMHeadModel", 124_439_808, "GPT2 124M"),
        ("Qwen3ForCausalLM", 8_190_735_360, "Qwen3 8.19B"),
        ("Tiny", 640, "Tiny 640"),
        ("served", 0, "served"),
        ("ForCausalLM", 2_000, "ForCausalLM 2K"),
    ],
)
def test_a_model_is_named_by_kind_and_size_so_that_teacher_and_student_differ(
    name: str, parameters: int, expected: str
) -> None:
    assert model_name(ModelCard(name=name, parameters=parameters, megabytes=1.0)) == expected
