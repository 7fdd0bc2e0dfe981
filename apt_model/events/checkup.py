"""What the doctor found before a lesson: plain records. Knows nothing of how it was found, or of how it is shown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from apt_model.errors import AptModelError

State = Literal["well", "advice", "wrong"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        key: names a sentence of the locale's `doctor` table, which also says what to do; `values` fill it in.
        state: "well"; "advice", which the run goes on without; "wrong", which would spoil it.
        error: what the run would end with, or ought to, where something is wrong.
    """

    key: str
    state: State = "well"
    values: Mapping[str, str | int | float] = field(default_factory=dict)
    error: AptModelError | None = None


def wrong(key: str, error: AptModelError, **values: str | int | float) -> Finding:
    """A finding that the run had better not begin with."""
    return Finding(key=key, state="wrong", values={"what": str(error), **values}, error=error)
