"""Finds where `apt_model` uses another library's private or undocumented parts, by the syntax trees of its files.

A use is a pair (file, name). Private: a name with an underscore in front that no line of ours defines, as an attribute,
an import, or a string such as `getattr` takes. Undocumented: an import from deep inside a package, or a value put on
another library's object, unless it stands below as documented.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

PRIVATE = re.compile(r"_[a-zA-Z]\w*")
PYTHONS_OWN = {"_replace", "_asdict", "_fields", "_exit", "_repr_png_"}  # documented: named tuples, os, notebooks
DUNDERS = {
    "__name__",
    "__dict__",
    "__mro__",
    "__cause__",
    "__init__",
    "__iter__",
    "__version__",
    "__call__",
    "__module__",
    "__qualname__",
    "__self__",  # of methods; of functions, the next five
    "__code__",
    "__closure__",
    "__globals__",
    "__defaults__",
    "__kwdefaults__",
    "__unraisablehook__",
}
DOCUMENTED_MODULES = {
    "importlib.resources.abc",
    "torch.distributed.device_mesh",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "torch.nn.functional",
    "torch.nn.parallel",
    "torch.nn.utils.rnn",
    "torch.optim.lr_scheduler",
    "torch.utils.checkpoint",
    "torch.utils.data",
}
DOCUMENTED_STORES = {
    *("training", "grad"),  # torch: of modules, of parameters
    *("generation_config", "quantization_config", "base_model_name_or_path"),  # transformers, peft
    *("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim"),  # of configs
    *("word_embed_proj_dim", "mamba_d_ssm", "per_layer_config", "tie_word_embeddings"),
    *("maxstring", "maxlong", "maxother"),  # reprlib
    "redirect_slashes",  # starlette's router
    "unraisablehook",  # sys
    "cell_contents",  # python: of a closure's cells
    "help",  # argparse: of an action
}
MEANT_TO_BE_SET = {"self", "cls", "ctx", "arguments"}  # autograd's context and argparse's namespace among them
UNDOCUMENTED = {"mkldnn", "ALL_ATTENTION_FUNCTIONS"}  # used as no manual describes it, whatever their names
OVERRIDDEN = {"uvicorn.Server"}  # classes of which we override what no manual says may be


@dataclass(frozen=True, kw_only=True)
class Canary:
    """Watches one part of a library for the file of ours that uses it.

    Attributes:
        library: the name it is installed by.
        promise: what we rely on, as the end of "the library ...".
        file: of ours, relative to the package.
        names: the uses in it.
        check: fails where the promise is broken; gets an empty directory.
    """

    library: str
    promise: str
    file: str
    names: tuple[str, ...]
    check: Callable[[Path], object]

    def listen(self, directory: Path) -> None:
        """Check; a failure says which version of what broke which file."""
        try:
            self.check(directory)
        except Exception as error:  # noqa: BLE001 - whatever it is, the upgrade has caused it
            try:
                installed = version(self.library)
            except PackageNotFoundError:
                installed = "(not installed)"
            pytest.fail(
                f"{self.library} {installed} no longer {self.promise}: apt_model/{self.file} relies on it "
                f"({', '.join(self.names)}). {type(error).__name__}: {error}"
            )


def foreign_uses(package: Path) -> set[tuple[str, str]]:
    """Every (file, name), the file relative to the package."""
    trees = {file.relative_to(package).as_posix(): ast.parse(file.read_text("utf-8")) for file in package.rglob("*.py")}
    ours = {name for tree in trees.values() for name in _defined(tree)}
    fields = {name for tree in trees.values() for name in _fields(tree)}
    return {(file, name) for file, tree in trees.items() for name in _foreign(tree, ours, set(_defined(tree)), fields)}


def _defined(tree: ast.AST) -> Iterator[str]:
    """Names that a file of ours defines."""
    yield from _fields(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _fields(tree: ast.AST) -> Iterator[str]:
    """Names of our own objects' attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from (line.target.id for line in node.body if isinstance(line, ast.AnnAssign))
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _root(node) in ("self", "cls"):
            yield node.attr


def _foreign(tree: ast.AST, ours: set[str], here: set[str], fields: set[str]) -> Iterator[str]:
    in_formats = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("apt_model"):
            yield from _imported(node)
        elif isinstance(node, ast.Attribute):
            known = ours if _root(node) in ("self", "cls") else here
            if _is_private(node.attr) and node.attr not in known:
                yield node.attr
            elif isinstance(node.ctx, ast.Store | ast.Del) and _root(node) not in MEANT_TO_BE_SET:
                if node.attr not in fields | DOCUMENTED_STORES | PYTHONS_OWN:
                    yield node.attr
            elif node.attr in UNDOCUMENTED:
                yield node.attr
        elif isinstance(node, ast.ClassDef):
            yield from OVERRIDDEN & {ast.unparse(base) for base in node.bases}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in in_formats:
            yield from {node.value} & set(PRIVATE.findall(node.value)) - ours


def _imported(node: ast.ImportFrom) -> Iterator[str]:
    module = node.module or ""
    is_deep = module.count(".") >= 2 and module not in DOCUMENTED_MODULES
    private = [part for part in module.split(".") if _is_private(part)]
    yield from private
    for alias in node.names:
        if _is_private(alias.name) or alias.name in UNDOCUMENTED or (is_deep and not private):
            yield alias.name


def _is_private(name: str) -> bool:
    if name.startswith("__"):
        return name not in DUNDERS
    return PRIVATE.fullmatch(name) is not None and name not in PYTHONS_OWN


def _root(node: ast.AST) -> str:
    """`a` of `a.b[0].c()`."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""
