"""Recipes: each is whole, each is a lesson, and `distill --recipe` takes it."""

from pathlib import Path

import pytest
from wcwidth import wcswidth

from apt_model.cli import main, make_parser
from apt_model.commands.options import read_settings
from apt_model.commands.recipes import all_recipes, find_recipe
from apt_model.config import LessonConfig
from apt_model.distill.students.fresh import parse_student
from apt_model.errors import ConfigError


@pytest.mark.parametrize("name", list(all_recipes()))
@pytest.mark.parametrize("lang", ["zh", "en"])
def test_a_recipe_says_what_it_is_for_what_to_set_and_what_it_gave(
    name: str, lang: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = find_recipe(name)
    assert LessonConfig.from_dict(dict(recipe.settings)).to_dict().items() >= dict(recipe.settings).items()
    assert main(["recipes", name, "--lang", lang]) == 0
    shown = capsys.readouterr().out
    assert getattr(recipe, lang).replace(" ", "") in "".join(shown.split())
    assert "the teacher" in shown
    assert all(f"{key} = {value}" in shown for key, value in recipe.settings.items())


def test_all_of_them_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    names = [line.partition(": ")[0] for line in capsys.readouterr().out.splitlines() if ": " in line]
    assert names[:-1] == ["chat", "fresh", "layers", "little", "much"]


def test_a_recipe_gives_way_to_a_file_and_both_to_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = dict(find_recipe("much").settings)
    (tmp_path / "own.toml").write_text("learning_rate = 2e-4\nwarmup_ratio = 0.2\n", "utf-8")
    fixed = ["distill", "--teacher", "t", "--student", "s", "--data", "d", "--out", "o", "--recipe", "much"]
    arguments = make_parser().parse_args([*fixed, "--config", str(tmp_path / "own.toml"), "--warmup-ratio", "0.3"])
    train = read_settings(arguments, **recipe).train
    assert (train.learning_rate, train.warmup_ratio) == (2e-4, 0.3)
    assert read_settings(make_parser().parse_args(fixed), **recipe).distill.temperature == recipe["temperature"]


def test_a_recipe_nobody_knows_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean little"):
        find_recipe("litle")


def test_the_students_of_recipes_can_be_described() -> None:
    assert parse_student("hidden=384,mlp=960,init=teacher,method=rotate") is not None
    assert parse_student("layers=4,init=teacher,rank=angle") is not None


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("name", list(all_recipes()))
def test_a_recipes_own_row_alone_is_marked_and_no_line_is_wider_than_the_terminal(
    name: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from apt_model.render import terminal

    monkeypatch.setattr(terminal, "PIPED_COLUMNS", columns)
    assert main(["recipes", name, "--lang", "en"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(wcswidth, lines[:-1])) < columns, "the last is a command to copy"
    marked = [index for index, line in enumerate(lines) if line.startswith("▶") and "marks the row" not in line]
    assert len(marked) == 1
    wrapped = [line[2:18].strip() for line in lines[marked[0] :]]
    assert " ".join(wrapped).startswith(find_recipe(name).row.split(",")[0][:12])
    measured = {row.split("|")[1].strip() for row in find_recipe(name).measured.splitlines() if row.startswith("|")}
    assert find_recipe(name).row in measured
