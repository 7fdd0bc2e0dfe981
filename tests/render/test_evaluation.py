"""The table of an evaluation: both languages, wide and narrow, letters that the output has."""

import io
import json
from typing import Any

import pytest
from rich.cells import cell_len

from apt_model.events.evaluation import Evaluation, figure
from apt_model.render.evaluation import show_evaluation

INTERVALS = {"loss": [3.4, 3.5], "perplexity": [29.96, 33.1], "accuracy": [0.42, 0.44], "kl": [0.44, 0.47]}
STUDENT = {
    "documents": 1234,
    "tokens": 123456,
    "answers": 200,
    "loss": 3.456,
    "perplexity": 31.69,
    "bits_per_byte": 1.2344,
    "accuracy": 0.4321,
    "agreement": 0.712,
    "kl": 0.456,
    "chrf": 23.44,
    "repetition": 0.123,
    "parameters": 12345678,
    "megabytes": 49.4,
    "intervals": INTERVALS,
}
TEACHER = {
    key: value for key, value in STUDENT.items() if key not in ("documents", "tokens", "answers", "agreement", "kl")
} | {"perplexity": 1234567.0, "intervals": {"perplexity": [1.1e6, 1.3e6]}}


class Terminal(io.TextIOWrapper):
    """A terminal of some width and encoding."""

    def isatty(self) -> bool:
        return True


def shown(results: Any, monkeypatch: pytest.MonkeyPatch, columns: int = 80, encoding: str = "utf-8", **how: Any) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", "50")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    raw = io.BytesIO()
    terminal = Terminal(raw, encoding=encoding, write_through=True)
    show_evaluation(results, file=terminal, **how)
    terminal.flush()
    text = raw.getvalue().decode(encoding)
    return text.replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "").replace("\x1b[1;2m", "")


def row(text: str, label: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.strip(" |").startswith(label)]
    return line.replace("|", " ").split()


def test_teacher_and_student_stand_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown({**STUDENT, "teacher": TEACHER}, monkeypatch)
    assert "📊 文本质量评估\n1,234 篇文本，计分 123,456 个 token\n200 个问题，贪心解码作答\n" in text
    assert row(text, "教师模型") == ["教师模型", "学生模型"]
    assert row(text, "困惑度") == ["困惑度", "1.2e+06", "[1.1e+06,", "1.3e+06]", "31.69", "[29.96,", "33.10]"]
    assert row(text, "与教师一致率") == ["与教师一致率", "–", "71.2%"]
    assert row(text, "预测准确率") == ["预测准确率", "43.2%", "43.2%", "[42.0%,", "44.0%]"]
    assert row(text, "参数量") == ["参数量", "12,345,678", "12,345,678"]
    assert "BLEU" not in text


def test_one_model_has_one_column(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(STUDENT, monkeypatch, lang="en")
    assert row(text, "Model") == ["Model"]
    assert row(text, "KL to teacher (nats)")[-3:] == ["0.456", "[0.440,", "0.470]"]
    assert "95 % confidence intervals" in text
    assert row(shown(STUDENT, monkeypatch, 40), "参数量") == ["参数量", "12,345,678"]
    plain = shown({key: value for key, value in STUDENT.items() if key != "intervals"}, monkeypatch, lang="en")
    assert "intervals" not in plain


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("columns", [40, 60, 80, 200])
@pytest.mark.parametrize("two", [False, True])
def test_it_fits_the_terminal_and_no_word_is_cut(
    lang: str, columns: int, two: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = {**STUDENT, "teacher": TEACHER} if two else STUDENT
    text = shown(results, monkeypatch, columns, lang=lang)
    assert max(map(cell_len, text.splitlines())) <= min(columns, 79)
    assert "…" not in text
    squeezed = "".join(text.split())
    for words in ("31.69", "[29.96,33.10]", "43.2%", "12,345,678", "nat"):
        assert words in squeezed
    if two:
        assert "[1.1e+06,1.3e+06]" in squeezed


def test_an_ascii_terminal_gets_english_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown({**STUDENT, "teacher": TEACHER}, monkeypatch, encoding="ascii")
    assert text.isascii()
    assert row(text, "Teacher") == ["Teacher", "Student"]


def test_piped_it_has_eighty_columns_and_no_controls() -> None:
    pipe = io.StringIO()
    show_evaluation({**STUDENT, "teacher": TEACHER}, file=pipe)
    assert "\x1b" not in pipe.getvalue()
    assert max(map(cell_len, pipe.getvalue().splitlines())) <= 79


def test_what_was_saved_as_json_can_be_shown_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    unsure = {**INTERVALS, "loss": [3.4, float("inf")]}
    found = Evaluation({**STUDENT, "perplexity": float("inf"), "intervals": unsure, "teacher": TEACHER})
    found.save(tmp_path / "found.json")
    text = shown(json.loads((tmp_path / "found.json").read_text()), monkeypatch)
    assert row(text, "困惑度")[-1] == "–"
    assert row(text, "损失")[-1] == "3.456"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("accuracy", 0.12345, "12.3%"),
        ("perplexity", 12.345, "12.35"),
        ("perplexity", 1234.5, "1,234"),
        ("perplexity", 1.25e7, "1.2e+07"),
        ("perplexity", float("inf"), "inf"),
        ("kl", 0.00049, "0.000"),
        ("bleu", 12.34, "12.3"),
        ("parameters", 12345678901, "12,345,678,901"),
        ("prompt_tokens_per_second", 12345.6, "12,346"),
    ],
)
def test_a_figure_has_the_digits_that_tell_something(key: str, value: float, said: str) -> None:
    assert figure(key, value) == said
