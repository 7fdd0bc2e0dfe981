"""The guide's example file: whole as a user runs it, and short in this process."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

HOME = Path(__file__).parent.parent.parent
NAME = "visual_distillation_example.py"
TITLES = ("示例 1：基础可视化蒸馏", "示例 2：快速启动", "示例 3：自定义配置", "示例 4：集成到训练流程")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The example as a module, on one sentence a topic, for one epoch; what it writes goes to `tmp_path`."""
    spec = importlib.util.spec_from_file_location("visual_distillation_example", HOME / "examples" / NAME)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "EPOCHS", 2)
    monkeypatch.setattr(module, "SENTENCES", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return module


class Keyboard:
    """A terminal at which somebody types these lines."""

    def __init__(self, *lines: str) -> None:
        self.lines = list(lines)

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self.lines.pop(0) + "\n" if self.lines else ""


def test_the_four_examples_run_and_what_they_write_is_where_they_say(example: Any, tmp_path: Path, capsys: Any) -> None:
    example.main(["--all"])
    shown = capsys.readouterr().out
    assert [title for title in TITLES if title in shown] == list(TITLES)
    assert shown.count("知识蒸馏训练完成！") == 4
    assert shown.count("🌱") == 1
    (home,) = tmp_path.iterdir()
    assert f"📁 文件都写在 {home}" in shown
    assert (home / "apt_model_distilled" / "model.safetensors").is_file()
    assert (home / "run" / "events.jsonl").is_file()
    assert "模型大小: 17.1MB → 3.7MB" in shown


def test_on_a_terminal_there_is_a_menu(example: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "stdin", Keyboard("7", "2", ""))
    example.main([])
    shown = capsys.readouterr().out
    assert "没有 '7' 这一项" in shown
    assert [title in shown for title in TITLES] == [False, True, False, False]


def test_anything_but_all_is_refused(example: Any) -> None:
    with pytest.raises(SystemExit, match="--all"):
        example.main(["--everything"])


@pytest.mark.slow
def test_the_example_runs_from_its_directory_without_a_terminal(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(HOME), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, NAME], cwd=HOME / "examples", env=environment, stdin=subprocess.DEVNULL, capture_output=True
    )
    shown = done.stdout.decode()
    assert done.returncode == 0, done.stderr.decode()
    assert [title for title in TITLES if title in shown] == list(TITLES)
    assert "学习趋势: 📈 显著进步！" in shown
