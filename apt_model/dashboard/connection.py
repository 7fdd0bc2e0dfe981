"""Timeouts for HTTP connections: for a request that does not arrive, and for an answer that is not read.

uvicorn itself waits for both without limit. Knows nothing of requests or answers.
"""

import asyncio
from contextvars import ContextVar
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 5.0
STALLED_SECONDS = 4.0  # with the time to fill the buffers, a stalled client is dropped within five
BUFFER = 64 * 1024  # bytes that may wait for a client, besides those in its socket
MOST = 600  # connections of any kind; uvicorn's own limit, answered with 503, is lower

_transport: ContextVar[asyncio.Transport | None] = ContextVar("transport", default=None)


class Connection(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with timeouts for the request and the end of the answer, and a connection limit."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected: start the timeout of its request."""
        super().connection_made(transport)
        self._limit = self.loop.call_later(REQUEST_SECONDS, self._too_slow)
        transport.set_write_buffer_limits(high=BUFFER)
        if len(self.connections) > MOST:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Read a part of the request; stop the timeout once its head is complete."""
        _transport.set(self.transport)  # the task that answers inherits it
        super().data_received(data)
        if self.cycle is not None:
            self._limit.cancel()

    def _too_slow(self) -> None:
        self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()
        self._limit = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def on_response_complete(self) -> None:
        """The answer is written: start the timeout for the client to read the rest."""
        super().on_response_complete()
        self._limit = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has disconnected: stop the timeout."""
        self._limit.cancel()
        super().connection_lost(exc)


class Patience:
    """Middleware that drops a client which does not read its answer for some seconds."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app with a timeout on each `send`."""

        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(STALLED_SECONDS):
                    await send(message)
            except TimeoutError:
                transport: Any = _transport.get()
                transport.abort()

        await self._app(scope, receive, send_in_time)
