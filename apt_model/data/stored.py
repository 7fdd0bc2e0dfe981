"""Rows on disk: what was read from files, kept as an Arrow file that is mapped into memory, and found again.

Each row is kept with its file and line, so that an error can name it after rows were shuffled or split. Knows rows and
`datasets`; knows nothing of formats.
"""

import atexit
import hashlib
import json
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow
from filelock import FileLock

from apt_model.data.choice import ColumnChoice
from apt_model.data.columns import listed
from apt_model.data.exact_json import ExactJson
from apt_model.data.intact import Stamp, hashes_of, is_sealed, refuse_changed, seal, stamps_of
from apt_model.data.notices import Tell, warn
from apt_model.data.readers import ROWS_AT_ONCE, divided, place_of, rows_of
from apt_model.data.structure import IDS, RowError, at_row
from apt_model.errors import DataError, StorageError, brief

ROWS, ABOUT = "rows.arrow", "about.json"
FILE, NUMBER = "__file__", "__number__"  # columns of a kept row: which of the files, which line or row of it
FIRST_ROWS = 100  # of a stream, looked at before it begins

Rows = Any  # datasets.Dataset or datasets.IterableDataset: the package has no types


def chosen_rows(
    files: Sequence[Path], choice: ColumnChoice, part: range | None = None
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The rows of files, or of a part of one, as (which file, line or row number, the columns that take part).

    Raises:
        DataError: a row cannot be read or learned from; names file and line.
    """
    for index, file in enumerate(files):
        for number, row in rows_of(file, choice.table, part):
            try:
                yield index, number, choice.row(row)
            except DataError as error:
                raise at_row(error, place_of(file, number)) from error


def streamed(files: Sequence[Path], columns: Mapping[str, str], name: str, tell: Tell) -> Rows:
    """The rows of files, read while they are asked for; None without a row.

    What takes no part in the first hundred rows is told now; a column that comes later, by a Python warning then.
    """
    choice = ColumnChoice(columns)
    if not list(islice(chosen_rows(files, choice), FIRST_ROWS)):
        return None
    choice.names()
    tell_unused(choice.unused, name, tell)
    # Lists are divided into shards, a part each: to go on in one, `datasets` reads none of those before.
    parts = [(file, part, stamp) for file, stamp in zip(files, stamps_of(files), strict=True) for part in divided(file)]
    lists = dict(zip(("files", "parts", "stamps"), map(list, zip(*parts, strict=True)), strict=True))
    how = {**lists, "columns": dict(columns), "told": tuple(choice.unused)}
    return datasets.IterableDataset.from_generator(_stream, gen_kwargs=how)


def _stream(
    files: Sequence[Path],
    parts: Sequence[range | None],
    stamps: Sequence[Stamp],
    columns: Mapping[str, str],
    told: Sequence[str],
) -> Iterator[dict[str, Any]]:
    choice = ColumnChoice(columns)
    known = set(told)
    for file, part, stamp in zip(files, parts, stamps, strict=True):
        refuse_changed([file], [stamp])
        try:
            for _, _, row in chosen_rows([file], choice, part):
                if not choice.unused.keys() <= known:
                    tell_unused(choice.unused.keys() - known, str(file), warn)
                    known |= choice.unused.keys()
                yield row
        except DataError:
            deque(chosen_rows([file], choice), maxlen=0)  # raises it with the line's number in the file
            raise
        refuse_changed([file], [stamp])


def stored(files: Sequence[Path], columns: Mapping[str, str], name: str, tell: Tell) -> Rows:
    """The rows of files, read once and kept until content, time of change, or name of one of them are other ones.

    Kept rows that are damaged are read again.

    Returns:
        A `datasets.Dataset` with the columns that take part; None without a row.

    Raises:
        DataError: as `chosen_rows`, or a file has changed meanwhile. StorageError: the rows cannot be written.
    """
    stamps = stamps_of(files)
    place = cache_home(tell) / "apt_model" / _key(stamps, hashes_of(files), columns)
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_suffix(".lock")):  # several processes of a run read the same files
        if not all(is_sealed(place / name) for name in (ROWS, ABOUT)):
            shutil.rmtree(place, ignore_errors=True)
            _keep(files, stamps, ColumnChoice(columns), place)
        about = json.loads((place / ABOUT).read_text("utf-8"))
        tell_unused(about["unused"], name, tell)
        if not about["columns"]:
            return None
        info = datasets.DatasetInfo(features=_features(about["kept"]))
        return datasets.Dataset.from_file(str(place / ROWS), info=info).select_columns(about["columns"])


def with_place(error: RowError, rows: Rows) -> DataError:
    """The error with its row's file and line; of a stream, which has neither, with what stands in the row."""
    if not hasattr(rows, "cache_files"):
        return at_row(error, f"a row of a stream, {brief(error.row)}")
    return at_row(error, _where(rows, error.row, error.index))


def _where(rows: Rows, row: Mapping[str, Any], index: int) -> str:
    """A row by its file and line, whatever was selected or shuffled since: the first that holds just the same.

    Rows that were not read by us are named by their number in what they were loaded from, else by `index`.
    """
    features, names = rows.features, list(row)
    wanted = [_as_kept(row[name], features[name]) for name in names]
    before: Counter[Path] = Counter()  # rows of a folder in the files before
    for file in (Path(one["filename"]) for one in rows.cache_files):
        with pyarrow.memory_map(str(file)) as source, pyarrow.ipc.open_stream(source) as batches:
            if not set(names) <= set(batches.schema.names):
                continue  # numbers of selected rows, or columns under other names
            for batch in batches:
                values = zip(*(batch.column(name).to_pylist() for name in names), strict=True)
                at = next((at for at, some in enumerate(values) if list(some) == wanted), None)
                if at is not None:
                    return _place(file, batch.slice(at, 1), before[file.parent] + at)
                before[file.parent] += len(batch)
    return f"row {index + 1}"


def _as_kept(value: Any, feature: Any) -> Any:
    """A value as its column holds it: truth values in a column of whole numbers are 0 and 1."""
    if isinstance(feature, ExactJson):
        return feature.encode_example(value)
    return list(map(int, value)) if isinstance(value, list) else value


def _place(file: Path, row: pyarrow.RecordBatch, at: int) -> str:
    if file.name != ROWS:
        is_saved = file.with_name("state.json").is_file()
        return f"{file.parent}, row {at + 1}" if is_saved else f"row {at + 1}"
    files = json.loads(file.with_name(ABOUT).read_text("utf-8"))["files"]
    return place_of(Path(files[row.column(FILE)[0].as_py()]), row.column(NUMBER)[0].as_py())


def cache_home(tell: Tell) -> Path:
    """The directory in which data is cached: that of `datasets`; if it cannot be written, one that goes with us."""
    usual = Path(datasets.config.HF_DATASETS_CACHE)
    if is_writable(usual):
        return usual
    spare = spare_home()
    tell("cache_elsewhere", path=str(usual), spare=str(spare))
    return spare


def is_writable(folder: Path) -> bool:
    """Whether files can be written in a directory, which is made if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@cache
def spare_home() -> Path:
    """A temporary directory, removed when Python ends.

    Raises:
        StorageError: there is none that can be written.
    """
    try:
        spare = Path(tempfile.mkdtemp(prefix="apt_model-"))
    except OSError as error:
        fix = "set HF_HOME to a directory that can be written"
        raise StorageError("no directory to cache data in", got=str(error), fix=fix) from error
    atexit.register(shutil.rmtree, spare, ignore_errors=True)
    return spare


@cache
def code_stamp() -> str:
    """A hash of the code that reads and encodes: what other code has kept on disk is not used."""
    room = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in room)).hexdigest()


def tell_unused(unused: Iterable[str], name: str, tell: Tell) -> None:
    """Tell of the columns, if there are any, that take no part."""
    if names := list(unused):
        tell("columns_unused", name=name, columns=listed(names))


def _key(stamps: Sequence[Stamp], hashes: Sequence[str], columns: Mapping[str, str]) -> str:
    """What tells kept rows apart: our code, files and what tells a changed one, columns."""
    told = repr((code_stamp(), stamps, hashes, sorted(columns.items())))
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()


def _features(columns: Sequence[str]) -> Any:
    ids, number = datasets.List(datasets.Value("int64")), datasets.Value("int64")
    known = {"text": datasets.Value("string"), FILE: number, NUMBER: number, **dict.fromkeys(IDS, ids)}
    return datasets.Features({column: known.get(column, ExactJson()) for column in columns})


def _keep(files: Sequence[Path], stamps: Sequence[Stamp], choice: ColumnChoice, place: Path) -> None:
    """Write the rows, and what is to be known of them, under another name first: `place` is whole, or is not there."""
    rows = chosen_rows(files, choice)
    some = list(islice(rows, ROWS_AT_ONCE))
    count = len(some)
    kept = [FILE, NUMBER, *choice.names()]
    features, seen = _features(kept), set(choice.needs())
    with tempfile.TemporaryDirectory(dir=place.parent) as started:
        with (
            pyarrow.OSFile(str(Path(started, ROWS)), "wb") as file,
            pyarrow.ipc.new_stream(file, features.arrow_schema) as out,
        ):
            while some:
                seen.update(name for _, _, row in some for name, value in row.items() if value is not None)
                out.write_table(_table(some, features))
                some = list(islice(rows, ROWS_AT_ONCE))
        refuse_changed(files, stamps)
        about = {
            "files": [str(file.absolute()) for file in files],
            "kept": kept,
            "columns": [name for name in choice.names() if name in seen] if count else [],
            "unused": list(choice.unused),
        }
        Path(started, ABOUT).write_text(json.dumps(about), "utf-8")
        for name in (ROWS, ABOUT):
            seal(Path(started, name))
        Path(started).chmod(place.parent.stat().st_mode & 0o777)  # as others may read what `datasets` keeps
        Path(started).rename(place)
        Path(started).mkdir()  # for its removal


def _table(rows: Sequence[tuple[int, int, Mapping[str, Any]]], features: Any) -> pyarrow.Table:
    columns: list[Any] = []
    for name, feature in features.items():
        if name == FILE:
            values: list[Any] = [index for index, _, _ in rows]
        elif name == NUMBER:
            values = [number for _, number, _ in rows]
        else:
            values = [row.get(name) for _, _, row in rows]
        columns.append(
            pyarrow.array([_as_kept(value, feature) for value in values], features.arrow_schema.field(name).type)
        )
    return pyarrow.Table.from_arrays(columns, schema=features.arrow_schema)
