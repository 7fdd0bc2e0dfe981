"""`--watch` and `dashboard=True`: a process beside the training that neither holds it up nor ends it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from apt_model.config import LessonConfig
from apt_model.errors import ConfigError
from apt_model.events.records import ModelCard, Notice, RunStarted
from apt_model.i18n import Phrases
from apt_model.plugins import viewer
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin
from apt_model.render.sentences import plain_notice
from tests.conftest import Listener

Batches = Callable[..., list[Any]]


def lesson(models: tuple[Any, Any], batches: list[Any], listener: Listener, **more: Any) -> Any:
    student, teacher = models
    plugin = VisualDistillationPlugin({"dashboard": True, "lang": "en"})
    return plugin.visual_distill_model(student, teacher, batches, num_epochs=1, device="cpu", sinks=[listener], **more)


def test_a_page_without_a_record_is_refused(teacher: Any, student: Any, make_batches: Batches) -> None:
    with pytest.raises(ConfigError, match="Fix: pass run_dir="):
        lesson((student, teacher), make_batches(), Listener())


def test_a_page_that_cannot_be_opened_is_told_of_and_training_goes_on(
    teacher: Any, student: Any, make_batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    verdict = lesson((student, teacher), make_batches(), Listener(), run_dir=tmp_path / "run")
    assert verdict.step == 4
    assert verdict.failures[0].startswith("viewer: FileNotFoundError")


STARTED = RunStarted(
    run_id="r",
    step=0,
    teacher=ModelCard(name="T", parameters=2, megabytes=1.0),
    student=ModelCard(name="S", parameters=1, megabytes=1.0),
    config={},
    num_epochs=1,
    total_steps=1,
    device="cpu",
)


def test_the_page_is_a_process_of_its_own_that_shows_this_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER", "true")  # opened, and gone
    started: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **more: started.append(popen(*args, **more)) or started[-1])
    page, end = viewer.Viewer(tmp_path / "run", lang="en"), time.monotonic() + 60
    said = page(STARTED)
    while said is None and time.monotonic() < end:
        said = page(STARTED)
    (process,) = started
    try:
        assert said is not None
        assert plain_notice(said, Phrases.load("en")).startswith("👀 Watch it in the browser: http://127.0.0.1:")
        assert page(STARTED) is None
        command = psutil.Process(process.pid).cmdline()
        assert command[1:] == ["-m", "apt_model", "watch", str(tmp_path / "run"), "--attached", "--lang", "en"]
        assert os.getpgid(process.pid) != os.getpgid(0)  # out of reach of this terminal's Ctrl-C
    finally:
        process.kill()
    while process.returncode is None and time.monotonic() < end:
        time.sleep(0.05)  # the thread that relays its words waits for it, too
    assert process.returncode is not None
    time.sleep(0.1)
    with pytest.raises(OSError, match="the page's process has ended with exit code -9"):
        page(STARTED)


def stand_in(where: Path, *commands: str) -> str:
    """A program in the place of Python, which runs these commands as the page's process."""
    script = where / "python"
    script.write_text("\n".join(["#!/bin/sh", *commands]) + "\n")
    script.chmod(0o755)
    return str(script)


def test_the_address_is_told_before_the_first_card_and_at_the_end_and_is_not_recorded(
    teacher: Any, student: Any, make_batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", stand_in(tmp_path, "echo http://127.0.0.1:1/", "exec sleep 20"))
    listener = Listener()
    lesson((student, teacher), make_batches(), listener, run_dir=tmp_path / "run")
    kinds = [event.key if isinstance(event, Notice) else type(event).__name__ for event in listener.events]
    assert kinds[:2] == ["RunStarted", "watch.attached"]
    assert kinds[-2:] == ["RunFinished", "watch.stays"]
    assert "watch." not in (tmp_path / "run" / "events.jsonl").read_text()


@pytest.mark.parametrize("line", ["error[CONFIG]: the browser page needs one more package", None])
def test_a_page_that_tells_no_address_is_told_of(
    line: str | None, teacher: Any, student: Any, make_batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", stand_in(tmp_path, f"echo '{line}'" if line else "exit 3"))
    listener = Listener()
    verdict = lesson((student, teacher), make_batches(), listener, run_dir=tmp_path / "run")
    (failure,) = verdict.failures
    told_instead = line or "the page's process has ended with exit code 3"
    assert failure == f"Viewer: OSError: {told_instead}"
    told = [event for event in listener.of(Notice) if event.key == "notice.display_failed"]
    assert [event.values["failure"] for event in told] == [failure]


def test_watch_as_a_flag_is_the_setting() -> None:
    from apt_model.cli import make_parser
    from apt_model.commands.options import given_settings

    assert given_settings(make_parser().parse_args(["demo", "--watch"])) == {"dashboard": True}
    assert LessonConfig.from_dict({"dashboard": True}).display.dashboard


def test_without_the_extra_the_line_names_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['starlette.datastructures'] = None\n"
        f"from apt_model.cli import main; sys.exit(main(['watch', {str(tmp_path)!r}, '--no-open']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error[CONFIG]: the browser page needs one more package; got no starlette")
    assert done.stderr.endswith("Fix: pip install 'apt-model[dashboard]'.\n")
    assert done.stderr.count("\n") == 1
