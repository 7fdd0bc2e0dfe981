"""What can be run with `python -m` outside the package imports, tells of itself, is in a README and is really run."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]
FOLDERS = ("benchmarks", "studies", "tests/acceptance")
SMOKE = [HOME / "tests" / name for name in ("benchmarks/test_smoke.py", "studies/test_smoke.py")]
SMOKE.append(HOME / "tests/acceptance/test_matrix.py")
MAY_IMPORT = {
    "benchmarks": set[str](),
    "benchmarks.step": {"benchmarks"},
    "benchmarks.micro": {"benchmarks", "benchmarks.step"},
    "studies": {"benchmarks.markdown"},
}


def sources(folder: str) -> dict[str, str]:
    """Sources by the names of their modules."""
    files = {path: path.relative_to(HOME).with_suffix("").parts for path in sorted((HOME / folder).rglob("*.py"))}
    return {".".join(parts): path.read_text("utf-8") for path, parts in files.items()}


ALL = {name: text for folder in FOLDERS for name, text in sources(folder).items()}
ENTRY_POINTS = [name for name, text in ALL.items() if '__name__ == "__main__"' in text]


def spoken(module: str) -> str:
    """As it is named behind `python -m`."""
    return module.removesuffix(".__main__")


def test_there_are_entry_points() -> None:
    assert len(ENTRY_POINTS) > 15


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_an_entry_point_says_what_it_does_and_how_it_is_called(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(name)
    with pytest.raises(SystemExit) as stop:
        module.main(["--help"])
    assert stop.value.code == 0
    told, first = capsys.readouterr().out, (inspect.getdoc(module) or "").splitlines()[0]
    assert first in told
    assert f"python -m {spoken(name)}" in told


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_an_entry_point_has_a_line_in_the_readme_of_its_folder_and_is_run_by_a_smoke_test(name: str) -> None:
    folder = next(folder for folder in FOLDERS if name.startswith(folder.replace("/", ".")))
    lines = (HOME / folder / "README.md").read_text("utf-8").splitlines()
    assert len([line for line in lines if line.startswith(f"| `{spoken(name)}` |")]) == 1
    smoke = "".join(path.read_text("utf-8") for path in SMOKE)
    assert f" {spoken(name).rpartition('.')[2]}.main([" in smoke


def folder_of(module: str) -> str:
    return next(folder for folder in sorted(MAY_IMPORT, reverse=True) if f"{module}.".startswith(f"{folder}."))


def test_a_folder_imports_only_what_stands_before_it() -> None:
    seen = 0
    for module, source in {**sources("benchmarks"), **sources("studies")}.items():
        here = folder_of(module)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(("benchmarks", "studies")):
                seen += 1
                there = {node.module, folder_of(node.module)}
                assert there & (MAY_IMPORT[here] | {here}), f"{module} imports {node.module}"
    assert seen > 40
