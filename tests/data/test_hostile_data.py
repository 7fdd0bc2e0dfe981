"""Whatever a data file holds: batches, or a data error of one line; never another exception."""

import gc
import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apt_model.data.batch import Batch, to_batch
from apt_model.data.dataset import load_dataset, make_dataloader, tokenize_dataset
from apt_model.errors import DataError

pytestmark = pytest.mark.slow
ENDINGS = ["txt", "jsonl", "json", "csv", "tsv", "parquet", "arrow", "feather", "jsonl.gz", "csv.zst", "tsv.xz"]

any_text = st.text(st.characters(codec=None, categories=None), max_size=6)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | any_text | st.sampled_from(["user", "assistant"])
columns = st.sampled_from(
    ["text", "messages", "conversations", "prompt", "completion", "input_ids", "labels", "role", "content", "from", ""]
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(columns, inner, max_size=3), max_leaves=6
)
rows = st.dictionaries(columns, values, max_size=4)
json_lines = st.lists(rows | values, max_size=4).map(lambda some: "\n".join(map(json.dumps, some)).encode())
cells = st.lists(st.lists(any_text | columns | st.just('"'), min_size=1, max_size=4), max_size=4)
csv_lines = cells.map(lambda lines: "\n".join(map(",".join, lines)).encode("utf-8", "surrogatepass"))


def parquet(table: dict[str, list[Any]]) -> bytes:
    """A parquet file of some columns of one row; nothing of it where arrow has no type for them."""
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(pa.table(table), sink)
    except (pa.ArrowException, TypeError, ValueError, OverflowError, UnicodeEncodeError, NotImplementedError):
        return b""
    return bytes(sink.getvalue())


tables = st.dictionaries(columns, values.map(lambda value: [value]), max_size=4).map(parquet)
whole = st.sampled_from([parquet({"text": ["one", "two"]}), b"PAR1PAR1", b'{"text": "a"}\n' * 3, b"text,x\na,b\n"])
contents = st.binary(max_size=40) | json_lines | csv_lines | tables | whole


def damaged(content: bytes, at: float, length: int, patch: bytes) -> bytes:
    start = int(at * len(content))
    return content[:start] + patch + content[start + length :]


maybe_damaged = contents | st.builds(damaged, contents, st.floats(0, 1), st.integers(0, 8), st.binary(max_size=8))


def told(key: str, /, **values: str | int | float) -> None:
    """A `Tell` that says nothing."""


def read(path: Path, tokenizer: Any, streaming: bool) -> Any:
    """The first batch of a file, all the way."""
    rows = load_dataset(path, streaming=streaming, tell=told)
    tokenized = tokenize_dataset(rows, tokenizer, max_length=8, tell=told)
    raw = next(iter(make_dataloader(tokenized, batch_size=2)), None)
    return None if raw is None else to_batch(raw, tokenizer=tokenizer, max_length=8)


@pytest.fixture(autouse=True)
def files_that_datasets_leaves_open() -> Iterator[None]:
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("ending", ENDINGS)
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(maybe_damaged, st.booleans())
def test_any_file_gives_a_batch_or_a_data_error(
    chatty: Any, tmp_path: Path, ending: str, content: bytes, streaming: bool
) -> None:
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(content)
    try:
        batch = read(path, chatty, streaming)
        assert isinstance(batch, Batch) or streaming  # a stream without a row: the loop refuses the epoch
    except DataError as error:
        (line,) = str(error).splitlines()
        assert len(line) < 2000
    finally:
        shutil.rmtree(datasets.config.HF_DATASETS_CACHE, ignore_errors=True)
