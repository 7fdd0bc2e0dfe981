"""Questions of viewers, over real connections: taken only where --ask opened server and run, within limits."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from apt_model.dashboard.questions import MOST_A_MINUTE
from apt_model.events.questions import open_questions, questions_in
from tests.dashboard.kit import Answer, Site, served, step, verdict, write

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write(tmp_path / "run", step(1))
    open_questions(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def site(run: Path) -> Iterator[Site]:
    with served(run, asks=True) as site:
        yield site


def post(site: Site, body: bytes, path: str = "", **headers: str) -> Answer:
    path = path or f"/api/runs/{site.only_run()}/questions"
    own = {"Origin": f"http://127.0.0.1:{site.port}", "Content_Type": "application/json"}
    head = site.request(path, "POST", **{**own, "Content_Length": str(len(body)), **headers})
    return site.ask(head + body)


def question(text: str) -> bytes:
    return json.dumps({"prompt": text}).encode()


def test_a_question_from_the_page_is_in_the_runs_directory(site: Site, run: Path) -> None:
    assert [one["asks"] for one in site.runs()] == [True]
    answer = post(site, question("互联网\n是\u202e"))
    assert (answer.status, answer.json()["why"]) == (202, None)
    assert questions_in(run) == ["互联网⏎是\ufffd"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": ""}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content_Type": ""}, 415),
    ],
)
def test_no_other_site_can_ask(headers: dict[str, str], status: int, site: Site, run: Path) -> None:
    assert post(site, question("a"), **headers).status == status
    assert questions_in(run) == []


def test_what_is_no_question_is_refused(site: Site, run: Path) -> None:
    for body in (b"", b"{", b"[]", b'{"prompt": 3}', b'{"text": "a"}', b'{"prompt": NaN}'):
        assert post(site, body).status == 400
    assert post(site, question("a" * 5000)).status == 413
    assert (post(site, question("a" * 400)).json()["why"], questions_in(run)) == ("long", [])
    assert post(site, question("a"), path="/api/runs/unknown/questions").status == 404
    for path in ("/", "/api/runs", f"/api/runs/{site.only_run()}/history"):
        assert post(site, question("a"), path=path).status == 405


def test_more_than_six_a_minute_are_too_many(site: Site, run: Path) -> None:
    answers = [post(site, question(str(number))) for number in range(MOST_A_MINUTE + 2)]
    assert [one.status for one in answers] == [202] * MOST_A_MINUTE + [429, 429]
    assert answers[-1].json()["why"] == "fast"
    assert len(questions_in(run)) == MOST_A_MINUTE


def test_a_finished_run_and_one_that_trains_without_ask_take_no_question(tmp_path: Path) -> None:
    write(tmp_path / "plain", step(1))
    write(tmp_path / "over", step(1), verdict(1))
    open_questions(tmp_path / "over")
    with served(tmp_path, asks=True) as site:
        for one in site.runs():
            answer = post(site, question("a"), path=f"/api/runs/{one['id']}/questions")
            assert (answer.status, answer.json()["why"]) == (409, "closed")
    assert not (tmp_path / "plain" / "questions.jsonl").exists()


def test_a_server_without_ask_only_reads(run: Path) -> None:
    with served(run) as site:
        assert [one["asks"] for one in site.runs()] == [False]
        assert post(site, question("a")).status == 405
    assert questions_in(run) == []


def test_a_shared_page_is_asked_only_with_its_token(run: Path) -> None:
    with served(run, asks=True, token="secret") as site:
        assert post(site, question("a"), path="/api/runs/0/questions").status == 401
    assert questions_in(run) == []
