"""The base class of all events. Knows nothing of what they tell."""

import time
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events.

    Attributes:
        run_id: the run it belongs to.
        step: optimizer steps done so far in the run.
        wall_time: seconds since the Unix epoch.
    """

    kind: ClassVar[str]

    run_id: str
    step: int
    wall_time: float = field(default_factory=time.time)
