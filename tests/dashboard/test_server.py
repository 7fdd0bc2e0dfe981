"""The page's server follows run files: live, cut back, gone, not there yet; and goes when nobody is left."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from apt_model.dashboard import feed, server
from apt_model.events.runfile import RunFile, encode, to_record
from tests.dashboard.kit import card, lines_of, served, step, verdict, write

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "POLL_SECONDS", 0.02)


def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for what is looked at now and then."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_page_gets_the_history_and_then_every_line_that_follows(tmp_path: Path) -> None:
    record = write(tmp_path / "run", step(1), step(2))
    with served(tmp_path / "run") as site:
        run = site.only_run()
        history = site.get(f"/api/runs/{run}/history").json()
        covered = {"offset": record.stat().st_size, "lines": 2, "damage": None}
        assert history == {**covered, "events": lines_of(record)}
        stream = site.stream(run, history["offset"])
        write(tmp_path / "run", step(3), card(3, text="</script>\u2028\r\n😀"), verdict(3))
        stream.listen(until="end")
        assert [*history["events"], *stream.heard] == lines_of(record)
        assert stream.place == record.stat().st_size
        told = {
            "id": run,
            "name": "run",
            "finished": True,
            "steps": 3,
            "damage": None,
            "asks": False,
            "family": [],
            "kept": [],
        }
        until(lambda: [told.items() <= one.items() for one in site.runs()] == [True])


def test_a_viewer_that_comes_back_after_the_server_died_misses_nothing_and_hears_nothing_twice(tmp_path: Path) -> None:
    record = write(tmp_path / "run", *(step(number) for number in range(1, 101)))
    with served(tmp_path / "run") as site:
        run = site.only_run()
        stream = site.stream(run).listen(until=60)
    write(tmp_path / "run", *(step(number) for number in range(101, 201)), verdict(200))
    with served(tmp_path / "run", port=site.port) as again:
        assert again.only_run() == run
        back = again.stream(run, 0, Last_Event_ID=str(stream.place)).listen(until="end")
    assert stream.heard + back.heard == lines_of(record)


def test_a_record_that_resume_cuts_back_is_told_as_a_rewind(tmp_path: Path) -> None:
    write(tmp_path / "run", step(1))
    file = RunFile(tmp_path / "run", resumes=True)
    cut = file.state_dict()
    for number in range(2, 50):
        file.emit(step(number))
    with served(tmp_path / "run") as site:
        run = site.only_run()
        assert len(site.get(f"/api/runs/{run}/history").json()["events"]) == 49
        stream = site.stream(run).listen(until=49)
        file.load_state_dict(cut)
        for number in range(2, 80):  # longer than before, at once: only what the file says tells
            file.emit(step(number, loss=0.5, wall_time=2_000.0 + number))
        file.close()
        assert stream.listen(until="rewind").last == "rewind"
        history = site.get(f"/api/runs/{run}/history").json()
        assert [event["loss"] for event in history["events"]] == [1.0] + [0.5] * 78
        late = site.stream(run, history["offset"] + 1_000_000)
        assert late.listen(until="rewind").heard == []
        amid = site.stream(run, history["offset"] - 1)
        assert amid.listen(until="rewind").heard == []


def test_a_run_that_is_not_there_yet_is_waited_for_under_the_same_id(tmp_path: Path) -> None:
    with served(tmp_path / "later") as site:
        (waiting,) = site.runs()
        assert (waiting["steps"], waiting["finished"]) == (0, False)
        empty = {"offset": 0, "lines": 0, "damage": None, "events": []}
        assert site.get(f"/api/runs/{waiting['id']}/history").json() == empty
        stream = site.stream(waiting["id"])
        record = write(tmp_path / "later", step(1), verdict(1))
        assert stream.listen(until="end").heard == lines_of(record)


def test_half_a_line_waits_for_its_end_and_what_is_no_event_is_left_out(tmp_path: Path) -> None:
    record = write(tmp_path / "run", step(1))
    with served(tmp_path / "run") as site:
        run = site.only_run()
        stream = site.stream(run).listen(until=1)
        whole = encode(to_record(step(2)))
        with record.open("ab", buffering=0) as file:
            file.write(b"\x00garbage\n[1]\n" + whole[:9])
            time.sleep(0.1)
            file.write(whole[9:] + b"\n")
        assert stream.listen(until=2).heard[1] == to_record(step(2))
        assert stream.last == "damaged"
        history = site.get(f"/api/runs/{run}/history").json()
        assert [event["step"] for event in history["events"]] == [1, 2]
        assert (history["lines"], history["damage"]["line"], history["damage"]["count"]) == (4, 2, 2)


def test_a_folder_shows_its_runs_newest_first_and_follows_no_links(tmp_path: Path) -> None:
    for name, number in (("old", 1), ("new", 50)):
        write(tmp_path / "runs" / name, step(number))
    write(tmp_path / "elsewhere", step(99))
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs" / "copy").mkdir()
    (tmp_path / "runs" / "copy" / "events.jsonl").symlink_to(tmp_path / "elsewhere" / "events.jsonl")
    with served(tmp_path / "runs") as site:
        assert [run["name"] for run in site.runs()] == ["new", "old"]
        write(tmp_path / "runs" / "newest", step(70))
        time.sleep(0.6)
        assert [run["name"] for run in site.runs()] == ["newest", "new", "old"]
    with served(tmp_path / "runs" / "old", tmp_path / "elsewhere") as site:
        assert {run["name"] for run in site.runs()} == {"elsewhere", "old"}


def test_many_viewers_share_one_reader_and_one_that_begins_early_catches_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "SHARED", 20_000)
    monkeypatch.setattr(feed, "PIECE", 5_000)
    record = write(tmp_path / "run", *(step(number) for number in range(1, 401)))
    with served(tmp_path / "run") as site:
        run = site.only_run()
        streams = [site.stream(run) for _ in range(5)]
        write(tmp_path / "run", *(step(number) for number in range(401, 500)), verdict(499))
        for stream in streams:
            assert stream.listen(until="end").heard == lines_of(record)
        assert len([thread for thread in threading.enumerate() if thread.name.startswith("Thread")]) < 5


def test_an_event_above_64_kb_is_cut_with_a_marker(tmp_path: Path) -> None:
    record = write(tmp_path / "run", card(1), verdict(1))
    first, last = lines_of(record)  # a run file of ours has no such line: somebody else's may
    texts = dict.fromkeys(("teacher_text", "student_text", "input_text"), "字" * 200_000)
    record.write_text("".join(json.dumps(line) + "\n" for line in (first | texts, last)), "utf-8")
    with served(tmp_path / "run") as site:
        run = site.only_run()
        (cut, _) = site.stream(run).listen(until="end").heard
        assert cut["truncated"] == dict.fromkeys(texts, 200_000)
        assert cut["laziness"] == 0.5
        assert cut["teacher_text"] == "字" * 4_095 + "…"
        assert site.get(f"/api/runs/{run}/history").json()["events"][0] == cut


def test_a_port_that_is_taken_leads_to_the_next_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        address = server.listen("127.0.0.1", port)
        with address.listener:
            assert port < address.port < port + server.TRIES
            assert address.url() == f"http://127.0.0.1:{address.port}/"


def test_the_server_of_a_training_that_is_over_ends_when_nobody_has_looked_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LEFT_SECONDS", 0.5)
    alone: list[bool] = []
    write(tmp_path / "run", step(1))
    with served(tmp_path / "run", is_alone=lambda: bool(alone)) as site:
        site.thread.join(1.5)
        assert site.thread.is_alive()  # the training goes on
        stream = site.stream(site.only_run()).listen(until=1)
        alone.append(True)
        site.thread.join(1.5)
        assert site.thread.is_alive()  # somebody looks
        stream.close()
        write(tmp_path / "run", step(2))  # so that it is noticed
        site.thread.join(5)
        assert not site.thread.is_alive()


def test_ctrl_c_ends_watch_cleanly_with_a_viewer_connected(tmp_path: Path) -> None:
    write(tmp_path / "run", step(1))
    command = [sys.executable, "-m", "apt_model", "watch", str(tmp_path / "run"), "--no-open", "--port", "8700"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    watch = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", env=environment)
    assert watch.stdout is not None
    with watch:
        said = watch.stdout.readline()
        assert "请在浏览器中观看：http://127.0.0.1:87" in said
        port = int(said.partition("127.0.0.1:")[2].partition("/")[0])
        request = f"GET /api/runs HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(request)
            run = json.loads(connection.makefile("rb").read().partition(b"\r\n\r\n")[2])[0]["id"]
        with socket.create_connection(("127.0.0.1", port)) as viewer:
            viewer.sendall(request.replace(b"/api/runs", f"/api/runs/{run}/events".encode()))
            assert b"200 OK" in viewer.recv(1_000)
            watch.send_signal(signal.SIGINT)
            out, err = watch.communicate(timeout=10)
    assert (watch.returncode, out, err) == (0, "页面已关闭\n", "")
