"""Localisation: the sentences that users see, looked up by key in a language. Knows nothing of where they are shown."""

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from string import Formatter

from apt_model.errors import ConfigError, brief

LANGUAGES = ("zh", "en")
OBSERVED = "observed."
Locale = Mapping[str, str | tuple[str, ...]]


class Phrases:
    """Sentences of one language, looked up by dotted key.

    >>> Phrases.load("en")("card.train_batch", batch=3)
    'Batch 3'
    """

    def __init__(self, lang: str, sentences: Locale) -> None:
        self.lang = lang
        self._sentences = sentences

    @classmethod
    def load(cls, lang: str) -> "Phrases":
        """Load the locale of a language ("zh", "en"), or a TOML file with the same keys.

        Raises:
            ConfigError: no such language or file, or a file that lacks keys.
        """
        return cls(lang, _read(lang))

    def of_run(self, *, learns_from_teacher: bool) -> "Phrases":
        """The sentences for one run.

        Where the student does not learn from the teacher, those under `observed.` replace the ones that say it does.
        """
        if learns_from_teacher:
            return self
        own = {key.removeprefix(OBSERVED): said for key, said in self._sentences.items() if key.startswith(OBSERVED)}
        return Phrases(self.lang, {**self._sentences, **own})

    def __call__(self, key: str, **values: object) -> str:
        """The sentence under `key`, its `{placeholders}` filled with `values`."""
        sentence = self._sentences[key]
        if not isinstance(sentence, str):
            raise KeyError(f"{key} is a list of variants: use variants()")
        return sentence.format(**values)

    def variants(self, key: str) -> tuple[str, ...]:
        """All variants of the sentence under `key`."""
        sentence = self._sentences[key]
        return (sentence,) if isinstance(sentence, str) else sentence

    def variant(self, key: str, turn: int, **values: object) -> str:
        """A variant of the sentence under `key`, chosen by `turn` (the step), not by a random generator.

        The second term keeps an event that comes every N steps from always getting the same variant.
        """
        return self.variants(key)[self.choice(key, turn)].format(**values)

    def choice(self, key: str, turn: int) -> int:
        """Which of the sentences under `key` is `variant`'s."""
        count = len(self.variants(key))
        return (turn + turn // count) % count

    def recorded(self, key: str, turn: int, values: Mapping[str, object]) -> str:
        """As `variant`, for a key and values out of a record; the key itself where no sentence here goes with them."""
        try:
            return self.variant(key, turn, **values)
        except (LookupError, ValueError, TypeError, AttributeError):  # as of another version, or damaged
            return key

    def remark(self, key: str | None, variant: int, otherwise: str) -> str:
        """The remark recorded under `key`; the sentence `otherwise` where there is no such remark here."""
        said = self._sentences.get(f"remarks.{key}")
        return said[variant % len(said)] if isinstance(said, tuple) else otherwise

    def topic(self, name: str) -> str:
        """The display name of a topic: translated if the locale has it, else unchanged."""
        sentence = self._sentences.get(f"topics.{name}", name)
        return sentence if isinstance(sentence, str) else name


@lru_cache
def _read(lang: str) -> Locale:
    if lang in LANGUAGES:
        return _flatten(tomllib.loads(files("apt_model.locales").joinpath(f"{lang}.toml").read_text("utf-8")))
    if not lang.endswith(".toml"):
        raise ConfigError("lang is unknown", got=brief(lang), expected="zh, en, or the path of a locale .toml file")
    from apt_model.config.files import read_small, read_toml

    content = read_small("locale", lang)
    try:
        sentences = _flatten(read_toml(content.decode("utf-8-sig")))
    except (ValueError, RecursionError) as error:
        got, fix = str(error)[:200], "start from locales/en.toml"
        raise ConfigError(f"locale {lang} is not valid TOML", got=got, fix=fix) from error
    ours = _read("en")
    missing = sorted(ours.keys() - sentences.keys())
    if missing:
        raise ConfigError(
            f"locale {lang} lacks sentences", got=f"no {', '.join(missing[:5])}", fix="copy them from locales/en.toml"
        )
    for key, said in ours.items():
        if not _fits(sentences[key], said):
            got, expected = f"{key} = {brief(sentences[key])}", f"what {brief(said)} has in braces, and no other braces"
            raise ConfigError(f"locale {lang} has a sentence that cannot be filled", got=got, expected=expected)
    return sentences


def _fits(own: str | tuple[str, ...], ours: str | tuple[str, ...]) -> bool:
    """Whether a sentence is one, or a list of variants, as ours is, and can be filled with the same values.

    A value may be written otherwise only where ours writes it as a number: what the others are is not known here.
    """
    if type(own) is not type(ours) or not own:
        return False
    values = {name: 1 if spec else "" for name, spec in _fields(ours)}
    try:
        return all(name in values and format(values[name], spec or "") is not None for name, spec in _fields(own))
    except ValueError:  # a lone brace, or no way to write that value
        return False


def _fields(said: str | tuple[str, ...]) -> list[tuple[str, str | None]]:
    """What stands in braces: name and format.

    Raises:
        ValueError: a brace stands alone.
    """
    lines = [said] if isinstance(said, str) else said
    parsed = [part for line in lines for part in Formatter().parse(line)]
    return [(name + (f"!{how}" if how else ""), spec) for _, name, spec, how in parsed if name is not None]


def _flatten(table: Mapping[str, object], prefix: str = "") -> dict[str, str | tuple[str, ...]]:
    flat: dict[str, str | tuple[str, ...]] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = tuple(map(str, value)) if isinstance(value, list) else str(value)
    return flat
