"""The place that a stream keeps of itself (`state_dict`), and whether going on from there gives the same rows.

`datasets.IterableDataset`, torchdata's `StatefulDataLoader` and data sets of somebody's own have one. Knows loaders and
streams; knows nothing of what is learned from them.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import datasets
from torch.utils.data import DataLoader, default_collate

from apt_model.data.data_state import restorer
from apt_model.data.intact import stamps_of
from apt_model.data.json_state import read, written
from apt_model.data.memoryless import is_memoryless, is_setting
from apt_model.data.notices import KeyedNotice
from apt_model.data.rng import GlobalStates
from apt_model.data.row_hashes import hash_rows
from apt_model.data.rows import is_known_collator
from apt_model.data.shares import is_mapped
from apt_model.data.shuffled import ShuffledStream

FAULTS = (LookupError, AttributeError, TypeError, ValueError, RuntimeError, AssertionError)  # of a state that is none
SETTLED = (datasets.IterableDataset, ShuffledStream)  # None takes a loaded place back
# Kinds of iterables within a stream of `datasets` whose state is exact; a map's, a generator's and a buffer's may be.
EXACT = {
    f"{name}ExamplesIterable"
    for name in (
        *("", "Arrow", "RebatchedArrow", "Step", "CyclingMultiSources", "VerticallyConcatenatedMultiSources"),
        *("HorizontallyConcatenatedMultiSources", "RandomlyCyclingMultiSources", "InterleavedShards", "Skip", "Take"),
        *("Repeat", "Formatted", "Mapped", "Filtered"),
    )
} | {"SelectColumnsIterable"}


class StreamState:
    """The place in a stream before the batch that was drawn last, by the stream's own `state_dict`.

    Before it, not behind it: a resumed run draws that batch once more, and sees whether it is the same.

    Args:
        loader: yields the batches; one that reads rows by index, or has no `state_dict`, has no such place.

    Attributes:
        why_not: what to tell if there is a `state_dict` from which the stream would not go on the same; else None.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self._loader = loader
        is_read_by_index = isinstance(loader, DataLoader) and is_mapped(loader)
        self._holder: Any = None if is_read_by_index else _holder_of(loader)
        self.why_not = None if self._holder is None else _why_not(loader)
        self._drawing: Mapping[str, Any] | None = None
        self._kept: Mapping[str, Any] | None = None

    def _is_exact(self) -> bool:
        return self._holder is not None and self.why_not is None

    @cached_property
    def _sources(self) -> list[Any]:
        """What tells whether the stream reads the same as another time: stamps of its files, hashes of its tables."""
        given = _given_lists(self._loader)
        named = {Path(one) for one in given if isinstance(one, str | Path) and "://" not in str(one)}
        tables = [hash_rows(one) for one in given if isinstance(one, datasets.Dataset)]
        stamps = stamps_of(sorted(one for one in named if one.is_file()))
        return [*map(list, stamps), *(one and one.in_order for one in tables)]

    def begin(self) -> None:
        """Forget the place, at an epoch's beginning."""
        self._drawing = self._kept = None

    def note(self, generators: GlobalStates, drawn: str) -> None:
        """Note the place before a batch is drawn, with the generators it is drawn by and the hash of those before."""
        if not self._is_exact() or not drawn:  # before an epoch's first batch, its state may be that of the last one
            return
        try:
            own = written(self._holder.state_dict())
            self._drawing = {"own": own, "drawn": drawn, "generators": generators, "sources": self._sources}
        except FAULTS as error:
            self.why_not = ("notice.stream_state", {"what": f"{type(error).__name__}: {error}"[:200]})
            self._kept = None

    def keep(self) -> None:
        """The batch is there: the place before it is the one to go on from."""
        self._kept = self._drawing if self._is_exact() else None

    def state_dict(self) -> dict[str, Any] | None:
        """The kept place, as JSON values; None without one."""
        if self._kept is None:
            return None
        return {**self._kept, "generators": written(self._kept["generators"])}

    def go_on(self, state: Mapping[str, Any]) -> "Going | None":
        """Set the stream to a place of `state_dict`; None if its sources have changed, or it cannot be set."""
        if not self._is_exact() or state["sources"] != self._sources:
            return None
        try:
            going = Going(self._loader, read(state["generators"]), state["drawn"])
        except FAULTS:
            return None
        try:
            self._holder.load_state_dict(read(state["own"]))
        except FAULTS:
            going.take_back()
            return None
        return going


class Going:
    """A stream that was set to a place in it.

    Args:
        loader: of the stream, not set yet.
        generators: the states of the global generators at that place.
        drawn: the hash of the batches before it.
    """

    def __init__(self, loader: Any, generators: GlobalStates, drawn: str) -> None:
        self.generators, self.drawn = generators, drawn
        places: tuple[Any, ...] = (loader, getattr(loader, "dataset", None))
        self._streams = [one for one in places if _has_state(one) and not isinstance(one, DataLoader)]
        self._before = [None if isinstance(one, SETTLED) else written(one.state_dict()) for one in self._streams]
        self._held = [dict(getattr(one, "__dict__", {})) for one in self._streams]
        self._restore = restorer(loader)

    def settle(self) -> None:
        """After the first batch: let the next iteration begin at the beginning."""
        for one in self._streams:
            if isinstance(one, SETTLED):
                one.load_state_dict(None)

    def take_back(self) -> None:
        """Set the stream to where it was, and what it and its loader hold."""
        for one, before, held in zip(self._streams, self._before, self._held, strict=True):
            one.load_state_dict(read(before))
            if not isinstance(one, SETTLED) and held:
                vars(one).clear()
                vars(one).update(held)
        self._restore()


def _has_state(one: Any) -> bool:
    return callable(getattr(one, "state_dict", None)) and callable(getattr(one, "load_state_dict", None))


def _holder_of(loader: Any) -> Any:
    """What has the `state_dict` of a loader's place: itself, or its data set."""
    dataset = getattr(loader, "dataset", None)
    if isinstance(loader, DataLoader) and not _has_state(dataset):
        return None
    return next((one for one in (loader, dataset) if _has_state(one)), None)


def _why_not(loader: Any) -> KeyedNotice | None:
    """Why a stream would not go on the same from its own state; None if it would."""
    dataset = getattr(loader, "dataset", loader)
    rows = dataset.rows if isinstance(dataset, ShuffledStream) else dataset
    is_of_library = isinstance(rows, datasets.IterableDataset)
    workers, collate = getattr(loader, "num_workers", 0), getattr(loader, "collate_fn", list)
    if workers and not (is_of_library and _has_state(loader) and collate in (list, default_collate)):
        return "notice.stream_workers", {}
    if not is_known_collator(collate) and not is_memoryless(collate):
        return "notice.stream_function", {"name": _name(collate)}
    return _why_not_within(rows) if is_of_library else None


def _why_not_within(rows: Any) -> KeyedNotice | None:
    """Why the state of a stream of `datasets` is not exact."""
    if getattr(rows._formatting, "is_table", False):
        return "notice.stream_kind", {"name": "with_format(arrow)"}
    for one in _within(rows._ex_iterable):
        kind = type(one).__name__
        if kind == "BufferShuffledExamplesIterable":
            if one.buffer_size > 1:
                return "notice.stream_shuffled", {"rows": one.buffer_size}
        elif kind not in EXACT or getattr(getattr(one, "formatting", None), "is_table", False):
            return "notice.stream_kind", {"name": kind}
        for function in _functions(one):
            if not is_memoryless(function) or not all(map(is_setting, _given_to(function, one))):
                return "notice.stream_function", {"name": _name(function)}
    return None


def _within(iterable: Any) -> Iterator[Any]:
    """An iterable of `datasets`, and those that it reads from."""
    yield iterable
    for one in (getattr(iterable, "ex_iterable", None), *getattr(iterable, "ex_iterables", ())):
        if one is not None:
            yield from _within(one)


def _functions(iterable: Any) -> list[Any]:
    """The functions that make or change an iterable's rows; of a generator's, the generator."""
    names = ("function", "generate_examples_fn", "generate_tables_fn")
    found = [getattr(iterable, name) for name in names if hasattr(iterable, name)]
    return [getattr(getattr(getattr(one, "__self__", None), "config", None), "generator", one) for one in found]


def _given_to(function: Any, iterable: Any) -> list[Any]:
    """What a function of somebody's own is given besides rows, or makes them of."""
    is_of_library = is_memoryless(function, 0)
    return [] if is_of_library else [*getattr(iterable, "fn_kwargs", {}).values(), *_kwargs_of(iterable).values()]


def _kwargs_of(iterable: Any) -> Mapping[str, Any]:
    """What a generator of rows is called with, but for the generator itself."""
    return getattr(iterable, "kwargs", {})


def _given_lists(loader: Any) -> list[Any]:
    """What a stream of `datasets` reads from: the entries of the lists that its sources were given."""
    dataset = getattr(loader, "dataset", loader)
    rows = dataset.rows if isinstance(dataset, ShuffledStream) else dataset
    if not isinstance(rows, datasets.IterableDataset):
        return []
    given = [value for one in _within(rows._ex_iterable) for value in _kwargs_of(one).values()]
    return [one for value in given if isinstance(value, list | tuple) for one in value]


def _name(function: Any) -> str:
    if isinstance(function, partial):
        bound = (one for one in (*function.args, function.func) if callable(one))
        return _name(next(bound))
    return str(getattr(function, "__qualname__", type(function).__qualname__))
