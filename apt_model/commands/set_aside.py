"""Rows of `distill` that are set aside for validation: those that a flag asks for, else a twentieth of the data.

Knows rows and flags; knows nothing of models.
"""

import argparse
import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from apt_model.commands.console import print_line, speaker
from apt_model.config import LessonConfig
from apt_model.errors import ConfigError
from apt_model.events.runfile import CONFIG

SHARE, FEWEST, LEAST = 0.05, 8, 80  # at least 8 rows, of 80 or more
COLUMNS = 78
COMPARED = 50_000  # rows


def splits_blocks(arguments: argparse.Namespace) -> bool:
    """Whether the packed blocks are to be split, not the rows: a cache of the teacher holds blocks of all rows."""
    return bool(arguments.packing and arguments.teacher_cache is not None and not arguments.validation_data)


def set_aside(rows: Any, arguments: argparse.Namespace, config: LessonConfig, told: list[str]) -> tuple[Any, Any]:
    """Training rows and validation rows; None for the latter if there are none. `told` gets what no flag asked for.

    Raises:
        ConfigError: `--validation-split` leaves no row for one of the two, or is a share of a stream; or cards are to
            show validation rows, and there are none.
    """
    from apt_model.data.dataset import split_dataset

    wanted = arguments.validation_split
    count = _twentieth(rows, arguments, config.display.lang, told) if wanted is None else wanted
    if count:
        return split_dataset(rows, count, seed=config.train.seed or 0)
    if config.display.show_on == "validation":
        raise ConfigError("show_on is 'validation', but there is no validation data", fix="give --validation-split 0.1")
    return rows, None


def _twentieth(rows: Any, arguments: argparse.Namespace, lang: str, told: list[str]) -> int:
    """How many rows to set aside without being asked; `told` gets a sentence that says so."""
    say = speaker(lang)
    if arguments.streaming:
        told.append(say("set_aside.stream"))
        return 0
    count = max(FEWEST, round(SHARE * len(rows)))
    if len(rows) < LEAST:
        told.append(say("set_aside.few", least=LEAST))
        return 0
    if _learned_from_all(arguments, len(rows), count):
        told.append(say("set_aside.resumed"))
        return 0
    told.append(say("set_aside.rows", count=f"{count:,}", all=f"{len(rows):,}"))
    return count


def learned_too(rows: Any, held: Any, lang: str) -> list[str]:
    """A sentence on how many of the validation rows are training rows too, and so not unseen; none if there are none.

    Of streams, and of more than 50,000 rows, nothing is compared.
    """
    if held is None or not all(hasattr(some, "__len__") and len(some) <= COMPARED for some in (rows, held)):
        return []
    learned = set(map(repr, rows))
    count = sum(repr(row) in learned for row in held)
    return [speaker(lang)("set_aside.learned_too", count=f"{count:,}", all=f"{len(held):,}")] if count else []


def tell(told: list[str]) -> None:
    """Print these sentences, wrapped."""
    from apt_model.render.wrap import wrap

    with suppress(OSError):  # a closed pipe or a full disk behind standard output is no reason not to train
        for said in told:
            for start, end in wrap(said, COLUMNS):
                print_line(said[start:end])


def _learned_from_all(arguments: argparse.Namespace, rows: int, count: int) -> bool:
    """Whether a run is resumed that learns from all rows: one from before any were set aside, or by its batches."""
    if not (getattr(arguments, "resume", False) or getattr(arguments, "resume_anyway", False)):
        return False
    from apt_model.distill.checkpoints.finding import saved_identity

    batches = saved_identity(Path(arguments.out)).get("batches")
    all_rows, rest = (math.ceil(number / arguments.batch_size) for number in (rows, rows - count))
    return _is_older(Path(arguments.out)) or (batches is not None and abs(batches - all_rows) < abs(batches - rest))


def _is_older(run: Path) -> bool:
    """Whether a run is from before rows were set aside: its settings have no `reading_frequency`."""
    try:
        return "reading_frequency" not in json.loads((run / CONFIG).read_text("utf-8"))["config"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
