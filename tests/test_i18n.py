"""Both languages say everything, with the same placeholders."""

import string
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from apt_model.demo.lesson import lesson_of
from apt_model.errors import ConfigError
from apt_model.i18n import LANGUAGES, Phrases, _read
from apt_model.teaching.topics import GENERAL, default_topics


def placeholders(sentence: str | tuple[str, ...]) -> set[str | None]:
    lines = [sentence] if isinstance(sentence, str) else sentence
    return {field for line in lines for _, field, _, _ in string.Formatter().parse(line)} - {None}


def test_the_languages_have_the_same_keys_and_placeholders() -> None:
    zh, en = (_read(lang) for lang in LANGUAGES)
    assert zh.keys() == en.keys()
    assert len(zh) > 50
    assert {key: placeholders(zh[key]) for key in zh} == {key: placeholders(en[key]) for key in en}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_remark_has_several_variants_and_every_topic_a_name(lang: str) -> None:
    phrases = Phrases.load(lang)
    for grade in ("excellent", "good", "fair", "needs_work"):
        assert len(set(phrases.variants(f"remarks.{grade}"))) >= 3
    table = tomllib.loads(files("apt_model.locales").joinpath(f"{lang}.toml").read_text("utf-8"))
    assert set(table["topics"]) == {*default_topics(), GENERAL, *lesson_of("en").topics}
    assert phrases.topic("量子计算") == "量子计算"


def test_a_locale_file_of_ones_own_is_read_and_must_be_complete(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    text = files("apt_model.locales").joinpath("en.toml").read_text("utf-8")
    own.write_text(text.replace("Batch {batch}", "No. {batch}"), encoding="utf-8")
    assert Phrases.load(str(own))("card.train_batch", batch=3) == "📍 No. 3"
    broken = tmp_path / "broken.toml"
    broken.write_text('[card]\ntrain_batch = "x"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="lacks sentences"):
        Phrases.load(str(broken))


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected zh, en"):
        Phrases.load("fr")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("Batch {batch}", "Batch {batch"),
        ("Batch {batch}", "Batch {}"),
        ("Batch {batch}", "Batch {other}"),
        ("Batch {batch}", "Batch {batch.__class__}"),
        ("Batch {batch}", "Batch {batch!r:>9999999}"),
    ],
)
def test_a_locale_whose_sentence_could_not_be_filled_is_refused_when_it_is_loaded(
    tmp_path: Path, ours: str, theirs: str
) -> None:
    text = files("apt_model.locales").joinpath("en.toml").read_text("utf-8")
    assert ours in text
    own = tmp_path / "mine.toml"
    own.write_text(text.replace(ours, theirs), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cannot be filled; got card\.train_batch"):
        Phrases.load(str(own))
