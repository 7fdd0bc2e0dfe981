"""The story beside the card, the terms, the tour and the exams of a class, in a real browser."""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from math import exp, log, log2, sqrt
from pathlib import Path

import pytest

from apt_model.config.sections import DisplayConfig
from apt_model.dashboard.report import make_report
from apt_model.events.answer_agreement import answer_agreement
from apt_model.events.cards import Reading
from apt_model.events.event import Event
from apt_model.events.questions import MOST_CHARACTERS
from apt_model.events.records import ExamTaken, RunFinished, RunStarted
from apt_model.events.results import ExamAnswer, RowReading
from apt_model.teaching.laziness import SCALE, laziness
from apt_model.teaching.scorer import LessonScorer
from tests.dashboard import lessons
from tests.dashboard.conftest import Open
from tests.dashboard.test_page_sources import table

ROWS = 12
STORY = ".side .story-line"
PAIRS = """pairs => import("./static/in_common.js").then(module =>
    pairs.map(([one, other]) => module.agreementOf(one, other).share))"""
FOCUS = "document.activeElement.textContent"


def reading(step: int, agreements: list[float], *, unseen: bool = True) -> Reading:
    """Rows of 20 tokens; what else is read of them follows from the agreement."""
    rows = tuple(
        RowReading(tokens=20, kl=0.5, normalised_kl=1 - one, agreement=one, ce=3.0, teacher_ce=2.0, echo=0.0)
        for one in agreements
    )
    return Reading(
        run_id="r", step=step, epoch=step // 20, unseen=unseen, rows=rows, texts=("字",) * ROWS * (step == 0)
    )


def story(*courses: list[float], unseen: bool = True) -> Iterator[Event]:
    """The lesson of the other tests with a reading at the start and at steps 20, 40 …, judged by the real scorer."""
    scorer = LessonScorer(DisplayConfig(), {"医疗": ["医生"]})
    found: list[Event] = []
    *events, last = lessons.lesson()
    for event in events:
        if isinstance(event, ExamTaken) and event.step == 20:  # one before the lesson, too
            answer = ExamAnswer(prompt="互联网是", teacher="全球最大的网络。", student="啊")
            first = replace(event, step=0, epoch=0, answers=(answer,))
            found.insert(1, first)
        if isinstance(event, RunStarted):
            scorer(event)
        found.append(event)
    for at, course in enumerate(courses):
        read = scorer(reading(20 * at, course, unseen=unseen))
        place = next((i for i, event in enumerate(found) if event.step > 20 * at), len(found))
        found.insert(place, read)
    yield from [*found, last]


def said(open_page: Open, tmp_path: Path, events: Iterator[Event], step: int, language: str = "zh") -> str:
    run = lessons.write(tmp_path / "run", events)
    (tmp_path / "run.html").write_text(make_report([run]), "utf-8")
    watched = open_page((tmp_path / "run.html").as_uri())
    if language == "en":
        watched.page.locator(".switch.language").click()
    watched.go_to(step)
    return str(watched.page.locator(STORY).inner_text())


LOW = [0.10 + 0.005 * row for row in range(ROWS)]
HIGH = [one + 0.5 for one in LOW]


@pytest.mark.parametrize(
    ("courses", "unseen", "step", "language", "words"),
    [
        ((LOW, HIGH, HIGH), True, 60, "zh", ("学生的进步很明显", "没学过", "有 63 个", "只有 13 个")),
        ((LOW, HIGH, HIGH), True, 60, "en", ("The student has learned a lot so far", "63 tokens in 100", "13 at")),
        ((LOW, HIGH, HIGH), True, 5, "zh", ("还看不出来", "有 13 个")),
        ((LOW, LOW[::-1]), True, 60, "zh", ("还看不出学生有变化", "碰巧")),
        ((HIGH, LOW), True, 60, "en", ("moved away from its teacher", "13 tokens")),
        ((LOW, HIGH), False, 60, "zh", ("在学过的文本上", "背下来")),
        ((), True, 60, "zh", ("没有用固定的文本量过", "考试")),
    ],
)
def test_the_story_says_what_the_readings_show_and_no_more(
    courses: tuple[list[float], ...],
    unseen: bool,
    step: int,
    language: str,
    words: tuple[str, ...],
    open_page: Open,
    tmp_path: Path,
) -> None:
    told = said(open_page, tmp_path, story(*courses, unseen=unseen), step, language)
    assert [word for word in words if word not in told] == [], told


def test_a_lesson_without_exams_or_readings_says_what_it_has(open_page: Open, tmp_path: Path) -> None:
    told = said(open_page, tmp_path, lessons.lesson(tokens=False), 60)
    assert "没有考试" in told
    assert "这里看不出来" in told


def test_one_question_is_shown_at_three_times_beside_the_teachers_answer(open_page: Open, tmp_path: Path) -> None:
    run = lessons.write(tmp_path / "run", story(LOW, HIGH, HIGH, HIGH))
    (tmp_path / "run.html").write_text(make_report([run]), "utf-8")
    watched = open_page((tmp_path / "run.html").as_uri())
    exam = watched.page.locator(".story-exam")
    assert exam.locator("dt").all_inner_texts() == ["课前", "中间 · 第 20 步", "下课 · 第 60 步", "教师"]
    assert exam.locator("dd").all_inner_texts() == ["啊", "全球好", "全球最大的网好", "全球最大的网络。"]
    exam.locator("dt button").nth(1).click()
    watched.settle()
    assert exam.locator("dt").all_inner_texts() == ["课前", "现在 · 第 20 步", "教师"]
    assert "到第 20 步" in str(watched.page.locator(".course-curve svg").get_attribute("aria-label"))
    assert watched.page.locator(".course-curve polyline").count() == 2


def numbers(key: str) -> list[list[str]]:
    return [re.findall(r"\d+(?:\.\d+)?", str(one)) for one in table("story_words.js")[f"term.{key}.example"]]


def kl(teacher: list[float], student: list[float]) -> float:
    return sum(p * log(p / q) for p, q in zip(teacher, student, strict=True))


def test_the_examples_of_the_terms_are_computed_right_in_both_languages() -> None:
    soft = [p**0.5 for p in (0.9, 0.09, 0.01)]
    entropy = -(0.97 * log(0.97) + 3 * 0.01 * log(0.01))
    expected = {
        "laziness": [80, 0.5, SCALE.similarity_weight, 1, 0.8, SCALE.kl_weight, 0.5, 100 * laziness(0.8, 0.5)],
        "kl": [70, 20, 10, 50, 30, 20, kl([0.7, 0.2, 0.1], [0.5, 0.3, 0.2])],
        "nat": [log(2), 1, 1, log2(exp(1))],
        "entropy": [25, log(4), 97, 1, entropy],
        "alpha": [0.7, 2, 0.3, 4, 0.7, 2, 0.3, 4, 0.7 * 2 + 0.3 * 4],
        "beta": [0.3, 4, 0.3, 4, 1.2, 100 * 1.2 / 2.6, 2.6],
        "temperature": [90, 9, 1, 2, *(100 * one / sum(soft) for one in soft)],
        "kd": [2, 0.05, 2, 0.05, 2**2 * 0.05],
        "ce": [25, -log(0.25), 50, -log(0.5)],
        "agreement": [12, 9, 100 * 9 / 12],
        "norm": [3, 4, 3, 4, sqrt(3**2 + 4**2), 1, 3 / 5, 4 / 5],
    }
    words = table("story_words.js")
    assert {key.split(".")[1] for key in words if key.endswith(".example") and key != "term.example"} == set(expected)
    for key, values in expected.items():
        for found in numbers(key):  # the languages may name them in another order
            pairs = zip(sorted(values), sorted(found, key=float), strict=True)
            assert [one for value, one in pairs if one != _as(value, one)] == [], (key, found, values)
    for key, (chinese, english) in words.items():
        if re.fullmatch(r"term\.\w+\.text", key):
            assert [str(chinese).count("。"), len(re.findall(r"\.(?= |$)", str(english)))] == [2, 2], key


def _as(value: float, written: str) -> str:
    """A number with as many decimals as another is written with."""
    return f"{value:.{len(written.partition('.')[2])}f}"


def test_a_term_opens_by_keyboard_and_gives_the_focus_back(open_page: Open, served: str) -> None:
    watched = open_page(served)
    page = watched.page
    page.locator(".moment [data-term=kd]").focus()
    page.keyboard.press("Enter")
    sheet = page.locator("dialog.sheet")
    assert "T²" in sheet.inner_text()
    assert "0.2" in sheet.inner_text()
    page.keyboard.press("Escape")
    page.wait_for_function("() => !document.querySelector('dialog')")
    assert page.evaluate("document.activeElement.dataset.term") == "kd"
    page.keyboard.press("?")
    assert sheet.locator("h3").count() == 11
    page.get_by_role("button", name="关上").click()
    for view in ("lazy", "topics", "exam", "temperature", "reports"):
        watched.show(view)
        assert page.locator(f"#view-{view} .term").count() > 0


def test_the_tour_is_shown_once_and_can_be_left_at_once(open_page: Open, served: str) -> None:
    watched = open_page(served, first_visit=True)
    page, tour = watched.page, watched.page.locator("dialog.tour")
    tour.wait_for()
    assert page.evaluate(FOCUS) == "下一步"
    for number in range(2, 6):
        page.keyboard.press("Enter")
        assert f"第 {number} 步，共 5 步" in str(tour.text_content())
        assert page.locator(".toured").count() == 1
    assert page.evaluate(FOCUS) == "开始看"
    page.keyboard.press("Enter")
    page.wait_for_function("() => !document.querySelector('dialog')")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.locator(".toured").count() == 0
    page.reload()
    page.locator(".card").wait_for()
    watched.settle()
    assert tour.count() == 0
    page.locator(".switch.help").click()
    page.get_by_role("button", name="看一遍导览").click()
    tour.wait_for()
    page.keyboard.press("Escape")
    page.wait_for_function("() => !document.querySelector('dialog')")
    page.evaluate("location.hash = '#tour'")
    tour.wait_for()
    assert page.evaluate("location.hash") == ""


def test_no_tour_for_a_deep_link_nor_where_the_browser_keeps_nothing(open_page: Open, served: str) -> None:
    deep = open_page(f"{served}#now", first_visit=True)
    deep.settle()
    assert deep.page.locator("dialog").count() == 0
    private = open_page(served, first_visit=True, wait=False)
    private.page.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('no'); } })")
    private.page.reload()
    private.page.locator(".card").wait_for()
    private.settle()
    assert private.page.locator("dialog").count() == 0
    private.page.goto(f"{served}#tour")
    private.page.locator("dialog.tour").wait_for()
    asked = open_page(f"{served}#tour")
    asked.page.locator("dialog.tour").wait_for()


def test_the_page_counts_the_agreement_of_answers_as_the_terminal_does(open_page: Open, served: str) -> None:
    draw = random.Random(5)
    pieces = [
        "the",
        "cat",
        "网",
        "络",
        "，",
        ",",
        " ",
        "⏎",
        "don't",
        "é",
        "한국",
        "ไทย",
        "𠀀",
        "—",
        "3.5",
        "",
        "\u3000",
    ]
    pairs = [["".join(draw.choices(pieces, k=draw.randrange(30))) for _ in range(2)] for _ in range(300)]
    pairs += [["the cat sat on the mat", "a cat sat down on the mat"], ["a " * 1500, "a " * 1200], ["", ""]]
    assert open_page(served).page.evaluate(PAIRS, pairs) == [answer_agreement(*pair) for pair in pairs]


def test_the_form_for_questions_is_there_only_where_they_are_taken(open_page: Open, tmp_path: Path) -> None:
    source = (Path(__file__).parents[2] / "apt_model/dashboard/static/ask.js").read_text("utf-8")
    assert f"most: {MOST_CHARACTERS}" in source
    run = lessons.write(tmp_path / "run", [one for one in lessons.lesson() if not isinstance(one, RunFinished)])
    (tmp_path / "run.html").write_text(make_report([run]), "utf-8")
    watched = open_page((tmp_path / "run.html").as_uri())
    watched.show("exam")
    assert watched.page.locator("#ask").count() == 0
    assert json.dumps("asks") not in (tmp_path / "run.html").read_text("utf-8")
