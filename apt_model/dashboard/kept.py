"""Which steps of a run have a checkpoint, from their names alone. Knows nothing of what is in them."""

import re
from pathlib import Path

MOST = 200  # steps that a page is told of: the newest
_NAME = re.compile(r"step-(\d{8,12})")


def kept_steps(run: Path) -> list[int]:
    """The steps of a run that can be branched from, in order; none where nothing can be read."""
    try:
        names = [_NAME.fullmatch(entry.name) for entry in (run / "checkpoints").iterdir()]
    except OSError:
        return []
    return sorted(int(found[1]) for found in names if found is not None)[-MOST:]
