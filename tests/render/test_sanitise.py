"""Nothing that a model or a file says can drive the terminal."""

import io
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import width

from apt_model.render.sanitise import MAX_CHARACTERS, fit_encoding, sanitise
from apt_model.render.wrap import shorten, wrap

ATOMS = [
    "\x1b[31m",
    "\x1b]8;;http://x\x07",
    "\x1b]52;c;aGk=\x07",
    "\x1bP1$r\x1b\\",
    "\x9b2J",
    "\x00",
    "\r",
    "\n",
    "\t",
    "\x7f",
    "\x85",
    "\ud800",
    "\udfff",
    "\ue000",
    "\ufdd0",
    "\u0378",
    "\u202e",
    "\u2066",
    "\u200f",
    "\u061c",
    "\u200d",
    "\u200b",
    "\ufe0f",
    "\ufeff",
    "👨‍🏫",
    "👍🏽",
    "1️⃣",
    "🇨🇳",
    "🏴\U000e0067\U000e007f",
    "e" + "\u0301" * 20,
    "\u0489",
    "ก็็็็",
    "각",
    "ㅤ",
    "\u00ad",
    "\u2028",
    "\u3000",
    "ﷺ",
    "[/]",
    "[/INST]",
    ":smile:",
    "[bold red]",
    "教师",
    "，",
    "《",
    "hello",
    " ",
    "𠮷",
    "A\u030a",
    "​",
    "\u1160",
    "\U0010ffff",
    "‮",
]
hostile = st.lists(st.sampled_from(ATOMS) | st.characters(codec=None, categories=None), max_size=30).map("".join)


def is_harmless(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn") or character == "\ufffd"


@given(hostile)
def test_sanitised_text_has_no_control_is_encodable_bounded_and_stays_as_it_is(text: str) -> None:
    shown = sanitise(text, 100)
    assert all(map(is_harmless, shown))
    assert shown.encode("utf-8").decode() == shown
    assert len(shown) <= 100
    assert sanitise(shown, 100) == shown
    assert width(shown) >= 0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "^[[2J"),
        ("a\r\nb\nc\td", "a⏎b⏎c d"),
        ("\x00\x07\x7f", "^@^G^?"),
        ("\x9b\ud800\ue000\u202e", "\ufffd" * 4),
        ("👨‍🏫1️⃣👍🏽", "👨🏫1👍"),
        ("🇨🇳", "CN"),
        ("e\u0301", "é"),
        ("x" + "\u0308" * 9, "ẍ" + "\u0308" * 4),
        ("[/INST] :smile: [bold]", "[/INST] :smile: [bold]"),
        ("互联网，全球", "互联网，全球"),
    ],
)
def test_what_each_kind_of_character_becomes(text: str, shown: str) -> None:
    assert sanitise(text) == shown


def test_ten_megabytes_cost_no_more_than_a_short_line() -> None:
    line = "\x1b[31m互" * 2_000_000
    started = time.perf_counter()
    assert len(sanitise(line)) <= MAX_CHARACTERS
    assert time.perf_counter() - started < 0.05


@pytest.mark.parametrize("encoding", ["ascii", "gbk", "latin-1", "utf-8"])
@given(text=hostile)
def test_fitted_text_can_be_encoded(encoding: str, text: str) -> None:
    fit_encoding(sanitise(text), encoding).encode(encoding)


def test_known_symbols_become_ascii_ones() -> None:
    assert fit_encoding("👨🏫 [T] 🟢 █░ → 教", "ascii") == "[T] [T] (+) #- -> \\u6559"
    assert fit_encoding("🎓教师", "gbk") == "*教师"


@given(hostile, st.integers(10, 60))
def test_wrapped_lines_fit_and_lose_nothing_but_spaces(text: str, columns: int) -> None:
    clean = sanitise(text)
    lines = [clean[start:end] for start, end in wrap(clean, columns, first=columns // 2)]
    assert all(width(line) <= columns for line in lines)
    assert width(lines[0]) <= max(columns // 2, 2)
    assert "".join(lines).replace(" ", "") == clean.replace(" ", "")


def test_chinese_marks_do_not_begin_a_line_and_brackets_do_not_end_one() -> None:
    text = "一二三四，五六七《八九十"
    assert [text[a:b] for a, b in wrap(text, 8)] == ["一二三", "四，五六", "七《八九", "十"]
    assert ["一二三《四五"[a:b] for a, b in wrap("一二三《四五", 8)] == ["一二三", "《四五"]


def test_words_stay_whole_where_they_fit() -> None:
    text = "the quick brown fox"
    assert [text[a:b] for a, b in wrap(text, 10)] == ["the quick", "brown fox"]
    assert [("x" * 25)[a:b] for a, b in wrap("x" * 25, 10)] == ["x" * 10, "x" * 10, "x" * 5]


@pytest.mark.parametrize("columns", range(8, 40))
def test_a_key_and_its_value_stay_on_one_line(columns: int) -> None:
    text = "配置: 温度=4.0, α=0.7, β=0.3, x_y=1"
    lines = [text[start:end] for start, end in wrap(text, columns)]
    for pair in ("温度=4.0", "α=0.7", "β=0.3", "x_y=1"):
        assert any(pair in line for line in lines), lines
    assert [("=" * 9)[a:b] for a, b in wrap("=" * 9, 4)] == ["====", "====", "="]


def test_shortened_text_ends_with_an_ellipsis() -> None:
    assert (shorten("abcdef", 4), shorten("abcd", 4)) == ("abc…", "abcd")


def test_a_stream_in_memory_which_has_no_encoding_takes_any_text() -> None:
    assert io.StringIO().encoding is None
    assert fit_encoding("教师 🟢 \ud800", io.StringIO().encoding) == "教师 🟢 \\ud800"
