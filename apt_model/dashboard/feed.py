"""A growing record as server-sent events for any number of viewers, with one reader of the file for all.

A message's id is the byte offset after its line, so a viewer that reconnects misses nothing. Viewers share the newest
messages, each with its own offset; one that fell behind reads the file by itself. Knows nothing of HTTP.
"""

import asyncio
import json
from bisect import bisect_right
from collections.abc import AsyncGenerator
from pathlib import Path

from apt_model.dashboard.tail import Line, Tail, is_verdict, whole_lines
from apt_model.events.runfile import within_limit

POLL_SECONDS = 0.1
HEARTBEAT_SECONDS = 15.0
PIECE = 64 * 1024  # bytes handed to a viewer at a time
SHARED = 1 << 20  # bytes of messages kept for all

HEARTBEAT = b":\n\n"
END = b"event: end\ndata: {}\n\n"
REWIND = b'event: rewind\nid: 0\ndata: {"offset":0}\n\n'  # the record was cut back: what was sent may be outdated


class Feed:
    """Follows one run file while it has viewers.

    Args:
        path: of the record; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._viewers, self._closed = 0, False
        self._poller: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._generation = 0
        self._begin()

    def _begin(self) -> None:
        end = whole_lines(self._path)
        self._tail = Tail(self._path, whole_lines(self._path, before=end - PIECE) if end > PIECE else 0)
        self._start = self._tail.offset
        self._ends: list[int] = []
        self._messages: list[bytes] = []
        self._finished = False

    async def follow(self, offset: int) -> AsyncGenerator[bytes, None]:
        """The messages after `offset`, a few at a time, until the run is finished or its record is cut back."""
        if self._poller is None:
            self._begin()
            self._poller = asyncio.create_task(self._poll())
        self._viewers += 1
        generation = self._generation
        try:
            yield b"retry: 1000\n\n"
            if not await asyncio.to_thread(_is_a_place, self._path, offset):
                yield REWIND
                return
            while not self._closed:
                changed, place = self._changed, offset
                if generation != self._generation:
                    yield REWIND
                    return
                offset, messages = await self._after(place)
                if messages:
                    yield messages
                elif offset != place:
                    continue
                elif self._finished and offset == self._tail.offset:
                    yield END
                    return
                elif not await _happens(changed, within=HEARTBEAT_SECONDS):
                    yield HEARTBEAT
        finally:
            self._viewers -= 1

    async def _after(self, offset: int) -> tuple[int, bytes]:
        """Some messages after an offset, and the offset after them."""
        if offset < self._start:
            return await asyncio.to_thread(_read_behind, self._path, offset)
        begin = bisect_right(self._ends, offset)
        end, size = begin, 0
        while end < len(self._ends) and size < PIECE:
            size += len(self._messages[end])
            end += 1
        return (self._ends[end - 1] if end > begin else offset), b"".join(self._messages[begin:end])

    async def _poll(self) -> None:
        try:
            while self._viewers and not self._closed:
                lines = await asyncio.to_thread(self._tail.read)
                if self._tail.generation:
                    self._generation += 1
                    self._begin()
                    self._wake()
                elif lines:
                    self._take(lines)
                    self._wake()
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self._poller = None

    def _take(self, lines: list[Line]) -> None:
        self._ends += [end for end, _ in lines]
        self._messages += map(_message, lines)
        self._finished = is_verdict(lines[-1][1])
        gone, surplus = 0, sum(map(len, self._messages)) - SHARED
        while surplus > 0:
            surplus -= len(self._messages[gone])
            gone += 1
        if gone:
            self._start = self._ends[gone - 1]
            del self._ends[:gone], self._messages[:gone]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """End the streams of all viewers: the server stops."""
        self._closed = True
        self._wake()


def _message(line: Line) -> bytes:
    """A line as a server-sent event; empty if it is not an event of the record."""
    end, text = line
    try:
        text = within_limit(text)
        is_event = isinstance(json.loads(text), dict)
    except ValueError:
        is_event = False
    if not is_event:
        return b""
    return b"id: %d\ndata: %b\n\n" % (end, text)


def _read_behind(path: Path, offset: int) -> tuple[int, bytes]:
    """For a viewer that fell behind: some messages read from the file, and the offset after them."""
    lines = Tail(path, offset).read(PIECE)
    return (lines[-1][0], b"".join(map(_message, lines))) if lines else (offset, b"")


def _is_a_place(path: Path, offset: int) -> bool:
    """Whether a line of the record ends at this offset."""
    return offset == 0 or whole_lines(path, before=offset) == offset


async def _happens(event: asyncio.Event, *, within: float) -> bool:
    try:
        async with asyncio.timeout(within):
            return await event.wait()
    except TimeoutError:
        return False
