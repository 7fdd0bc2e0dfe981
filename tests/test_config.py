"""Settings: the guide's defaults, one clear error for everything that is wrong."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_model.config import PRESETS, LessonConfig
from apt_model.errors import ConfigError


def test_the_defaults_are_the_guides() -> None:
    values = LessonConfig.from_dict().to_dict()
    guide = {"temperature": 4.0, "alpha": 0.7, "beta": 0.3, "show_samples": True, "show_diff": False}
    guide |= {"sample_frequency": 50, "max_text_length": 100, "num_epochs": 3}
    assert guide.items() <= values.items()


@pytest.mark.parametrize(
    ("name", "frequency", "length", "diff"),
    [("teaching", 5, 150, True), ("production", 200, 50, False), ("debug", 1, 200, True)],
)
def test_presets_have_the_guides_figures_and_single_keys_win(
    name: str, frequency: int, length: int, diff: bool
) -> None:
    display = LessonConfig.from_dict({"preset": name}).display
    assert (display.sample_frequency, display.max_text_length, display.show_diff) == (frequency, length, diff)
    assert LessonConfig.from_dict({"preset": name, "sample_frequency": 9}).display.sample_frequency == 9
    assert set(PRESETS) == {"teaching", "production", "debug"}


@pytest.mark.parametrize(
    ("given", "alpha", "beta"), [({"alpha": 0.9}, 0.9, 0.1), ({"beta": 1}, 0.0, 1.0), ({}, 0.7, 0.3)]
)
def test_one_weight_fixes_the_other(given: dict[str, float], alpha: float, beta: float) -> None:
    distill = LessonConfig.from_dict(given).distill
    assert (distill.alpha, distill.beta) == (alpha, beta)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"temperature": 0}, "temperature: got 0 (int), expected greater than 0"),
        ({"temperature": -1.0}, "temperature: got -1.0"),
        ({"temperature": float("nan")}, "expected finite number"),
        ({"temperature": float("inf")}, "expected finite number"),
        ({"temperature": "4"}, "temperature: got '4' (str), expected number"),
        ({"temperature": True}, "temperature: got True (bool)"),
        ({"alpha": float("nan")}, "alpha: got nan"),
        ({"alpha": 1.2}, "try alpha=0.7, beta=0.3"),
        ({"alpha": 0.9, "beta": 0.3}, "sum to 1.2, not 1; try alpha=0.75, beta=0.25"),
        ({"sample_frequency": 0}, "sample_frequency: got 0"),
        ({"sample_frequency": -5}, "sample_frequency: got -5"),
        ({"sample_frequency": 2.5}, "sample_frequency: got 2.5 (float), expected integer"),
        ({"show_diff": 1}, "show_diff: got 1 (int), expected boolean"),
        ({"temprature": 4.0}, "unknown key 'temprature' (did you mean 'temperature'?)"),
        ({"preset": "lecture"}, "expected teaching, production, debug"),
        ({3: 4}, "unknown key 3"),
    ],
)
def test_a_bad_value_is_one_line_that_names_key_value_and_what_is_expected(values: dict[Any, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LessonConfig.from_dict(values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"'rate'.*temperature.*sample_frequency"):
        LessonConfig.from_dict({"rate": 1, "temperature": 0, "sample_frequency": 0})


def test_weights_may_miss_one_by_a_rounding_error() -> None:
    assert LessonConfig.from_dict({"alpha": 0.7 + 5e-7, "beta": 0.3}).distill.alpha == 0.7 + 5e-7


def test_a_toml_file_gives_the_same_lesson_and_flags_win(tmp_path: Path) -> None:
    path = tmp_path / "lesson.toml"
    path.write_text('temperature = 2.0\npreset = "teaching"\nexcellent = [0.1, 0.4]\n', encoding="utf-8")
    lesson = LessonConfig.from_file(path, sample_frequency=7)
    assert (lesson.distill.temperature, lesson.display.sample_frequency, lesson.display.show_diff) == (2.0, 7, True)
    assert lesson.display.excellent == (0.1, 0.4)


@pytest.mark.parametrize(("content", "words"), [("temperature = ", "not valid TOML"), (None, "cannot be read")])
def test_a_broken_toml_file_is_one_line(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "lesson.toml"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        LessonConfig.from_file(path)


def test_one_weight_as_a_flag_wins_over_both_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "lesson.toml").write_text("alpha = 0.5\nbeta = 0.5\n", encoding="utf-8")
    distill = LessonConfig.from_file(tmp_path / "lesson.toml", alpha=0.9).distill
    assert (distill.alpha, distill.beta) == (0.9, 0.1)


def test_a_lesson_can_be_made_again_from_its_own_dict() -> None:
    lesson = LessonConfig.from_dict({"temperature": 2.0, "lang": "en", "fair": (0.5, 1.5)})
    assert LessonConfig.from_dict(lesson.to_dict()) == lesson


@given(
    st.dictionaries(
        st.sampled_from(list(LessonConfig().to_dict())),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    )
)
def test_whatever_the_values_either_a_lesson_or_a_config_error(values: dict[str, Any]) -> None:
    lesson = None
    with suppress(ConfigError):
        lesson = LessonConfig.from_dict(values)
    if lesson is not None:
        assert abs(lesson.distill.alpha + lesson.distill.beta - 1) <= 1e-6
        assert 0 < lesson.distill.temperature < float("inf")


def test_wide_matmul_is_auto_or_off(tmp_path: Path) -> None:
    assert LessonConfig().train.wide_matmul == "auto"
    (tmp_path / "lesson.toml").write_text('wide_matmul = "off"', encoding="utf-8")
    lesson = LessonConfig.from_file(tmp_path / "lesson.toml")
    assert lesson.train.wide_matmul == "off"
    assert LessonConfig.from_dict(lesson.to_dict()) == lesson
    with pytest.raises(ConfigError, match=r"wide_matmul: got 'on' \(str\), expected 'auto' or 'off'"):
        LessonConfig.from_dict({"wide_matmul": "on"})


def test_a_layer_map_is_last_even_or_pairs() -> None:
    for good in ("last", "even", "1:1", "2:4,4:8"):
        assert LessonConfig.from_dict({"layer_map": good}).distill.layer_map == good
    for bad in ("", "first", "0:1", "1:2,", "1-2", "2:4 4:8", "1:99999"):
        with pytest.raises(ConfigError, match=r"layer_map: got .*, expected last, even, or layers counted from 1"):
            LessonConfig.from_dict({"layer_map": bad})


def test_a_mixture_that_its_kind_of_loss_cannot_use_is_refused() -> None:
    assert LessonConfig.from_dict({"loss_kind": "jsd", "mixture": 1.0}).distill.mixture == 1.0
    with pytest.raises(ConfigError, match=r"mixture=0\.3 is no parameter of forward_kl"):
        LessonConfig.from_dict({"mixture": 0.3})
    with pytest.raises(ConfigError, match=r"mixture=1 makes skew_kl 0 for any student; try 0\.1"):
        LessonConfig.from_dict({"loss_kind": "skew_kl", "mixture": 1.0})
    with pytest.raises(ConfigError, match=r"loss_kind: got 'kl'.*expected 'forward_kl'"):
        LessonConfig.from_dict({"loss_kind": "kl"})


@pytest.mark.parametrize("key", ["hidden_weight", "attention_weight", "on_policy"])
def test_what_needs_the_same_tokens_is_refused_across_tokenizers(key: str) -> None:
    with pytest.raises(ConfigError, match=f"cross_tokenizer=kl .* leave out {key}"):
        LessonConfig.from_dict({"cross_tokenizer": "kl", key: 0.5})
