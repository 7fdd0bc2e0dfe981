"""Measure the package's structure: folders, imports between them, functions, signatures; a column for each checkout.

    python scripts/house_figures.py [CHECKOUT ...]     # this one unless told

Reads the sources of `apt_model` by ast and imports nothing of it, so that any checkout can be measured. A room is a
folder that directly holds Python files. An import counts wherever it stands, also inside a function or for type
checkers alone; those of `apt_model/__init__.py`, which loads its names lazily, do not. An entry of distill is a module
or a folder with Python files directly in it, without `__init__.py`; a folder is one entry, however deep. Entries that
import each other in a ring are one floor. A function has the lines from `def` to its end; nested ones are counted by
themselves too. Parameters are all but self and cls; *args and **kwargs are one each. Public are the front doors in
DOORS, and what `apt_model/__init__.py` names: functions, a class's `__init__` and those of its methods that have no
leading underscore. Complexity is McCabe's, of a function without those nested in it: 1, and 1 more for each if, elif,
ternary, for, while, except, `if` of a comprehension, case, and each `and` or `or` between two operands; `with`, `else`,
`assert` and the `for` of a comprehension add nothing.
"""

import argparse
import ast
import textwrap
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, zip_longest
from math import ceil
from pathlib import Path

PACKAGE, ROOM = "apt_model", "distill"
DOORS = {"visual_distill_model", "distill_model", "quick_visual_distill"}
MANY, COMPLEX, LONG = 8, 10, 300  # parameters, complexity, lines of a file: what is above is counted
WIDTH = 46  # of a column

FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case)


@dataclass(frozen=True, kw_only=True)
class Function:
    """A function as it stands in its module; `name` with the classes and functions around it."""

    module: str
    name: str
    lines: int
    parameters: int
    complexity: int
    is_public: bool

    @property
    def place(self) -> str:
        """Where it is, to be shown: module without the package's name, and name."""
        return f"{self.module.removeprefix(PACKAGE + '.')}:{self.name}"


@dataclass(frozen=True, kw_only=True)
class Module:
    """A source file of the package; `name` has dots, and a package's `__init__` has the package's own."""

    name: str
    path: Path  # below the checkout
    source: str
    tree: ast.Module

    @cached_property
    def lines(self) -> int:
        """Lines of the file."""
        return len(self.source.splitlines())

    @property
    def package(self) -> str:
        """The package that its relative imports start from."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


class House:
    """The package `apt_model` of a checkout.

    Raises:
        SystemExit: there is none.
    """

    def __init__(self, checkout: Path) -> None:
        paths = sorted((checkout / PACKAGE).rglob("*.py"))
        if not paths:
            raise SystemExit(f"error: {checkout} holds no {PACKAGE}/*.py. Fix: give the root of a checkout")
        self.modules = [_read(path, checkout) for path in paths]
        self.names = {module.name for module in self.modules}
        self.homes = _homes(next(module.tree for module in self.modules if module.name == PACKAGE))
        self.functions = [function for module in self.modules for function in _functions(module, self.homes)]

    @cached_property
    def arrows(self) -> set[tuple[str, str]]:
        """(importing module, imported module), both of the package."""
        return {
            (module.name, target)
            for module in self.modules
            if module.name != PACKAGE
            for name in _imported(module)
            if (target := self._resolved(name)) is not None and target != module.name
        }

    def _resolved(self, name: str) -> str | None:
        """The module that holds an imported name; one that the package loads lazily is at its home."""
        head, _, rest = name.partition(".")
        if head != PACKAGE:
            return None
        if rest in self.homes:
            return self.homes[rest]
        while name not in self.names:
            name = name.rpartition(".")[0]
        return name

    def folders_of_each_other(self) -> list[tuple[str, str]]:
        """Pairs of folders directly in the package that import each other."""
        folders = {module.name.split(".")[1] for module in self.modules if len(module.path.parts) > 2}
        between = {(_part(a, 1), _part(b, 1)) for a, b in self.arrows}
        return [(a, b) for a, b in combinations(sorted(folders), 2) if {(a, b), (b, a)} <= between]

    def room(self) -> tuple[set[str], set[tuple[str, str]]]:
        """The entries of distill, and the arrows between them."""
        inside = f"{PACKAGE}.{ROOM}."
        entries = {_part(module.name, 2) for module in self.modules if module.name.startswith(inside)}
        pairs = {(_part(a, 2), _part(b, 2)) for a, b in self.arrows if a.startswith(inside) and b.startswith(inside)}
        return entries, {(a, b) for a, b in pairs if a != b}

    def rooms(self) -> Counter[str]:
        """Lines of the Python files directly in each folder."""
        lines: Counter[str] = Counter()
        for module in self.modules:
            lines[module.path.parent.as_posix()] += module.lines
        return lines


def _read(path: Path, checkout: Path) -> Module:
    below, source = path.relative_to(checkout), path.read_text("utf-8")
    parts = below.with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name=name, path=below, source=source, tree=ast.parse(source, str(path)))


def _part(module: str, index: int) -> str:
    """The part of a dotted name that is at that index; empty where it has fewer."""
    return (module.split(".") + [""] * index)[index]


def _imported(module: Module) -> Iterator[str]:
    """Every name that a module imports, with where from: `a.b.c` for `from a.b import c`."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.package.split(".")[: len(module.package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*above, *filter(None, [node.module])])
            yield from (start if alias.name == "*" else f"{start}.{alias.name}" for alias in node.names)


def _homes(root: ast.Module) -> dict[str, str]:
    """The public names and the modules they come from, by the package's table and its imports."""
    homes: dict[str, str] = {}
    for node in ast.walk(root):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
            homes |= {alias.asname or alias.name: str(node.module) for alias in node.names}
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant):
                    homes[str(key.value)] = str(value.value)
    return homes


def _functions(module: Module, homes: Mapping[str, str]) -> Iterator[Function]:
    def below(node: ast.AST, around: tuple[ast.AST, ...]) -> Iterator[Function]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, FUNCTION):
                names = [str(getattr(one, "name", "")) for one in (*around, child)]
                first, last = names[0], names[-1]
                is_at_home = module.name == homes.get(first) or module.name.startswith(homes.get(first, "-") + ".")
                is_open = len(names) < 3 and (last == "__init__" or not last.startswith("_"))
                yield Function(
                    module=module.name,
                    name=".".join(names),
                    lines=(child.end_lineno or child.lineno) - child.lineno + 1,
                    parameters=_parameters(child.args),
                    complexity=1 + sum(map(_branches, _own_nodes(child))),
                    is_public=last in DOORS or (is_at_home and is_open),
                )
            named = isinstance(child, FUNCTION | ast.ClassDef)
            yield from below(child, (*around, child) if named else around)

    yield from below(module.tree, ())


def _parameters(arguments: ast.arguments) -> int:
    plain = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
    starred = [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
    return len(plain) - (plain[:1] in (["self"], ["cls"])) + len(arguments.kwonlyargs) + len(starred)


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function, without those of functions and classes in it."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, FUNCTION | ast.ClassDef):
            yield child
            yield from _own_nodes(child)


def _branches(node: ast.AST) -> int:
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    return len(node.ifs) if isinstance(node, ast.comprehension) else isinstance(node, BRANCHES)


def floors(entries: Collection[str], arrows: Collection[tuple[str, str]]) -> list[str]:
    """The longest chain of imports, the importing one first; a ring of entries is one link of it."""
    reach = {entry: {entry} for entry in entries}
    for _ in entries:
        for a, b in arrows:
            reach[a] |= reach[b]
    ring = {a: "+".join(sorted(b for b in reach[a] if a in reach[b])) for a in entries}
    longest: dict[str, list[str]] = {}
    for a in sorted(entries, key=lambda entry: (len(reach[entry]), entry)):  # who is imported, before who imports
        below = [longest[ring[b]] for b in sorted(reach[a]) if ring[b] in longest and ring[b] != ring[a]]
        longest[ring[a]] = [ring[a], *max(below, key=len, default=[])]
    return max(longest.values(), key=len, default=[])


def figures(house: House) -> dict[str, str]:
    """Every row of the table, by its name."""
    pairs, (entries, arrows), rooms = house.folders_of_each_other(), house.room(), house.rooms()
    chain, functions, all_lines = floors(entries, arrows), house.functions, rooms.total()
    (largest, lines), lengths = rooms.most_common(1)[0], sorted(function.lines for function in functions)
    within = [function for function in functions if not function.is_public]
    classes = Counter(n.name for m in house.modules for n in ast.walk(m.tree) if isinstance(n, ast.ClassDef))
    long_files = {m.path.relative_to(PACKAGE).as_posix(): m.lines for m in house.modules if m.lines > LONG}
    return {
        "folders that import each other": counted(f"{a}–{b}" for a, b in pairs),
        f"entries directly in {ROOM}": str(len(entries)),
        f"arrows between entries of {ROOM}": str(len(arrows)),
        f"floors of {ROOM}": f"{len(chain)}: {' → '.join(chain)}",
        "largest room": f"{lines / all_lines:.1%} ({largest}, {lines:,} of {all_lines:,} lines)",
        "function lines, p50": str(nearest_rank(lengths, 0.5)),
        "function lines, p90": str(nearest_rank(lengths, 0.9)),
        "longest function": most(functions, lambda function: function.lines),
        "longest signature": most(functions, lambda function: function.parameters),
        "longest signature not public": most(within, lambda function: function.parameters),
        f"signatures over {MANY} not public": counted(each(within, lambda function: function.parameters, MANY)),
        f"functions of complexity over {COMPLEX}": counted(each(functions, lambda one: one.complexity, COMPLEX)),
        "class names defined more than once": counted(f"{n} {times}" for n, times in classes.items() if times > 1),
        f"files over {LONG} lines": counted(f"{name} {many}" for name, many in long_files.items()),
        "functions": str(len(functions)),
        "modules": str(len(house.modules)),
        "lines": f"{all_lines:,}",
    }


def nearest_rank(ordered: Sequence[int], share: float) -> int:
    """The smallest value that at least this share of them does not exceed."""
    return ordered[ceil(share * len(ordered)) - 1]


def most(functions: Iterable[Function], size: Callable[[Function], int]) -> str:
    """The largest, and the names of all that are as large."""
    sizes = {function.place: size(function) for function in functions}
    top = max(sizes.values(), default=0)
    return f"{top}: {', '.join(place for place, one in sizes.items() if one == top)}"


def each(functions: Iterable[Function], size: Callable[[Function], int], above: int) -> list[str]:
    """Those above a size, the largest first."""
    found = sorted(((size(function), function.place) for function in functions), key=lambda one: (-one[0], one[1]))
    return [f"{place} {one}" for one, place in found if one > above]


def counted(names: Iterable[str]) -> str:
    """How many there are, and which."""
    every = list(names)
    return f"{len(every)}: {', '.join(every)}" if every else "0"


def table(columns: Sequence[tuple[str, Mapping[str, str]]]) -> str:
    """The rows below the names of the checkouts; a cell goes on in the next line where it is long."""
    rows = [["", *(name for name, _ in columns)]]
    rows += [[name, *(column[name] for _, column in columns)] for name in columns[0][1]]
    label = max(len(row[0]) for row in rows)
    lines = []
    for row in rows:
        cells = [textwrap.wrap(cell, WIDTH, break_on_hyphens=False) or [""] for cell in row]
        for parts in zip_longest(*cells, fillvalue=""):
            lines.append("  ".join([parts[0].ljust(label), *(part.ljust(WIDTH) for part in parts[1:])]).rstrip())
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[Path(__file__).parent.parent], metavar="CHECKOUT")
    print(table([(str(checkout), figures(House(checkout))) for checkout in parser.parse_args().checkouts]))


if __name__ == "__main__":
    main()
