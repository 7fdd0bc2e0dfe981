"""Every Python block of the README and of CONTRIBUTING runs, in order, as a reader would type it."""

import re
from pathlib import Path
from typing import Any

import pytest

from apt_model.models.pretrained import save_model

HOME = Path(__file__).parent.parent


def blocks(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (HOME / name).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning", "ignore:`[a-z_]*gradient_checkpointing[a-z_]*` is deprecated:FutureWarning"
)
@pytest.mark.parametrize(
    ("name", "teacher_dir", "book", "count"),
    [
        ("README.md", "教师目录", "课本.txt", 3),
        ("README.en.md", "teacher_dir", "book.txt", 3),
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


@pytest.mark.parametrize("name", ["docs/visual-distillation-guide.md", "docs/visual-distillation-guide.en.md"])
def test_the_python_of_the_guide_runs(
    name: str, teacher: Any, tokenizer: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(teacher, tokenizer, "apt_model_large")
    for book in ("train.txt", "test.txt"):
        Path(book).write_text("人工智能是全球最大的网络。\n医疗教育经济文化\n" * 4, encoding="utf-8")
    found = blocks(name)
    assert len(found) == 10
    names: dict[str, Any] = {}
    for block in found:
        exec(block, names)
    assert names["student_model"].config.hidden_size == 16
    assert names["fresh_student"]["temperature"] == 1.0
    assert "perplexity" in Path("evaluation.json").read_text()
    assert Path("lesson.png").read_bytes().startswith(b"\x89PNG")
    assert "apt-data" in Path("lesson.html").read_text("utf-8")
    assert len(names["steps"]) == names["run"].verdict.step > 0
    assert Path("apt_model_distilled/model.safetensors").is_file()
    assert " (tokens: " in capsys.readouterr().out


def test_a_page_and_its_twin_have_the_same_parts() -> None:
    for name in ("docs/visual-distillation-guide", "DISTILLATION_PRINCIPLE"):
        chinese, english = ((HOME / f"{name}{ending}").read_text("utf-8") for ending in (".md", ".en.md"))
        heads = [re.findall(r"^#+", page, flags=re.MULTILINE) for page in (chinese, english)]
        figures = [re.findall(r"!\[.*\]\((.+)\)", page) for page in (chinese, english)]
        assert len(heads[0]) > 8
        assert (heads[0], figures[0]) == (heads[1], figures[1])


def test_every_command_of_the_pages_is_one_that_there_is() -> None:
    from apt_model.cli import make_parser

    guide = "docs/visual-distillation-guide"
    for name in ("README.md", "README.en.md", f"{guide}.md", f"{guide}.en.md"):
        lines = re.findall(r"^apt-model (.+)$", (HOME / name).read_text("utf-8"), flags=re.MULTILINE)
        assert len(lines) == (4 if "README" in name else 2)
        for line in lines:
            make_parser().parse_args([word.strip('"') for word in line.split()])


def test_every_link_inside_the_docs_leads_somewhere() -> None:
    pages = [*HOME.glob("*.md"), *(HOME / "docs").glob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8"))]
    assert len(links) > 5
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []
