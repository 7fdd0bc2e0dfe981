"""The report is one file: everything in it, nothing that asks, hostile texts inert, no torch needed."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from apt_model.cli import main
from apt_model.dashboard.assets import Asset
from apt_model.dashboard.report import make_report
from tests.dashboard.kit import card, lines_of, step, verdict, write

HOSTILE = "</script><script>alert(1)</script><!--<style>&amp;\u2028\u2029\ud800\x00"
PAGE = {
    "index.html": b'<html><head><meta charset="utf-8"><link rel="stylesheet" href="./static/a.css">\r\n'
    b'<script src="./static/lib.js"></script><script type="module" src="./static/main.js"></script>'
    b"</head><body><p>x</p></body></html>",
    "a.css": b"p { color: red }\r\n",
    "lib.js": b'var lib = "</script>";\r\n',
    "main.js": b'import {one} from "./one.js";\nlib = one;\n',
    "one.js": b"export const one = 1;\n",
    "unused.png": b"\x89",
}
ASSETS = {name: Asset(content, "") for name, content in PAGE.items()}


class Parts(HTMLParser):
    """Every element's attributes, and what stands in scripts and styles, as a browser would take them apart."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": []}
        self._open = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in self.texts:
            self.texts[self._open].append(data)


def embedded(html: str) -> Any:
    return json.loads(Parts(html).texts["script"][0])


def test_everything_is_in_it_and_only_what_is_ours_may_run(tmp_path: Path) -> None:
    record = write(tmp_path / "run", step(1), card(1, text="好"), verdict(1))
    html = make_report([tmp_path / "run"], assets=ASSETS)
    parts = Parts(html)
    assert embedded(html) == {"runs": [{"id": "0", "name": "run", "damage": None, "events": lines_of(record)}]}
    assert [tag for tag, attributes in parts.elements if "src" in attributes or "href" in attributes] == []
    (policy,) = [a["content"] for tag, a in parts.elements if a.get("http-equiv") == "Content-Security-Policy"]
    script, style = parts.texts["script"][1], parts.texts["style"][0]
    assert re.findall(r"(\w+)-src '(sha256-[^']+)'", policy or "") == [
        ("script", digest(script)),
        ("style", digest(style)),
    ]
    assert "default-src 'none'" in (policy or "")
    assert "\r" not in html
    assert script.index("var lib") < script.index("const one") < script.index("lib = one")


def digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_hostile_texts_cannot_leave_the_data(tmp_path: Path) -> None:
    write(tmp_path / "run", card(1, text=HOSTILE), card(2, text=HOSTILE.replace("\ud800", "")))
    (tmp_path / "run").rename(tmp_path / "<b>&")
    html = make_report([tmp_path / "<b>&"], assets=ASSETS)
    parts = Parts(html)
    assert [tag for tag, _ in parts.elements].count("script") == 2
    raw = parts.texts["script"][0]
    assert not set(raw) & set("<>&\u2028\u2029")
    (run,) = json.loads(raw)["runs"]
    assert run["name"] == "<b>&"
    assert [event["teacher_text"] for event in run["events"]] == [HOSTILE, HOSTILE.replace("\ud800", "")]


def test_several_runs_share_the_room(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, *(card(number, text="字" * 900) for number in range(1, 401)))
    runs = embedded(make_report([tmp_path / "one", tmp_path / "two"], assets=ASSETS))["runs"]
    assert [(run["id"], run["name"], run["events"][-1]["step"]) for run in runs] == [
        ("0", "one", 400),
        ("1", "two", 400),
    ]


def test_the_command_writes_it_into_the_run_without_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "run", step(1), verdict(1))
    heavy = ("torch", "transformers", "numpy", "starlette", "uvicorn")
    code = (
        f"import sys; from apt_model.cli import main; code = main(['report', {str(tmp_path / 'run')!r}, '--lang=en']);"
        f"import apt_model.dashboard; print([code, [name for name in {heavy} if name in sys.modules]])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0].startswith(f"📖 The report: {tmp_path / 'run' / 'report.html'} (0.")
    assert said[1] == "[0, []]"
    assert main(["report", str(tmp_path / "run"), "-o", str(tmp_path / "a" / "b.html")]) == 0
    assert (tmp_path / "a" / "b.html").read_text("utf-8") == (tmp_path / "run" / "report.html").read_text("utf-8")


def test_the_server_loads_without_torch() -> None:
    code = "import sys, apt_model.dashboard.server; print([n for n in ('torch', 'numpy') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_no_run_and_no_room_are_one_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 5
    assert (
        "holds no run; got No such file or directory, expected a directory with events.jsonl."
        in capsys.readouterr().err
    )
    write(tmp_path / "run", step(1))
    (tmp_path / "file").write_text("")
    assert main(["report", str(tmp_path / "run"), "-o", str(tmp_path / "file" / "report.html")]) == 5
    assert capsys.readouterr().err.count("\n") == 1
