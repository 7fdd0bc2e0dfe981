"""Readers: a data file, by its ending, as numbered rows, each value as it stands in the file.

Nothing is guessed: the cells of a table in text are strings, the values of JSON what JSON says. Knows files; knows
nothing of which columns a row needs.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pyarrow import feather, ipc, parquet

from apt_model.data.columns import kind_of, named_twice
from apt_model.data.exact_json import without_null
from apt_model.data.intact import refuse_cut
from apt_model.data.json_text import TooDeepError, parse_json
from apt_model.data.opening import (
    COMPRESSED,
    LONGEST_LINE,
    lines_of,
    lines_of_whole,
    opened,
    parts_of,
    seekable,
    text_lines_of,
    whole,
)
from apt_model.errors import DataError, brief

Row = Mapping[str, Any]
Numbered = Iterator[tuple[int, Row]]  # the number of a line in its file, or of a row where there are no lines
Keep = Callable[[Sequence[str]], Sequence[str]]  # of a table's columns, those to be read

ROWS_AT_ONCE = 1000
HEAD = 4096  # bytes looked at before a text is read
CORRECT = "correct or delete that line"


def text_rows(file: Path, part: range | None = None) -> Numbered:
    """Each line of a text file, or of a part of it, stripped; empty ones are no rows."""
    for number, line in enumerate(text_lines_of(file, part=part), start=1):
        if text := line.strip().lstrip("\ufeff"):  # of files that were joined
            yield number, {"text": text}


def json_lines(file: Path, part: range | None = None) -> Numbered:
    """Each line of JSON lines, or of a part of them; empty ones are no rows."""
    for number, line in enumerate(lines_of(file, part), start=1):
        if line.strip():
            yield number, _object(_json(line, file, number), f"{file}, line {number}")


def json_document(file: Path) -> Numbered:
    """The rows of an array of objects, of an object that holds one list of objects, of one object, or of JSON lines."""
    lines = lines_of_whole(file)
    first = next((line for line in lines if line.strip()), b"")
    has_more = any(line.strip() for line in lines)
    if has_more and _is_object(first, file):
        yield from ((row, value) for row, (_, value) in enumerate(json_lines(file), start=1))
        return
    with opened(file) as content:
        for number, value in enumerate(_list_of_rows(_json(whole(content, file), file, None), file), start=1):
            yield number, _object(value, f"{file}, row {number}")


def csv_rows(file: Path) -> Numbered:
    """The rows of comma-separated values, by the names in the first line."""
    return _cells(file, ",")


def tsv_rows(file: Path) -> Numbered:
    """The rows of tab-separated values, quoted as in a csv file where they are."""
    return _cells(file, "\t")


def parquet_rows(file: Path, keep: Keep) -> Numbered:
    """The rows of a parquet file."""
    with opened(file) as content, parquet.ParquetFile(seekable(content, file)) as table:
        _refuse_doubled(table.schema_arrow.names, f"{file}")
        columns = list(keep(table.schema_arrow.names))
        yield from _numbered(table.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns))


def arrow_rows(file: Path, keep: Keep) -> Numbered:
    """The rows of an Arrow file or stream, or of a Feather file."""
    with opened(file) as content:
        source = seekable(content, file)
        is_stream = source.read(6) not in (b"ARROW1", b"FEA1")
        if is_stream:
            refuse_cut(source, file)
        source.seek(0)
        table = ipc.open_stream(source).read_all() if is_stream else feather.read_table(source)
        _refuse_doubled(table.column_names, f"{file}")
        yield from _numbered(table.select(list(keep(table.column_names))).to_batches(max_chunksize=ROWS_AT_ONCE))


EACH_A_ROW: Mapping[str, Callable[..., Numbered]] = {
    **dict.fromkeys((".txt", ".text", ".md"), text_rows),
    **dict.fromkeys((".jsonl", ".ndjson", ".jsonlines", ".jl"), json_lines),
}
LINES: Mapping[str, Callable[..., Numbered]] = {**EACH_A_ROW, ".csv": csv_rows, ".tsv": tsv_rows}
DOCUMENTS: Mapping[str, Callable[[Path], Numbered]] = {".json": json_document}
TABLES: Mapping[str, Callable[[Path, Keep], Numbered]] = {
    ".parquet": parquet_rows,
    **dict.fromkeys((".arrow", ".feather"), arrow_rows),
}
ENDINGS = (*LINES, *DOCUMENTS, *TABLES)


def ending_of(file: Path) -> str:
    """The ending that tells the format, without that of a compression: `.jsonl` of `chats.jsonl.gz`; "" if unknown."""
    name = file.name.lower()
    plain = next((name.removesuffix(packed) for packed in COMPRESSED if name.endswith(packed)), name)
    return next((ending for ending in ENDINGS if plain.endswith(ending)), "")


def is_of_text(ending: str) -> bool:
    """Whether files with an ending are read as lines of text."""
    return LINES.get(ending) is text_rows


def may_be_empty(file: Path) -> bool:
    """Whether a file of its format without a byte is one without a row, and not a broken one."""
    return ending_of(file) not in TABLES and file.suffix.lower() not in COMPRESSED


def divided(file: Path) -> list[range | None]:
    """The parts of a file that can be read apart: of lines that are a row each, many; else one, None."""
    is_plain = ending_of(file) in EACH_A_ROW and file.suffix.lower() not in COMPRESSED
    return [*parts_of(file)] if is_plain else [None]


def rows_of(file: Path, keep: Keep, part: range | None = None) -> Numbered:
    """The rows of a file of any known format, or of one of its parts, where they are numbered anew.

    Raises:
        DataError: its ending is unknown, or a row cannot be read; names it.
    """
    ending = ending_of(file)
    if ending in TABLES:
        return TABLES[ending](file, keep)
    read = {**LINES, **DOCUMENTS}.get(ending)
    if read is None:
        expected = f"{', '.join(ENDINGS)}, each also with {', '.join(COMPRESSED)} behind it"
        fix = "give it the ending of what it holds, or save it as one of these"
        raise DataError(f"{file} has an unknown ending", got=file.suffix or "none", expected=expected, fix=fix)
    return _of_utf8(read if part is None else partial(EACH_A_ROW[ending], part=part), file)


def _of_utf8(read: Callable[[Path], Numbered], file: Path) -> Numbered:
    """The rows of a text file; what is not UTF-8 is named by its line."""
    fix = "convert the file to UTF-8, e.g. with iconv"
    with opened(file) as content:
        head = content.read(HEAD)
    fewer, more = sorted((head[::2].count(0), head[1::2].count(0)))
    if len(head) < 6 * more and 4 * fewer < more:
        raise DataError(f"{file} cannot be read", got="a zero byte beside each letter, as in UTF-16", fix=fix)
    try:
        yield from read(file)
    except UnicodeDecodeError as error:
        got = f"UnicodeDecodeError: byte 0x{error.object[error.start]:02x} in line {_line_of_other_bytes(file)}"
        raise DataError(f"{file} cannot be read", got=got, fix=fix) from error


def _line_of_other_bytes(file: Path) -> int:
    for number, line in enumerate(lines_of(file), start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            return number
    return 1


def place_of(file: Path, number: int) -> str:
    """A row by its file and number: "a.jsonl, line 7"."""
    return f"{file}, {'line' if ending_of(file) in LINES else 'row'} {number}"


def _numbered(batches: Any) -> Numbered:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield number, {name: without_null(value) for name, value in row.items()}


def _cells(file: Path, delimiter: str) -> Numbered:
    csv.field_size_limit(LONGEST_LINE)  # Python's csv takes 131,072 unless told otherwise
    table = csv.reader(text_lines_of(file, newline=""), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    start = 1
    try:
        for cells in table:
            if cells and names is None:
                names = cells
                _check_names(names, f"{file}, line {start}", delimiter)
            elif cells and names is not None:
                if len(cells) != len(names):
                    fix = "put cells with a separator or a line break in them into double quotes"
                    got, expected = f"{len(cells)} cells", f"{len(names)}, as in its first line"
                    raise DataError(
                        f"{file}, line {start} has another number of cells", got=got, expected=expected, fix=fix
                    )
                yield start, dict(zip(names, cells, strict=True))
            start = table.line_num + 1
    except csv.Error as error:
        fix = 'close the quote that opens a cell; double the quotes within one: "a ""b"" c"'
        raise DataError(f"{file}, line {start} cannot be read", got=str(error), fix=fix) from error


def _check_names(names: Sequence[str], where: str, delimiter: str) -> None:
    if len(names) == 1 and set(names[0]) & set(",;\t|"):
        fix = f"separate the cells by {'tabs' if delimiter != ',' else 'commas'}, or give the file the other ending"
        raise DataError(f"{where} has one cell, and a separator in it", got=brief(names[0]), fix=fix)
    _refuse_doubled(names, where)


def _refuse_doubled(names: Sequence[str], where: str) -> None:
    doubled = named_twice(names)
    if doubled is not None:
        raise DataError(f"{where} names two columns the same", got=doubled or "two without a name", fix="rename one")


def _json(content: bytes, file: Path, line: int | None) -> Any:
    """The value that a line, or without its number a whole file, holds."""
    try:
        value = parse_json(content.decode("utf-8-sig"))
        if b"\\ud" in content.lower():
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError as error:
        fix = "write the whole letter, or delete that line"
        raise DataError(
            f"{file}, line {line or 1} holds half a letter", got=error.object[error.start], fix=fix
        ) from error
    except TooDeepError as error:
        where, got = f"{file}, line {line or error.line}", str(error)
        raise DataError(f"{where} is nested too deeply", got=got, fix="delete it") from error
    except json.JSONDecodeError as error:
        where, got = f"{file}, line {line or error.lineno}", f"{error.msg} at column {error.colno}"
        raise DataError(f"{where} is no JSON", got=got, fix=CORRECT) from error
    except UnicodeDecodeError:
        raise  # `_of_utf8` finds its line
    except ValueError as error:
        raise DataError(f"{file}, line {line or 1} cannot be read", got=str(error)[:200], fix=CORRECT) from error


def _is_object(line: bytes, file: Path) -> bool:
    try:
        return isinstance(_json(line, file, 1), dict)
    except DataError:
        return False


def _list_of_rows(value: Any, file: Path) -> Sequence[Any]:
    if isinstance(value, list):
        return value
    _object(value, str(file))
    lists = [name for name, some in value.items() if isinstance(some, list) and some and isinstance(some[0], dict)]
    if not lists or _is_row(value):
        return [value]
    if len(lists) > 1:
        raise DataError(f"{file} holds several lists of rows", got=", ".join(lists), fix="save one of them as .jsonl")
    rows: list[Any] = value[lists[0]]
    return rows


def _is_row(value: Mapping[str, Any]) -> bool:
    try:
        return bool(kind_of(value.keys()))
    except DataError:
        return False


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        got, fix = (
            "null" if value is None else brief(value),
            "delete it, or write an object; an array of rows is a .json",
        )
        raise DataError(f"{where} is no JSON object", got=got, expected='a row such as {"text": ...}', fix=fix)
    return value
