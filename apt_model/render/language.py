"""The language that an output can show. Imports nothing that takes time."""

from apt_model.i18n import Phrases
from apt_model.render.sanitise import can_say


def spoken_language(lang: str, encoding: str) -> Phrases:
    """The phrases of a language; English if the output cannot encode them."""
    phrases = Phrases.load(lang)
    return phrases if can_say(phrases("card.teacher").strip("👨🏫 "), encoding) else Phrases.load("en")
