"""Tell whether a function can keep anything from one call to the next. Knows code objects; knows nothing of data.

On the safe side: what cannot be told keeps something.
"""

import builtins
import dis
import re
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from apt_model.data.holdings import closure_of

DEPTH = 6  # of functions that name functions
HOMES = ("apt_model", "datasets")  # their functions keep nothing that shapes a row
WITHOUT_STATE = {
    "re",
    "json",
    "math",
    "string",
    "unicodedata",
    "html",
    "textwrap",
    "itertools",
    "functools",
    "operator",
}
SETTING = {"STORE_GLOBAL", "DELETE_GLOBAL", "STORE_ATTR", "DELETE_ATTR"}
BY_ANOTHER_WAY = {"input", "eval", "exec", "globals", "vars", "setattr", "delattr", "__import__"}


def is_memoryless(value: Any, depth: int = DEPTH) -> bool:
    """Whether a function, called again with the same arguments, must give the same: nothing it names can change.

    A function of `datasets` or ours, a tokenizer; one whose closure, defaults and globals are constants, modules that
    have no state, and such functions.
    """
    if isinstance(value, partial):
        bound = (*value.args, *value.keywords.values())
        is_kept = is_setting if _is_at_home(value.func) else is_constant
        return is_memoryless(value.func, depth) and all(map(is_kept, bound))
    if _is_at_home(value):
        return True
    if not isinstance(value, FunctionType):
        return _is_tokenizer(value)
    if depth == 0 or any(_changes_something(code) for code in _codes(value.__code__)):
        return False
    held = [*closure_of(value).values(), *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    names = {name for code in _codes(value.__code__) for name in code.co_names}
    named = [value.__globals__[name] for name in names if name in value.__globals__]
    if names & BY_ANOTHER_WAY or vars(value):
        return False
    return all(one is value or is_constant(one, depth - 1) for one in (*held, *named))


def is_constant(value: Any, depth: int = DEPTH) -> bool:
    """Whether a value cannot change, nor what it gives when it is called."""
    if value is None or isinstance(value, bool | int | float | str | bytes | range | re.Pattern):
        return True
    if isinstance(value, tuple | frozenset):
        return all(is_constant(one, depth) for one in value)
    if isinstance(value, ModuleType):
        return value.__name__ in WITHOUT_STATE
    if isinstance(value, BuiltinFunctionType | type):
        return value.__module__ == builtins.__name__
    return is_memoryless(value, depth)


def _is_at_home(value: Any) -> bool:
    home = getattr(value, "__module__", None)
    return isinstance(home, str) and home.partition(".")[0] in HOMES


def is_setting(value: Any) -> bool:
    """Whether a value is a constant, or a list or dictionary of them that nobody changes."""
    if isinstance(value, list):
        return all(map(is_setting, value))
    return all(map(is_setting, value.values())) if isinstance(value, dict) else is_constant(value)


def _is_tokenizer(value: Any) -> bool:
    return any(kind.__name__ == "PreTrainedTokenizerBase" for kind in type(value).__mro__)


def _codes(code: CodeType) -> list[CodeType]:
    """A function's code, and those of the functions within it."""
    return [code, *(inner for one in code.co_consts if isinstance(one, CodeType) for inner in _codes(one))]


def _changes_something(code: CodeType) -> bool:
    """Whether a code sets what lives longer than its call, or imports a module that has a state."""
    for one in dis.get_instructions(code):
        is_import = one.opname == "IMPORT_NAME" and one.argval not in WITHOUT_STATE
        is_outer = one.opname == "STORE_DEREF" and one.argval in code.co_freevars
        if one.opname in SETTING or is_import or is_outer:
            return True
    return False
