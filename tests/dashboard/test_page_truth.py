"""The page of a lesson with readings: what was said, what was guessed, what fixed rows show; nothing beyond that."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from apt_model.dashboard.report import make_report
from apt_model.events.cards import Reading
from apt_model.events.event import Event
from apt_model.events.records import ExamTaken, RunFinished
from apt_model.events.results import Change, ExamAnswer, MeanEstimate, ReadingSummary, RowReading, TopicScore
from tests.dashboard import lessons
from tests.dashboard.conftest import Open, Watched

ROWS = ("认得的一句", "没变的一句", "忘了的一句", "只有两个词")
COURSES = ((0.1, 0.9), (0.5, 0.55), (0.9, 0.3), (0.0, 0.5))  # agreement in the first and the last reading
TOKENS = (40, 40, 40, 2)


def measured(agreement: float, rows: int = 32) -> ReadingSummary:
    """A summary with perplexity e³, the teacher's e²."""
    kl, ce, teacher_ce = (MeanEstimate(value=value, error=0.05) for value in (0.5, 3.0, 2.0))
    seen = MeanEstimate(value=agreement, error=0.0158)
    return ReadingSummary(rows=rows, tokens=900, agreement=seen, kl=kl, ce=ce, laziness=seen, teacher_ce=teacher_ce)


def reading(step: int, epoch: int, at: int, *, unseen: bool = True) -> Reading:
    rows = tuple(
        RowReading(tokens=tokens, kl=0.5, normalised_kl=0.4, agreement=course[at], ce=3.0, teacher_ce=2.0, echo=0.0)
        for tokens, course in zip(TOKENS, COURSES, strict=True)
    )
    first = {"texts": ROWS, "topics": ("医疗", "医疗", "互联网", "互联网")} if step == 0 else {}
    mean = sum(row.tokens * row.agreement for row in rows) / sum(TOKENS)
    return Reading(run_id="r", step=step, epoch=epoch, unseen=unseen, rows=rows, measured=measured(mean), **first)


def truthful() -> Iterator[Event]:
    """The lesson of the other tests, its cards continuations, with two readings of unseen rows and a verdict."""
    for event in lessons.lesson():
        if event.kind == "card":
            event = replace(event, card_text="continued", original=lessons.TEXT, gain=0.43)  # type: ignore[call-arg]
        if isinstance(event, ExamTaken):
            event = replace(event, answers=(ExamAnswer(prompt="互联网是", teacher="全球", student="  "),))
        if isinstance(event, RunFinished):
            yield reading(60, 3, 1)
            half = MeanEstimate(value=0.5, error=0.02)
            topics = (
                TopicScore(topic="医疗", samples=6, mean_laziness=0.4, rows=2, mastery=half),
                TopicScore(topic="体育", samples=6, mean_laziness=0.4),
            )
            change = Change(since=0, laziness=MeanEstimate(value=-0.21, error=0.0158))
            both = {"unseen": measured(0.463), "learned": measured(0.8)}
            event = replace(event, **both, change=change, grade="fair", topics=topics)  # type: ignore[arg-type]
        yield event
        if event.kind == "run_started":
            yield reading(0, 0, 0)


Watch = Callable[..., Watched]


@pytest.fixture
def watch(open_page: Open, tmp_path: Path) -> Watch:
    """Opens the report of a lesson."""
    names = count()

    def watch(events: list[Event], language: str = "zh") -> Watched:
        run = lessons.write(tmp_path / f"run-{next(names)}", events)
        report = run.with_suffix(".html")
        report.write_text(make_report([run]), "utf-8")
        watched = open_page(report.as_uri())
        if language == "en":
            watched.page.locator(".switch.language").click()
            watched.settle()
        return watched

    return watch


def test_a_card_that_goes_on_keeps_what_was_said_apart_from_what_was_guessed(watch: Watch) -> None:
    said = {"teacher_text": "由许多网络组成。", "student_text": "　"}
    events = [replace(e, **said) if e.kind == "card" and e.step == 60 else e for e in truthful()]  # type: ignore[call-arg]
    page = watch(events).page
    voices = page.locator(".card > .voices .voice")
    assert voices.locator("dt").all_inner_texts() == ["开头", "原文", "教师", "学生"]
    assert voices.locator("dd").all_inner_texts() == ["给出", lessons.TEXT, "由许多网络组成。", "（沉默）"]
    assert voices.locator(".token").count() == 0
    guesses = page.locator(".guesses")
    assert guesses.locator("h3").inner_text() == "逐词对照：看着前面的原文，两边各自最想说的下一个词"
    guesses.locator(".token").nth(3).click()
    assert "第 4 / 12 个词" in page.locator("#peek").inner_text()
    assert "最佳猜测" not in page.locator(".card > .hint").all_inner_texts()
    assert "损失中还能降的\n0.43" in page.locator(".card .figures").inner_text()


@pytest.mark.parametrize(("language", "words"), [("zh", "最佳猜测"), ("en", "best guess after the true ones")])
def test_a_card_of_guesses_says_so(watch: Watch, language: str, words: str) -> None:
    page = watch(list(lessons.lesson()), language).page
    assert words in page.locator(".card > .hint").inner_text()
    assert page.locator(".guesses").count() == 0


def test_without_text_laziness_says_what_it_compared_and_without_a_number_it_is_a_dash(watch: Watch) -> None:
    card = replace(lessons.card(2, 0.5, tokens=False), student_text="⟨2 tokens⟩", compared="tokens")
    page = watch([lessons.started(5), lessons.step_done(2), card]).page
    assert page.locator(".voice.student dd").inner_text() == "⟨2 tokens⟩"
    assert page.locator(".judged-line").inner_text().startswith("偷懒程度（按 token id）")
    unknown = replace(card, step=3, laziness=math.nan, similarity=math.nan)
    page = watch([lessons.started(5), lessons.step_done(2), unknown]).page
    assert page.locator(".judged-line strong").inner_text() == "–"
    assert "×" not in page.locator(".judged").inner_text()


def test_a_row_has_changed_only_where_its_tokens_can_tell(watch: Watch) -> None:
    """By Agresti and Caffo's two proportions: 4 to 36 of 40, 20 to 22 of 40, 36 to 12 of 40, 0 to 1 of 2."""
    watched = watch(list(truthful()))
    watched.show("topics")
    rows = watched.page.locator(".questions tbody tr")
    found = dict(
        zip(rows.locator(".question").all_inner_texts(), rows.locator(".outcome").all_inner_texts(), strict=True)
    )
    assert found == {ROWS[0]: "↑ 有进步", ROWS[1]: "≈ 看不出变化", ROWS[2]: "↓ 退步了", ROWS[3]: "≈ 看不出变化"}
    watched.page.locator("[data-filter=worse]").click()
    watched.settle()
    assert rows.locator(".question").all_inner_texts() == [ROWS[2]]
    watched.go_to(59)
    watched.page.locator("[data-filter=all]").click()
    watched.settle()
    assert set(rows.locator(".outcome").all_inner_texts()) == {"· 只见过一次"}


def test_mastery_is_agreement_on_the_rows_of_a_topic_weighted_by_their_tokens(watch: Watch) -> None:
    watched = watch(list(truthful()))
    watched.show("topics")
    heat = watched.page.locator(".heatmap")
    assert heat.locator("thead th").all_inner_texts()[1:] == ["课前", "3"]
    cells = heat.locator("tbody td").all_inner_texts()
    assert [cell.split("\n") for cell in cells] == [
        ["30%", "2"],
        ["73%", "2"],
        ["86%", "2"],
        ["31%", "2"],
        ["49%", "4"],
        ["58%", "4"],
    ]  # 60 and 71 of 122 tokens, and of how many rows
    kinds = heat.locator("tbody td").evaluate_all("all => all.map(one => one.className)")
    assert kinds == ["few"] * 4 + ["heat-2"] * 2  # two rows say too little for a colour
    spread = 1.96 * math.sqrt(2 * 2 * (40 * 0.175) ** 2) / 80  # both rows are .175 from their mean, .725
    assert f"72.5% ± {100 * spread:.1f}%" in (heat.locator("tbody td").nth(1).get_attribute("title") or "")


SAID = "与教师一致 46.3% ± 3.1%，困惑度 20.1（教师 7.4），KL 0.50 ± 0.10"  # e³, e²


def test_the_verdict_begins_with_unseen_text_and_old_ones_read_as_before(watch: Watch) -> None:
    watched = watch(list(truthful()))
    watched.show("reports")
    verdict = watched.page.locator(".verdict")
    assert verdict.locator(".measured li").all_inner_texts()[0] == f"学会了多少（32 条没学过的文本）: {SAID}"
    by_heart = verdict.locator(".measured li").nth(1).inner_text()
    assert by_heart.startswith("背下了多少（32 条学过的文本）: 与教师一致 80.0%")
    assert (
        verdict.locator(".change").inner_text()
        == "逐词计算的偷懒程度变化了 −21.0 ± 3.1 个百分点，现在是 46.3%（同样的 32 条文本）"
    )
    assert verdict.locator(".figures dt").all_inner_texts()[:3] == [
        "成绩",
        "最后四分之一样本的偷懒程度",
        "总样本数（看过的卡片）",
    ]
    assert verdict.locator(".remarks li").all_inner_texts() == ["医疗：固定文本上与教师一致 50.0% ± 3.9%（2 条）"]
    assert "没学过的文本（32 条）" in watched.page.locator(".epochs tbody tr").last.inner_text()
    watched.show("exam")
    assert watched.page.locator(".answer.student p").inner_text() == "（沉默）"
    watched.show("lazy")
    assert watched.page.locator(".chart-readings .value").all_inner_texts() == ["58.2%", "58.2%"]
    only = [replace(e, unseen=None) if isinstance(e, RunFinished) else e for e in truthful()]
    watched = watch(only, "en")
    watched.show("reports")
    assert watched.page.locator(".measured li").first.inner_text().startswith("Only learned text was read")
    watched = watch(list(lessons.lesson()))
    watched.show("reports")
    assert watched.page.locator(".measured, .change").count() == 0
    assert "偷懒程度变化" in watched.page.locator(".verdict .figures").inner_text()
    watched.show("lazy")
    assert watched.page.locator(".chart-readings .waiting").inner_text() == "这堂课没有测过固定的文本。"
