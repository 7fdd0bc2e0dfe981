"""The results of an evaluation: a dict of numbers that prints as one line and saves as strict JSON.

Knows nothing of how they were measured, or of tables.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apt_model.errors import StorageError
from apt_model.events.runfile import write_json
from apt_model.i18n import Phrases

TEXT = ("loss", "perplexity", "bits_per_byte", "accuracy", "agreement", "kl", "gap_closed")
ANSWERS = ("chrf", "bleu", "distinct_1", "distinct_2", "repetition")
INFERENCE = ("parameters", "megabytes", "prompt_tokens_per_second", "decode_tokens_per_second", "peak_megabytes")
_SUMMARY = ("perplexity", "bits_per_byte", "accuracy", "agreement", "kl", "gap_closed", "chrf", "bleu", "repetition")
_PERCENT = ("accuracy", "agreement", "gap_closed", "distinct_1", "distinct_2", "repetition")
_WHOLE = ("parameters", "prompt_tokens_per_second", "decode_tokens_per_second")
_DIGITS = {"loss": 3, "perplexity": 2, "bits_per_byte": 3, "kl": 3}


class Evaluation(dict[str, Any]):
    """A model's metrics by name, with 95 % intervals under `intervals`.

    Under `teacher` are the metrics of its teacher, under `control` those of a control.

    `str()` is one line in the language `lang`. Ratios are 0..1; chrF and BLEU are 0..100, as is customary.
    """

    lang = "zh"

    def __str__(self) -> str:
        say = Phrases.load(self.lang)
        return say("evaluation.joint").join(
            f"{say(f'evaluation.{key}')} {figure(key, self[key])}" for key in _SUMMARY if key in self
        )

    def save(self, path: str | Path) -> None:
        """Write the metrics as a JSON file; NaN and infinity become null.

        Raises:
            StorageError: the file cannot be written.
        """
        try:
            write_json(Path(path), _finite(self))
        except OSError as error:
            raise StorageError(f"evaluation cannot be written to {path}", got=error.strerror) from error


def figure(key: str, value: float) -> str:
    """Format the metric `key`: ratios in percent, others with a suitable number of digits."""
    if key in _PERCENT:
        return f"{100 * value:.1f}%"
    if key not in _WHOLE and value >= 1_000:
        return f"{value:,.0f}" if value < 1_000_000 else f"{value:.1e}"
    return f"{value:,.{0 if key in _WHOLE else _DIGITS.get(key, 1)}f}"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
