"""Every Python block of the handbook, of CONTRIBUTING and of the guide runs as a reader would copy it."""

import ast
import builtins
import json
import re
from pathlib import Path
from typing import Any

import pytest

import apt_model
from apt_model.models.pretrained import save_model

HOME = Path(__file__).parent.parent
DECISIONS = [f"docs/decisions/{path.name}" for path in sorted((HOME / "docs/decisions").glob("[!R]*.md"))]
MODELS_AND_TEXT = {"teacher", "student", "tokenizer", "lines"}
MADE_BEFORE = {"teacher_model", "student_model", "tokenizer", "train_dataloader", "plugin"}


def blocks(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (HOME / name).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def not_its_own(block: str) -> set[str]:
    """The names that a block uses and neither imports nor makes."""
    nodes = list(ast.walk(ast.parse(block)))
    made = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    made |= {node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    made |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    made |= {
        (one.asname or one.name).partition(".")[0] for node in nodes if hasattr(node, "names") for one in node.names
    }
    return {node.id for node in nodes if isinstance(node, ast.Name)} - made - set(dir(builtins))


def run_each_with_its_own_imports(found: list[str], handed_on: set[str]) -> tuple[dict[str, Any], int]:
    """Run each block in a namespace of its own; of the blocks before it has what it names, models and data at most.

    Returns:
        All names that the blocks made, and how many of the blocks needed none from another.
    """
    names: dict[str, Any] = {}
    alone = 0
    for block in found:
        needed = not_its_own(block)
        assert needed <= handed_on, "a block carries the imports it needs"
        alone += not needed
        space = {name: names[name] for name in needed}
        exec(block, space)
        names |= space
    return names, alone


@pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning", "ignore:`[a-z_]*gradient_checkpointing[a-z_]*` is deprecated:FutureWarning"
)
@pytest.mark.parametrize(
    ("name", "teacher_dir", "book", "count", "alone"),
    [
        ("docs/handbook.md", "教师目录", "课本.txt", 3, 1),
        ("docs/handbook.en.md", "teacher_dir", "book.txt", 3, 1),
        ("CONTRIBUTING.md", "t", "b", 1, 1),
    ],
)
def test_the_python_of_a_page_runs(
    name: str,
    teacher_dir: str,
    book: str,
    count: int,
    alone: int,
    teacher: Any,
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(teacher, tokenizer, teacher_dir)
    Path(book).write_text("人工智能是全球最大的网络。\n医疗教育经济文化\n" * 8, encoding="utf-8")
    found = blocks(name)
    assert len(found) == count
    names, ran_alone = run_each_with_its_own_imports(found, MODELS_AND_TEXT)
    assert ran_alone == alone
    if "handbook" in name:
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
    names, ran_alone = run_each_with_its_own_imports(found, MADE_BEFORE)
    assert ran_alone == 6, "the quick start, settings, situations, topics, the complete example, looking again"
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


def test_the_page_on_many_machines_says_the_same_in_both_languages_and_its_commands_are_taken() -> None:
    from apt_model.cli import make_parser

    english, chinese = ((HOME / f"docs/many-machines{ending}").read_text("utf-8") for ending in (".md", ".zh.md"))
    blocks_of = [re.findall(r"^```\w+\n.*?^```", page, flags=re.MULTILINE | re.DOTALL) for page in (english, chinese)]
    assert blocks_of[0] == blocks_of[1]
    assert len(blocks_of[0]) > 6
    numbers = [re.findall(r"\d\.\d\d", page) for page in (english, chinese)]
    assert numbers[0] == numbers[1]
    (words,) = set(re.findall(r'^ARGS="(.+ runs/big)"$', english, flags=re.MULTILINE))
    lines = re.findall(r"(?:^apt-model|-m apt_model) (.+)$", english, flags=re.MULTILINE)
    lines = [line.replace("$ARGS", words).strip('"') for line in lines if "/models/" not in line]
    assert len(lines) == 7
    for line in lines:
        make_parser().parse_args(line.split())


def test_every_command_of_the_pages_is_one_that_there_is() -> None:
    from apt_model.cli import make_parser

    guide = "docs/visual-distillation-guide"
    pages = {"docs/handbook": 4, guide: 2, "README": 4, "docs/lesson-plan": 8}
    for name, count in ((f"{page}{end}.md", count) for page, count in pages.items() for end in ("", ".en")):
        lines = re.findall(r"^apt-model (.+)$", (HOME / name).read_text("utf-8"), flags=re.MULTILINE)
        assert len(lines) == count, name
        for line in lines:
            make_parser().parse_args([word.strip('"') for word in line.split()])


def test_every_link_inside_the_docs_leads_somewhere() -> None:
    pages = [*HOME.glob("*.md"), *(HOME / "docs").rglob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8"))]
    assert len(links) > 5
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []


def test_every_anchor_in_the_docs_is_a_heading() -> None:
    def anchors(page: Path) -> set[str]:
        heads = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), flags=re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}

    pages = [*HOME.glob("*.md"), *(HOME / "docs").rglob("*.md")]
    links = [
        (page, *link) for page in pages for link in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text("utf-8"))
    ]
    assert len(links) > 20
    broken = [(page.name, to, one) for page, to, one in links if one not in anchors(page.parent / to if to else page)]
    assert broken == []


def test_the_one_way_in_is_the_package_itself() -> None:
    sources = [(page, page.read_text("utf-8")) for page in [*HOME.glob("*.md"), *(HOME / "docs").rglob("*.md")]]
    sources += [(path, path.read_text("utf-8")) for path in (HOME / "examples").glob("*.py")]
    for path in (HOME / "examples").glob("*.ipynb"):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        sources.append((path, "\n".join("".join(cell["source"]) for cell in cells)))
    found = [
        (path.name, line) for path, text in sources for line in re.findall(r"^.*\bapt_model\b.*$", text, re.MULTILINE)
    ]
    imports = [(name, line) for name, line in found if re.match(r"\s*(from|import) apt_model", line)]
    assert {name for name, _ in imports} >= {"handbook.md", "CONTRIBUTING.md", "tutorial.ipynb"}
    assert [one for one in imports if not re.match(r"from apt_model import |import apt_model$", one[1])] == []


@pytest.mark.parametrize("page", ["docs/design.md", "CONTRIBUTING.md", *DECISIONS])
def test_every_place_in_the_code_that_a_page_names_is_there(page: str) -> None:
    pattern = r"`([\w./]+\.(?:py|js|css|toml|txt))(?::(\w+))?`"
    places = re.findall(pattern, (HOME / page).read_text("utf-8"))
    assert places, "a page of why and where names its places"
    for path, name in places:
        (found,) = [file for file in (HOME / "apt_model" / path, HOME / path) if file.is_file()] or [None]
        assert found is not None, f"{page}: {path}"
        assert re.search(rf"\b{name}\b", found.read_text("utf-8")), f"{page}: {path}:{name}"


def test_a_checkpoint_holds_what_the_design_says(
    student: Any, teacher: Any, tokenizer: Any, make_batches: Any, tmp_path: Path
) -> None:
    config = {"hidden_weight": 1.0, "max_steps": 1, "show_samples": False}
    plugin = apt_model.VisualDistillationPlugin(config)
    plugin.visual_distill_model(student, teacher, make_batches(), tokenizer=tokenizer, device="cpu", run_dir=tmp_path)
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    state = json.loads((checkpoint / "state.json").read_text("utf-8"))
    design = (HOME / "docs/design.md").read_text("utf-8")
    files, keys = (
        dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", table, flags=re.MULTILINE))
        for table in re.findall(r"^\| (?:file|key of `state.json`) \|.*\n\|[-|]+\n((?:\|.*\n)+)", design, re.MULTILINE)
    )
    assert files.keys() == {path.name for path in checkpoint.iterdir()}
    assert keys.keys() == state.keys()
    assert set(re.findall(r"`(\w+)`", keys["others"])) == state["others"].keys() | {"scaler"}


def test_the_index_of_decisions_lists_each_of_them() -> None:
    listed = re.findall(r"^- \[.+\]\((.+)\)$", (HOME / "docs/decisions/README.md").read_text("utf-8"), re.MULTILINE)
    assert len(listed) == 8
    assert {f"docs/decisions/{name}" for name in listed} >= set(DECISIONS)
