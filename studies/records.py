"""Results of a study, a JSON file for each student and seed: a study that is cut short goes on where it stopped."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Records = dict[str, dict[int, dict[str, Any]]]  # by student, then by seed


def place(out: Path, seed: int, name: str, ending: str = ".json") -> Path:
    """Where a student's result lies, or with another ending its weights."""
    return out / f"{seed} {name}{ending}"


def read(out: Path) -> Records:
    """What there is."""
    found: Records = {}
    for file in sorted(out.glob("*.json")):
        seed, _, name = file.stem.partition(" ")
        found.setdefault(name, {})[int(seed)] = json.loads(file.read_text("utf-8"))
    return found


def held_out(records: Sequence[dict[str, Any]]) -> list[str]:
    """Perplexity, accuracy, agreement with the teacher and KL to it, as they are shown: medians over seeds."""
    keys = ("perplexity", "accuracy", "agreement", "kl")
    perplexity, accuracy, agreement, kl = (statistics.median(one["found"][key] for one in records) for key in keys)
    return [f"{perplexity:,.1f}", f"{accuracy:.1%}", f"{agreement:.1%}", f"{kl:.3f}"]
