"""`apt-model recipes`: named settings with measured results, for `distill --recipe NAME`."""

import argparse
import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from apt_model.commands.console import print_line, program, speaker
from apt_model.commands.options import add_command
from apt_model.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe: settings and the measurements behind them; a TOML file in `apt_model.recipes`.

    Attributes:
        name: of the file.
        zh, en: what it is for, in a sentence.
        student: the `--student` description that it was measured with.
        measured: the table of measurements, in Markdown.
        row: the table's row that was measured with these settings.
        settings: flat keys of `LessonConfig`.
    """

    name: str
    zh: str
    en: str
    student: str
    measured: str
    row: str
    settings: Mapping[str, Any]


def all_recipes() -> dict[str, Recipe]:
    """Every recipe by name."""
    found = {}
    for file in sorted(files("apt_model.recipes").iterdir(), key=lambda file: file.name):
        name, _, ending = file.name.rpartition(".")
        if ending == "toml":
            values = tomllib.loads(file.read_text("utf-8"))
            table = files("apt_model.recipes").joinpath(values["measured"]).read_text("utf-8")
            found[name] = Recipe(name=name, **values | {"measured": table})
    return found


def find_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ConfigError: there is none.
    """
    known = all_recipes()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        fix = f"did you mean {close[0]}?" if close else "see apt-model recipes"
        raise ConfigError("there is no such recipe", got=name[:100], expected=", ".join(known), fix=fix)
    return known[name]


def add(commands: Any) -> None:
    """Add the parser."""
    recipes = add_command(commands, "recipes", _recipes, "list named settings with measured results, or show one")
    recipes.add_argument(
        "name", nargs="?", metavar="NAME", help="show the settings and measurements of this recipe (default: list all)"
    )
    recipes.add_argument("--lang", default="zh", help="language of the output: zh or en (default: zh)")


def _recipes(arguments: argparse.Namespace) -> None:
    from apt_model.render.measured import Printer

    say = speaker(arguments.lang)
    language = "en" if arguments.lang == "en" else "zh"
    show = Printer()
    if arguments.name is None:
        for name, recipe in all_recipes().items():
            show.text(f"{name}: {getattr(recipe, language)}")
        print_line(say("recipes.more", command=f"{program()} recipes NAME"))
        return
    recipe = find_recipe(arguments.name)
    show.text(getattr(recipe, language))
    for key, value in recipe.settings.items():
        show.text(f"  {key} = {value}")
    show.text(say("recipes.student", student=recipe.student))
    show.text(say("recipes.measured"))
    left_out = show.table(recipe.measured, marked=recipe.row)
    show.text(say("recipes.row"))
    if left_out:
        show.text(say("recipes.columns", columns=say("evaluation.joint").join(left_out)))
    print_line(say("recipes.use", command=f"{program()} distill --recipe {recipe.name} …"))
