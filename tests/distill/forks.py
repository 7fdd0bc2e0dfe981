"""A small lesson in processes that are killed: imported once, forked for each, so that many can be.

    python -m tests.distill.forks points DIR          # SIGKILL at every fault point of a save
    python -m tests.distill.forks times DIR COUNT     # SIGKILL at COUNT random times, up to three to a run
    python -m tests.distill.forks soak DIR STEPS      # SIGKILL again and again in one long run
    python -m tests.distill.forks full DIR BYTES      # no file may grow beyond BYTES (RLIMIT_FSIZE)
    python -m tests.distill.forks disk DIR            # on DIR's disk no byte is left
    python -m tests.distill.forks record DIR BYTES    # checkpoints have room below BYTES, a long run's record has not
    python -m tests.distill.forks rooms DIR BYTES     # ever more room on DIR's disk, by BYTES, until it is enough

Prints one JSON object.
"""

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

from apt_model import faults
from apt_model.config.sections import TrainConfig
from apt_model.distill.checkpoints.manager import Checkpoints
from apt_model.errors import AptModelError
from apt_model.events.runfile import EVENTS, read_events
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin

POINTS = ("begin", "after_student", "after_optimizer", "after_generators", "after_state")
POINTS += ("before_rename", "after_rename", "end")
WEIGHTS = "student/model.safetensors"


def llama(hidden: int, layers: int, dropout: float = 0.0) -> LlamaForCausalLM:
    """A toy with random weights that its sizes decide."""
    torch.manual_seed(hidden)
    sizes = {"hidden_size": hidden, "intermediate_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, attention_dropout=dropout, **sizes))


def lesson(
    directory: Path, *, save_steps: int = 1, steps: int = 9, rows: int = 40, keep: int = 2, sinks: Any = ()
) -> None:
    """Begin the run, or go on with it."""
    ids = torch.randint(4, 32, (rows, 6), generator=torch.Generator().manual_seed(1))
    config = {"seed": 0, "learning_rate": 0.01, "gradient_accumulation_steps": 2, "save_steps": save_steps}
    config["save_total_limit"] = keep
    VisualDistillationPlugin({**config, "sample_frequency": 3, "max_steps": steps}).visual_distill_model(
        llama(8, 2, dropout=0.1),
        llama(16, 2),
        DataLoader(ids, batch_size=4, shuffle=True),
        num_epochs=1,
        device="cpu",
        run_dir=directory,
        resume_from=directory if (directory / EVENTS).exists() else None,
        sinks=sinks,
    )


class Killer:
    """A sink that sends its process a signal after a step."""

    def __init__(self, step: int, number: int = signal.SIGKILL) -> None:
        self._step, self._number = step, number

    def emit(self, event: Any) -> None:
        if event.kind == "step" and event.step == self._step:
            os.kill(os.getpid(), self._number)

    def close(self) -> None:
        pass


def forked(action: Callable[[], None], *, kill_after: float | None = None) -> int:
    """Do it in a child; how that ended: its exit code, or minus the signal's number."""
    child = os.fork()
    if not child:
        code = 1
        try:
            action()
            code = 0
        except AptModelError as error:
            print(f"error[{error.code}]: {error}", file=sys.stderr)
            code = error.exit_code
        finally:
            sys.stderr.flush()
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def weights(directory: Path) -> bytes:
    """The student that a run left."""
    return (directory / WEIGHTS).read_bytes()


def finish(directory: Path, whole: bytes, **how: int) -> bool:
    """Whether the run, taken up, ends with the bytes of the one never broken off, and a record without a gap."""
    if forked(lambda: lesson(directory, **how)):
        return False
    told = [event.step for event in read_events(directory) if event.kind == "step"]
    return weights(directory) == whole and told == list(range(1, len(told) + 1))


def killed_in_save(directory: Path, point: str, turn: int) -> int:
    """A run killed at a point of its `turn`-th save; how it ended."""
    seen: list[str] = []

    def kill() -> None:
        seen.append(point)
        if len(seen) == turn:
            os.kill(os.getpid(), signal.SIGKILL)

    def armed() -> None:
        faults.arm(f"checkpoint.{point}", kill)
        lesson(directory)

    return forked(armed)


def killed_at(directory: Path, point: str, whole: bytes) -> dict[str, Any]:
    """SIGKILL in the third save, then go on."""
    ended = killed_in_save(directory, point, 3)
    left = [path.name for path in (directory / "checkpoints").glob(".tmp-*")]
    skipped = Checkpoints(directory, TrainConfig(), resume_from=directory).skipped
    named = [one.partition(":")[0] for one in skipped]
    return {"ended": ended, "left": left, "named": named, "same": finish(directory, whole)}


def points(root: Path, whole: bytes) -> dict[str, Any]:
    """Every fault point."""
    return {point: killed_at(root / point, point, whole) for point in POINTS}


def times(root: Path, whole: bytes, count: int, seconds: float) -> dict[str, Any]:
    """Random moments of a run, up to three in each; a run that was over before its first kill does not count."""
    dice, kills, runs, lost = random.Random(5), 0, 0, []
    while runs < count:
        directory = root / str(kills)
        ended = [
            forked(lambda: lesson(directory), kill_after=dice.uniform(0, seconds))  # noqa: B023
            for _ in range(dice.randint(1, 3))
        ]
        if -signal.SIGKILL in ended:
            runs, kills = runs + 1, kills + ended.count(-signal.SIGKILL)
            if not finish(directory, whole):
                lost.append(ended)
        shutil.rmtree(directory, ignore_errors=True)
    return {"runs": runs, "kills": kills, "lost": lost}


class Gauge:
    """A sink that writes down what the process holds after every hundredth step: memory, and open files."""

    def __init__(self, path: Path) -> None:
        self.path, self.process = path, psutil.Process()
        self.readings: list[dict[str, int]] = []

    def emit(self, event: Any) -> None:
        if event.kind == "step" and event.step % 100 == 0:
            memory = self.process.memory_info().rss // 1024
            self.readings.append({"step": event.step, "rss_kib": memory, "files": self.process.num_fds()})

    def close(self) -> None:
        self.path.write_text(json.dumps(self.readings))


def soak(root: Path, steps: int, every: int = 20) -> dict[str, Any]:
    """One long run that is looked at, and one that is killed some twenty times."""
    how, dice, kills = {"save_steps": every, "steps": steps, "rows": 1600}, random.Random(6), 0
    started = time.perf_counter()
    assert forked(lambda: lesson(root / "whole", sinks=[Gauge(root / "gauge")], **how)) == 0
    seconds = time.perf_counter() - started
    while kills < 20:
        ended = forked(lambda: lesson(root / "broken", **how), kill_after=dice.uniform(0.01, 0.06) * seconds)
        if ended != -signal.SIGKILL:
            break
        kills += 1
    same = finish(root / "broken", weights(root / "whole"), **how)
    record = {name: (root / name / EVENTS).read_bytes().count(b"\n") for name in ("whole", "broken")}
    kept = len(list((root / "broken" / "checkpoints").iterdir()))
    gauge = json.loads((root / "gauge").read_text())
    return {"kills": kills, "same": same, "lines": record, "kept": kept, "gauge": gauge, "seconds": seconds}


def full(root: Path, limit: int | None, **how: int) -> dict[str, Any]:
    """A file that may not grow to its size (errno EFBIG); without a limit, a disk with nothing left (ENOSPC)."""
    said, filler, run = root / "stderr", root / "filler", root / "run"

    def limited() -> None:
        os.dup2(os.open(said, os.O_WRONLY), 2)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        lesson(run, **how)

    forked(lambda: lesson(root / "whole", **how))
    if not how:
        killed_in_save(run, "end", 2)
    before = sorted(path.name for path in (run / "checkpoints").glob("*"))
    said.write_bytes(b" " * 4096)  # room of its own
    if limit is None:
        fill(filler)
    code = forked(limited)
    filler.unlink(missing_ok=True)
    after = sorted(path.name for path in (run / "checkpoints").iterdir())
    found = {"code": code, "before": before, "after": after, "line": said.read_text()}
    return {**found, "same": finish(run, weights(root / "whole"), **how)}


def fill(filler: Path, *, room: int = 0) -> None:
    """Take all that a disk has left, but for so many bytes."""
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"0" * 1024):
            pass
    os.truncate(filler, max(0, filler.stat().st_size - room))


def rooms(root: Path, more: int) -> list[dict[str, Any]]:
    """Runs that begin with ever more room on the disk, until one comes to its end: code, lines said, what is left."""
    found: list[dict[str, Any]] = []
    run, filler, said = root / "run", root / "filler", root / "stderr"
    said.write_bytes(b" " * 4096)
    while not found or found[-1]["code"]:
        os.truncate(said, 0)
        said.write_bytes(b" " * 4096)

        def heard() -> None:
            os.dup2(os.open(said, os.O_WRONLY), 2)
            lesson(run, save_steps=4, keep=9)

        fill(filler, room=len(found) * more)
        code = forked(heard)
        filler.unlink()
        left = [str(path.relative_to(run)) for path in run.rglob("*") if path.name.startswith((".tmp", ".student"))]
        whole = Checkpoints(run, TrainConfig(), resume_from=run).newest if (run / EVENTS).exists() else None
        found.append({"code": code, "said": said.read_text().strip(), "left": left, "newest": whole and str(whole)})
        shutil.rmtree(run, ignore_errors=True)
    return found


def main() -> None:
    """Run what is asked for."""
    what, root = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        if what in ("points", "times"):
            forked(lambda: lesson(root / "warm"))  # imports what is imported on use, for what a fork then finds
            started = time.perf_counter()
            forked(lambda: lesson(root / "whole"))
            seconds, whole = time.perf_counter() - started, weights(root / "whole")
            found = points(root, whole) if what == "points" else times(root, whole, int(sys.argv[3]), seconds)
        elif what == "soak":
            found = soak(root, int(sys.argv[3]))
        elif what == "rooms":
            found = {"runs": rooms(root, int(sys.argv[3]))}
        elif what == "record":
            found = full(root, int(sys.argv[3]), save_steps=20, steps=100, rows=800)
        else:
            found = full(root, int(sys.argv[3]) if what == "full" else None)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
