"""The tutorial runs as it stands, in a real kernel; and, shortened, wherever the fast tests run."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.kernel import HOME, execute

TUTORIAL = HOME / "examples" / "tutorial.ipynb"


def read() -> Any:
    notebook = nbformat.read(TUTORIAL, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code() -> list[str]:
    return [cell.source for cell in read().cells if cell.cell_type == "code"]


def test_the_tutorial_is_kept_without_outputs_and_its_cells_are_short() -> None:
    cells = [cell for cell in read().cells if cell.cell_type == "code"]
    assert len(cells) >= 6
    assert [cell for cell in cells if cell.outputs or cell.execution_count] == []
    assert max(len(cell.source.splitlines()) for cell in cells) <= 30


def test_every_cell_runs_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source, shortened = re.subn(r"^epochs = \d+$", "epochs = 1", "\n".join(code()), flags=re.MULTILINE)
    assert shortened == 1
    names: dict[str, Any] = {}
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(source, names)
    assert names["verdict"].step == 10
    assert "和保存之前一样: True" in said.getvalue()


@pytest.mark.slow
def test_in_a_real_kernel_the_student_learns_and_the_cards_are_html(tmp_path: Path) -> None:
    notebook = read()
    execute(notebook, tmp_path)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    head, lesson = (output.data["text/html"] for output in outputs if "text/html" in output.get("data", {}))
    assert "80/80" in head
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == 1, (
        "the plots show themselves"
    )
    assert "知识蒸馏训练完成" in lesson
    text = "".join(output.get("text", "") for output in outputs)
    laziness = [float(found) for found in re.findall(r"偷懒 +([\d.]+)%", text)]
    assert len(laziness) == 8
    assert laziness[0] > 80
    assert sum(laziness[-3:]) / 3 < 50, "two samples an epoch: the last one alone says little"
    assert "和保存之前一样: True" in text
    assert [output for output in outputs if output.get("name") == "stderr"] == [], "nothing to scare a class with"
