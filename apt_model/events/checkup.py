"""Findings of the doctor, as plain records. Knows nothing of how they were found or how they are shown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from apt_model.errors import AptModelError

State = Literal["well", "advice", "wrong"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        key: of a sentence in the locale's `doctor` table, which includes the advice; `values` fill its placeholders.
        state: "well"; "advice", which a run can ignore; "wrong", which would spoil the run.
        error: the error to raise, for state "wrong".
    """

    key: str
    state: State = "well"
    values: Mapping[str, str | int | float] = field(default_factory=dict)
    error: AptModelError | None = None


def wrong(key: str, error: AptModelError, **values: str | int | float) -> Finding:
    """A finding that should keep the run from starting, with the error to raise."""
    return Finding(key=key, state="wrong", values={"what": str(error), **values}, error=error)
