"""Load training data: files, folders, saved datasets and hub names become rows with known columns.

Rows are cached on disk and memory-mapped, or streamed. Knows sources and splits; knows nothing of models, losses or
lessons. `readers` reads the files, `encode` turns rows into token ids, `batch` into batches.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import datasets
import pyarrow
import torch
from torch.utils.data import DataLoader

from apt_model.data.columns import kind_of
from apt_model.data.intact import is_sealed, seal, stamps_of
from apt_model.data.notices import Tell, once, warn
from apt_model.data.quiet import quiet_datasets
from apt_model.data.shuffled import ShuffledStream
from apt_model.data.sources import Asked, Rows, alike, columns_of, read, readable
from apt_model.data.stored import code_stamp, is_writable, spare_home, with_place
from apt_model.data.structure import RowError
from apt_model.data.tokenized import counted, structs_of, tokenized
from apt_model.data.tokenized import streamed as streamed_tokens
from apt_model.errors import ConfigError, DataError

WORTH_MORE_PROCESSES = 20_000  # rows; below that, starting processes takes longer than they save
SHUFFLED_TOGETHER = 10_000  # rows of a stream, in memory
Source = str | Path


@quiet_datasets()
def load_dataset(
    source: Source | Sequence[Source],
    *,
    split: str = "train",
    text_column: str | None = None,
    columns: Mapping[str, str] | None = None,
    streaming: bool = False,
    tell: Tell = warn,
) -> Rows:
    """Load rows of text, chats, prompts with completions, questions with answers, or token ids.

    What makes a row, and which columns may stand beside it, says `columns.KINDS`; other columns are left out, and told
    of once. All rows are of one kind. Values are those in the file: a cell of a table in text is a string, and an empty
    one the empty string; of a text file each line is a row, stripped, blank lines left out.

    Args:
        source: a file (txt, md, jsonl, ndjson, json, csv, tsv, parquet, arrow, feather; may be compressed), several of
            them, a folder of them with splits told by names as `datasets` does, a directory that `Dataset.save_to_disk`
            wrote, or the name of a dataset on the hub ("owner/name", or "owner/name:config").
        split: which split of a dataset that has several; also part of one, as "train[:10%]", or a sum, "train+test".
        text_column: the column that holds the text; the same as `columns={"text": text_column}`.
        columns: our name of a column, and the name that it has in the data: {"prompt": "question"}.
        streaming: read while training goes on, for data that does not fit on this disk.
        tell: takes what is left out: columns, files, splits. Of a stream the first hundred rows are looked at.

    Returns:
        A `datasets.Dataset`, or an `IterableDataset` if `streaming`.

    Raises:
        DataError: no such file, split or dataset, an unknown ending, or a row that cannot be read or learned from,
            named by file and line. StorageError: rows cannot be cached.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    if not sources:
        raise DataError("no data was named", got="an empty list of files", fix="name at least one file or dataset")
    named = {**(columns or {}), **({"text": text_column} if text_column is not None else {})}
    if columns and "text" in columns and named["text"] != columns["text"]:
        got = f"text_column={text_column} and columns text={columns['text']}"
        raise ConfigError("the column of the text is named twice", got=got, fix="leave one of them out")
    with readable("data " + ", ".join(map(str, sources))):
        return _load(sources, Asked(split=split, columns=named, streaming=streaming, tell=tell))


def _load(sources: Sequence[Source], asked: Asked) -> Rows:
    parts = list(chain.from_iterable(read(one, asked) for one in sources))
    kinds = sorted({" and ".join(sorted(kind_of(columns_of(part)).needs)) for part in parts})
    if len(kinds) > 1:
        seen = ", ".join(kinds)
        fix = "use files with the same columns"
        raise DataError("the files hold rows of different kinds", got=f"columns {seen}", fix=fix)
    if not parts:
        raise DataError("no text to learn from", got=f"0 rows in {', '.join(map(str, sources))}")
    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(alike(parts))


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
    halves = rows.train_test_split(test_size=count, seed=seed, load_from_cache_file=False)
    return halves["train"], halves["test"]


@quiet_datasets()
def tokenize_dataset(
    rows: Rows,
    tokenizer: Any,
    *,
    max_length: int = 512,
    packing: bool = False,
    num_proc: int | None = None,
    tell: Tell = warn,
) -> Rows:
    """Tokenize rows into `input_ids`, `labels` and, where they have their own, `position_ids`.

    In parallel; `datasets` caches the result on disk. Rows without a token are left out.

    Args:
        rows: as `load_dataset` returns them.
        tokenizer: a Hugging Face tokenizer.
        max_length: tokens of a row at most; a longer row is truncated, or with `packing` goes on in the next block.
        packing: put rows side by side into blocks of at most `max_length` tokens, which leaves little padding. Rows of
            a block do not see each other: their positions begin anew (`pack_rows`). Each thousand rows are packed
            together.
        num_proc: processes; None: one for each core from 20,000 rows on, else one.
        tell: takes how many rows had no token, were cut, or have no label left, and what of them is not used; of a
            stream while it is read, each once.

    Raises:
        DataError: no row, or one that cannot be encoded, by its file and line where they are known; says what was seen.
    """
    given = {
        "tokenizer": tokenizer,
        "max_length": max_length,
        "packing": packing,
        "structs": structs_of(rows.features),
        "code": code_stamp(),
    }
    how: dict[str, Any] = {"batched": True, "with_indices": True, "fn_kwargs": given}
    columns = columns_of(rows)
    if isinstance(rows, datasets.Dataset) and not len(rows):
        raise DataError("no row to learn from", got="0 rows", fix="check the files, and the split")
    if isinstance(rows, datasets.IterableDataset):
        kind = kind_of(columns)  # a column may come later than the first row
        with readable("data to encode"):
            given["tell"] = once(tell)
            return rows.map(streamed_tokens, remove_columns=[*{*columns, *kind.needs, *kind.may}], **how)
    if num_proc is None and len(rows) >= WORTH_MORE_PROCESSES:
        num_proc = os.cpu_count()
    with placed(rows), readable("data to encode"):
        given["stamps"] = stamps_of(_files_of(rows))
        how |= {"remove_columns": columns, "num_proc": num_proc, "cache_file_name": _elsewhere(rows, tell)}
        made = _mapped(rows, how)
    return counted(made, len(rows), max_length, tell)


def _mapped(rows: Rows, how: Mapping[str, Any]) -> Rows:
    """The rows in tokens; those that `datasets` kept earlier only if they are what was written then."""
    before = {file for folder in {one.parent for one in _files_of(rows)} for file in folder.glob("*.arrow")}
    try:
        made = rows.map(tokenized, **how)
        is_sound = all(file not in before or is_sealed(file) for file in _files_of(made))
    except (OSError, pyarrow.ArrowException):
        is_sound = False
    if not is_sound:
        made = rows.map(tokenized, load_from_cache_file=False, **how)
    for file in _files_of(made):
        if not is_sound or file not in before:
            seal(file)
    return made


def _files_of(rows: Rows) -> list[Path]:
    return [Path(file["filename"]) for file in rows.cache_files]


@contextmanager
def placed(rows: Rows) -> Iterator[None]:
    """Context manager: an error of one of the rows names its file and line."""
    try:
        yield
    except RowError as error:
        raise with_place(error, rows) from error


def _elsewhere(rows: Rows, tell: Tell) -> str | None:
    """A file for the tokens if `datasets` would put them beside rows that lie where nothing can be written."""
    beside = [file.parent for file in _files_of(rows)]
    if not beside or is_writable(beside[0]):
        return None
    tell("cache_elsewhere", path=str(beside[0]), spare=str(spare_home()))
    return str(Path(mkdtemp(dir=spare_home()), "tokens.arrow"))


def make_dataloader(rows: Rows, *, batch_size: int, shuffle: bool = True, seed: int = 0) -> DataLoader[Any]:
    """A DataLoader that yields lists of rows; `to_batch` encodes and pads them in the training loop.

    The order follows from `seed` alone, whatever else draws random numbers. A stream is shuffled within blocks of
    10,000 rows, which are taken from up to ten of its shards in turn.

    Raises:
        DataError: there is no row; or, while iterating over a stream, it cannot be read.
    """
    if isinstance(rows, datasets.IterableDataset):
        if shuffle:  # a buffer of one row: the shards alone, whose place can be kept
            rows = ShuffledStream(rows.shuffle(seed=seed, buffer_size=1), block=SHUFFLED_TOGETHER, seed=seed)
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
