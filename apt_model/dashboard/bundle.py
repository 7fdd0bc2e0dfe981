"""Bundles the page's ES modules into one script: imported modules first, `import` and `export` removed.

Supports the syntax that our own modules use: `import {a, b} from "./x.js"` on one line, `export` before `function`,
`async function`, `const`, `let` or `class`, top-level names unique over all modules. Refuses anything else.
"""

import re
from collections.abc import Mapping

_IMPORT = re.compile(r'^import \{[\w ,$]*\} from "\./([\w-]+\.js)";?[ \t]*$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|let|class)\b)", re.MULTILINE)
_NAME = re.compile(r"^(?:export )?(?:async )?(?:function\*?|const|let|class) ([\w$]+)", re.MULTILINE)
_LEFT = re.compile(r"^\s*(?:import|export)\b.*$|\bimport\s*\(", re.MULTILINE)


def bundle(modules: Mapping[str, str], entry: str) -> str:
    """One classic script of a module and all its imports.

    Args:
        modules: sources by file name.
        entry: the module that starts the page.

    Raises:
        ValueError: a missing module, a circular import, unsupported syntax, or a name used in two modules.
    """
    names: dict[str, str] = {}
    parts, order = [], []  # type: list[str], list[str]
    _sort(modules, entry, (), order)
    for name in order:
        source = _EXPORT.sub("", _IMPORT.sub("", modules[name]))
        if left := _LEFT.search(source):
            raise ValueError(f"{name}: syntax that the bundle does not support: {left[0].strip()}")
        for one in _NAME.findall(modules[name]):
            if one in names:
                raise ValueError(f"{name}: {one} is also a name in {names[one]}")
            names[one] = name
        parts.append(f"// {name}\n{source.strip()}\n")
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "})();\n"


def _sort(modules: Mapping[str, str], name: str, path: tuple[str, ...], order: list[str]) -> None:
    """Append a module after those that it imports."""
    if name not in modules or name in path:
        raise ValueError(f"{path[-1] if path else 'the page'}: cannot import {name}")
    if name in order:
        return
    for other in _IMPORT.findall(modules[name]):
        _sort(modules, other, (*path, name), order)
    order.append(name)
