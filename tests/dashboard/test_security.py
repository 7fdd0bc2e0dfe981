"""Who may ask the page's server, for what, and what a browser may do with the answer: over real connections."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from apt_model.dashboard.security import new_token
from tests.dashboard.kit import Site, served, step, verdict, write

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    tmp_path = tmp_path_factory.mktemp("site")
    write(tmp_path / "run", step(1), verdict(1))
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "run" / "link.js").symlink_to(tmp_path / "secret.txt")
    with served(tmp_path / "run") as site:
        yield site


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example:{port}", ""])
@pytest.mark.parametrize("path", ["/", "/api/runs", "/api/runs/0/events"])
def test_another_host_is_misdirected_before_anything_is_looked_at(site: Site, host: str, path: str) -> None:
    assert site.get(path, Host=host.format(port=site.port)).status in (400, 421)


def test_two_hosts_are_none(site: Site) -> None:
    head = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\nHost: evil.example\r\n\r\n"
    assert site.ask(head.encode()).status in (400, 421)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1"])
def test_a_foreign_origin_is_refused_whatever_it_asks(site: Site, method: str, origin: str) -> None:
    run = site.only_run()
    for path in ("/", "/api/runs", f"/api/runs/{run}/events"):
        answer = site.get(path, method, Origin=origin.format(port=site.port))
        assert answer.status == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_our_own_origin_is_let_in_and_only_to_read(site: Site) -> None:
    own = f"http://127.0.0.1:{site.port}"
    assert site.get("/api/runs", Origin=own).status == 200
    for method in set(METHODS) - {"GET", "HEAD"}:
        assert site.get("/api/runs", method, Origin=own).status == 405


@pytest.mark.parametrize(
    "path",
    ["/static/../secret.txt", "/static/%2e%2e/secret.txt", "/static/%2e%2e%2fsecret.txt", "/static//etc/passwd",
     "/static/link.js", "/../../etc/passwd", "/api/runs/../../secret.txt/history", "/api/runs/%2e%2e/history",
     "/static/main.js/..", "/static/main.js%00", "/api/runs/99/history", "/static/"],
)  # fmt: skip
def test_what_is_not_in_the_table_is_not_there(site: Site, path: str) -> None:
    answer = site.get(path)
    assert answer.status in (400, 404)
    assert b"secret" not in answer.body


def test_every_answer_says_what_a_browser_may_do_with_it(site: Site) -> None:
    for path in ("/", "/static/main.js", "/api/runs", "/nothing"):
        headers = site.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"


def test_a_token_is_traded_for_a_cookie_and_leaves_the_address(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "run", step(1), verdict(1))
    token = new_token()
    assert len(token) >= 22  # 128 bits in base64
    with served(tmp_path / "run", token=token) as site:
        for path in ("/", "/api/runs", "/static/main.js", "/?token=wrong", f"/api/runs?token={token}"):
            assert site.get(path).status == 401
        traded = site.get(f"/?token={token}")
        assert traded.status == 303
        assert token not in traded.headers["location"]
        cookie = traded.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict"} <= {part.strip() for part in cookie.split(";")}
        assert token not in cookie
        assert site.get("/api/runs", Cookie=cookie.split(";")[0]).status == 200
        assert site.get("/api/runs", Cookie=cookie.split(";")[0][:-1] + "x").status == 401
    shown = capfd.readouterr()
    assert token not in shown.out + shown.err


@pytest.mark.parametrize(
    "request_bytes",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 50,
     b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 100_000 + b"\r\n\r\n", b"GET /" + b"%" * 50_000 + b" HTTP/1.1\r\n\r\n"],
)  # fmt: skip
def test_a_malformed_request_is_a_4xx_or_nothing_and_the_server_lives(site: Site, request_bytes: bytes) -> None:
    connection = site.open(request_bytes)
    connection.settimeout(3)
    try:
        connection.shutdown(1)
        head = connection.recv(64)
    except OSError:  # closed on us: as good an answer
        head = b""
    connection.close()
    assert not head or head.split(b" ")[1].startswith(b"4")
    assert site.get("/api/runs").status == 200
