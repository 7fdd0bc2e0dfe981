"""A model directory before anybody reads it as one: files within it that name no code and no other place.

Knows names and JSON; knows nothing of what the settings mean. Looks only at files that transformers reads. A hub's
cache is a directory of links into its `blobs`, which is the only place outside that they may lead to.
"""

import json
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import constants, try_to_load_from_cache

from apt_model.errors import ModelError, brief

CONFIG, INDEX, WEIGHTS = "config.json", "model.safetensors.index.json", "model.safetensors"
GENERATION, TOKENIZER_CONFIG, TOKENIZER = "generation_config.json", "tokenizer_config.json", "tokenizer.json"
OBJECTS = (CONFIG, GENERATION, TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json", INDEX,
           "adapter_config.json")  # fmt: skip
READ = re.compile(  # names of files that transformers reads, besides those that an index names
    r"(?!\.)((.*config|tokenizer\b.*|special_tokens_map|added_tokens|.*vocab.*|chat_template|.*\.index|normalizer|emoji"
    r"|word_(shape|pronunciation)|byte_maps)\.json|(vocab|merges|dict)\.txt|(model|adapter_model)\.safetensors"
    r"|.*\.(jinja|model|spm|tokenizer|tiktoken|codes))"
)
TEMPLATES = "additional_chat_templates"
CODE = {
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "_experts_implementation",
}  # settings that can name code on a hub
PACKAGES = {
    "flash_attention_2": "flash_attn",
    "flash_attention_3": "flash_attn_interface",
    "flash_attention_4": "flash_attn",
}  # without its package transformers takes a kernel of the hub


def check_directory(directory: Path) -> None:
    """Refuse a directory with a file that leads elsewhere or is none, is not the JSON it should be, or names code.

    Raises:
        ModelError: names the file.
    """
    for path in sorted([*directory.iterdir(), *directory.glob(f"{TEMPLATES}/*.jinja")]):
        if READ.fullmatch(path.name):
            _refuse_elsewhere(directory, path)
    found = {name: directory / name for name in OBJECTS if (directory / name).exists()}
    objects = {name: _checked_object(path, str(directory)) for name, path in found.items()}
    names = _weight_files(objects[INDEX]) if INDEX in objects else []
    explicit = objects.get(CONFIG, {}).get("transformers_weights")
    if explicit is not None and not (isinstance(explicit, str) and explicit.endswith(".safetensors")):
        got = f"transformers_weights={brief(explicit)}"
        raise damaged(str(directory), CONFIG, got, "the name of a safetensors file")
    for name in [*names, *([] if explicit is None else [explicit])]:
        _refuse_elsewhere(directory, directory / name)


def check_hub_model(name: str) -> None:
    """`check_directory` for what the cache holds of a model on the hub: asks nobody, call it once its config is there.

    Raises:
        ModelError: names the file.
    """
    for file in OBJECTS:
        found = try_to_load_from_cache(name, file)
        if isinstance(found, str):
            _checked_object(Path(found), name)


def _checked_object(path: Path, model: str) -> dict[str, Any]:
    value = read_object(path, model)
    if path.name == INDEX:
        _weight_files(value, model)
    refuse_named_code(value, path.name, model)
    return value


def read_object(path: Path, model: str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ModelError: it cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(model, path.name, " ".join(str(error).split())[:200], "JSON in UTF-8") from error
    if not isinstance(value, dict):
        raise damaged(model, path.name, brief(value), "a JSON object")
    return value


def damaged(model: str, file: str, got: str, expected: str, fix: str | None = None) -> ModelError:
    """The error of a model of which one file is not what it should be."""
    return ModelError(f"model {model} cannot be loaded: {file}", got=got, expected=expected, fix=fix)


def _refuse_elsewhere(directory: Path, path: Path) -> None:
    """Refuse a file that is outside of its model directory, or no file."""
    name = str(path.relative_to(directory)) if path.is_relative_to(directory) else str(path)
    try:
        root, real = directory.resolve(), path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a link to itself, a NUL
        raise damaged(str(directory), name, str(error), "a file of the model directory") from error
    if not real.is_relative_to(root) and not _is_blob(real, root):
        fix = "copy the file into the directory"
        raise damaged(str(directory), name, f"it leads to {brief(str(real))}", "a file of the model directory", fix)
    if path.is_symlink() and not path.exists():
        raise damaged(str(directory), name, f"a link to {brief(str(real))}, which is not there", "a file")
    if not path.is_file():
        got = "no regular file" if path.exists() else "it is not there"
        raise damaged(str(directory), name, got, "a file")


def _is_blob(real: Path, root: Path) -> bool:
    """Whether a file is one of a hub's cache: of the one that the model is in, or of the user's own."""
    cache = Path(constants.HF_HUB_CACHE).resolve()  # older versions of huggingface_hub linked into it from elsewhere
    if real.is_relative_to(cache) and real.relative_to(cache).parts[1:2] == ("blobs",):
        return True
    is_cache = root.parent.name == "snapshots"  # MODEL/snapshots/REVISION/config.json -> ../../blobs/HASH
    return is_cache and real.is_relative_to((root.parent.parent / "blobs").resolve())


def _weight_files(index: Mapping[str, Any], model: str = "") -> list[str]:
    """The names of files in an index of weights, which only lead to safetensors beside it."""
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise damaged(model, INDEX, brief(places), "weight_map, from names of tensors to names of files")
    names = sorted(set(map(str, places.values())))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors") or "\0" in name:
            raise damaged(model, INDEX, brief(name), "names of safetensors files in the same directory")
    return names


def refuse_named_code(value: Any, file: str, model: str) -> None:
    """Refuse settings that name attention or expert code other than what transformers itself holds.

    Raises:
        ModelError: names file and setting.
    """
    for key, named in values_of(value):
        if isinstance(named, str) and not CODE.isdisjoint(key.split(".")) and named not in (known := _built_in()):
            fix = f"delete {key} from {file}"
            raise damaged(model, file, f"{key}={brief(named)}", f"one of {', '.join(sorted(known))}", fix)


def _built_in() -> set[str]:
    """Attention and experts' code that transformers holds itself, or finds in a package that is installed."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    missing = {name for name, package in PACKAGES.items() if find_spec(package) is None}
    return {"eager", *ALL_ATTENTION_FUNCTIONS, *ALL_EXPERTS_FUNCTIONS} - missing


def values_of(value: Any) -> Iterator[tuple[str, Any]]:
    """All numbers, strings and nulls in a JSON value, each with the keys that lead to it, joined by dots."""
    left: list[tuple[str, Any]] = [("", value)]
    while left:
        keys, one = left.pop()
        if isinstance(one, dict):
            left += [(f"{keys}.{key}".removeprefix("."), inner) for key, inner in one.items()]
        elif isinstance(one, list):
            left += [(keys, inner) for inner in one]
        else:
            yield keys, one
