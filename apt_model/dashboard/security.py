"""Who may ask, and what a browser may do with the answer. Knows nothing of what is served.

A page on another site can make a browser send requests here, and can point a name of its own at 127.0.0.1 (DNS
rebinding): the exact Host and Origin tell those apart from ours. All of it happens before any handler.
"""

import hmac
import secrets
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = ("GET", "HEAD")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
    "connection": "close",  # one request a connection: a slow or idle client is told by the time its request takes
}


class Doorman:
    """Lets requests in that name this server, from this server's own page, to read; with a token where it takes one.

    Args:
        app: what answers.
        hosts: every Host (name and port) that this server goes by.
        token: to be given once, as `?token=`; a cookie stands for it from then on. None lets everybody in.
    """

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str], token: str | None = None) -> None:
        self._app, self._hosts, self._token = app, hosts, token
        self._pass = secrets.token_urlsafe(16)
        self._cookie = f"apt_model_{secrets.token_hex(4)}"  # cookies do not tell ports apart

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand over to the app."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        answer = self._refuse(scope) or self._app
        await answer(scope, receive, send_with_headers)

    def _refuse(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return PlainTextResponse("This server does not go by that name.\n", 421)
        if any(origin != f"http://{hosts[0]}" for origin in headers.getlist("origin")) or _is_foreign(headers):
            return PlainTextResponse("Only this server's own page may ask.\n", 403)
        if scope["method"] not in METHODS:
            return PlainTextResponse("There is nothing to change here.\n", 405, {"allow": ", ".join(METHODS)})
        return self._ask_for_token(scope) if self._token is not None else None

    def _ask_for_token(self, scope: Scope) -> Response | None:
        shown = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and _equal(shown, self._token or ""):
            answer = RedirectResponse("./", 303)  # so that the token is in no history and no bookmark
            answer.set_cookie(self._cookie, self._pass, httponly=True, samesite="strict", path="/")
            return answer
        known = HTTPConnection(scope).cookies.get(self._cookie, "")
        if _equal(known, self._pass):
            return None
        text = "Paste the whole address that apt-model printed, token included, into the address bar.\n"
        return PlainTextResponse(text, 401)


def new_token() -> str:
    """128 random bits, fit for a URL."""
    return secrets.token_urlsafe(16)


def _is_foreign(headers: Headers) -> bool:
    """Another site asks for a part of ours (an image, a frame); that a person follows a link to it is fine."""
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return False
    return (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) != ("navigate", "document")


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode())
