"""The floors of the house: nothing on a lower floor knows a higher one."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import apt_model

HOME = Path(apt_model.__file__).parent
FLOOR_0 = {"", "errors", "config", "i18n", "locales", "recipes", "faults"}
MAY_IMPORT = dict.fromkeys(FLOOR_0, FLOOR_0)
MAY_IMPORT["events"] = FLOOR_0 | {"events"}
MAY_IMPORT["teaching"] = MAY_IMPORT["events"] | {"teaching"}
MAY_IMPORT |= dict.fromkeys(
    ("distill", "training", "generation"), MAY_IMPORT["events"] | {"distill", "training", "generation"}
)
MAY_IMPORT |= dict.fromkeys(("render", "dashboard"), MAY_IMPORT["events"] | {"render", "dashboard"})
MAY_IMPORT["review"] = MAY_IMPORT["render"] | {"review"}
ALL_BELOW = set(MAY_IMPORT) | {"plugins", "demo", "integrations"}
MAY_IMPORT |= dict.fromkeys(("plugins", "demo", "integrations"), ALL_BELOW - {"dashboard"})
MAY_IMPORT |= dict.fromkeys(("commands", "cli", "__main__"), ALL_BELOW | {"commands", "cli", "dashboard"})
WITHOUT_TORCH = FLOOR_0 | {"events", "teaching", "render", "dashboard", "review"}
HEAVY = {"torch", "transformers", "accelerate", "datasets", "numpy"}
PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
LAZY_ROOT = HOME / "__init__.py"  # names its children in a table, imports them on use


def imports_of(source: str) -> set[str]:
    """Every module that a source imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            found.add(node.module or "")
    return found


def broken_rules(package: str, source: str) -> list[str]:
    rules = []
    for name in imports_of(source):
        root, _, rest = name.partition(".")
        if root == "apt_model" and rest.partition(".")[0] not in MAY_IMPORT[package]:
            rules.append(f"{package} imports {name}")
        if root in HEAVY and package in WITHOUT_TORCH:
            rules.append(f"{package} imports {name}")
    return rules


def sources() -> list[tuple[str, Path]]:
    return [
        (path.relative_to(HOME).parts[0].removesuffix(".py"), path) for path in HOME.rglob("*.py") if path != LAZY_ROOT
    ]


def test_no_import_points_upwards_and_there_are_imports_to_check() -> None:
    checked = sum(len(imports_of(path.read_text("utf-8"))) for _, path in sources())
    assert checked > 100
    assert [rule for package, path in sources() for rule in broken_rules(package, path.read_text("utf-8"))] == []


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("events", "from apt_model.teaching.scorer import LessonScorer"),
        ("distill", "def f():\n    import apt_model.teaching"),
        ("render", "import torch"),
        ("teaching", "from transformers import AutoModel"),
        ("plugins", "import apt_model.dashboard.server"),
    ],
)
def test_a_planted_upward_import_is_found(package: str, source: str) -> None:
    assert broken_rules(package, source)


def test_trl_and_peft_are_for_those_who_have_them() -> None:
    found = {name.partition(".")[0] for _, path in sources() for name in imports_of(path.read_text("utf-8"))}
    assert "transformers" in found
    assert found.isdisjoint({"trl", "peft"})


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
    assert {path.name: found for _, path in sources() if (found := unpicklers(path.read_text("utf-8")))} == {}


def test_every_public_name_can_be_had() -> None:
    for name in apt_model.__all__:
        assert getattr(apt_model, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = apt_model.nothing


def test_no_file_of_ours_is_longer_than_it_should_be() -> None:
    assert {
        path.name: lines for _, path in sources() if (lines := len(path.read_text("utf-8").splitlines())) > 330
    } == {}
