"""Load training data with Hugging Face `datasets`: files, folders and hub names become rows with known columns.

Rows are cached on disk and memory-mapped, or streamed. Knows files and columns; knows nothing of models, losses or
lessons. `encode` turns rows into token ids, `batch` into batches.
"""

import lzma
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow
import torch
from torch.utils.data import DataLoader

from apt_model.data.encode import COLUMNS, encode_rows
from apt_model.data.encoded import VERSION, as_columns
from apt_model.data.packing import pack_rows
from apt_model.data.quiet import quiet_datasets
from apt_model.data.token_rows import POSITIONS
from apt_model.errors import AptModelError, ConfigError, DataError

_TEXT = ("text", {"encoding": "utf-8-sig", "features": datasets.Features({"text": datasets.Value("string")})})
FORMATS: Mapping[str, tuple[str, Mapping[str, Any]]] = {  # the builder of `datasets` for an ending, and its options
    ".txt": _TEXT,
    ".text": _TEXT,
    ".md": _TEXT,
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".parquet": ("parquet", {}),
}
SAVED = ("state.json", "dataset_dict.json")  # one of them is in a directory that `save_to_disk` wrote
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
WORTH_MORE_PROCESSES = 20_000  # rows; below that, starting processes takes longer than they save
SHUFFLE_BUFFER = 10_000
UNREADABLE = (  # exceptions that `datasets`, pandas, arrow and the decompressors have been seen to raise on bad files
    OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError, EOFError, MemoryError,
    zlib.error, lzma.LZMAError, pyarrow.ArrowException, datasets.exceptions.DatasetsError,
)  # fmt: skip

Source = str | Path
Rows = Any  # datasets.Dataset or datasets.IterableDataset: the package has no types


@quiet_datasets()
def load_dataset(
    source: Source | Sequence[Source],
    *,
    split: str = "train",
    text_column: str | None = None,
    streaming: bool = False,
) -> Rows:
    """Load rows of text, chats, or prompts with completions.

    A row has `text`, `messages` (a chat; ShareGPT's `conversations` become it), or `prompt` and `completion`; token
    ids (`input_ids`, `labels`) are taken as they are. A text file gives one row a line, stripped, empty lines left out.

    Args:
        source: a file (txt, jsonl, json, csv, tsv, parquet; may be compressed), several of them, a folder of them, a
            directory that `Dataset.save_to_disk` wrote, or the name of a dataset on the hub ("owner/name", or
            "owner/name:config").
        split: which split of a dataset that has several.
        text_column: the column that holds the text, if it is not called `text`.
        streaming: read while training goes on, for data that does not fit on this disk.

    Returns:
        A `datasets.Dataset`, or an `IterableDataset` if `streaming`.

    Raises:
        DataError: no such file or dataset, one that cannot be read, or rows without a known column.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    if not sources:
        raise DataError("no data was named", got="an empty list of files", fix="name at least one file or dataset")
    with readable("data " + ", ".join(map(str, sources))):
        return _load(sources, split, text_column, streaming)


def _load(sources: Sequence[Source], split: str, text_column: str | None, streaming: bool) -> Rows:
    read = chain.from_iterable(_read(one, split, streaming) for one in sources)
    parts = [_learnable(rows, text_column, name) for name, rows in read if _columns(rows)]
    kinds = sorted({" and ".join(sorted(_columns(part))) for part in parts})
    if len(kinds) > 1:
        seen = ", ".join(kinds)
        fix = "use files with the same columns"
        raise DataError("the files hold rows of different kinds", got=f"columns {seen}", fix=fix)
    if not any(list(islice(part, 1)) for part in parts):
        raise DataError("no text to learn from", got=f"0 rows in {', '.join(map(str, sources))}")
    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)


def split_dataset(rows: Rows, validation: float, *, seed: int = 0) -> tuple[Rows, Rows]:
    """Split rows into (training, validation); `validation` below 1 is a share of the rows, from 1 on a number of rows.

    Of a stream, whose length is not known, the first rows are taken for validation.

    Raises:
        ConfigError: a share of a stream, or no row left for one of the two.
    """
    if isinstance(rows, datasets.IterableDataset):
        if validation < 1 or validation != int(validation):
            raise ConfigError("validation cannot be a share of a stream", got=validation, expected="a number of rows")
        return rows.skip(int(validation)), rows.take(int(validation))
    count = int(validation) if validation >= 1 else round(validation * len(rows))
    if not 0 < count < len(rows):
        expected = f"a share below 1, or 1 to {len(rows) - 1} rows"
        raise ConfigError("validation leaves no row for one of the two sets", got=validation, expected=expected)
    halves = rows.train_test_split(test_size=count, seed=seed)
    return halves["train"], halves["test"]


@quiet_datasets()
def tokenize_dataset(
    rows: Rows, tokenizer: Any, *, max_length: int = 512, packing: bool = False, num_proc: int | None = None
) -> Rows:
    """Tokenize rows into `input_ids`, `labels` and, where they have their own, `position_ids`.

    In parallel; `datasets` caches the result on disk.

    Args:
        rows: as `load_dataset` returns them.
        tokenizer: a Hugging Face tokenizer.
        max_length: tokens of a row at most; a longer row is truncated, or with `packing` goes on in the next block.
        packing: put rows side by side into blocks of at most `max_length` tokens, which leaves little padding. Rows of
            a block do not see each other: their positions begin anew (`pack_rows`). Each thousand rows are packed
            together.
        num_proc: processes; None: one for each core from 20,000 rows on, else one.

    Raises:
        DataError: rows that cannot be encoded; says what was seen.
    """
    how: dict[str, Any] = {
        "batched": True,
        "fn_kwargs": {"tokenizer": tokenizer, "max_length": max_length, "packing": packing, "version": VERSION},
        "remove_columns": _columns(rows),
    }
    with readable("data to encode"):
        if isinstance(rows, datasets.IterableDataset):
            return rows.map(_tokenize, **how)
        if num_proc is None and len(rows) >= WORTH_MORE_PROCESSES:
            num_proc = os.cpu_count()
        return rows.map(_tokenize, num_proc=num_proc, **how)


def make_dataloader(rows: Rows, *, batch_size: int, shuffle: bool = True, seed: int = 0) -> DataLoader[Any]:
    """A DataLoader that yields lists of rows; `to_batch` encodes and pads them in the training loop.

    The order follows from `seed` alone, whatever else draws random numbers. A stream is shuffled within a buffer of
    10,000 rows.

    Raises:
        DataError: there is no row; or, while iterating over a stream, it cannot be read.
    """
    if isinstance(rows, datasets.IterableDataset):
        rows = rows.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER) if shuffle else rows
        shuffle = False
    elif not len(rows):
        raise DataError("no row has a token to learn from", got="0 rows", fix="check that the texts are not empty")
    generator = torch.Generator().manual_seed(seed)
    return _CheckedLoader(rows, batch_size=batch_size, shuffle=shuffle, collate_fn=list, generator=generator)


class _CheckedLoader(DataLoader[Any]):
    """A DataLoader that raises our error for a stream that turns out unreadable in the middle of an epoch."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        with readable("data"):
            yield from super().__iter__()


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Context manager: exceptions of the reading libraries become one `DataError`, "`what` cannot be read"."""
    try:
        yield
    except AptModelError:
        raise
    except UNREADABLE as error:
        fix = "convert it to UTF-8, e.g. with iconv" if isinstance(_root(error), UnicodeDecodeError) else None
        raise DataError(f"{what} cannot be read", got=_first_line(_root(error)), fix=fix) from error


def _read(source: Source, split: str, streaming: bool) -> Iterable[tuple[str, Rows]]:
    """The parts of a source as (name, rows), one part for each file format."""
    path = Path(source)
    with readable(f"data {source}"):
        if path.is_file():
            if path.stat().st_size:
                yield str(path), _from_files([path], _ending(path), streaming)
        elif any((path / name).exists() for name in SAVED):
            yield str(path), _from_disk(path, split, streaming)
        elif path.is_dir():
            for ending, files in _by_ending(path).items():
                yield str(path), _from_files(files, ending, streaming)
        elif path.suffix or len(path.parts) > 2 or path.is_absolute():
            raise DataError(f"there is no file {path}", fix="check the path")
        else:
            name, _, config = str(source).partition(":")
            yield str(source), datasets.load_dataset(name, config or None, split=split, streaming=streaming)


def _by_ending(folder: Path) -> dict[str, list[Path]]:
    """The data files below a folder that are not empty, sorted, by the ending that tells their format."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and _ending(file) in FORMATS and file.stat().st_size:
            found.setdefault(_ending(file), []).append(file)
    if not found:
        raise DataError(f"folder {folder} holds no data file", expected=f"files that end in {', '.join(FORMATS)}")
    return found


def _ending(file: Path) -> str:
    """The file extension that tells the format, without that of a compression: `.jsonl` of `chats.jsonl.gz`."""
    endings = [suffix for suffix in map(str.lower, file.suffixes) if suffix not in COMPRESSED]
    return endings[-1] if endings else ""


def _from_files(files: Sequence[Path], ending: str, streaming: bool) -> Rows:
    kind, options = FORMATS.get(ending, FORMATS[".txt"])
    if kind == "json":
        _refuse_null(files)
    names = {"train": [str(file) for file in files]}
    loaded: Rows = datasets.load_dataset(kind, data_files=names, split="train", streaming=streaming, **options)
    return loaded.map(_strip, batched=True) if kind == "text" else loaded


def _refuse_null(files: Sequence[Path]) -> None:
    """pyarrow's JSON reader (26.0) crashes the process if the first row is null."""
    for file in files:
        with fsspec.open(str(file), "rb", compression="infer") as content:
            if content.read(4096).lstrip().startswith(b"null"):
                raise DataError(f"the first row of {file} is null", expected="a JSON object", fix="delete that line")


def _from_disk(path: Path, split: str, streaming: bool) -> Rows:
    loaded = datasets.load_from_disk(str(path))
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            raise DataError(f"{path} has no split {split!r}", expected=", ".join(loaded))
        loaded = loaded[split]
    return loaded.to_iterable_dataset() if streaming else loaded


def _learnable(rows: Rows, text_column: str | None, name: str) -> Rows:
    """The rows with only the columns to train on, under the names that `encode_rows` knows."""
    columns = _columns(rows)
    if text_column is not None:
        if text_column not in columns:
            raise DataError(f"{name} has no column {text_column!r}", expected=", ".join(columns))
        return rows.select_columns([text_column]).rename_column(text_column, "text")
    for kind in COLUMNS:
        if set(kind) <= set(columns):
            return rows.select_columns([*kind, *({"labels"} & set(columns) if kind == ("input_ids",) else ())])
    if "conversations" in columns:
        return rows.select_columns(["conversations"]).rename_column("conversations", "messages")
    expected = ", ".join(" and ".join(kind) for kind in COLUMNS)
    raise DataError(
        f"{name} has no column to learn from", got=", ".join(columns), expected=expected, fix="name one as text_column"
    )


def _columns(rows: Rows) -> list[str]:
    """Column names; read from the first row if a stream does not know them yet."""
    return list(rows.column_names or next(iter(rows), {}))


def _strip(batch: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {"text": [line for line in map(str.strip, batch["text"]) if line]}


def _tokenize(
    batch: Mapping[str, Sequence[Any]], tokenizer: Any, max_length: int, packing: bool, version: int
) -> dict[str, list[list[int]]]:
    """Columns of tokens; `version` is there for the key in `datasets`' cache, which does not see our code change."""
    rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    encoded = pack_rows(rows, tokenizer, max_length) if packing else encode_rows(rows, tokenizer, max_length)
    kept = [row for row in encoded if row.ids]
    return as_columns(kept, with_positions=packing or not batch.keys().isdisjoint(POSITIONS))


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip()}".split("\n")[0][:300]
