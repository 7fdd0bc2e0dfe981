"""Signs of life of a rank: where it is, since when it has not moved, and whether it computes.

Reads clocks and /proc of this machine; knows nothing of the other ranks.
"""

import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PHASES = (  # of a step, in order
    "start-up",
    "data",
    "teacher",
    "forward",
    "backward",
    "optimizer",
    "exam",
    "validation",
    "save",
)
BUSY = 0.1  # of one core: a process that uses less is idle
OUT = "out"  # the phase of a rank that has left the run
OUTSIDE = "outside"  # of one that waits for somebody who is no rank: a user, a browser, a teacher's server


class Who(NamedTuple):
    """A rank's process: a name that only processes that see each other's PIDs share, the host's name, the PID."""

    machine: str
    host: str
    pid: int
    born: str

    @classmethod
    def here(cls) -> "Who":
        """This process."""
        namespace = ""
        with suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            namespace = f"{boot} {Path('/proc/self/ns/pid').readlink()}"
        return cls(namespace or socket.gethostname(), socket.gethostname(), os.getpid(), _state(os.getpid())[1])

    def has_ended(self) -> bool:
        """Whether the process is no more, asked on its own machine."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        state, born, _ = _state(self.pid)
        return state == "Z" or born != self.born

    def cpu_seconds(self) -> float:
        """CPU time that the process has used, asked on its own machine; 0 where that is not told."""
        return _state(self.pid)[2]


class Sign(NamedTuple):
    """What a rank says of itself at each beat.

    Attributes:
        beat: counts up.
        step: the optimizer step that it is at; 0 before the first.
        phase: one of PHASES, OUTSIDE or OUT.
        waits_for: what the ranks agree on, while it waits there for the others; else empty.
        still: seconds since it came there.
        idle: seconds since then in which neither it nor its workers computed, up to now.
    """

    beat: int
    step: int
    phase: str
    waits_for: str
    still: float
    idle: float

    @property
    def place(self) -> tuple[int, int]:
        """How far it is, to be compared with others."""
        return self.step, PHASES.index(self.phase) if self.phase in PHASES else len(PHASES)


class Pulse:
    """Where this rank is, as its training thread says, and how long it has been there; made in that thread."""

    def __init__(self) -> None:
        self.step, self.phase, self.waits_for = 0, PHASES[0], ""
        self._thread = threading.get_native_id()
        self._moved = self._worked = self._looked = time.monotonic()
        self._cpu, self._beat = 0.0, 0

    def move(self, phase: str, step: int | None = None) -> None:
        """The rank has come to a phase, of the same step or another."""
        self.phase, self._moved = phase, time.monotonic()
        if step is not None:
            self.step = step

    def wait(self, what: str) -> None:
        """The rank begins to wait for the others; an empty `what`: it goes on."""
        self.waits_for, self._moved = what, time.monotonic()

    def read(self) -> Sign:
        """The sign of now; called at every beat, by the thread that beats."""
        now, cpu = time.monotonic(), time.process_time() - time.thread_time() + _cpu_of_children()
        if cpu - self._cpu > BUSY * (now - self._looked) or self._is_on_disk():
            self._worked = now
        self._cpu, self._looked, self._beat = cpu, now, self._beat + 1
        still = now - self._moved
        idle = min(still, now - self._worked)
        return Sign(self._beat, self.step, self.phase, self.waits_for, round(still, 1), round(idle, 1))

    def _is_on_disk(self) -> bool:
        """Whether the training thread waits for a disk (fsync, NFS): that ends, or the machine is broken."""
        return _state(f"self/task/{self._thread}")[0] == "D"


def _cpu_of_children() -> float:
    """CPU seconds of the processes that this one started: loader workers, compilers."""
    found: set[str] = set()
    with suppress(OSError):
        for thread in Path("/proc/self/task").iterdir():
            with suppress(OSError):
                found.update((thread / "children").read_text().split())
    return sum(_state(pid)[2] for pid in found)


def _state(process: int | str) -> tuple[str, str, float]:
    """State letter, time of birth and CPU seconds of a process or thread, from /proc; empty where there is none."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return "", "", 0.0
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[19], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
