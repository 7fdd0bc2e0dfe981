"""The record of a branch: after its own beginning come the events of the run that it left, up to the branching point.

Knows records; knows nothing of what a branch changes.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from apt_model.errors import StorageError, reason_of
from apt_model.events.recorded import open_record, record_lines
from apt_model.events.records import RunStarted
from apt_model.events.runfile import EVENTS, MAX_LINE, RunFile, hash_of_line, line_of


class InheritedRecord:
    """The record of a branch as a checkpoint's state: restored, it takes over the events of the parent's record.

    Args:
        record: the branch's, with its own `run_started`.
        parent: run directory that the checkpoint is of; only read.
    """

    def __init__(self, record: RunFile, parent: Path) -> None:
        self._record, self._parent = record, parent / EVENTS

    def state_dict(self) -> dict[str, Any]:
        """That of the record."""
        return self._record.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Append the parent's events up to the checkpoint, as events of this run.

        Raises:
            ValueError: the parent's record is shorter than it was, or another run's.
            StorageError: a record cannot be read or written.
        """
        own = [json.loads(line) for line in record_lines(self._record.directory / EVENTS)]
        run_id, told = own[0]["run_id"], [_said(record) for record in own[1:]]
        lines = (
            line if record is None else line_of({**record, "run_id": run_id})
            for line in self._lines(state)
            if (record := _record_of(line)) is None
            or (record.get("kind") != RunStarted.kind and _said(record) not in told)
        )
        self._record.take_over(lines, [{**record, "run_id": run_id} for record in state["waiting"]])

    def _lines(self, state: dict[str, Any]) -> Iterator[bytes]:
        """The lines of the parent's record up to the checkpoint, with their ends."""
        try:
            with open_record(self._parent) as file:
                first = file.readline(MAX_LINE)
                if hash_of_line(first) != state["first"]:
                    raise ValueError(f"{self._parent} is another run's: its first line is not the one it had")
                yield first
                while file.tell() < state["bytes"]:
                    line = file.readline()
                    if file.tell() > state["bytes"] or not line.endswith(b"\n"):
                        raise ValueError(f"{self._parent} is not the record that the checkpoint was saved beside")
                    yield line
        except OSError as error:
            raise StorageError(f"no record at {self._parent}", got=reason_of(error)) from error


def refuse_torn_off(run: Path) -> None:
    """Refuse to resume a branch that was killed before it had a checkpoint of its own: it would begin at step 0.

    Raises:
        StorageError: the run's record begins as that of a branch.
    """
    first = next(record_lines(run / EVENTS), b"{}")
    record = _record_of(first)
    if record is not None and record.get("branch") is not None:
        what = f"the branch in {run} was broken off before it had a checkpoint of its own"
        raise StorageError(what, fix=f"remove {run}, and branch again")


def _said(record: dict[str, Any]) -> tuple[Any, str]:
    """What two records have in common that say the same."""
    return record.get("kind"), json.dumps([record.get("key"), record.get("values")], sort_keys=True)


def _record_of(line: bytes) -> dict[str, Any] | None:
    """A line's record; None of a damaged line, which is taken over as it is."""
    with suppress(ValueError, RecursionError):
        record = json.loads(line)
        return record if isinstance(record, dict) else None
    return None
