"""Sources of data: a file, a folder, a saved dataset or a name on the hub, and the split of it that is asked for.

Knows sources, splits and columns; knows nothing of tokens.
"""

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub.constants import HF_HUB_CACHE

from apt_model.data.choice import ColumnChoice
from apt_model.data.exact_json import ExactJson
from apt_model.data.folders import splits_of
from apt_model.data.intact import refuse_cut
from apt_model.data.json_text import parse_json
from apt_model.data.notices import Tell
from apt_model.data.opening import opened
from apt_model.data.readers import ending_of, is_of_text, may_be_empty
from apt_model.data.stored import cache_home, stored, streamed, tell_unused
from apt_model.data.structure import at_row
from apt_model.errors import AptModelError, DataError, StorageError, is_of_library, reason_of

SAVED = ("state.json", "dataset_dict.json")  # one of them is in a directory that `save_to_disk` wrote
LONGEST_LOOK = 2**16  # bytes of a text's first line
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
Rows = Any  # datasets.Dataset or datasets.IterableDataset: the package has no types
Splits = Mapping[str, Callable[[], Rows]]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How rows are to be read: which split, which columns under our names, as a stream or not, who is told."""

    split: str
    columns: Mapping[str, str]
    streaming: bool
    tell: Tell


@contextmanager
def readable(what: str, fix: str | None = None) -> Iterator[None]:
    """Context manager: whatever the reading libraries raise becomes one `DataError`, "`what` cannot be read".

    By place, not by type: a damaged file makes them raise any, even a Rust panic, which is no `Exception`. What is
    about a full disk or a cache that cannot be written becomes a `StorageError` that names it. What no library raises
    passes: interrupts, exits, whatever belongs to the caller.
    """
    try:
        yield
    except AptModelError:
        raise
    except MemoryError as error:
        fix = fix or "split its lines or its rows, or free some memory"
        raise DataError(f"{what} cannot be read", got="more than there is memory for", fix=fix) from error
    except BaseException as error:
        if not is_of_library(error):
            raise
        if _is_of_cache(_root(error)):
            space = "free some space, or set HF_HOME to a directory that can be written"
            raise StorageError("data cannot be cached", got=reason_of(_root(error)), fix=space) from error
        raise DataError(f"{what} cannot be read", got=reason_of(_root(error)), fix=fix) from error


def read(source: str | Path, asked: Asked) -> Iterator[Rows]:
    """The rows of a source, with the columns that take part; nothing where it is empty."""
    path = Path(source)
    if not str(source).strip():
        raise DataError("a name of data is empty", got=repr(str(source)), fix="name a file, a folder or a data set")
    with readable(f"data {source}"):
        if path.is_file():
            rows = _of_split({"train": partial(_from_files, [path], path, asked)}, path, asked)
        elif any((path / name).exists() for name in SAVED):
            rows = _of_split(_saved(path, asked), path, asked)
        elif path.is_dir():
            splits = splits_of(path, asked.tell)
            readers = {split: partial(_from_files, files, path, asked) for split, files in splits.items()}
            rows = _of_split(readers, path, asked)
        elif path.suffix or len(path.parts) > 2 or path.is_absolute():
            if path.exists():
                fix = "save what it gives as a file, and name that"
                raise DataError(f"{source} is no file, but a pipe, a socket or a device", fix=fix)
            raise DataError(f"there is no file {source}", fix=_why_missing(str(source)))
        else:
            rows = _of_hub(str(source), asked)
        if rows is not None:
            yield rows


def _why_missing(source: str) -> str:
    if "://" in source:
        return "download it first"
    if source.startswith("~"):
        return "write the home directory out: the shell replaces ~ only where a word begins with it"
    return "leave the quotes out, so that the shell finds the files" if set(source) & set("*?") else "check the path"


def _of_hub(source: str, asked: Asked) -> Rows:
    name, _, config = source.partition(":")
    how = {"split": asked.split, "streaming": asked.streaming, "cache_dir": str(cache_home(asked.tell))}
    fix = "no file or folder here has this name: check it, or, of a data set of the hub, the connection"
    with readable(f"data {source}", fix):
        return _learnable(datasets.load_dataset(name, config or None, **how), source, asked)


def _of_split(splits: Splits, path: Path, asked: Asked) -> Rows:
    """The rows of the split that is asked for: one of them, a part of one, or a sum of these."""
    if asked.split in splits:
        rows, used = splits[asked.split](), {asked.split}
    else:
        lengths = _Lengths(splits, asked)
        try:
            parts = datasets.ReadInstruction.from_spec(asked.split).to_absolute(lengths)
        except AptModelError:
            raise
        except ValueError as error:
            fix = "leave --split out: a file has no other" if path.is_file() else None
            raise DataError(f"{path} has no split {asked.split!r}", expected=", ".join(splits), fix=fix) from error
        filled = [part for part in parts if part.from_ < part.to]
        if not filled:
            got = ", ".join(f"{len(some or ())} rows of {name}" for name, some in lengths.rows.items())
            raise DataError(f"{path} has no rows at {asked.split}", got=got, fix="check the slice of --split")
        some = [lengths.rows[part.splitname].select(range(part.from_, part.to)) for part in filled]
        rows, used = datasets.concatenate_datasets(alike(some)), {part.splitname for part in parts}
    if others := [split for split in splits if split not in used]:
        asked.tell("splits_unused", name=str(path), split=asked.split, others=", ".join(others))
    return rows


def alike(parts: Sequence[Rows]) -> list[Rows]:
    """The parts, with a column as JSON in all of them if it is so in one."""
    names = {name for part in parts for name, kind in (part.features or {}).items() if isinstance(kind, ExactJson)}
    return [_as_json(part, names) for part in parts]


def _as_json(part: Rows, names: Iterable[str]) -> Rows:
    for name in names:
        if name in columns_of(part) and not isinstance(part.features[name], ExactJson):
            part = part.cast_column(name, ExactJson())
    return part


class _Lengths(dict[str, int]):
    """Rows of each split, which is read when its length is asked for; a stream has none."""

    def __init__(self, splits: Splits, asked: Asked) -> None:
        super().__init__(dict.fromkeys(splits, 0))
        self._splits, self._asked = splits, asked
        self.rows: dict[str, Rows] = {}

    def __getitem__(self, split: str) -> int:
        if self._asked.streaming:
            fix = "name one split, or read without --streaming"
            raise DataError("a stream has no part of a split, nor a sum of them", got=self._asked.split, fix=fix)
        self.rows[split] = self.rows[split] if split in self.rows else self._splits[split]()
        return len(self.rows[split] or ())


def _from_files(files: Sequence[Path], path: Path, asked: Asked) -> Rows:
    read = streamed if asked.streaming else stored
    for file in files:
        if is_of_text(ending_of(file)) and (other := _other_format(file)):
            asked.tell("text_of_other_format", name=str(file), ending=other)
    filled = [file for file in files if file.stat().st_size or not may_be_empty(file)]
    return read(filled, asked.columns, str(path), asked.tell)


def _other_format(file: Path) -> str:
    """The ending of the format that a text file seems to have: JSON in its first line, or that ending before `.txt`."""
    with opened(file) as lines, suppress(ValueError):
        if isinstance(parse_json(lines.readline(LONGEST_LOOK).decode()), dict):
            return ".jsonl"
    return next((one for one in (".csv", ".tsv") if one in map(str.lower, file.suffixes)), "")


def _saved(path: Path, asked: Asked) -> Splits:
    loaded = datasets.load_from_disk(str(path))
    splits = loaded if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
    for file in {Path(one["filename"]) for some in splits.values() for one in some.cache_files}:
        with file.open("rb") as content:
            refuse_cut(content, file)

    def rows(split: str) -> Rows:
        chosen = _learnable(splits[split], str(path), asked)
        return chosen.to_iterable_dataset() if asked.streaming else chosen

    return {split: partial(rows, split) for split in splits}


def _learnable(rows: Rows, name: str, asked: Asked) -> Rows:
    """The rows with only the columns to train on, under the names that `encode_rows` knows; None without a row."""
    choice = ColumnChoice(asked.columns)
    columns = columns_of(rows)
    if not columns or (hasattr(rows, "__len__") and not len(rows)):
        return None
    try:
        pairs = choice.pairs(columns)
        choice.refuse_missing()
    except DataError as error:
        raise at_row(error, name) from error
    tell_unused(choice.unused, name, asked.tell)
    renamed = {theirs: ours for ours, theirs in pairs.items() if ours != theirs}
    return rows.select_columns(list(pairs.values())).rename_columns(renamed)


def columns_of(rows: Rows) -> list[str]:
    """Column names; read from the first row if a stream does not know them yet."""
    return list(rows.column_names or next(iter(rows), {}))


def _is_of_cache(error: BaseException) -> bool:
    """Whether an exception is about a place where data is kept, and not about the data."""
    if not isinstance(error, OSError):
        return False
    kept = {str(place) for place in (datasets.config.HF_CACHE_HOME, datasets.config.HF_DATASETS_CACHE, HF_HUB_CACHE)}
    return error.errno in NO_ROOM or any(str(error.filename).startswith(place) for place in kept)


def _root(error: BaseException) -> BaseException:
    """The first cause; of an exception in another process that is a text of its traceback, which says nothing new."""
    while error.__cause__ is not None and type(error.__cause__).__name__ != "RemoteTraceback":
        error = error.__cause__
    return error
