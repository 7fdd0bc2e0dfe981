"""A notebook gets cards, a terminal gets a terminal, and each is recognised."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest

from apt_model.config.sections import DisplayConfig
from apt_model.events.runfile import RunFile
from apt_model.render.notebook import NotebookSink
from apt_model.render.terminal import TerminalSink
from apt_model.render.watch import default_sink
from tests.kernel import execute
from tests.render.test_cards import LESSON


class InteractiveShell:
    """Named like IPython's."""


class TerminalInteractiveShell(InteractiveShell):
    """ipython in a terminal."""


class ZMQInteractiveShell(InteractiveShell):
    """Jupyter's and VS Code's."""


class Shell(ZMQInteractiveShell):
    """Colab's: google.colab._shell.Shell."""


@pytest.mark.parametrize(
    ("shell", "kind"),
    [
        (ZMQInteractiveShell(), NotebookSink),
        (Shell(), NotebookSink),
        (TerminalInteractiveShell(), TerminalSink),
        (None, TerminalSink),
    ],
)
def test_a_kernel_gets_html_and_ipython_in_a_terminal_does_not(
    shell: Any, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert type(default_sink(DisplayConfig())) is kind


def test_without_ipython_it_is_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert type(default_sink(DisplayConfig())) is TerminalSink
    assert "IPython" not in sys.modules, "and it is not loaded to find out"


def test_the_real_ipython_in_a_terminal_is_no_notebook(tmp_path: Path) -> None:
    code = "from apt_model.render.watch import in_notebook; print('notebook', in_notebook())"
    command = [sys.executable, "-m", "IPython", "--quick", "--no-banner", "--colors=nocolor", "-c", code]
    ran = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "IPYTHONDIR": str(tmp_path)}
    )
    assert ran.stdout.strip() == "notebook False"


def test_in_a_real_kernel_the_lesson_is_two_outputs_updated_in_place(tmp_path: Path) -> None:
    record = RunFile(tmp_path / "run")
    for event in LESSON:
        record.emit(event)
    record.close()
    cell = nbformat.v4.new_code_cell(
        "from apt_model.config.sections import DisplayConfig\n"
        "from apt_model.events.runfile import read_events\n"
        "from apt_model.render.watch import default_sink\n"
        "sink = default_sink(DisplayConfig())\n"
        "for event in read_events('run'):\n"
        "    sink.emit(event)\n"
        "sink.close()\n"
    )
    notebook = nbformat.v4.new_notebook(cells=[cell])
    execute(notebook, tmp_path)
    head, lesson = notebook.cells[0].outputs
    assert "3/100" in head.data["text/html"]
    assert "知识蒸馏训练完成" in lesson.data["text/html"]
