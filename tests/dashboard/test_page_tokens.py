"""The page and real tokens: blanks, pieces of characters, the same place coming again, cells that rest on few cards."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

from apt_model.dashboard.report import make_report
from apt_model.data.token_text import TokenTexts
from apt_model.events.cards import ScoredObservation
from apt_model.events.event import Event
from apt_model.events.laziness import LazinessScale
from apt_model.events.tokens import TokenDetail
from apt_model.i18n import Phrases
from apt_model.render import palette
from apt_model.review import plots
from tests.dashboard import lessons
from tests.dashboard.conftest import Open, Watched
from tests.dashboard.test_page_truth import truthful

SAID = " a cat\n为 is a"
BOXES = "all => all.map(one => [...one.getClientRects()].length)"  # a token over two lines has two
Watch = Callable[..., Watched]


@pytest.fixture
def watch(open_page: Open, tmp_path: Path) -> Watch:
    """Opens the report of events."""
    names = count()

    def watch(events: list[Event], **more: Any) -> Watched:
        run = lessons.write(tmp_path / f"run-{next(names)}", events)
        report = run.with_suffix(".html")
        report.write_text(make_report([run]), "utf-8")
        return open_page(report.as_uri(), **more)

    return watch


def byte_level(*texts: str) -> tuple[PreTrainedTokenizerFast, list[int]]:
    """A byte-level BPE tokenizer that has no whole Chinese character, and the first text in its ids."""
    made = ByteLevelBPETokenizer()
    made.train_from_iterator(texts, vocab_size=290, min_frequency=2, special_tokens=["<|end|>"], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, eos_token="<|end|>")
    return tokenizer, tokenizer.encode(texts[0])


def real_detail(kl: float = 0.01) -> TokenDetail:
    """What a card has of `SAID` and the end of a text, as the reporter makes it from ids."""
    tokenizer, ids = byte_level(SAID, " a cat is a cat", " a", " is")
    texts = TokenTexts(tokenizer)
    ids = [*ids, tokenizer.eos_token_id]
    pieces = texts.split(ids, tokenizer.decode(ids, skip_special_tokens=True))
    tops = tuple(((name, 0.6), ("\n", 0.25), (" x", 0.1)) for name in texts.names(ids))
    return TokenDetail(
        teacher=pieces, student=pieces, kl_nats=(kl,) * len(ids), teacher_top=tops, student_top=tops,
    )  # fmt: skip


def with_tokens(detail: TokenDetail, step: int = 1, **more: Any) -> list[Event]:
    return [lessons.step_done(step), replace(lessons.card(step, 0.5), detail=detail, **more)]


def test_blanks_and_pieces_of_characters_are_seen_and_no_token_is_split_over_lines(watch: Watch) -> None:
    page = watch([lessons.started(9), *with_tokens(real_detail())], width=390).page
    shown = page.locator(".voice.student .token").all_inner_texts()
    assert shown == ["␣a", "␣cat", "↵", "⟨E4⟩", "⟨B8⟩", "为", "␣is", "␣a", "<|end|>"]
    assert page.locator(".voice.student .token.other").count() == 0
    assert set(page.locator(".voice .token, .voice .said").evaluate_all(BOXES)) == {1}
    page.locator(".voice.student .token").nth(3).click()
    assert "⟨…⟩ 是字节" in page.locator("#peek").inner_text()
    assert page.locator("#peek .teacher .rank-text").all_inner_texts() == ["⟨E4⟩", "↵", "␣x", "其余"]


@pytest.mark.slow
def test_two_pieces_of_characters_are_the_same_only_if_their_bytes_are(watch: Watch) -> None:
    same = real_detail()
    other = [*same.student_top]
    other[3] = (("⟨E5⟩", 0.6), *other[3][1:])
    page = watch([lessons.started(9), *with_tokens(replace(same, student_top=tuple(other)))]).page
    marked = page.locator(".voice.student .token").evaluate_all("all => all.map(one => one.matches('.other'))")
    assert [index for index, is_other in enumerate(marked) if is_other] == [3]


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_long_words_stay_whole_in_rows_and_tiles_and_nothing_sticks_out(watch: Watch, width: int) -> None:
    pieces = [" understanding", "Internationalisation", " ", "    " * 5, "x" * 90, "的", "知识", "\n\n", "-"] * 6
    tops = tuple(((piece, 0.6), (" a", 0.2), ("a", 0.1)) for piece in pieces)
    detail = TokenDetail(
        teacher=tuple(pieces), student=tuple(pieces), kl_nats=(9.0,) * len(pieces), teacher_top=tops, student_top=tops
    )
    watched = watch([lessons.started(9), *with_tokens(detail)], width=width)
    page = watched.page
    row = page.locator(".voice.student .token").all_inner_texts()
    assert row[3] == "␣×20"
    assert len(row[4]) == 24
    assert row[4].endswith("…")
    for view, tokens in (
        ("now", ".token, .said"),
        ("topics", ".tokens .piece, .hardest .piece"),
        ("temperature", ".pick, .pair-text"),
    ):
        watched.show(view)
        watched.settle()
        assert set(page.locator(f"#view-{view}").locator(tokens).evaluate_all(BOXES)) == {1}, view
        assert page.evaluate("document.documentElement.scrollWidth") == width, view


def test_the_temperature_page_begins_with_a_token_that_can_be_read_out(watch: Watch) -> None:
    """The blank has the highest second choice, a piece of a character the next: neither is an example."""
    pieces = ("甲", " ", "\n", "", "乙")
    seconds = (0.1, 0.49, 0.48, 0.47, 0.2)
    names = ("甲", " ", "\n", "⟨E4⟩", "乙")
    tops = tuple(((name, 0.5), ("丙", second), ("丁", 0.01)) for name, second in zip(names, seconds, strict=True))
    detail = TokenDetail(
        teacher=pieces, student=pieces, kl_nats=(0.1,) * 5, teacher_top=tops, student_top=tops
    )  # fmt: skip
    watched = watch([lessons.started(9), *with_tokens(detail)])
    watched.show("temperature")
    assert watched.page.locator(".pick[aria-checked=true]").inner_text() == "乙"


def hard_places(*cards: dict[str, Any]) -> list[Event]:
    """One card a step, whose first token is as hard as `kl` says."""
    events: list[Event] = [lessons.started(30)]
    for step, given in enumerate(cards, start=1):
        tokens = lessons.detail(lessons.TEXT)
        first = given.pop("first", "甲")
        tokens = replace(
            tokens, teacher=(first, *tokens.teacher[1:]), kl_nats=(given.pop("kl"), *tokens.kl_nats[1:])
        )  # fmt: skip
        events += with_tokens(tokens, step, **given)
    return events


@pytest.mark.slow
@pytest.mark.parametrize(
    "elsewhere",
    [{"given": "别的开头"}, {"input_text": "别的文本"}, {"original": "别的后文"}, {"tokens": 3}],
    ids=lambda one: next(iter(one)),
)
def test_a_word_learned_elsewhere_is_no_outcome_of_the_place_where_it_was_hard(
    watch: Watch, elsewhere: dict[str, Any]
) -> None:
    watched = watch(hard_places({"kl": 6.0}, {"kl": 0.1} | elsewhere))
    watched.show("topics")
    assert watched.page.locator(".tokens .outcome").all_inner_texts() == ["· 只见过一次"]
    assert watched.page.locator(".questions .outcome").all_inner_texts() == ["· 只见过一次"] * 2


@pytest.mark.slow
def test_behind_other_words_the_same_word_is_another_place(watch: Watch) -> None:
    """As of two chats whose long beginning is the same, of which a record keeps nothing else."""
    cards = hard_places({"kl": 0.1, "first": "乙"}, {"kl": 0.1, "first": "甲"})
    hard = cards[2]
    assert isinstance(hard, ScoredObservation)
    assert hard.detail is not None
    cards[2] = replace(hard, detail=replace(hard.detail, kl_nats=(0.1, 6.0, *hard.detail.kl_nats[2:])))
    watched = watch(cards)
    watched.show("topics")
    assert watched.page.locator(".tokens .outcome").all_inner_texts() == ["· 只见过一次"]


@pytest.mark.slow
def test_a_cell_says_how_many_cards_it_rests_on_and_one_or_two_get_no_colour(watch: Watch) -> None:
    lazy = {"互联网": (0.1,), "医疗": (0.1, 0.1), "教育": (0.1, 0.1, 0.1)}
    events: list[Event] = [lessons.started(30), lessons.step_done(1)]
    events += [lessons.card(1, value, topic=topic) for topic, values in lazy.items() for value in values]
    watched = watch(events)
    watched.show("topics")
    cells = watched.page.locator(".heatmap tbody tr:not(.total) td")
    assert [cell.split("\n") for cell in cells.all_inner_texts()] == [["90%", "3"], ["90%", "2"], ["90%", "1"]]
    assert cells.evaluate_all("all => all.map(one => one.className)") == ["heat-4", "few", "few"]
    assert "不足 3 条" in watched.page.locator(".heat").inner_text()


COLOUR_OF = "one => getComputedStyle(one).backgroundColor"


def rgb(value: str) -> str:
    return f"rgb({', '.join(str(int(value[at : at + 2], 16)) for at in (1, 3, 5))})"


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_share_has_the_same_colour_by_day_and_night_on_the_page_and_in_the_plots(watch: Watch, theme: str) -> None:
    shares = (0.1, 0.3, 0.5, 0.7, 0.9)
    cards = [lessons.card(1, 1 - share, topic=f"t{share}") for share in shares for _ in range(3)]
    watched = watch([lessons.started(30), lessons.step_done(1), *cards], color_scheme=theme)
    watched.show("topics")
    rows = watched.page.locator(".heatmap tbody tr:not(.total)")
    names = rows.locator("th").all_inner_texts()
    grounds = dict(zip(names, rows.locator("td").evaluate_all(f"all => all.map({COLOUR_OF})"), strict=True))
    assert grounds == {f"t{share}": rgb(palette.HEAT[level]) for level, share in enumerate(shares)}
    (axes,) = plots.draw(cards, Phrases.load("en"), names=["topics"]).axes
    drawn = [label.get_text().split(" ")[0] for label in axes.get_yticklabels()]
    painted = [
        f"rgb({', '.join(str(round(255 * part)) for part in patch.get_facecolor()[:3])})" for patch in axes.patches
    ]
    assert dict(zip(drawn, painted, strict=True)) == grounds


def page_curves(watched: Watched, chart: str) -> list[tuple[str, str]]:
    """The colour and dash of each line of a chart, as its key shows them."""
    found = watched.page.locator(f".chart-{chart} .key svg").evaluate_all(
        "all => all.map(one => [getComputedStyle(one).stroke, one.firstChild.getAttribute('stroke-dasharray')])"
    )
    kinds = {"": "solid", "8 5": "dashed", "2 4": "dotted", "10 4 2 4": "mixed"}
    return [(colour, kinds[re.sub(r"[, ]+", " ", dash)]) for colour, dash in found]


def test_a_quantity_has_one_colour_and_dash_on_the_page_and_in_the_plots(watch: Watch) -> None:
    events = list(truthful())
    watched = watch(events)
    watched.show("lazy")
    look = {name: (rgb(palette.COLOURS[curve.tone]), curve.dash) for name, curve in palette.CURVES.items()}
    assert page_curves(watched, "losses") == [look["total"], look["kd"], look["ce"]]
    assert page_curves(watched, "parts") == [look["laziness"], look["text"], look["kl"]]
    assert page_curves(watched, "agreement") == [look["agreement"]]
    assert page_curves(watched, "gap") == [look["gap"]]
    assert page_curves(watched, "readings") == [look["unseen_agreement"], look["unseen_laziness"]]
    (axes,) = plots.draw(events, Phrases.load("en"), names=["laziness"]).axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    last = {label: line.get_ydata()[-1] for label, line in lines.items() if not label.startswith("_")}
    shown = watched.page.locator(".chart-parts .value").all_inner_texts()
    assert [
        f"{last[name]:.0f}%" for name in ("laziness", "text difference, weighted", "probability difference, weighted")
    ] == shown
    assert lines["probability difference, weighted"].get_color() == palette.COLOURS["teacher"]


def test_the_pages_day_has_the_palettes_colours() -> None:
    style = (Path(plots.__file__).parents[1] / "dashboard/static/style.css").read_text("utf-8")
    day = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", style[: style.index("[data-theme")]))
    assert {name: day[name] for name in palette.COLOURS} == palette.COLOURS
    assert tuple(day[f"heat-{level}"] for level in range(5)) == palette.HEAT
    inks = (*["heat-ink-low"] * 4, "heat-ink-high")
    assert tuple(day[ink] for ink in inks) == palette.HEAT_INK


def levels(watched: Watched) -> list[str]:
    return list(watched.page.locator(".legend ul li .token").all_inner_texts())[:5]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "first"), [(LazinessScale(), "< 0.36"), (LazinessScale(green_below=0.5, yellow_below=0.7), "< 0.69")]
)
def test_a_token_is_marked_from_where_the_runs_own_light_would_no_longer_be_green(
    watch: Watch, scale: LazinessScale, first: str
) -> None:
    """1 − e^(−KL) is what laziness counts: of 30 % at 0.357 nats, of 50 % at 0.693."""
    bound = -math.log(1 - scale.green_below)
    tokens = lessons.detail(lessons.TEXT)
    near = replace(tokens, kl_nats=(bound - 0.01, bound + 0.01, *tokens.kl_nats[2:]))
    watched = watch([replace(lessons.started(9), laziness_scale=scale), *with_tokens(near)])
    kinds = watched.page.locator(".voice.student .token").evaluate_all("all => all.map(one => one.className.trim())")
    assert kinds[:3] == ["token kl-0", "token kl-1", "token kl-0"]
    assert levels(watched)[0] == first
    assert f"标记从 {first[2:]} nat 起" in watched.page.locator(".legend").inner_text()


@pytest.mark.slow
def test_a_record_without_lights_says_nothing_of_them(watch: Watch) -> None:
    watched = watch([replace(lessons.started(9), laziness_scale=None), *with_tokens(lessons.detail(lessons.TEXT))])
    assert levels(watched)[0] == "< 0.50"
    assert "灯" not in watched.page.locator(".legend").inner_text()


def test_beside_a_card_stand_the_figures_of_its_own_step(watch: Watch) -> None:
    watched = watch(list(lessons.lesson()))
    watched.go_to(8)
    moment = watched.page.locator(".moment")
    assert moment.locator("h3").inner_text() == "这张卡片那一步 · 第 5 步"
    assert moment.locator("dd").first.inner_text() == "0.8000"  # 4 / 5
    assert moment.locator(".since").inner_text() == "课已到第 8 步，损失 0.5000"
    watched.go_to(10)
    assert moment.locator(".since").count() == 0
    watched.go_to(3)
    assert moment.locator("h3").inner_text() == "这一步"


OVER = """() => {
    const places = ["[aria-describedby=peek]", "#peek", ".top"];
    const [row, sheet, head] = places.map(one => document.querySelector(one).getBoundingClientRect());
    return [row.top >= head.bottom, row.bottom <= sheet.top];
}"""


@pytest.mark.slow
@pytest.mark.parametrize("height", [844, 640])
def test_on_a_phone_the_tapped_row_stays_over_the_sheet(watch: Watch, height: int) -> None:
    watched = watch(list(lessons.lesson()), width=390, height=height, has_touch=True)
    page = watched.page
    before = page.evaluate("document.body.scrollHeight")
    for token in (page.locator(".voice.student .token").first, page.locator(".voice.student .token").last):
        token.evaluate("one => one.scrollIntoView({block: 'end'})")
        token.tap()
        watched.settle()
        assert page.evaluate(OVER) == [True, True]
        page.keyboard.press("Escape")
        watched.settle()
    assert page.evaluate("document.body.scrollHeight") == before


CHROME = """() => [...document.querySelectorAll("body *")]
    .filter(one => ["fixed", "sticky"].includes(getComputedStyle(one).position) && one.offsetHeight)
    .map(one => one.getBoundingClientRect())
    .reduce((sum, at) => sum + Math.max(0, Math.min(at.bottom, innerHeight) - Math.max(at.top, 0)), 0) / innerHeight"""


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(640, 360), (640, 400), (720, 450), (320, 256)])
def test_at_twice_the_size_the_screen_is_the_lessons(watch: Watch, width: int, height: int) -> None:
    """1280 × 720, 1280 × 800 and 1440 × 900 at 200 %, 1280 × 1024 at 400 %: of the height an eighth at most."""
    watched = watch(list(lessons.lesson()), width=width, height=height)
    watched.page.evaluate("window.scrollTo(0, 200)")
    assert watched.page.evaluate(CHROME) <= 0.125
    assert watched.page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.slow
@pytest.mark.parametrize("language", ["zh", "en"])
def test_on_a_laptop_a_card_ends_above_the_bar(watch: Watch, language: str) -> None:
    card = replace(
        lessons.card(60, 0.5), card_text="continued", original=lessons.TEXT * 4, gain=0.5,
        teacher_text=lessons.TEXT * 4, student_text=lessons.TEXT * 4,
    )  # fmt: skip
    watched = watch([lessons.started(60), lessons.step_done(60), card], width=1280, height=720)
    if language == "en":
        watched.page.locator(".switch.language").click()
        watched.settle()
    end, bar = (watched.page.locator(one).bounding_box() for one in (".remark", ".replay"))
    assert end is not None
    assert bar is not None
    assert end["y"] + end["height"] <= bar["y"]


@pytest.mark.slow
def test_the_words_of_a_token_are_those_of_its_nodes(open_page: Open, served: str) -> None:
    texts = ["", " ", "  ", "\r\n", " a", "a ", "\t", "　", "⟨E4⟩", "a\u200bb", "␣", None]
    script = "texts => import('./static/token_marks.js').then(it => JSON.parse(texts).map(text => it.tokenText(text)))"
    shown = open_page(served).page.evaluate(script, json.dumps(texts))
    assert shown == ["·", "␣", "␣␣", "↵", "␣a", "a␣", "⇥", "⟨U+3000⟩", "⟨E4⟩", "ab", "␣", "·"]
