"""Access control and security headers of the server. Knows nothing of what is served.

A page on another site can make a browser send requests here, and can point a name of its own at 127.0.0.1 (DNS
rebinding): checking the exact Host and Origin refuses both, before any handler runs.
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
    "connection": "close",  # one request per connection, so that a request's timeout catches slow and idle clients
}


class Doorman:
    """Middleware that lets in only requests to this server by its name, from its own page, with its token if any.

    Requests only read; a POST, if any are taken, has to name our own page as its origin, as every browser does.

    Args:
        app: handles the requests let in.
        hosts: every valid Host header (name and port).
        token: required once as `?token=`, and replaced by a cookie from then on. None: no token is required.
        takes_posts: let POST requests in too.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: frozenset[str], token: str | None = None, takes_posts: bool = False
    ) -> None:
        self._app, self._hosts, self._token = app, hosts, token
        self._methods = (*METHODS, "POST") if takes_posts else METHODS
        self._pass = secrets.token_urlsafe(16)
        self._cookie = f"apt_model_{secrets.token_hex(4)}"  # cookies do not tell ports apart

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it to the app; add the security headers."""

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
            return PlainTextResponse("This server does not answer to that host name.\n", 421)
        origins, posts = headers.getlist("origin"), scope["method"] == "POST" and "POST" in self._methods
        is_other = any(origin != f"http://{hosts[0]}" for origin in origins) or (posts and len(origins) != 1)
        if is_other or _is_foreign(headers):
            return PlainTextResponse("Only this server's own page may send requests.\n", 403)
        if scope["method"] not in self._methods:
            return PlainTextResponse("This server is read-only: use GET or HEAD.\n", 405, {"allow": ", ".join(METHODS)})
        return self._ask_for_token(scope) if self._token is not None else None

    def _ask_for_token(self, scope: Scope) -> Response | None:
        shown = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and _equal(shown, self._token or ""):
            answer = RedirectResponse("./", 303)  # keeps the token out of history and bookmarks
            answer.set_cookie(self._cookie, self._pass, httponly=True, samesite="strict", path="/")
            return answer
        known = HTTPConnection(scope).cookies.get(self._cookie, "")
        if _equal(known, self._pass):
            return None
        text = "Paste the whole address that apt-model printed, token included, into the address bar.\n"
        return PlainTextResponse(text, 401)


def new_token() -> str:
    """A random token of 128 bits, safe in a URL."""
    return secrets.token_urlsafe(16)


def _is_foreign(headers: Headers) -> bool:
    """Whether another site embeds a part of ours (an image, a frame); a link that a person follows is allowed."""
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return False
    return (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) != ("navigate", "document")


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode())
