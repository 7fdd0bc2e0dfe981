"""Every Python block of the README and of CONTRIBUTING runs, in order, as a reader would type it."""

import re
from pathlib import Path
from typing import Any

import pytest

from apt_model.training.checkpoint import save_model

HOME = Path(__file__).parent.parent


def blocks(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (HOME / name).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize(
    ("name", "teacher_dir", "book", "count"),
    [
        ("README.md", "教师目录", "课本.txt", 2),
        ("README.en.md", "teacher_dir", "book.txt", 2),
        ("CONTRIBUTING.md", "t", "b", 1),
    ],
)
def test_the_python_of_a_page_runs(
    name: str, teacher_dir: str, book: str, count: int, teacher: Any, tokenizer: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(teacher, tokenizer, teacher_dir)
    Path(book).write_text("人工智能是全球最大的网络。\n医疗教育经济文化\n" * 8, encoding="utf-8")
    found = blocks(name)
    assert len(found) == count
    names: dict[str, Any] = {}
    for block in found:
        exec(block, names)
    if "README" in name:
        assert names["plugin"].stats["total_samples"] == 1


def test_every_command_of_the_readme_is_one_that_there_is() -> None:
    from apt_model.cli import make_parser

    for name in ("README.md", "README.en.md"):
        lines = re.findall(r"^apt-model (.+)$", (HOME / name).read_text("utf-8"), flags=re.MULTILINE)
        assert len(lines) == 3
        for line in lines:
            make_parser().parse_args([word.strip('"') for word in line.split()])


def test_every_link_inside_the_docs_leads_somewhere() -> None:
    pages = [*HOME.glob("*.md"), *(HOME / "docs").glob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8"))]
    assert len(links) > 5
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []
