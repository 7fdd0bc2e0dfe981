"""Whatever stands in a dict, a TOML file or a flag: a lesson, or one line that refuses it; never another exception."""

from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from apt_model.cli import make_parser
from apt_model.commands.options import read_settings
from apt_model.config import PRESETS, LessonConfig
from apt_model.config import settings as known_settings
from apt_model.distill.students.fresh import parse_student
from apt_model.errors import ConfigError
from apt_model.i18n import Phrases
from apt_model.models.devices import pick_device
from apt_model.plugins.given import read_config

KEYS = [*(key for _, key, _ in known_settings()), "preset", "temprature", "lr"]
MANY = settings(max_examples=1000, suppress_health_check=list(HealthCheck))
any_text = st.text(st.characters(codec=None, categories=None), max_size=8)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | any_text
    | st.binary(max_size=4)
    | st.decimals(allow_nan=True)
    | st.complex_numbers()
    | st.sampled_from([10**400, -(10**400), Decimal("sNaN"), object(), "x" * 9999, "nan", "true", *PRESETS])
)
hashable = st.sampled_from(KEYS) | any_text | st.integers() | st.none() | st.floats()
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(hashable, inner, max_size=4),
    max_leaves=6,
)


def refused(action: Callable[[], Any]) -> bool:
    """Whether it was, in one line of bearable length."""
    try:
        action()
    except ConfigError as error:
        said, code = str(error), error.exit_code
    else:
        return False
    (line,) = said.splitlines()
    assert 0 < len(line) < 8000
    assert code == 2
    return True


@MANY
@given(st.dictionaries(hashable, values, max_size=6) | values)
def test_any_nested_values_are_a_lesson_or_one_config_error(given_values: Any) -> None:
    before = repr(given_values)
    if not refused(lambda: read_config(given_values)):
        lesson = read_config(given_values)
        assert abs(lesson.distill.alpha + lesson.distill.beta - 1) <= 1e-6
        assert LessonConfig.from_dict(lesson.to_dict()) == lesson
    assert before == repr(given_values), "what was given is left alone"


toml_values = st.sampled_from(
    ["1", "-1", "0.5", "1e999", "nan", "-inf", "true", '"zh"', '"4"', "'''a\nb'''", "[]", "[0.1, 0.4]", "[[1], {}]",
     "{a = 1}", "1979-05-27", "1979-13-99", "07:32:00", "0xff", "1_000", "1__0", "\\u0000", '"\\uD800"', "9" * 5000,
     "[" * 3000]
)  # fmt: skip
toml_keys = st.sampled_from([*KEYS, "a.b", '"q k"', "temperature.x", "[train]\nlearning_rate", "[[x]]\ny", ""])
toml_lines = st.lists(st.builds("{} = {}".format, toml_keys, toml_values) | any_text, max_size=6).map("\n".join)


@MANY
@given(st.binary(max_size=60) | toml_lines.map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"temperature = " + b"[" * 100_000)
@example(b"temperature = " + b"9" * 5000)
def test_any_toml_file_is_a_lesson_or_one_config_error(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    with suppress(ConfigError):
        assert isinstance(LessonConfig.from_file(path), LessonConfig)
    refused(lambda: LessonConfig.from_file(path))


@pytest.mark.parametrize("name", ["a\0b.toml", "x" * 300 + ".toml", "", ".", "/nowhere/x.toml", "\udcff.toml"])
def test_a_path_that_can_be_none_is_one_config_error(name: str) -> None:
    assert refused(lambda: LessonConfig.from_file(name))
    assert refused(lambda: Phrases.load(name))


FLAGS = ["--" + key.replace("_", "-") for key in KEYS] + ["--no-show-diff", "--batch-size", "--validation-split"]
NEEDED = ["distill", "--teacher", "t", "--student", "s", "--data", "d", "--out", "o"]
words = any_text | st.sampled_from(
    ["1", "0", "-1", "nan", "inf", "1e9", "9" * 5000, "zh", "cpu", "--", "-", "=", "a\nb"]
)


@MANY
@given(st.lists(st.sampled_from(FLAGS) | words | st.builds("{}={}".format, st.sampled_from(FLAGS), words), max_size=8))
def test_any_flags_are_a_lesson_or_one_config_error(flags: list[str]) -> None:
    flags = [flag for flag in flags if flag not in ("-h", "--help")]
    refused(lambda: read_settings(make_parser().parse_args([*NEEDED, *flags])))


@MANY
@given(any_text | st.text("cpudamsx:019-, ", max_size=9) | st.sampled_from(["meta", "vulkan", "hpu", "cpu:3", "xla:0"]))
def test_any_device_is_one_or_one_config_error(name: str) -> None:
    if not refused(lambda: pick_device(name)):
        assert isinstance(torch.ones(2, device=pick_device(name)).sum().item(), float)


@MANY
@given(
    any_text
    | st.lists(st.sampled_from(["layers=", "hidden", "=", ",", "2", "²", "init", "-1", "9" * 5000])).map("".join)
)
def test_any_description_of_a_student_is_sizes_a_name_or_one_config_error(description: str) -> None:
    found: dict[str, Any] | None = None

    def parse() -> None:
        nonlocal found
        found = parse_student(description)

    if not refused(parse):
        assert (found is None) == ("=" not in description)


def test_a_long_value_is_cut_in_the_line_that_refuses_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"temperature: got 'xxx.*\.\.\.x+' \(str\), expected number") as caught:
        LessonConfig.from_dict({"temperature": "x" * 1_000_000})
    assert len(str(caught.value)) < 400
