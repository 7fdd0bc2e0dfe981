"""A column of JSON values that come back exactly as they were.

`datasets.Json` stores them as JSON too, but with pandas' encoder: of a float ten digits are left, a whole number above
64 bits is refused, and a string that looks like JSON becomes what it looks like. Knows values; knows nothing of rows.
"""

import json
from collections.abc import Mapping
from typing import Any

import datasets
import pyarrow


class ExactJson(datasets.Json):  # type: ignore[misc]
    """`datasets.Json` with Python's own encoder; whoever reads the file without us sees a `datasets.Json`."""

    def encode_example(self, example_data: Any) -> str | None:
        """The value as JSON; None stays None."""
        return None if example_data is None else json.dumps(example_data, ensure_ascii=False)

    def decode_example(self, example_data: str | None, token_per_repo_id: Any = None) -> Any:
        """The value; None stays None."""
        return None if example_data is None else json.loads(example_data)

    def cast_storage(self, storage: pyarrow.Array) -> pyarrow.Array:
        """A column of Arrow's types as JSON."""
        if isinstance(storage, pyarrow.JsonArray):
            return storage
        return pyarrow.array(map(self.encode_example, storage.to_pylist()), self.pa_type)


def without_null(value: Any) -> Any:
    """A value without the keys of its objects that are null.

    Arrow gives each object the keys of all, with null: a tool call would have the arguments of the others.
    """
    if isinstance(value, Mapping):
        return {key: without_null(inside) for key, inside in value.items() if inside is not None}
    return list(map(without_null, value)) if isinstance(value, list) else value
