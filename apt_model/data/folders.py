"""Folders: which of their files are data, and of which split, as `datasets` sees it.

Knows names of files; knows nothing of what they hold.
"""

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from glob import has_magic
from pathlib import Path
from typing import Any

from datasets.data_files import EmptyDatasetError, get_data_patterns, resolve_pattern, sanitize_patterns
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard

from apt_model.data.notices import Tell
from apt_model.data.readers import ENDINGS, ending_of, is_of_text
from apt_model.errors import DataError

CARD = "README.md"
LARGEST_CARD = 2**22  # bytes
NO_DATA = (CARD, "LICENSE", "dataset_infos.json", "dataset_info.json", "dataset_dict.json", "config.json", "state.json")
BESIDE = re.compile(  # told of, where they are no files of NO_DATA
    r"(readme|licen[sc]e|copying|notice|authors|changelog|contributing|citation|code_of_conduct)\b|requirements.*\.txt$",
    re.IGNORECASE,
)
SHARD = re.compile(r"(.*?)(\d{5})-of-(\d{5})(\D.*)?$")


def splits_of(folder: Path, tell: Tell) -> dict[str, list[Path]]:
    """The data files of a folder by split; all are "train" where no name tells a split.

    Files of another kind are told of once; hidden ones, and those that stand beside data everywhere, are left out.

    Raises:
        DataError: there is no data file, or the folder's card describes something that is not read here.
    """
    files = _files_of(folder)
    data = _data_among(files)
    with tempfile.TemporaryDirectory() as twin:  # `datasets` takes brackets and colons in a path for patterns
        for name in data:
            Path(twin, name).parent.mkdir(parents=True, exist_ok=True)
            Path(twin, name).touch()
        if (folder / CARD).is_file():
            Path(twin, CARD).write_bytes(_card(folder / CARD))
        found = _resolved(twin, folder) if data else {}
    splits = {split: [data[name] for name in names if name in data] for split, names in found.items()}
    splits = {split: some for split, some in splits.items() if some}
    if not splits:
        raise DataError(f"folder {folder} holds no data file", expected=f"files that end in {', '.join(ENDINGS)}")
    _tell_others(folder, [name for name in files if name not in data], tell)
    _tell_missing_shards(folder, list(data), tell)
    return splits


def _files_of(folder: Path) -> dict[Path, Path]:
    """All files below a folder by their names there; of folders that are linked to, each once.

    Raises:
        DataError: a link named as data leads nowhere, or a folder cannot be read.
    """
    found: list[Path] = []
    seen: set[Path] = set()
    for here, inner, names in os.walk(folder, onerror=_refuse, followlinks=True):
        at = Path(here).resolve()
        inner[:] = [] if at in seen else inner
        found += [] if at in seen else [Path(here, name) for name in names]
        seen.add(at)
    for file in found:
        if not file.exists() and ending_of(file) and not _is_hidden(file.relative_to(folder)):
            got, fix = file.readlink(), "get the file that it points to, or remove the link"
            raise DataError(f"{file} is a link to a file that is not there", got=got, fix=fix)
    return {file.relative_to(folder): file for file in sorted(found)}


def _refuse(error: OSError) -> None:
    """A folder within that cannot be read: `os.walk` would leave out what is in it."""
    raise DataError(f"folder {error.filename} cannot be read", got=error.strerror, fix="make it readable, or move it")


def _data_among(files: Mapping[Path, Path]) -> dict[Path, Path]:
    """The files that are data: not what stands beside data, and no .md where there is something else."""
    some = {name: file for name, file in files.items() if ending_of(file) and file.is_file() and not _is_beside(name)}
    return {name: file for name, file in some.items() if name.suffix != ".md"} or some


def _is_beside(name: Path) -> bool:
    return name.name in NO_DATA or (is_of_text(ending_of(name)) and BESIDE.match(name.name) is not None)


def _is_hidden(name: Path) -> bool:
    return any(part.startswith((".", "__")) for part in name.parts)


def _card(card: Path) -> bytes:
    with card.open("rb") as file:
        content = file.read(LARGEST_CARD + 1)
    if len(content) > LARGEST_CARD:
        raise DataError(
            f"{card} is too large to be a card", got=f"more than {LARGEST_CARD:,} bytes", fix="move it away"
        )
    return content


def _resolved(twin: str, folder: Path) -> Mapping[str, Sequence[Path]]:
    """The names of the files of each split, in the order in which `datasets` reads them."""
    base = Path(twin).resolve()
    try:
        patterns = _patterns_of_card(base, folder) or get_data_patterns(base.as_posix())
    except EmptyDatasetError:
        return {}
    return {str(split): _matching(some, base, folder) for split, some in patterns.items()}


def _matching(patterns: Sequence[str], base: Path, folder: Path) -> list[Path]:
    """The names of the files that patterns match, each once."""
    names: dict[Path, None] = {}
    for pattern in patterns:
        try:
            names |= {Path(file).relative_to(base): None for file in resolve_pattern(pattern, base.as_posix())}
        except FileNotFoundError as error:
            if not has_magic(pattern):
                raise DataError(f"{folder / CARD} names a file that is not there", got=pattern) from error
    return list(names)


def _patterns_of_card(base: Path, folder: Path) -> Mapping[str, Any]:
    """The files that the folder's card names for each split; empty if it names none."""
    if not (base / CARD).is_file():
        return {}
    configs = MetadataConfigs.from_dataset_card_data(DatasetCard.load(base / CARD).data)
    if not configs:
        return {}
    default = configs.get_default_config_name() or (next(iter(configs)) if len(configs) == 1 else None)
    card = f"{folder / CARD}"
    if default is None:
        got, fix = ", ".join(configs), "name the files of one of them"
        raise DataError(f"{card} describes several data sets", got=got, expected="one, or a default", fix=fix)
    if set(configs[default]) - {"data_files", "default"}:
        got = ", ".join(sorted(set(configs[default]) - {"data_files", "default"}))
        raise DataError(
            f"{card} says how to read its files", got=got, expected="data_files alone", fix="name the files"
        )
    return sanitize_patterns(configs[default]["data_files"]) if "data_files" in configs[default] else {}


def _tell_others(folder: Path, names: Sequence[Path], tell: Tell) -> None:
    others = [
        str(name) for name in names if name.name not in NO_DATA and name.suffix != ".lock" and not _is_hidden(name)
    ]
    if others:
        listed = ", ".join(others[:5]) + (" …" if len(others) > 5 else "")
        tell("files_unused", folder=str(folder), count=len(others), files=listed)


def _tell_missing_shards(folder: Path, names: Sequence[Path], tell: Tell) -> None:
    """Tell where of the shards of a set, NAME-00000-of-00012, not all are there."""
    found: dict[tuple[str, str, int], set[int]] = {}
    for name in names:
        if shard := SHARD.match(str(name)):
            found.setdefault((shard[1], shard[4] or "", int(shard[3])), set()).add(int(shard[2]))
    for (before, after, count), there in found.items():
        if len(there) < count:
            missing = next(number for number in range(count + 1) if number not in there)
            first = f"{before}{missing:05d}-of-{count:05d}{after}"
            tell("shards_missing", folder=str(folder), count=count - len(there), all=count, first=first)
