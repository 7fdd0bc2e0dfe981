"""The tree of both READMEs is the tree on the disk: nothing missing, nothing that is not there."""

import re
from pathlib import Path, PurePosixPath

import pytest

HOME = Path(__file__).parent.parent
READMES = ("README.md", "README.en.md")


def tree_of(text: str) -> dict[str, str]:
    """Each path of a page's tree, folders with a slash at the end, and what is said of it."""
    (block,) = re.findall(r"^```\n(apt_model/\n.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    found: dict[str, str] = {}
    above: list[str] = []
    for line in block.splitlines():
        indent, name, said = re.fullmatch(r"((?:  )*)(\S+)(?: {2,}(\S.*))?", line).groups()  # type: ignore[union-attr]
        above = [*above[: len(indent) // 2], name]
        found["".join(above)] = said or ""
    return found


def within(tree: dict[str, str], folder: str) -> set[str]:
    return {path for path in tree if path.startswith(folder) and path != folder}


def is_package(folder: Path) -> bool:
    return (folder / "__init__.py").is_file()


def test_a_page_without_a_tree_fails() -> None:
    with pytest.raises(ValueError, match="unpack"):
        tree_of("# no tree\n\n```\nelsewhere/\n```\n")


@pytest.mark.parametrize("page", READMES)
def test_the_tree_shows_every_package_and_every_command(page: str) -> None:
    tree = tree_of((HOME / page).read_text("utf-8"))
    packages = {
        f"{path.relative_to(HOME).as_posix()}/" for path in (HOME / "apt_model").rglob("*/") if is_package(path)
    }
    commands = {path.relative_to(HOME).as_posix() for path in (HOME / "apt_model/commands").glob("[!_]*.py")}
    assert len(packages) > 20
    assert len(commands) > 10
    assert {path for path in within(tree, "apt_model/") if path.endswith("/")} == packages
    assert within(tree, "apt_model/commands/") == commands
    assert [path for path in within(tree, "apt_model/") if not (HOME / path).exists()] == []
    assert [path for path, said in tree.items() if not said] == ["apt_model/"], "a word on each"


@pytest.mark.skipif(not (HOME / "studies").is_dir(), reason="benchmarks/ is not divided yet")
@pytest.mark.parametrize("page", READMES)
def test_the_tree_shows_what_stands_beside_the_package(page: str) -> None:
    tree = tree_of((HOME / page).read_text("utf-8"))
    ours = {"benchmarks", "docs", "examples", "scripts", "studies", "tests"}
    assert {path for path in tree if PurePosixPath(path).parts[0] != "apt_model"} == {
        *(f"{name}/" for name in ours),
        *(f"benchmarks/{path.name}/" for path in (HOME / "benchmarks").iterdir() if is_package(path)),
        "tests/acceptance/",
        "docs/decisions/",
    }
    assert [path for path in tree if not (HOME / path).exists()] == []


def test_both_pages_show_the_same_tree() -> None:
    one, two = (list(tree_of((HOME / page).read_text("utf-8"))) for page in READMES)
    assert one == two
