"""Table of an evaluation: metrics with their intervals, the models side by side. Knows nothing of models."""

from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from apt_model.events.evaluation import ANSWERS, INFERENCE, TEXT, figure
from apt_model.i18n import Phrases
from apt_model.render.language import spoken_language
from apt_model.render.sanitise import fit_encoding
from apt_model.render.sentences import NO_NUMBER
from apt_model.render.terminal import make_console

WIDEST, NARROWEST = {1: 78, 2: 78, 3: 108}, 24  # columns, by number of models
ROOMY = {1: 0, 2: 68, 3: 100}  # from this width on, models stand side by side

OTHERS = ("teacher", "control")

Group = Sequence[tuple[Text, Sequence[Text]]]  # a label, and a cell for each model


def show_evaluation(results: Mapping[str, Any], *, lang: str = "zh", file: IO[str] | None = None) -> None:
    """Print the results of `evaluate_text_quality`, or those read from its JSON file.

    Args:
        results: metrics by name; those of a teacher under `teacher`, those of a control under `control`.
        lang: zh, en, or a locale file.
        file: where to print; standard output where None.
    """
    console = make_console(file)
    widest = WIDEST[1 + sum(role in results for role in OTHERS)]
    columns = max(NARROWEST, min(widest, console.width - 1))
    for piece in evaluation_table(results, spoken_language(lang, console.encoding), columns, console.encoding):
        console.print(piece, crop=False, soft_wrap=False)


def evaluation_table(
    results: Mapping[str, Any], say: Phrases, columns: int, encoding: str = "utf-8"
) -> Iterator[RenderableType]:
    """The title, the table, and a line that explains its intervals."""

    def line(key: str, style: str = "", **values: object) -> Text:
        return Text(fit_encoding(say(f"evaluation.{key}", **values), encoding), style=style)

    others = {role: results[role] for role in OTHERS if role in results}
    models = {**others, "student": results} if others else {"model": results}
    yield Text()
    yield line("title", style="bold")
    yield line("documents", **{key: f"{results[key]:,}" for key in ("documents", "tokens")})
    if "answers" in results:
        yield line("answers", answers=f"{results['answers']:,}")
    names = [line(name) for name in models]
    groups = [
        [(line(key), [_cell(key, numbers, encoding) for numbers in models.values()]) for key in group if key in results]
        for group in (TEXT, ANSWERS, INFERENCE)
    ]
    yield Text()
    yield _table(names, groups, columns) if columns >= ROOMY[len(models)] else _list(names, groups)
    yield Text()
    if results.get("intervals"):
        yield line("intervals", style="dim")


def _cell(key: str, numbers: Mapping[str, Any], encoding: str) -> Text:
    """A metric and its interval; a dash if there is none, as for the teacher's KL to itself."""
    value, interval = numbers.get(key), numbers.get("intervals", {}).get(key)
    if value is None:
        return Text(fit_encoding(NO_NUMBER, encoding))
    if interval is None or None in interval:
        return Text(figure(key, value))
    low, high = (figure(key, end) for end in interval)
    return Text.assemble(figure(key, value), "  ", (f"[{low}, {high}]", "dim"))


def _table(names: Sequence[Text], groups: Sequence[Group], columns: int) -> Table:
    """A row per metric, a column per model, a gap between groups."""
    table = Table(box=box.SIMPLE_HEAD, width=columns, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("", overflow="fold")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for group in groups:
        for label, cells in group:
            table.add_row(label, *cells)
        table.add_section()
    return table


def _list(names: Sequence[Text], groups: Sequence[Group]) -> Text:
    """A line per metric and one per model, for terminals too narrow for columns."""
    widest = max(name.cell_len for name in names)
    lines: list[Text] = []
    for group in filter(None, groups):
        lines += [Text()] if lines else []
        for label, cells in group:
            lines.append(Text.assemble(label, style="bold"))
            for name, cell in zip(names, cells, strict=True):
                lines.append(Text.assemble("  ", name, " " * (widest - name.cell_len + 2), cell))
    return Text("\n").join(lines)
