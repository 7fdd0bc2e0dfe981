"""What a page gets of a record: its lines as strict JSON of bounded size, and what of it is damaged.

Knows nothing of files or browsers.
"""

from typing import Any

from apt_model.errors import DataError
from apt_model.events.recorded import Damage
from apt_model.events.runfile import within_limit
from apt_model.render.sanitise import sanitise

MOST_CHARACTERS = 200


def shown_line(line: bytes) -> bytes:
    """The line as the page gets it if it is an event: shortened if it is too long, and one line for any reader."""
    try:
        return within_limit(line).replace(b"\r", b" ")  # in JSON a bare one is only space between values
    except DataError:
        return line


def damage_record(damage: Damage | None, trouble: str | None) -> dict[str, Any] | None:
    """The damage of a record as the page gets it; `trouble`: why the record cannot be read at all."""
    if trouble is not None:
        return {"count": 0, "line": None, "why": sanitise(trouble, MOST_CHARACTERS)}
    if damage is None:
        return None
    return {"count": damage.count, "line": damage.line, "why": sanitise(damage.why, MOST_CHARACTERS)}
