"""The page in a real browser: replayed, view by view, by keyboard, in both languages, by day and night, on a phone."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from apt_model.dashboard.report import make_report
from apt_model.events.event import Event
from apt_model.events.laziness import LazinessScale
from apt_model.events.records import EpochFinished, ExamTaken
from apt_model.events.results import ExamAnswer
from tests.dashboard import lessons
from tests.dashboard.conftest import VIEWS, Open

WALK = """async steps => {
    const [slider, shown] = [document.querySelector(".scrubber"), []];
    for (const step of steps) {
        slider.value = step;
        slider.dispatchEvent(new Event("input"));
        await new Promise(done => requestAnimationFrame(done));  // asked for after the page has asked
        const card = document.querySelector(".card");
        const said = [...card.querySelectorAll(".voice.student .token")].map(one => one.textContent).join("");
        shown.push([card.dataset.step, card.querySelector(".judged-line strong").textContent, said]);
    }
    return shown;
}"""
SMALL_TARGETS = """() => [...document.querySelectorAll("button, select, input")]
    .filter(one => one.offsetParent && one.offsetHeight < 24).length"""


def test_the_slider_shows_the_card_of_every_step(open_page: Open, served: str) -> None:
    watched = open_page(served)
    shown = watched.page.evaluate(WALK, list(range(5, 61)))
    newest = [card for card in lessons.cards() for _ in range(5)][: len(shown)]
    assert shown == [[str(card.step), f"{100 * card.laziness:.2f}%", card.student_text] for card in newest]
    watched.go_to(4)
    assert watched.page.locator(".card").count() == 0


def test_every_view_follows_the_slider(open_page: Open, served: str) -> None:
    watched = open_page(served)
    watched.go_to(25)
    watched.show("reports")
    assert watched.page.locator(".epochs tbody tr").count() == 1
    assert watched.page.locator(".verdict").count() == 0
    watched.show("exam")
    assert watched.page.locator(".answer.student p").inner_text() == "全球好"
    assert watched.page.locator(".answer.student .as-taught").inner_text() == "全球"
    assert "36%" in watched.page.locator(".growth .when").last.text_content()  # 2 × 2 of 8 + 3 characters
    watched.show("topics")
    assert watched.page.locator(".heatmap thead th").count() == 3  # the topics, epochs 1 and 2
    assert (
        watched.page.locator(".heatmap .total td").first.inner_text() == "21%\n4"
    )  # mean of 5, 10, 15, 20 of 60 steps
    watched.show("lazy")
    assert watched.page.locator(".chart-losses .value").all_inner_texts() == ["0.16", "0.16", "0.16"]
    watched.go_to(60)
    assert watched.page.locator(".chart-losses .value").first.inner_text() == "0.0667"
    watched.show("reports")
    assert watched.page.locator(".epochs tbody tr").count() == 3
    assert "可以考虑减小模型" in watched.page.locator(".verdict .advice").inner_text()
    assert "【医疗】" in watched.page.locator(".verdict .advice").inner_text()
    watched.show("exam")
    assert watched.page.locator(".growth .said-then").all_inner_texts() == ["全球好", "全球最大好", "全球最大的网好"]


def test_replay_plays_to_the_end_and_stops(open_page: Open, served: str) -> None:
    watched = open_page(served)
    watched.go_to(52)
    watched.page.locator(".replay select").select_option("4")
    watched.page.locator(".play").click()
    watched.page.locator(".play[aria-label='暂停']").wait_for()
    watched.page.wait_for_function("() => document.querySelector('.scrubber').value === '60'")
    watched.page.locator(".play[aria-label='播放']").wait_for()
    assert watched.page.locator(".card").get_attribute("data-step") == "60"


def test_the_temperature_softens_as_the_formula_says(open_page: Open, served: str) -> None:
    watched = open_page(served)
    watched.show("temperature")
    watched.page.locator("#temperature").fill("4")
    watched.settle()
    known = [share for _, share in lessons.ALTERNATIVES]
    weights = [share**0.25 for share in known]
    expected = [f"{100 * weight / sum(weights):.1f}%" for weight in weights]
    assert watched.page.locator(".pair-bar.soft .share").all_inner_texts() == expected
    rest = 95 * ((1 - sum(known)) / 95) ** 0.25  # evenly over the other 95 of 100 tokens
    assert f"{100 * rest / (rest + sum(weights)):.1f}%" in watched.page.locator(".masses .rows").inner_text()
    watched.page.locator("#temperature").focus()
    watched.page.keyboard.press("ArrowRight")
    watched.settle()
    assert watched.page.locator(".heating .reading").inner_text() == "T = 4.1"
    shares = watched.page.locator(".shares .key b").all_inner_texts()
    assert shares == ["70.0%", "30.0%"]  # kd and ce are equal here


def test_everything_can_be_done_by_keyboard(open_page: Open, served: str) -> None:
    watched = open_page(served)
    page = watched.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(page.locator(".switch").count() + 1):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "tab-now"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    watched.settle()
    assert page.locator("#view-topics").is_visible()
    assert page.evaluate("document.activeElement.id") == "tab-topics"
    page.keyboard.press("Home")
    watched.settle()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.index") == "0"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.index") == "1"
    peek = page.locator("#peek")
    assert peek.is_visible()
    assert "第 2 / 12 个词" in peek.inner_text()
    assert peek.locator(".teacher .rank-share").all_inner_texts() == [
        "60.0%",
        "20.0%",
        "10.0%",
        "5.00%",
        "2.50%",
        "2.50%",
    ]
    page.keyboard.press("Escape")
    assert not peek.is_visible()
    page.locator(".scrubber").focus()
    page.keyboard.press("ArrowLeft")
    watched.settle()
    assert page.locator(".replay .reading").inner_text() == "第 59 / 60 步"
    page.keyboard.press("PageUp")
    watched.settle()
    assert page.locator(".card").get_attribute("data-step") == "55"


def test_a_tap_opens_a_token_and_a_tap_elsewhere_closes_it(open_page: Open, served: str) -> None:
    watched = open_page(served, width=390, has_touch=True)
    watched.page.locator(".student .token").nth(3).tap()
    assert watched.page.locator("#peek").is_visible()
    watched.page.locator(".remark").tap()
    assert not watched.page.locator("#peek").is_visible()


def test_the_language_is_switched_and_remembered(open_page: Open, served: str) -> None:
    watched = open_page(served)
    assert watched.page.locator("html").get_attribute("lang") == "zh-CN"
    assert watched.page.locator("#tab-lazy").inner_text() == "为什么偷懒"
    watched.page.locator(".switch.language").click()
    watched.settle()
    assert watched.page.locator("html").get_attribute("lang") == "en"
    assert watched.page.locator("#tab-lazy").inner_text() == "Why lazy"
    assert watched.page.locator(".voice.teacher dd").get_attribute("lang") == "zh-CN"
    watched.page.reload()
    watched.page.locator(".card").wait_for()
    assert watched.page.locator("#tab-lazy").inner_text() == "Why lazy"
    for view in VIEWS:
        watched.show(view)
        labels = watched.page.locator(f"#view-{view} h2, #view-{view} h3, #view-{view} button").all_inner_texts()
        assert not [one for one in labels if "的" in one and lessons.TEXT not in one]


def test_paper_and_blackboard_follow_the_system_and_the_switch(open_page: Open, served: str) -> None:
    watched = open_page(served, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert watched.page.evaluate(ground) == "rgb(19, 27, 24)"
    watched.page.locator(".switch.theme").click()
    watched.settle()
    assert watched.page.evaluate(ground) == "rgb(247, 244, 236)"


@pytest.mark.parametrize("language", ["zh", "en"])
def test_nothing_sticks_out_of_a_phone(open_page: Open, served_shelf: str, language: str) -> None:
    watched = open_page(served_shelf, width=360, height=640)
    if language == "en":
        watched.page.locator(".switch.language").click()
    for view in (*VIEWS, "lessons"):
        watched.show(view)
        watched.settle()
        assert watched.page.evaluate("document.documentElement.scrollWidth") == 360, view
        assert watched.page.evaluate(SMALL_TARGETS) == 0, view


def test_long_words_and_many_epochs_do_not_stick_out_either(open_page: Open, tmp_path: Path) -> None:
    events: list[Event] = [lessons.started(40)]
    for step in range(1, 41):
        card = lessons.card(step, 0.5, text="w" * 300, topic="t" * 90)
        events += [lessons.step_done(step), replace(card, epoch=step, given="g" * 200, remark="r" * 300)]
    answer = ExamAnswer(prompt="p" * 200, teacher="a" * 300, student="b" * 300)
    events += [ExamTaken(run_id="r", step=40, epoch=epoch, answers=(answer,)) for epoch in range(1, 41)]
    run = lessons.write(tmp_path / ("run" * 30), events)
    (tmp_path / "report.html").write_text(make_report([run]), "utf-8")
    watched = open_page((tmp_path / "report.html").as_uri(), width=360, height=640)
    for view in VIEWS:
        watched.show(view)
        watched.settle()
        assert watched.page.evaluate("document.documentElement.scrollWidth") == 360, view
    watched.show("exam")
    listed = watched.page.locator(".growth li .link").all_inner_texts()
    assert len(listed) == 12
    assert listed[-1].startswith("Epoch 40 ")
    assert listed[0].startswith("Epoch 1 ")


def test_two_lessons_side_by_side(open_page: Open, served_shelf: str) -> None:
    watched = open_page(served_shelf)
    whole, old = watched.page.locator(".which select").first, watched.page.locator(".which select").nth(1)
    whole.select_option(label="whole")
    old.select_option(label="old")
    watched.page.locator(".place-1 .card").wait_for()
    watched.go_to(33)
    assert watched.page.locator(".card").evaluate_all("all => all.map(one => one.dataset.step)") == ["30", "30"]
    assert watched.page.locator(".place-0 .token").count() > 0
    assert watched.page.locator(".place-1 .voice.student dd").inner_text() == lessons.cards()[5].student_text
    watched.show("lazy")
    assert watched.page.locator(".chart-losses .value").count() == 6
    watched.show("lessons")
    assert watched.page.locator("#view-lessons tbody tr").count() == 2


def test_a_lesson_without_tokens_still_has_every_view(open_page: Open, shelf: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(make_report([shelf / "old"]), "utf-8")
    watched = open_page(file.as_uri())
    assert watched.page.locator(".voice.student dd").inner_text() == lessons.TEXT
    for view in VIEWS:
        watched.show(view)
    watched.show("temperature")
    assert "还没有" in watched.page.locator("#view-temperature .waiting").inner_text()
    watched.show("exam")
    assert watched.page.locator("#view-exam .waiting").inner_text() == "这堂课没有安排考试。"


def judged_by(scale: LazinessScale | None, folder: Path) -> str:
    """A lesson with one card and one report card, both 50 % lazy, as a report's URL."""
    card = replace(lessons.card(2, 0.5), similarity=0.2, normalised_kl=0.75, light="red")
    epoch = next(event for event in lessons.lesson() if isinstance(event, EpochFinished))
    events = [replace(lessons.started(5), laziness_scale=scale), lessons.step_done(2), card]
    run = lessons.write(folder / "run", [*events, replace(epoch, step=2, mean_laziness=0.5)])
    (folder / "report.html").write_text(make_report([run]), "utf-8")
    return (folder / "report.html").as_uri()


def test_laziness_is_explained_with_the_numbers_of_the_runs_own_record(open_page: Open, tmp_path: Path) -> None:
    scale = LazinessScale(similarity_weight=0.25, kl_weight=0.75, green_below=0.51, yellow_below=0.875)
    watched = open_page(judged_by(scale, tmp_path))
    card = watched.page.locator(".judged")
    assert "0.25 × (1 − 文本相似度 0.200) + 0.75 × KL 0.750 = 50.00%" in card.inner_text()
    assert card.locator(".parts > span").all_inner_texts() == ["文字差异 20.0%", "概率差异 56.3%"]
    places = "all => all.map(one => one.style.insetInlineStart)"
    assert card.locator(".bound").evaluate_all(places) == ["51%", "87.5%"]
    assert card.locator(".light").get_attribute("class") == "light red"  # as the card has it
    watched.show("reports")
    assert watched.page.locator(".epochs .light").get_attribute("class") == "light green"  # 50 % < 51 %
    watched.show("lazy")
    assert watched.page.locator(".chart-parts .value").all_inner_texts() == ["50%", "20%", "56%"]
    intro = watched.page.locator("#view-lazy .intro")
    assert "文字差异 = 0.25 ×（1 − 文本相似度），概率差异 = 0.75 × 归一化 KL" in intro.inner_text()
    watched.page.locator(".language").click()
    watched.settle()
    assert "0.25 × (1 − text similarity) and probability difference = 0.75 × normalised KL" in intro.inner_text()


def test_a_record_without_those_numbers_is_shown_without_them(open_page: Open, tmp_path: Path) -> None:
    watched = open_page(judged_by(None, tmp_path))
    card = watched.page.locator(".judged")
    assert card.locator(".judged-line strong").inner_text() == "50.00%"
    assert card.locator(".light").get_attribute("class") == "light red"
    assert card.locator(".bound, .parts").count() == 0
    assert "×" not in card.inner_text()
    assert card.locator(".figures dd").all_inner_texts()[-2:] == ["0.200", "0.750"]  # similarity and KL are its own
    watched.show("reports")
    assert "50.00%" in watched.page.locator(".epochs").inner_text()
    assert watched.page.locator(".epochs .light").count() == 0
    watched.show("lazy")
    assert watched.page.locator(".chart-parts h2").inner_text() == "偷懒程度"
    assert watched.page.locator(".chart-parts .value").all_inner_texts() == ["50%"]
    assert "×" not in watched.page.locator("#view-lazy .intro").inner_text()
    watched.show("topics")
    assert watched.page.locator(".questions .light").get_attribute("class") == "light red"


def test_a_number_that_is_not_finite_is_said(open_page: Open, tmp_path: Path) -> None:
    events = [lessons.started(5), lessons.step_done(1), lessons.step_done(2, loss=math.nan), lessons.card(2, 0.5)]
    run = lessons.write(tmp_path / "run", events)
    (tmp_path / "report.html").write_text(make_report([run]), "utf-8")
    watched = open_page((tmp_path / "report.html").as_uri())
    assert watched.page.locator(".moment dd").first.inner_text() == "NaN"


def test_the_ledger_knows_mastered_from_forgotten(open_page: Open, tmp_path: Path) -> None:
    courses = {"mastered": (0.9, 0.1), "forgotten": (0.9, 0.1, 0.7), "hard": (0.9, 0.8), "once": (0.2,)}
    events: list[object] = [lessons.started(30)]
    step = 0
    for text, course in courses.items():
        for laziness in course:
            step += 1
            events += [lessons.step_done(step), lessons.card(step, laziness, text=text)]
    run = lessons.write(tmp_path / "run", events)  # type: ignore[arg-type]
    (tmp_path / "report.html").write_text(make_report([run]), "utf-8")
    watched = open_page((tmp_path / "report.html").as_uri())
    watched.show("topics")
    for state in courses:
        watched.page.locator(f"[data-filter={state}]").click()
        watched.settle()
        assert watched.page.locator(".questions .question").all_inner_texts() == [state]


def test_a_hard_token_is_followed_over_all_cards(open_page: Open, tmp_path: Path) -> None:
    courses = {"甲": (6.0, 0.1), "乙": (5.0, 0.2, 3.0), "丙": (4.0, 2.5), "丁": (3.0,), "戊": (1.5, 1.0)}
    events: list[Event] = [lessons.started(30)]
    step = 0
    for token, course in courses.items():
        for kl in course:
            step += 1
            tokens = lessons.detail(lessons.TEXT)
            tokens = replace(tokens, teacher=(token, *tokens.teacher[1:]), kl_nats=(kl, *tokens.kl_nats[1:]))
            events += [lessons.step_done(step), replace(lessons.card(step, 0.5), detail=tokens)]
    run = lessons.write(tmp_path / "run", events)
    (tmp_path / "report.html").write_text(make_report([run]), "utf-8")
    watched = open_page((tmp_path / "report.html").as_uri())
    watched.show("topics")
    tiles = watched.page.locator(".tokens li")
    assert tiles.locator(".piece").all_inner_texts() == ["甲", "乙", "丙", "丁"]  # 戊 was never hard
    assert tiles.locator(".outcome").all_inner_texts() == ["✓ 已掌握", "↩ 又忘了", "✗ 还没学会", "· 只见过一次"]
    tiles.nth(1).locator("button").click()
    watched.page.locator("#view-now .card[data-step='3']").wait_for()
