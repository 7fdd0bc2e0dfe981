"""The doctor's report: a sentence per finding, with the advice. Knows nothing of how the findings were made."""

from collections.abc import Iterator, Sequence
from typing import IO

from wcwidth import width as cells

from apt_model.events.checkup import Finding
from apt_model.i18n import Phrases
from apt_model.render.language import spoken_language
from apt_model.render.sanitise import fit_encoding, sanitise
from apt_model.render.terminal import make_console
from apt_model.render.wrap import wrap

WIDEST, NARROWEST = 78, 24
MARKS = {"well": "✅ ", "advice": "🔧 ", "wrong": "🔧 "}


def show_findings(found: Sequence[Finding], *, lang: str = "zh", file: IO[str] | None = None) -> None:
    """Print the doctor's report.

    Args:
        found: findings of `apt_model.doctor.examine.examine`.
        lang: zh, en, or a locale file.
        file: where to print; standard output where None.
    """
    console = make_console(file)
    columns = max(NARROWEST, min(WIDEST, console.width - 1))
    for line in checkup_lines(found, spoken_language(lang, console.encoding), columns, console.encoding):
        console.print(line, crop=False, soft_wrap=True)


def checkup_lines(found: Sequence[Finding], say: Phrases, columns: int, encoding: str = "utf-8") -> Iterator[str]:
    """The title, a marked sentence for each finding, and a conclusion."""
    yield fit_encoding(say("doctor.title"), encoding)
    for finding in found:
        values = {k: sanitise(v, 500) if isinstance(v, str) else v for k, v in finding.values.items()}
        yield from _hanging(MARKS[finding.state], say(f"doctor.{finding.key}", **values), columns, encoding)
    wrong, advice = (sum(finding.state == state for finding in found) for state in ("wrong", "advice"))
    verdict = "not_ready" if wrong else "ready_with_advice" if advice else "ready"
    mark = MARKS["wrong" if wrong else "well"]
    yield from _hanging(mark, say(f"doctor.{verdict}", count=wrong or advice), columns, encoding)


def _hanging(mark: str, sentence: str, columns: int, encoding: str) -> Iterator[str]:
    """The sentence after its mark, wrapped with a hanging indent."""
    mark, sentence = fit_encoding(mark, encoding), fit_encoding(sentence, encoding)
    lead = cells(mark)
    for number, (start, end) in enumerate(wrap(sentence, columns - lead)):
        yield (" " * lead if number else mark) + sentence[start:end]
