"""Regression check: run the same trainings with two checkouts, and compare all that they write, except times.

    python scripts/same_lessons.py BEFORE AFTER [--allow KEY ...]     # about 2 minutes on 2 free cores

For changes that must change nothing, such as a move of modules. Both checkouts learn on the CPU with one thread, in
processes of their own, from BEFORE's demo teacher and corpus; nothing internal is imported, the console command does
it all. In each column the values that were compared are counted: a lesson that left nothing is no equal one. Compared
are sets of fields, at any depth, and values, not the order of fields:

    student bytes       every tensor of the student that is saved
    events              every record of events.jsonl, kind by kind, and the order of kinds
    checkpoint fields   the JSON of every checkpoint; of its manifest the fields alone
    checkpoint bytes    every tensor of every checkpoint
    files               which files there are, and what is in all the others (a cached teacher too)
    words               what was said on the screen

Left out are run ids, wall times, seconds, and how long a record with such numbers in it is. A resumed lesson goes on
from a copy of the run in which what came after that step is gone; its student has to be that of the run itself, too. In
the last lesson both go on from a checkpoint of BEFORE's. Exit code 1 where anything differs, or a command fails.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLUMNS = ("student bytes", "events", "checkpoint fields", "checkpoint bytes", "files", "words")
SHOWN = 3  # differences of a lesson that are named in a column, those of fields before those of values
SWITCHES = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "HF_HUB_OFFLINE", "PYTHONDONTWRITEBYTECODE"), "1")

OURS = "--sample-frequency 10 --save-steps 10 --save-total-limit 9 --seed 3 --device cpu --lang en"
DISTILL = f"distill --data corpus.txt --batch-size 16 --temperature 1 --learning-rate 3e-3 {OURS}"
LIVE = f"{DISTILL} --teacher teacher --validation-split 0.1"
NEW = "--student layers=2,hidden=64"
FORTY = f"{LIVE} {NEW} --max-steps 40"
RESUMED = f"{FORTY} --resume"


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A training run, as commands of `apt-model`.

    Attributes:
        name: in the table.
        out: its run directory.
        commands: `--out` is added to the last one.
        cache: the directory of a teacher cache that the commands write.
        goes_on: the run and the step of the checkpoint that it is resumed from.
        crosses: both sides resume from a checkpoint that BEFORE has written.
    """

    name: str
    out: str
    commands: tuple[str, ...]
    cache: str | None = None
    goes_on: tuple[str, int] | None = None
    crosses: bool = False


CACHE = "cache-teacher --teacher teacher --data corpus.txt --out cache --temperature 1 --device cpu --lang en"
CACHED = f"{DISTILL} --teacher-cache cache {NEW} --max-steps 20"
INSIDE = "--hidden-weight 0.5 --attention-weight 0.5 --layer-map even --gradient-accumulation-steps 2"
ROTATED = f"{NEW},init=teacher,method=rotate,rank=importance"
WRITTEN = "--on-policy 0.5 --on-policy-tokens 8 --loss-kind jsd --packing"
OTHER = "--student other --cross-tokenizer kl"
LESSONS = (
    Lesson(name="demo", out="demo", commands=(f"demo {OURS} --max-steps 20",)),
    Lesson(name="40 steps", out="whole", commands=(FORTY,)),
    Lesson(name="resumed at 30", out="resumed", commands=(RESUMED,), goes_on=("whole", 30)),
    Lesson(name="cached teacher", out="cached", commands=(CACHE, CACHED), cache="cache"),
    Lesson(name="hidden, attention", out="hidden", commands=(f"{LIVE} {NEW} {INSIDE} --max-steps 12",)),
    Lesson(name="rotated", out="rotated", commands=(f"{LIVE} {ROTATED} --max-steps 20",)),
    Lesson(name="LoRA", out="lora", commands=(f"{LIVE} {NEW} --lora r=4 --merge-adapters --max-steps 20",)),
    Lesson(name="on-policy, packed", out="written", commands=(f"{LIVE} {NEW} {WRITTEN} --max-steps 8",)),
    Lesson(name="other tokenizer", out="spans", commands=(f"{LIVE} {OTHER} --max-steps 10",)),
    Lesson(name="before's 10 resumed", out="cross", commands=(RESUMED,), goes_on=("whole", 10), crosses=True),
)


class Side:
    """A checkout, with a directory for its runs.

    Raises:
        SystemExit: Python takes `apt_model` from elsewhere.
    """

    def __init__(self, name: str, checkout: Path, home: Path) -> None:
        self.name, self.home = name, home
        self._env = {**os.environ, **SWITCHES, "COLUMNS": "100", "PYTHONPATH": str(checkout)}
        self.said: dict[str, list[str]] = {}  # by lesson
        self.failed: dict[str, str] = {}
        where = self._python("-c", "import apt_model; print(apt_model.__file__)").stdout.strip()
        if not Path(where or "/").is_relative_to(checkout):
            raise SystemExit(f"error: apt_model comes from {where or 'nowhere'}, not from {checkout}")

    def _python(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *words], cwd=self.home, env=self._env, capture_output=True, text=True)

    def teach(self, lesson: Lesson, origin: Path) -> None:
        """Run the lesson's commands; `origin` has the run that it goes on from, if it does."""
        if lesson.goes_on is not None:
            _take_back(origin / lesson.goes_on[0], self.home / lesson.out, step=lesson.goes_on[1])
        *first, last = lesson.commands
        for command in (*first, f"{last} --out {lesson.out}"):
            done = self._python("-m", "apt_model", *command.split())
            self.said[lesson.name] = _steady_words(done.stdout)
            if done.returncode:
                line = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
                self.failed[lesson.name] = f"exit code {done.returncode} {self.name}: {line}"
                return

    def student(self, run: str) -> dict[str, Any]:
        """The tensors of a run's student, by file."""
        return {path.name: _content(path) for path in (self.home / run / "student").glob("*.safetensors")}

    def left(self, lesson: Lesson) -> dict[str, dict[str, Any]]:
        """What a lesson has left, by column."""
        found: dict[str, dict[str, Any]] = {column: {} for column in COLUMNS}
        for folder in filter(None, (lesson.out, lesson.cache)):
            for path in sorted((self.home / folder).rglob("*")):
                if path.is_file():
                    column = _column_of(path.relative_to(self.home / folder))
                    name = path.relative_to(self.home).as_posix()
                    found["files"].setdefault(name, None)
                    found[column][name] = _content(path, with_sums=column != "checkpoint fields")
        found["words"]["line"] = self.said.get(lesson.name, [])
        return found


def _take_back(run: Path, copy: Path, *, step: int) -> None:
    """Copy a run as it was when it had been stopped after that step's checkpoint."""
    if not (run / "checkpoints").is_dir():
        return  # its lesson has failed, and so will this one
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("student", "summary.json"))
    for folder in (copy / "checkpoints").iterdir():
        if int(folder.name.rpartition("-")[2]) > step:
            shutil.rmtree(folder)


def _column_of(path: Path) -> str:
    if path.name == "events.jsonl":
        return "events"
    if path.parts[0] == "checkpoints":
        return "checkpoint bytes" if path.suffix == ".safetensors" else "checkpoint fields"
    return "student bytes" if path.parts[0] == "student" and path.suffix == ".safetensors" else "files"


def _content(path: Path, *, with_sums: bool = True) -> Any:
    """What is in a file: JSON without what a clock decides, tensors by hash, else a hash of all of it."""
    content = path.read_bytes()
    if path.suffix == ".safetensors":
        start = 8 + int.from_bytes(content[:8], "little")
        tensors = json.loads(content[8:start])
        for about in tensors.values():
            if "data_offsets" in about:
                begin, end = about.pop("data_offsets")
                about["sha256"] = hashlib.sha256(content[start + begin : start + end]).hexdigest()
        return tensors
    if path.suffix == ".json":
        return _steady(json.loads(content), with_sums=with_sums)
    if path.suffix != ".jsonl":
        return hashlib.sha256(content).hexdigest()
    records = [_steady(json.loads(line)) for line in content.splitlines()]
    kinds = [record["kind"] for record in records]
    return {"order": kinds} | {kind: [one for one in records if one["kind"] == kind] for kind in kinds}


def _steady(value: Any, key: str = "", *, with_sums: bool = True) -> Any:
    """JSON values; instead of those that a clock decides the names of their types, and without sums those of sums."""
    if isinstance(value, dict):
        return {name: _steady(one, name, with_sums=with_sums) for name, one in value.items()}
    if isinstance(value, list):
        return [_steady(one, key, with_sums=with_sums) for one in value]
    is_time = key in ("run_id", "wall_time") or key.endswith(("seconds", "per_second"))
    is_sum = key in ("bytes", "sha256") and not with_sums
    return type(value).__name__ if is_time or is_sum else value


def _steady_words(said: str) -> list[str]:
    """Lines without times and free space."""
    return re.sub(r"[\d.,]+ GB", "# GB", re.sub(r"\d+:\d\d(?!\d)", "#:##", said)).splitlines()


def differences(before: Any, after: Any, path: str, may_add: Callable[[str], bool]) -> Iterator[str]:
    """What differs, in words; what `after` alone has is none where it may be added."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before | after:
            here = f"{path}.{key}" if path else str(key)
            if key not in after:
                yield f"{here}: only before"
            elif key in before:
                yield from differences(before[key], after[key], here, may_add)
            elif not may_add(key):
                yield f"{here}: only after"
    elif isinstance(before, list) and isinstance(after, list):
        after = [one for one in after if not isinstance(one, str) or one in before or not may_add(one)]
        if len(before) != len(after):
            yield f"{path}: {len(before)} before, {len(after)} after"
        for index, (one, other) in enumerate(zip(before, after, strict=False)):
            yield from differences(one, other, f"{path}[{index}]", may_add)
    elif repr(before) != repr(after):  # 1 is not 1.0
        is_hash = path.endswith(".sha256")
        yield f"{path}: " + ("other bytes" if is_hash else f"{before!r:.60} before, {after!r:.60} after")


def count(value: Any) -> int:
    """The values in it that are neither a dict nor a list."""
    if isinstance(value, dict | list):
        return sum(map(count, value.values() if isinstance(value, dict) else value))
    return 1


def compare(lesson: Lesson, sides: tuple[Side, Side], allow: Collection[str]) -> tuple[list[str], list[str]]:
    """A lesson's row of the table, and what is to be said of it below."""
    failed = [side.failed[lesson.name] for side in sides if lesson.name in side.failed]
    if failed:
        return ["failed"] * len(COLUMNS), [f"{lesson.name}: {line}" for line in failed]
    added: dict[str, None] = {}

    def may_add(key: str) -> bool:
        name = key.rpartition("/")[2]
        if name in allow:
            added[name] = None
        return name in allow

    (before, after), cells, notes = (side.left(lesson) for side in sides), [], []
    for column in COLUMNS:
        found = list(differences(before[column], after[column], "", may_add))
        if column == "student bytes" and lesson.goes_on is not None:
            for side, origin in zip(sides, (sides[0], sides[0] if lesson.crosses else sides[1]), strict=True):
                if side.student(lesson.out) != origin.student(lesson.goes_on[0]):
                    found.insert(0, f"resumed {side.name}: another student than undisturbed {origin.name}")
        values = count(before[column])
        cells.append(f"{len(found)} differ" if found else f"same ({values:,})" if values else "nothing there")
        kinds: dict[str, str] = {}
        for line in sorted(found, key=lambda line: ": only " not in line):
            kinds.setdefault(re.sub(r"\d+", "#", line.partition(": ")[0]), line)
        notes += [f"{lesson.name}, {column}: {line}" for line in [*kinds.values()][:SHOWN]]
    return cells, notes + ([f"{lesson.name}: added: {', '.join(added)}"] if added else [])


def prepare(checkout: Path, home: Path) -> None:
    """The demo's teacher, its corpus, and the teacher with other ids for the same characters, for a side."""
    package = checkout / "apt_model"
    corpus = next(package.rglob("corpus.txt"))
    lines, teacher = corpus.read_text("utf-8").splitlines(), corpus.with_name("teacher")
    home.mkdir()
    (home / "corpus.txt").write_text("\n".join(line for line in lines if not line.startswith("# ")), "utf-8")
    for name in ("teacher", "other"):
        shutil.copytree(teacher, home / name)
    path = home / "other" / "tokenizer.json"
    tokenizer = json.loads(path.read_text("utf-8"))
    special = {one["id"] for one in tokenizer["added_tokens"]}
    plain = {token: index for token, index in tokenizer["model"]["vocab"].items() if index not in special}
    tokenizer["model"]["vocab"] |= dict(zip(plain, reversed(plain.values()), strict=True))
    path.write_text(json.dumps(tokenizer), "utf-8")


def main() -> int:
    """Teach, print the table, and say whether all is the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, metavar="BEFORE", help="root of a checkout")
    parser.add_argument("after", type=Path, metavar="AFTER", help="root of another one")
    parser.add_argument("--allow", action="append", default=[], metavar="KEY", help="a field that AFTER may add")
    arguments = parser.parse_args()
    before, after = arguments.before.resolve(), arguments.after.resolve()
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(2) as pool:
        homes = [Path(place, name) for name in ("before", "after")]
        for home in homes:
            prepare(before, home)
        sides = Side("before", before, homes[0]), Side("after", after, homes[1])
        rows, notes = [["", *COLUMNS]], []
        for lesson in LESSONS:
            print(f"{lesson.name} …", file=sys.stderr)
            origins = [sides[0].home] * 2 if lesson.crosses else homes
            list(pool.map(lambda side, origin, now=lesson: side.teach(now, origin), sides, origins))
            cells, said = compare(lesson, sides, arguments.allow)
            rows.append([lesson.name, *cells])
            notes += said
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print("", *notes, sep="\n")
    is_same = all(cell.startswith("same") for row in rows[1:] for cell in row[1:])
    print("all the same" if is_same else "not the same")
    return not is_same


if __name__ == "__main__":
    sys.exit(main())
