"""The floors of the house: nothing on a lower floor knows a higher one."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import apt_model

HOME = Path(apt_model.__file__).parent
EVERYWHERE = {"errors", "config", "i18n"}  # any room may import these
BESIDE_DISTILL = {"models", "data", "storage", "events", "ranks"}
LOSSES, TEACHERS, STUDENTS, CHECKPOINTS = (
    f"distill/{name}" for name in ("losses", "teachers", "students", "checkpoints")
)
DISTILL = {"distill", LOSSES, TEACHERS, STUDENTS, CHECKPOINTS} | BESIDE_DISTILL
SHOWN = {"teaching", "render", "dashboard", "review", "events"}

# Who may import whom, from the ground up; a folder's own files, and EVERYWHERE, are free. docs/design.md tells what
# each room is about.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "i18n": {"config", "locales"},
    "config": {"recipes"},
    "locales": set(),
    "recipes": set(),
    "faults": set(),
    "storage": {"faults"},
    "ranks": {"faults"},
    "data": {"ranks"},
    "events": {"faults"},
    "models": {"data", "events", "ranks"},
    LOSSES: {"models", "data"},
    TEACHERS: {LOSSES} | BESIDE_DISTILL,
    STUDENTS: {LOSSES, "models", "data"},
    CHECKPOINTS: BESIDE_DISTILL,
    "distill": DISTILL - {"distill"},
    "doctor": DISTILL,
    "generation": {LOSSES, "models", "data", "events", "ranks"},
    "teaching": {"events"},
    "render": {"events"},
    "dashboard": {"render", "events"},
    "review": {"dashboard", "render", "events"},
    "training": {"models"},
    "plugins": DISTILL | SHOWN - {"dashboard"} | {"doctor", "generation", "training"},
    "integrations": DISTILL | SHOWN - {"dashboard"} | {"doctor", "generation", "plugins"},
    "demo": DISTILL | {"plugins"},
    "commands": DISTILL | SHOWN | {"doctor", "generation", "plugins", "demo", "recipes"},
    "cli": {"commands", "render", ""},
    "__main__": {"cli", "commands"},
}
# Which rooms import a library; every other room does without.
IMPORTED_BY: dict[str, set[str]] = {
    "accelerate": {"models", "distill", "plugins", "commands"},
    "transformers": {"models", TEACHERS, STUDENTS, "distill", "integrations", "demo"},
    "datasets": {"data"},
    "rich": {"render"},
    "starlette": {"dashboard"},
    "httpx2": {TEACHERS},
}
WITHOUT_TORCH = EVERYWHERE | {"locales", "recipes", "faults"} | SHOWN
HEAVY = {"torch", "transformers", "accelerate", "datasets", "numpy"}
PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
LAZY_ROOT = HOME / "__init__.py"  # names its children in a table, imports them on use
Arrows = dict[tuple[str, str], list[str]]


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a module, by the parts of its name below the package: `distill/` has rooms of its own."""
    return next((room for room in ("/".join(parts[:2]), *parts[:1]) if room in MAY_IMPORT), "")


def imports_of(source: str) -> set[str]:
    """Every module that a source imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            lazy = node.module == "apt_model"  # its children are named behind it
            found |= {f"apt_model.{alias.name}" for alias in node.names} if lazy else {node.module or ""}
    return found


def modules() -> dict[tuple[str, ...], Path]:
    """Every module but the lazy root, by the parts of its name below the package."""
    found = {path.relative_to(HOME).with_suffix("").parts: path for path in HOME.rglob("*.py") if path != LAZY_ROOT}
    return {parts[:-1] if parts[-1] == "__init__" else parts: path for parts, path in found.items()}


def arrows(sources: dict[tuple[str, ...], str]) -> Arrows:
    """From which room to which other room imports lead, and which modules make them."""
    found: Arrows = {}
    for parts, source in sources.items():
        for name in imports_of(source):
            package, *rest = name.split(".")
            there = room_of(tuple(rest))
            if package == "apt_model" and there != room_of(parts):
                found.setdefault((room_of(parts), there), []).append(f"{'.'.join(parts)} imports {name}")
    return found


def broken_rules(sources: dict[tuple[str, ...], str]) -> list[str]:
    """Imports that the table does not allow, rooms that import each other, and torch where nothing may load it."""
    found = arrows(sources)
    rules = []
    for (here, there), who in found.items():
        allowed = MAY_IMPORT[here] | ({"errors"} if here in EVERYWHERE else EVERYWHERE)
        rules += who if there not in allowed else []
        rules += [f"{here} and {there} import each other"] if here < there and (there, here) in found else []
    for parts, source in sources.items():
        if room_of(parts) in WITHOUT_TORCH:
            rules += [f"{'.'.join(parts)} imports {name}" for name in imports_of(source) if name.split(".")[0] in HEAVY]
    return rules


def sources() -> dict[tuple[str, ...], str]:
    return {parts: path.read_text("utf-8") for parts, path in modules().items()}


def importers(sources: dict[tuple[str, ...], str]) -> dict[str, set[str]]:
    """The rooms that import each library of IMPORTED_BY."""
    found: dict[str, set[str]] = {library: set() for library in IMPORTED_BY}
    for parts, source in sources.items():
        for library in {name.partition(".")[0] for name in imports_of(source)} & found.keys():
            found[library].add(room_of(parts))
    return found


def test_a_library_is_imported_by_the_rooms_of_its_row_and_by_no_other() -> None:
    assert importers(sources()) == IMPORTED_BY
    planted = {("render", "card"): "def f():\n    from accelerate.utils import set_seed\nimport rich.text"}
    assert importers(planted) == {**{name: set() for name in IMPORTED_BY}, "accelerate": {"render"}, "rich": {"render"}}


def rows_of_design(first: str) -> dict[str, set[str]]:
    """A table of docs/design.md, by its first heading: the first cell of each row, and the names in the last."""
    text = (HOME.parent / "docs/design.md").read_text("utf-8")
    (table,) = re.findall(rf"^\| {first} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {re.findall(r"`([^`]+)`", one[0])[0]: set(re.findall(r"`([^`]+)`", one[-1])) for one in cells}


def test_the_tables_of_the_design_are_these() -> None:
    rooms = {room: allowed - {""} for room, allowed in MAY_IMPORT.items() if room not in EVERYWHERE}
    assert rows_of_design("room") == rooms
    assert rows_of_design("library") == IMPORTED_BY


def test_every_import_is_in_the_table_and_there_are_imports_to_check() -> None:
    read = sources()
    assert sum(len(imports_of(source)) for source in read.values()) > 1000
    assert len(arrows(read)) > 60
    assert {room_of(parts) for parts in read} == set(MAY_IMPORT), "each room has its row, each row its room"
    assert broken_rules(read) == []


def test_the_table_itself_has_no_circle() -> None:
    order = TopologicalSorter({room: allowed - {""} for room, allowed in MAY_IMPORT.items()}).static_order()
    assert len(list(order)) == len(MAY_IMPORT)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("events.records", "from apt_model.teaching.scorer import LessonScorer"),
        ("distill.losses.fused", "def f():\n    import apt_model.distill.teachers.live"),
        ("distill.losses.fused", "from apt_model.distill.run import TrainingRun"),
        ("models.forward", "from apt_model.distill.losses import fused"),
        ("data.batch", "from apt_model.models.forward import Forward"),
        ("render.card", "import torch"),
        ("teaching.scorer", "from transformers import AutoModel"),
        ("plugins.session", "import apt_model.dashboard.server"),
        ("plugins.session", "from apt_model.integrations import VisualDistillationCallback"),
    ],
)
def test_a_planted_upward_import_is_found(module: str, source: str) -> None:
    assert broken_rules({tuple(module.split(".")): source})


def test_rooms_that_import_each_other_are_found() -> None:
    one = {("review", "run"): "import apt_model.dashboard.report", ("dashboard", "app"): "import apt_model.review.run"}
    assert "dashboard and review import each other" in broken_rules(one)


def test_trl_and_peft_are_for_those_who_have_them() -> None:
    found = {parts: {name.partition(".")[0] for name in imports_of(source)} for parts, source in sources().items()}
    assert "transformers" in found["models", "pretrained"]
    assert [parts for parts, imported in found.items() if "trl" in imported] == []
    assert [parts for parts, imported in found.items() if "peft" in imported] == [("models", "lora")]
    code = "import apt_model.models.lora, sys; print('peft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize(
    "module",
    ["apt_model", "apt_model.cli", "apt_model.render.watch", "apt_model.review.run", "apt_model.teaching.scorer"],
)
def test_what_shows_a_lesson_loads_without_torch(module: str) -> None:
    code = f"import {module}, sys; print([name for name in {sorted(HEAVY)} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def unpicklers(source: str) -> set[str]:
    """Whatever in a source could unpickle something: modules imported, functions called."""
    tree = ast.parse(source)
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = {name for name in called if name in ("torch.load", "np.load", "numpy.load") or name.endswith(".load_state")}
    return names | {one for one in imports_of(source) if one.partition(".")[0] in PICKLERS}


def test_nothing_of_ours_can_unpickle_anything() -> None:
    assert unpicklers("import pickle\ntorch.load('x')\nfrom joblib import load") == {"pickle", "torch.load", "joblib"}
    assert {parts: found for parts, source in sources().items() if (found := unpicklers(source))} == {}


def test_every_public_name_can_be_had() -> None:
    for name in apt_model.__all__:
        assert getattr(apt_model, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = apt_model.nothing


def class_homes(sources: dict[tuple[str, ...], str]) -> dict[str, list[str]]:
    """In which modules each class name is defined; a leading underscore makes no other name."""
    found: dict[str, list[str]] = {}
    for parts, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name.lstrip("_"), []).append(".".join(parts))
    return found


def test_a_class_name_means_one_thing() -> None:
    planted = {("one",): "class Run: ...", ("two",): "def f():\n    class _Run: ..."}
    assert class_homes(planted) == {"Run": ["one", "two"]}
    homes = class_homes(sources())
    assert len(homes) > 150
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def copied_constants(source: str) -> list[str]:
    """Lines on laziness or its light in which one of their constants, 0.6 and 0.4 or 30 and 60 percent, is written."""
    about = re.compile(r"lazi|lazy|similar|kl|light|bound|green|yellow|learned|偷懒", re.IGNORECASE)
    number = re.compile(r"(?<![\w.#])(?:0?\.[346]0?|[346]0 ?%|[36]0, ?[36]0)(?![\w.])|at-[36]0")
    return [line.strip() for line in source.splitlines() if about.search(line) and number.search(line)]


def test_the_constants_of_laziness_are_written_once() -> None:
    was = ["0.6 * (1 - card.similarity)", "0.4 * kl", ".bound.at-30 {", "[0, 30, 60, 100]  # light", "LEARNED = 0.3"]
    assert copied_constants("\n".join(["wide = 0.6 * apart", *was])) == was
    kinds = {".py", ".js", ".css", ".html", ".toml"}
    texts = {
        path.relative_to(HOME).as_posix(): path.read_text("utf-8")
        for path in HOME.rglob("*")
        if path.suffix in kinds
        and "vendor" not in path.parts
        and path.name
        not in ("sections.py", "story_words.js")  # remarks have their own; examples are computed by a test
    }
    assert {name.rpartition(".")[2] for name in texts} >= {"py", "js", "css", "toml"}
    found = {name: lines for name, source in texts.items() if (lines := copied_constants(source))}
    assert found.keys() == {"events/laziness.py"}, found


def test_no_file_of_ours_is_longer_than_it_should_be() -> None:
    lines = {parts: len(source.splitlines()) for parts, source in sources().items()}
    assert {parts: count for parts, count in lines.items() if count > 310} == {}


BY_PLACE = {  # where whatever is raised is caught, and why no list of types would do
    "cli": "a bug of ours is one line",
    "events.sinks": "a display that fails ends no training",
    "data.sources": "libraries raise any type over a damaged data file, even a Rust panic",
    "dashboard.aside": "what a thread raises is handed to the one that waits",
    "data.template_run": "a chat template is a program that came with a model",
    "models.reading": "libraries raise any type over a damaged model, even a Rust panic",
    "models.pretrained": "weights that are filled into a module of the user's",
    "distill.teachers.cache.store": "each package behind fsspec raises its own types over a store that fails",
    "models.generation_settings": "settings that came with a model are compared and written",
}


def catchers(source: str) -> bool:
    """Whether a source catches everything: a bare `except`, `Exception` or `BaseException`, alone or among others.

    What is raised again after something was closed is not caught.
    """
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ExceptHandler)]
    handlers = [node.type for node in nodes if not (isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None)]
    names = {one.id for kind in handlers if kind is not None for one in ast.walk(kind) if isinstance(one, ast.Name)}
    return None in handlers or not names.isdisjoint({"Exception", "BaseException"})


def test_everything_is_caught_only_where_there_is_a_reason() -> None:
    planted = ["except Exception:", "except (OSError, BaseException):", "except:", "except OSError:"]
    assert [catchers(f"try:\n    f()\n{one}\n    pass") for one in planted] == [True, True, True, False]
    assert {".".join(parts) for parts, source in sources().items() if catchers(source)} == BY_PLACE.keys()
