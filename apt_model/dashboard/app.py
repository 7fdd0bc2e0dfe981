"""The web application, read-only: the page's files, the list of runs, a run's history, its new events.

Knows runs by id and files by a fixed table: no path from a request is ever joined to one on disk.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from threading import Lock

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from apt_model.dashboard.assets import INDEX, Asset
from apt_model.dashboard.catalog import Catalog, RecordedRun
from apt_model.dashboard.feed import PIECE, Feed
from apt_model.dashboard.reading import HistoryReader

HISTORIES = 8  # kept in memory: the most recently used


class Page:
    """The routes and their handlers.

    Attributes:
        open_streams: viewers that are following new events.
        asked: time of the last request, in seconds of the monotonic clock.
    """

    def __init__(self, catalog: Catalog, assets: Mapping[str, Asset]) -> None:
        self._catalog, self._assets = catalog, assets
        self._feeds: dict[str, Feed] = {}
        self._readings: OrderedDict[str, tuple[Lock, HistoryReader]] = OrderedDict()
        self.open_streams, self.asked = 0, time.monotonic()

    def app(self) -> Starlette:
        """The routes."""
        app = Starlette(
            routes=[
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
        runs = await asyncio.to_thread(self._catalog.runs)
        return JSONResponse([run.to_record() for run in runs])

    async def _history(self, request: Request) -> Response:
        run = await self._find(request)
        return _Stream(_pieces(await asyncio.to_thread(self._read, run)), "application/json")

    def _read(self, run: RecordedRun) -> bytes:
        lock, reading = self._readings.setdefault(run.id, (Lock(), HistoryReader(run.path)))
        self._readings.move_to_end(run.id)
        while len(self._readings) > HISTORIES:
            self._readings.popitem(last=False)
        with lock:
            return reading.page()

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
        run = await asyncio.to_thread(self._catalog.find, request.path_params["run"])
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
