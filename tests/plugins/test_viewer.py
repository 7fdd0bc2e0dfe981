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
from apt_model.plugins import viewer
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin
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


def test_the_page_is_a_process_of_its_own_that_shows_this_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER", "true")  # opened, and gone
    started: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **more: started.append(popen(*args, **more)) or started[-1])
    viewer.start_viewer(tmp_path / "run", lang="en")
    said, end = "", time.monotonic() + 20
    while "\n" not in said and time.monotonic() < end:
        time.sleep(0.05)
        said += capsys.readouterr().out
    (process,) = started
    try:
        assert said.startswith("👀 Watch it in the browser: http://127.0.0.1:")
        command = psutil.Process(process.pid).cmdline()
        assert command[1:] == ["-m", "apt_model", "watch", str(tmp_path / "run"), "--attached", "--lang", "en"]
        assert os.getpgid(process.pid) != os.getpgid(0)  # out of reach of this terminal's Ctrl-C
    finally:
        process.kill()
    while process.returncode is None and time.monotonic() < end:
        time.sleep(0.05)  # the thread that relays its words waits for it, too
    assert process.returncode is not None


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
