"""A growing record as server-sent events for any number of viewers, with one reader of the file for all.

A message's id is the byte offset after its line, so a viewer that reconnects misses nothing. Viewers share the newest
messages, each with its own offset; one that fell behind reads the file by itself. Knows nothing of HTTP.
"""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path

from apt_model.dashboard.aside import aside
from apt_model.dashboard.shown import shown_of
from apt_model.dashboard.tail import Line, Tail, near_the_end, whole_lines
from apt_model.errors import DataError
from apt_model.events.records import RunFinished

POLL_SECONDS = 0.1
HEARTBEAT_SECONDS = 15.0
PIECE = 64 * 1024  # bytes handed to a viewer at a time
SHARED = 1 << 20  # bytes of messages kept for all

HEARTBEAT = b":\n\n"
END = b"event: end\ndata: {}\n\n"
REWIND = b'event: rewind\nid: 0\ndata: {"offset":0}\n\n'  # the record was cut back: what was sent may be outdated
DAMAGED = b"id: %d\nevent: damaged\ndata: {}\n\n"  # this line is no event

Message = tuple[int, bytes, bool]  # offset after its line, what a viewer gets of it, whether it ends the run


class Feed:
    """Follows one run file while it has viewers.

    Args:
        path: of the record; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._viewers, self._closed = 0, False
        self._poller: asyncio.Task[None] | None = None
        self._changed, self._begun = asyncio.Event(), asyncio.Event()
        self._generation = 0
        self._keep_from(Tail(path))

    def _keep_from(self, tail: Tail) -> None:
        """Keep for all viewers what comes after the tail's offset."""
        self._tail, self._start = tail, tail.offset
        self._ends: list[int] = []
        self._messages: list[bytes] = []
        self._finished = False

    async def _begin(self) -> None:
        offset = await asyncio.wrap_future(aside(partial(near_the_end, self._path, PIECE)))
        self._keep_from(Tail(self._path, offset))
        self._wake()

    async def follow(self, offset: int) -> AsyncGenerator[bytes, None]:
        """The messages after `offset`, a few at a time, until the run is finished or its record is cut back."""
        if self._poller is None:
            self._begun.clear()
            self._poller = asyncio.create_task(self._poll())
        self._viewers += 1
        generation = self._generation
        try:
            yield b"retry: 1000\n\n"
            while not (self._closed or await _happens(self._begun, within=HEARTBEAT_SECONDS)):
                yield HEARTBEAT  # nobody reads ahead of the poller: what is cut back before it looked, it cannot tell
            if not await asyncio.wrap_future(aside(partial(_is_a_place, self._path, offset))):
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
            return await asyncio.wrap_future(aside(partial(_read_behind, self._path, offset)))
        begin = bisect_right(self._ends, offset)
        end, size = begin, 0
        while end < len(self._ends) and size < PIECE:
            size += len(self._messages[end])
            end += 1
        return (self._ends[end - 1] if end > begin else offset), b"".join(self._messages[begin:end])

    async def _poll(self) -> None:
        try:
            await self._begin()
            while self._viewers and not self._closed:
                messages = await asyncio.wrap_future(aside(self._news))
                if self._tail.generation:
                    self._generation += 1
                    await self._begin()
                elif messages:
                    self._take(messages)
                    self._wake()
                self._begun.set()
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self._poller = None

    def _news(self) -> list[Message]:
        return [_message(line) for line in self._tail.read()]

    def _take(self, messages: list[Message]) -> None:
        self._ends += [end for end, _, _ in messages]
        self._messages += [message for _, message, _ in messages]
        self._finished = messages[-1][2]
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


def _message(line: Line) -> Message:
    """A line as a server-sent event; of a line that is no event, the event `damaged`."""
    end, text = line
    try:
        event, shown = shown_of(text)
    except DataError:
        return end, DAMAGED % end, False
    return end, b"id: %d\ndata: %b\n\n" % (end, shown), isinstance(event, RunFinished)


def _read_behind(path: Path, offset: int) -> tuple[int, bytes]:
    """For a viewer that fell behind: some messages read from the file, and the offset after them."""
    messages = [_message(line) for line in Tail(path, offset).read(PIECE)]
    return (messages[-1][0], b"".join(message for _, message, _ in messages)) if messages else (offset, b"")


def _is_a_place(path: Path, offset: int) -> bool:
    """Whether a line of the record ends at this offset."""
    return offset == 0 or whole_lines(path, before=offset) == offset


async def _happens(event: asyncio.Event, *, within: float) -> bool:
    try:
        async with asyncio.timeout(within):
            return await event.wait()
    except TimeoutError:
        return False
