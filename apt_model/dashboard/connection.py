"""A connection with little patience: for a request that does not come, and for an answer that is not taken.

uvicorn waits for both as long as a client likes. Knows nothing of what is asked or answered.
"""

import asyncio
from contextvars import ContextVar
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 5.0
STALLED_SECONDS = 4.0  # with the time until the buffers are full, a stalled client is gone within five
BUFFER = 64 * 1024  # bytes that may wait for a client, beside what its socket holds
MOST = 600  # connections, whatever they are doing; uvicorn's own limit, with a 503, is lower

_transport: ContextVar[asyncio.Transport | None] = ContextVar("transport", default=None)


class Connection(H11Protocol):
    """uvicorn's HTTP/1.1, with a time limit on the request, on the end of the answer, and a limit on connections."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there; its request must follow."""
        super().connection_made(transport)
        self._limit = self.loop.call_later(REQUEST_SECONDS, self._too_slow)
        transport.set_write_buffer_limits(high=BUFFER)
        if len(self.connections) > MOST:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Some of the request."""
        _transport.set(self.transport)  # the task that answers inherits it
        super().data_received(data)
        if self.cycle is not None:
            self._limit.cancel()

    def _too_slow(self) -> None:
        self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()
        self._limit = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def on_response_complete(self) -> None:
        """The answer is written; the client must take what is left of it."""
        super().on_response_complete()
        self._limit = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._limit.cancel()
        super().connection_lost(exc)


class Patience:
    """Drops a client that leaves what it was sent lying for seconds."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, as long as somebody listens."""

        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(STALLED_SECONDS):
                    await send(message)
            except TimeoutError:
                transport: Any = _transport.get()
                transport.abort()

        await self._app(scope, receive, send_in_time)
