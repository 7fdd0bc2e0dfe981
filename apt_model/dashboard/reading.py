"""The history of a run file, read once and shared by all requests. Knows files and histories; nothing of browsers."""

from pathlib import Path
from typing import Any

from apt_model.dashboard.history import PAGE_BYTES, History
from apt_model.dashboard.shown import damage_record
from apt_model.dashboard.tail import Tail
from apt_model.events.runfile import encode


class HistoryReader:
    """The history of one run file, updated as it grows.

    Args:
        path: of the record; it need not exist yet.
        largest: approximate limit on the bytes of the events.
    """

    def __init__(self, path: Path, *, largest: int = PAGE_BYTES) -> None:
        self._tail, self._largest = Tail(path), largest
        self.history = History()
        self._page: tuple[tuple[int, int, str | None], bytes] | None = None

    @property
    def offset(self) -> int:
        """Bytes of the record that the history covers."""
        return self._tail.offset

    @property
    def damage(self) -> dict[str, Any] | None:
        """What is damaged of what was read, or that nothing can be read; None if nothing is."""
        return damage_record(self.history.damage, self._tail.trouble)

    def catch_up(self) -> None:
        """Read what has been appended; all of it again if the record was cut back."""
        generation = self._tail.generation
        while (lines := self._tail.read()) or generation != self._tail.generation:
            if generation != self._tail.generation:
                generation, self.history = self._tail.generation, History()
            self.history.add(lines)

    def events(self) -> bytes:
        """The history as a JSON array."""
        return b"[" + b",".join(self.history.lines(largest=self._largest)) + b"]"

    def page(self) -> bytes:
        """The JSON that a page loads first.

        `{"offset": bytes covered, "lines": their number, "damage": as in `damage`, "events": the history}`.
        """
        self.catch_up()
        state = self.offset, self._tail.generation, self._tail.trouble
        if self._page is None or self._page[0] != state:
            about = encode({"offset": self.offset, "lines": self.history.seen, "damage": self.damage})
            self._page = state, about[:-1] + b',"events":' + self.events() + b"}"
        return self._page[1]
