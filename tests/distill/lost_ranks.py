"""Kill ranks of small runs at drawn moments, resume them, compare the students: `python -m tests.distill.lost_ranks`.

Arguments: a directory, how many runs, a seed, and how many ranks (two). Each run has a checkpoint every 3 steps. One of
its ranks gets SIGKILL, or SIGTERM in one of four, at a drawn moment; the run is then resumed until it ends. Every
student must have the bytes of the one whose ranks nobody killed.
"""

import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from apt_model.ranks.store import START, free_port
from tests.distill.worlds import main as train

PATIENCE = 60.0  # seconds after which a rank counts as hanging
NEVER_CAME = "20"  # seconds to wait for a rank that is killed before it has said that it is there


def start(asked: dict[str, Any], said: Path) -> list[int]:
    """Fork the ranks of a run; rank 0 writes the hash of its student into a file. Returns their process ids."""
    ranks = asked["ranks"]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks), START: NEVER_CAME}
    return [_forked(asked, said, {**place, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(ranks)]


def _forked(asked: dict[str, Any], said: Path, environment: dict[str, str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.environ.update(environment)
    code = 1
    try:
        with (said.parent / f"rank-{environment['RANK']}.txt").open("w") as told:
            os.dup2(told.fileno(), 2)
            found = train(asked)
            if environment["RANK"] == "0":
                said.write_text(found)
            code = 0
    except BaseException as error:  # noqa: BLE001 - a forked process must not return into its parent's loop
        code = getattr(error, "exit_code", 1)
        with suppress(OSError):
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def codes(pids: list[int]) -> list[int | str]:
    """The exit codes of the ranks; of one that does not end "hangs", and it is killed."""
    end, found = time.monotonic() + PATIENCE, dict[int, int | str]()
    while len(found) < len(pids):
        for pid in set(pids) - set(found):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                found[pid] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                found[pid] = "hangs"
        time.sleep(0.02)
    return [found[pid] for pid in pids]


def one(
    place: Path, given: dict[str, Any], dice: random.Random, seconds: float, expected: str, seen: Counter[str]
) -> bool:
    """A run that is killed once or twice and resumed; whether its student is the expected one."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    asked, said = {**given, "run": str(place / "run")}, place / "said"
    for _ in range(dice.choice([1, 1, 2])):
        pids = start({**asked, "resume": (place / "run" / "events.jsonl").exists()}, said)
        time.sleep(dice.uniform(0, seconds))
        number = signal.SIGTERM if dice.random() < 0.25 else signal.SIGKILL
        with suppress(ProcessLookupError):
            os.kill(dice.choice(pids), number)
        seen[f"{number.name}: {sorted(map(str, codes(pids)))}"] += 1
    said.unlink(missing_ok=True)
    resumes = (place / "run" / "events.jsonl").exists()
    ended = codes(start({**asked, "resume": resumes}, said))
    same = not any(ended) and said.read_text() == expected
    if not same:
        words = [path.read_text()[-300:] for path in sorted(place.glob("rank-*.txt"))]
        print(f"LOST {place}: {ended} {said.exists() and said.read_text()} {words}", flush=True)
    return same


def main(root: Path, count: int, seed: int, ranks: int = 2, **more: Any) -> int:
    """Kill so many runs; how many were lost. `more`: of a run, as `worlds` takes it."""
    root.mkdir(parents=True, exist_ok=True)
    given = {"data": "generator", "dropout": 0.1, "epochs": 3, "settings": {"save_steps": 3}, "ranks": ranks, **more}
    dice, seen = random.Random(seed), Counter[str]()
    whole = root / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir()
    began = time.monotonic()
    assert not any(codes(start({**given, "run": str(whole / "run")}, whole / "said")))
    seconds, expected = time.monotonic() - began, (whole / "said").read_text()
    lost = sum(not one(root / "broken", given, dice, seconds, expected, seen) for _ in range(count))
    print(f"{count} runs, seed {seed}, {sum(seen.values())} kills in the first {seconds:.1f} s, {lost} lost")
    for line, times in sorted(seen.items()):
        print(f"  {times:4} {line}")
    return lost


if __name__ == "__main__":
    sys.exit(bool(main(Path(sys.argv[1]), *map(int, sys.argv[2:]))))
