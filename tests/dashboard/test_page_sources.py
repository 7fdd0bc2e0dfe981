"""The page's files as they are: what they say, what they never do, and whether their colours can be read."""

import json
import re
import tomllib
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

import apt_model
from apt_model.dashboard.bundle import bundle

STATIC = Path(apt_model.__file__).parent / "dashboard" / "static"
MODULES = {path.name: path.read_text("utf-8") for path in sorted(STATIC.glob("*.js"))}
LESSON_TABLES = ("advice", "trend", "light", "reading", "grade", "topics", "notice")
PAIRS = [
    *[(ink, ground) for ink in ("ink", "quiet", "accent", "pen") for ground in ("paper", "card")],
    *[(ink, "card") for ink in ("teacher", "student", "gold", "green", "yellow", "red")],
    *[(ink, "paper") for ink in ("green", "yellow", "red")],
    *[("ink", ground) for ground in ("sunk", "kl-1", "kl-2", "kl-3", "kl-4")],
    ("quiet", "sunk"),
    ("on-accent", "accent"),
    ("card", "pen"),
    *[("heat-ink-low", f"heat-{level}") for level in range(4)],
    ("heat-ink-high", "heat-4"),
]
SHAPES = [(mark, "card") for mark in ("line", "accent", "teacher", "student", "red-fill", "green-fill", "yellow-fill")]


def table(name: str) -> dict[str, list[str | list[str]]]:
    """A table of words: its lines are JSON, but for trailing commas."""
    source = MODULES[name]
    body = source[source.index("= {\n") + 2 : source.index("\n};") + 2]
    parsed: dict[str, list[str | list[str]]] = json.loads(re.sub(r",(\s*[\]}])", r"\1", body))
    return parsed


def test_the_lessons_sentences_are_those_of_the_locales() -> None:
    locales = [
        tomllib.loads(files("apt_model.locales").joinpath(f"{lang}.toml").read_text("utf-8")) for lang in ("zh", "en")
    ]
    meant = {
        f"{name}.{key}": [locale[name][key] for locale in locales] for name in LESSON_TABLES for key in locales[0][name]
    }
    meant |= {
        f"observed.{name}.{key}": [locale["observed"][name][key] for locale in locales]
        for name in LESSON_TABLES
        for key in locales[0]["observed"].get(name, {})
    }
    assert len(meant) > 30
    assert table("lesson_words.js") == meant


def test_every_word_has_both_languages_and_the_same_places_to_fill() -> None:
    words, observed = table("words.js") | table("topic_words.js"), table("observed_words.js")
    assert len(words) > 150
    assert observed.keys() < words.keys()
    for key, pair in [*words.items(), *observed.items()]:
        assert len(pair) == 2, key
        holes = [Counter(re.findall(r"\{(\w+)\}", str(sentence))) for sentence in pair]
        assert holes[0].keys() == holes[1].keys(), key


def test_every_word_that_is_said_is_there_and_none_is_left_over() -> None:
    known, lesson = (
        set(table("words.js") | table("topic_words.js") | table("branch_words.js")),
        set(table("lesson_words.js")),
    )
    code = "\n".join(source for name, source in MODULES.items() if not name.endswith("words.js"))
    said = set(re.findall(r'"([a-z]+\.[a-z0-9.]+)"', code)) - {"apt.js"}
    prefixes = set(re.findall(r"`([a-z.]+\.)\$\{", code))
    dynamic = {key for key in known if any(key.startswith(prefix) for prefix in prefixes)}
    assert {key for key in re.findall(r'say\("([^"]+)"', code)} <= known | lesson
    assert known - said - dynamic == set()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_module_can_turn_text_into_markup_or_code(name: str) -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser"
        r"|createContextualFragment|srcdoc|cssText"
    )
    assert re.findall(forbidden, MODULES[name]) == []
    assert "?." not in re.sub(r"/(?:\\.|[^/\n])+/[gu]*", "", MODULES[name]), "ES2019 has no optional chaining"
    assert "??" not in MODULES[name]
    assert len(MODULES[name].splitlines()) <= 300


def test_the_page_itself_has_no_inline_style_or_script_and_asks_nobody_else() -> None:
    index = (STATIC / "index.html").read_text("utf-8")
    assert re.findall(r"\son\w+=|\sstyle=|<style|<script>", index) == []
    assert re.findall(r'(?:src|href)="(?!\./static/|data:image/svg)', index) == []
    assert 'src="./static/vendor/uPlot.iife.min.js"' in index
    assert "Leon Sorokin" in (STATIC / "vendor" / "uPlot.LICENSE").read_text("utf-8")


def test_the_modules_become_one_script() -> None:
    script = bundle(MODULES, "main.js")
    assert set(re.findall(r"^// (\w+\.js)$", script, re.MULTILINE)) == set(MODULES)


def colours(theme: str) -> dict[str, str]:
    style = (STATIC / "style.css").read_text("utf-8")
    blocks = re.findall(r'^:root(?:\[data-theme="(\w+)"\])? \{(.*?)^\}', style, re.DOTALL | re.MULTILINE)
    found: dict[str, str] = {}
    for name, block in blocks:
        if name in ("", theme):
            found |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    return found


def luminance(colour: str) -> float:
    """Relative luminance, by WCAG 2.2."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_computed_as_the_standard_says() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_can_be_read_on_its_ground(theme: str) -> None:
    known = colours(theme)
    text = {pair: contrast(known[pair[0]], known[pair[1]]) for pair in PAIRS}
    shape = {pair: contrast(known[pair[0]], known[pair[1]]) for pair in SHAPES}
    assert {pair: round(ratio, 2) for pair, ratio in text.items() if ratio < 4.5} == {}
    assert {pair: round(ratio, 2) for pair, ratio in shape.items() if ratio < 3} == {}
