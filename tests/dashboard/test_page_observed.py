"""The page of a training that is only observed: nothing on it says that the teacher taught the student."""

from dataclasses import replace
from pathlib import Path

from apt_model.dashboard.report import make_report
from apt_model.events.records import Advice
from tests.dashboard import lessons
from tests.dashboard.conftest import Open


def test_an_observed_training_beside_a_lesson_is_spoken_of_in_its_own_words(open_page: Open, tmp_path: Path) -> None:
    start, *others = lessons.lesson()
    observed = replace(start, trained_by="SFTConfig", learns_from_teacher=False)  # type: ignore[call-arg]
    end = replace(others[-1], advice=(Advice(key="observed"),))  # type: ignore[call-arg]
    runs = [
        lessons.write(tmp_path / "sft", [observed, *others[:-1], end]),
        lessons.write(tmp_path / "own", lessons.lesson()),
    ]
    (tmp_path / "report.html").write_text(make_report(runs), "utf-8")
    watched = open_page((tmp_path / "report.html").as_uri())
    watched.page.locator(".which select").nth(1).select_option(label="own")
    watched.page.locator(".place-1 .card").wait_for()
    assert watched.page.locator(".judged-line .light").all_inner_texts() == ["●与教师接近", "●学得很好"]
    assert watched.page.locator(".observing").all_inner_texts() == [
        "旁观：教师在这里只用来对照，偷懒程度只表示学生与它差多少。",
        "",
    ]
    assert "训练器：SFTConfig；卡片的损失：温度 2" in watched.page.locator(".who").inner_text()
    watched.show("reports")
    assert watched.page.locator(".verdict .trend").all_inner_texts() == [
        "变化趋势 📈 比开始时接近教师得多",
        "学习趋势 📈 显著进步！",
    ]
    assert "想让学生跟这位教师学" in watched.page.locator(".verdict .advice").first.inner_text()
    watched.show("topics")
    assert watched.page.locator(".heat h2").all_inner_texts() == ["各主题与教师的接近程度", "各主题的掌握度"]
    assert "接近教师" in watched.page.locator(".totals").first.inner_text()
