"""Takes questions of viewers to a run that trains, within limits. Knows nothing of how they are answered."""

import asyncio
import time
from collections import deque
from functools import partial

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from apt_model.dashboard.aside import aside
from apt_model.dashboard.catalog import RecordedRun
from apt_model.errors import DataError
from apt_model.events.parse import json_object
from apt_model.events.questions import MOST_CHARACTERS, MOST_QUESTIONS, add_question
from apt_model.render.sanitise import sanitise

MOST_BYTES = 4096  # of a request's body: a question in any script, with room to spare
MOST_A_MINUTE = 6  # of all viewers together
BODY_SECONDS = 5.0
DISK_SECONDS = 5.0


class Questions:
    """Takes at most `MOST_A_MINUTE` questions a minute, all runs and viewers together."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    async def take(self, request: Request, run: RecordedRun) -> Response:
        """202 if the question is taken; else 409 or 429, and `why` as a JSON object.

        Raises:
            HTTPException: not a question in JSON (400, 415), too large (413), too slow (408), or the disk fails (503).
        """
        prompt = sanitise(_prompt_of(await _body(request)))
        now = time.monotonic()
        while self._times and now - self._times[0] > 60:
            self._times.popleft()
        if len(self._times) >= MOST_A_MINUTE:
            return _answer("fast", 429)
        self._times.append(now)
        if run.finished:
            return _answer("closed", 409)
        work = asyncio.wrap_future(aside(partial(add_question, run.path.parent, prompt)))
        try:
            why = await asyncio.wait_for(asyncio.shield(work), DISK_SECONDS)
        except OSError as error:  # a TimeoutError is one, too
            raise HTTPException(503, "the disk of this run does not take it") from error
        return _answer(why, 202 if why is None else 409)


def _answer(why: str | None, status: int) -> Response:
    most = MOST_QUESTIONS if why == "full" else MOST_CHARACTERS
    return JSONResponse({"why": why, "most": most}, status)


async def _body(request: Request) -> bytes:
    """The body of a JSON request, which another site's form cannot send."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "a question is sent as application/json")
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > MOST_BYTES:
                    raise HTTPException(413, "a question is shorter")
    except TimeoutError as error:
        raise HTTPException(408, "the question did not come") from error
    return body


def _prompt_of(body: bytes) -> str:
    try:
        prompt = json_object(body).get("prompt")
    except DataError as error:
        raise HTTPException(400, "a question is a JSON object") from error
    if not isinstance(prompt, str):
        raise HTTPException(400, "a question has a prompt")
    return prompt
