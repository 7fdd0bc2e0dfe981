"""What a page gets of a record: its events as strict JSON of bounded size, and what of it is damaged.

Knows nothing of files or browsers.
"""

from typing import Any, NamedTuple

from apt_model.events.event import Event
from apt_model.events.parse import event_of
from apt_model.events.recorded import Damage
from apt_model.events.runfile import MAX_LINE, line_of, to_record
from apt_model.render.sanitise import sanitise

MOST_CHARACTERS = 200


class Shown(NamedTuple):
    """An event, and its line as a page gets it."""

    event: Event
    line: bytes


def shown_of(line: bytes) -> Shown:
    """The event of a line; one that another program wrote too long is shortened.

    Raises:
        DataError: it is not one, or not even shortened short enough.
    """
    event = event_of(line)
    if len(line) > MAX_LINE:
        line = line_of(to_record(event)).removesuffix(b"\n")
        event = event_of(line)
    return Shown(event, line.replace(b"\r", b" "))  # in JSON a bare one is space between values; to a stream an end


def damage_record(damage: Damage | None, trouble: str | None) -> dict[str, Any] | None:
    """The damage of a record as the page gets it; `trouble`: why the record cannot be read at all."""
    if trouble is not None:
        return {"count": 0, "line": None, "why": sanitise(trouble, MOST_CHARACTERS)}
    if damage is None:
        return None
    return {"count": damage.count, "line": damage.line, "why": sanitise(damage.why, MOST_CHARACTERS)}
