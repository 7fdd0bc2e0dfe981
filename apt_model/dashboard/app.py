"""The web application: the page's files, the list of runs, a run's history, its new events; it only reads, but for
questions of viewers, if it takes any (`questions.py`).

Knows runs by id and files by a fixed table: no path from a request is ever joined to one on disk.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from apt_model.dashboard.aside import aside
from apt_model.dashboard.assets import INDEX, Asset
from apt_model.dashboard.catalog import Catalog, RecordedRun
from apt_model.dashboard.feed import PIECE, Feed
from apt_model.dashboard.questions import Questions
from apt_model.dashboard.reading import HistoryReader

HISTORIES = 8  # kept in memory: the most recently used
STUCK_SECONDS = 8.0  # without a byte of a history read: its disk does not answer


class Page:
    """The routes and their handlers.

    Attributes:
        open_streams: viewers that are following new events.
        asked: time of the last request, in seconds of the monotonic clock.
    """

    def __init__(self, catalog: Catalog, assets: Mapping[str, Asset], *, asks: bool = False) -> None:
        self._catalog, self._assets = catalog, assets
        self._questions = Questions() if asks else None
        self._feeds: dict[str, Feed] = {}
        self._readers: OrderedDict[str, HistoryReader] = OrderedDict()
        self._reading: dict[str, asyncio.Future[bytes]] = {}
        self._listing: asyncio.Future[list[RecordedRun]] | None = None
        self.open_streams, self.asked = 0, time.monotonic()

    def app(self) -> Starlette:
        """The routes."""
        asking = [Route("/api/runs/{run}/questions", self._ask, methods=["POST"])] if self._questions else []
        app = Starlette(
            routes=[
                *asking,
                Route("/", self._index),
                Route("/static/{name:path}", self._asset),
                Route("/api/runs", self._runs),
                Route("/api/runs/{run}/history", self._history),
                Route("/api/runs/{run}/events", self._events),
            ]
        )
        app.router.redirect_slashes = False
        return app

    def close(self) -> None:
        """End the streams of all viewers."""
        for feed in self._feeds.values():
            feed.close()

    def is_idle(self, seconds: float) -> bool:
        """Whether there are no viewers, and no requests for so many seconds."""
        return not self.open_streams and time.monotonic() - self.asked > seconds

    async def _index(self, request: Request) -> Response:
        return self._file(INDEX)

    async def _asset(self, request: Request) -> Response:
        return self._file(request.path_params["name"])

    def _file(self, name: str) -> Response:
        self.asked = time.monotonic()
        asset = self._assets.get(name)
        if asset is None:
            raise HTTPException(404)
        return Response(asset.content, media_type=asset.media_type)

    async def _runs(self, request: Request) -> Response:
        self.asked = time.monotonic()
        asks = self._questions is not None
        return JSONResponse([{**self._as_known(run).to_record(), "asks": asks} for run in await self._list()])

    async def _list(self) -> list[RecordedRun]:
        """The catalog's runs, read by one thread for all who ask meanwhile."""
        if self._listing is None or self._listing.done():
            self._listing = asyncio.wrap_future(aside(self._catalog.runs))
        return await asyncio.shield(self._listing)

    def _as_known(self, run: RecordedRun) -> RecordedRun:
        """The run with its damage as its history tells it, if that was read: the catalog may not have come as far."""
        reader = self._readers.get(run.id)
        return run if reader is None or reader.damage is None else replace(run, damage=reader.damage)

    async def _history(self, request: Request) -> Response:
        run = await self._find(request)
        return _Stream(_pieces(await self._read(run)), "application/json")

    async def _read(self, run: RecordedRun) -> bytes:
        """The history of a run, read by one thread for all who ask meanwhile.

        Raises:
            HTTPException: its disk does not answer.
        """
        reader = self._readers.setdefault(run.id, HistoryReader(run.path))
        self._readers.move_to_end(run.id)
        while len(self._readers) > HISTORIES:
            self._readers.popitem(last=False)
        if run.id not in self._reading:
            self._reading[run.id] = reading = asyncio.wrap_future(aside(reader.page))
            reading.add_done_callback(lambda _: self._reading.pop(run.id))
        reading, place = self._reading[run.id], -1
        while not reading.done():
            if reader.offset == place:
                raise HTTPException(503, "the disk of this run does not answer")
            place = reader.offset
            await asyncio.wait({reading}, timeout=STUCK_SECONDS)
        return reading.result()

    async def _ask(self, request: Request) -> Response:
        assert self._questions is not None  # noqa: S101 - else there is no route to here
        run = await self._find(request)
        return await self._questions.take(request, run)

    async def _events(self, request: Request) -> Response:
        run = await self._find(request)
        offset = _offset(request.headers.get("last-event-id") or request.query_params.get("from", "0"))
        if run.id not in self._feeds:
            self._feeds[run.id] = Feed(run.path)
        feed = self._feeds[run.id]
        return _Stream(self._counted(feed.follow(offset)), "text/event-stream")

    async def _counted(self, messages: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        self.open_streams += 1
        try:
            async with aclosing(messages) as closing:
                async for message in closing:
                    yield message
        finally:
            self.open_streams -= 1
            self.asked = time.monotonic()

    async def _find(self, request: Request) -> RecordedRun:
        self.asked = time.monotonic()
        run_id = request.path_params["run"]
        run = self._catalog.known(run_id) or next((one for one in await self._list() if one.id == run_id), None)
        if run is None:
            raise HTTPException(404)
        return run


class _Stream(Response):
    """A streamed response that waits for a slow client before each piece, and ends when the client is gone."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], media_type: str) -> None:
        super().__init__(media_type=media_type, headers={"x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(_gone(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async with aclosing(self._pieces) as pieces:
                while scope["method"] == "GET" and (piece := await anext(pieces, None)) is not None:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    if gone.done():
                        return
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(body), PIECE):
        yield body[at : at + PIECE]


def _offset(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise HTTPException(400, "an offset is a number of bytes")
    return int(text)
