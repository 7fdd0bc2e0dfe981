"""The page speaks the language chosen, or else the lesson's, or else the browser's; remarks and topics with it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apt_model.cli import main
from apt_model.events.cards import ScoredObservation
from apt_model.events.event import Event
from apt_model.events.records import RunStarted
from apt_model.i18n import Phrases
from tests.dashboard import lessons
from tests.dashboard.conftest import Open

LANG = {"zh": "zh-CN", "en": "en"}


def report(folder: Path, lang: str | None, **remark: Any) -> str:
    """The address of a report on a lesson held in `lang`; None: its record does not say."""

    def told(event: Event) -> Event:
        if isinstance(event, RunStarted):
            config = {key: value for key, value in event.config.items() if key != "lang"}
            return replace(event, config=config | ({} if lang is None else {"lang": lang}))
        return replace(event, **remark) if isinstance(event, ScoredObservation) else event

    lessons.write(folder / "run", map(told, lessons.lesson(20)))
    assert main(["report", str(folder / "run")]) == 0
    return (folder / "run" / "report.html").as_uri()


@pytest.mark.parametrize(
    ("lesson", "spoken", "expected"),
    [
        ("en", "zh-CN", "en"),
        ("zh", "en-US", "zh"),
        (None, "zh-TW", "zh"),
        (None, "fr-FR", "en"),
        ("own.toml", "zh", "zh"),
    ],
)
def test_the_lessons_language_comes_before_the_browsers(
    open_page: Open, tmp_path: Path, lesson: str | None, spoken: str, expected: str
) -> None:
    page = open_page(report(tmp_path, lesson), locale=spoken).page
    assert page.locator("html").get_attribute("lang") == LANG[expected]
    assert page.locator("#tab-reports").inner_text() == {"zh": "成绩单", "en": "Report cards"}[expected]


def test_a_language_chosen_comes_before_both_and_remarks_and_topics_are_said_in_it(
    open_page: Open, tmp_path: Path
) -> None:
    page = open_page(report(tmp_path, "zh", remark_key="good", remark_variant=2, topic="医疗"), locale="zh-CN").page
    zh, en = (Phrases.load(lang) for lang in ("zh", "en"))
    assert page.locator(".remark q").inner_text() == zh.variants("remarks.good")[2]
    page.locator(".switch.language").click()
    page.locator("html[lang=en]").wait_for()
    assert page.locator(".remark q").inner_text() == en.variants("remarks.good")[2]
    assert page.locator(".card .topic").inner_text() == "medicine"
    page.reload()
    assert page.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize("damaged", [{}, {"remark_key": "constructor"}, {"remark_key": "good", "remark_variant": 99}])
def test_a_remark_of_an_old_or_odd_record_is_shown_as_it_was_made(
    open_page: Open, tmp_path: Path, damaged: dict[str, Any]
) -> None:
    page = open_page(report(tmp_path, "en", **damaged)).page
    assert page.locator(".remark q").inner_text() == "👍 不错！"
