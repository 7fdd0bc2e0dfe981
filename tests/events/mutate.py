"""A grammar of damage: real records and run folders, changed as disks, editors, other programs and people change them.

Seeded: the same dice give the same damage.
"""

import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from apt_model.events.cards import Reading, ScoredObservation
from apt_model.events.event import Event
from apt_model.events.records import EpochFinished, RunFinished, StepDone
from apt_model.events.results import (
    Change,
    MeanEstimate,
    ReadingSummary,
    RowReading,
    TextPair,
    TopicScore,
    Validation,
)
from apt_model.events.runfile import CONFIG, EVENTS, STUDENT, SUMMARY, encode, to_record
from tests.dashboard.lessons import lesson

RAW = {  # what stands where a value stood: no value of Python's that json would write so
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "1e999": "1e999",
    "-1e999": "-1e999",
    "5,000 digits": "9" * 5_000,
    "400 digits": "9" * 400,
    "long fraction": "0." + "1" * 400,
    "nested 5,000 deep": "[" * 5_000 + "]" * 5_000,
    "nested 900 deep": "[" * 900 + "]" * 900,
    "objects 600 deep": '{"a":' * 600 + "1" + "}" * 600,
    "nested 33 deep": "[" * 33 + "]" * 33,
    "control character": '"a\tb"',
    "half an escape": '"\\u12"',
    "single quotes": "'text'",
    "comment": "/* none */",
    "hexadecimal": "0x10",
    "leading zero": "007",
    "nothing": "",
    "two of them": "1 2",
}
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 10**30, -(10**30), 2**53, 2**53 + 1, 1e308, -1e308, 5e-324, 0.5, "", " ", "text", "1",
    "nan", "\ud800", "\x00", "\u202e\x1b[31m", "__proto__", "constructor", "工" * 9, [], {}, [[]], [None], [1, "a"],
    {"a": 1}, {"__proto__": {"x": 1}}, {"": {"": {}}},
)  # fmt: skip
KEPT = ("kind", "schema")
EXTREMES: dict[type, tuple[Any, ...]] = {
    int: (0, 1, 2**53, 10**9),
    float: (0.0, -0.0, 1e308, -1e308, 5e-324, -1.0, 1e17, 0, 2**53),
    str: ("", " ", "\ud800", "\x00\x1b[2J", "constructor", "__proto__", "toString", "{step}", "工" * 300, "\n" * 20),
    bool: (True, False),
    list: ([],),
    dict: ({},),
    type(None): (None,),
}
NAMES = (
    "课程".encode("gbk"), b"\xff\xfe", b"caf\xe9", "课程".encode(), b"-rf", b"a\nb", b"\x1b[31mred", b'"quoted"',
    b"...", "\u202egpj".encode(), "😀".encode(), b"<script>alert(1)<", b"n" * 255, b" ", b"%2e%2e",
    "\ud800".encode("utf-8", "surrogatepass"),
)  # fmt: skip
Line = bytes
Mutation = Callable[[Random, list[Line]], list[Line]]


def real_lines(steps: int = 20) -> list[Line]:
    """The lines of a lesson in which every field that there is holds something."""
    mean = MeanEstimate(value=0.5, error=0.1)
    measured = ReadingSummary(
        rows=2,
        tokens=12,
        agreement=mean,
        kl=mean,
        ce=mean,
        laziness=mean,
        teacher_ce=MeanEstimate(value=1.0, error=None),
    )
    return [
        encode(to_record(_filled(event, measured))) for told in lesson(steps) for event in _with_reading(told, measured)
    ]


def _with_reading(event: Event, measured: ReadingSummary) -> list[Event]:
    if not isinstance(event, EpochFinished):
        return [event]
    row = RowReading(tokens=6, kl=0.5, normalised_kl=0.4, agreement=0.5, ce=2.0, teacher_ce=1.5, echo=0.0)
    texts = {"texts": ("互联网", "医疗"), "topics": ("互联网", "医疗")} if event.epoch == 1 else {}
    read = Reading(
        run_id="r", step=event.step, epoch=event.epoch, unseen=True, rows=(row, row), measured=measured, **texts
    )
    return [read, replace(read, unseen=False, measured=None), event]


def _filled(event: Event, measured: ReadingSummary) -> Event:
    pair = TextPair(teacher_text="好", student_text="不好", normalised_kl=0.5)
    seen = Validation(loss=1.0, kd=1.0, ce=1.0, agreement=0.5, tokens=9, pairs=(pair,), mean_laziness=0.5)
    topics = (TopicScore(topic="医疗", samples=4, mean_laziness=0.5, rows=1, mastery=measured.kl),)
    if isinstance(event, StepDone):
        return replace(event, hidden=0.1, attention=0.2, router=0.3)
    if isinstance(event, ScoredObservation):
        more = {"kd_pull": 0.1, "ce_pull": 0.2, "softness": 0.3, "gain": 0.4, "echo": 0.1, "original": "原文"}
        ids = ((1, 2), (1, 3))
        return replace(
            event, grade="fair", card_text=("predicted", "continued")[event.step // 5 % 2], token_ids=ids, **more
        )
    if isinstance(event, EpochFinished):
        return replace(event, validation=seen, topics=topics)
    if isinstance(event, RunFinished):
        change, failures = Change(since=0, laziness=measured.kl), ("TerminalSink: OSError",)
        both = {"unseen": measured, "learned": measured}
        return replace(event, validation=seen, topics=topics, change=change, grade="good", failures=failures, **both)
    return event


def damaged_record(dice: Random, lines: list[Line]) -> bytes:
    """A record of these lines with one to three kinds of damage."""
    for _ in range(dice.randint(1, 3)):
        lines = dice.choice(MUTATIONS)(dice, lines)
    content = b"".join(line + b"\n" for line in lines)
    return dice.choice(ENDINGS)(dice, content) if dice.random() < 0.3 else content


def damaged_value(dice: Random, line: Line) -> Line:
    """The line with something else where one of its values stood, wherever in it."""
    with suppress(ValueError, RecursionError):  # what is damaged already may be no JSON
        return _other_value(dice, json.loads(line))
    return line


def _other_value(dice: Random, record: Any) -> Line:
    found = holders(record)
    if not found:
        return json.dumps(record).encode()
    holder = dice.choice(found) if dice.random() < 0.6 else record
    key = dice.choice(keys(holder))
    kind = dice.random()
    if kind < 0.4:
        holder[key] = dice.choice(VALUES)
    elif kind < 0.6:
        mark, raw = "\ue000mark\ue001", dice.choice(list(RAW.values()))
        holder[key] = mark
        return json.dumps(record, ensure_ascii=False).replace(f'"{mark}"', raw).encode("utf-8", "surrogatepass")
    else:
        _reshape(dice, holder, key)
    return json.dumps(record, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")


def _reshape(dice: Random, holder: Any, key: Any) -> None:
    """Another form: an entry lost, doubled, renamed, wrapped, of another's value, far too long, or not finite."""
    way = dice.randrange(8)
    if way == 0:
        del holder[key]
    elif way == 1 and isinstance(holder, list):
        holder.append(holder[key])
    elif way == 2 and isinstance(holder, dict):
        holder[dice.choice(["kind", "step", "nonfinite", "schema", "truncated", "x" * 300])] = holder.pop(key)
    elif way == 3:
        holder[key] = [holder[key]]
    elif way == 4:
        holder[key] = dice.choice(["长" * 30_000, "x" * 200_000, [1] * 40_000, {str(at): at for at in range(9_000)}])
    elif way == 5 and isinstance(holder, dict):
        holder["nonfinite"] = dice.choice([5, [], {key: "nan"}, {key: "5"}, {key: 5}, {f"{key}.0": "inf"}, {"": "nan"}])
        holder[key] = None
    elif way == 6 and isinstance(holder, dict):
        holder["nonfinite"] = {key: dice.choice(["nan", "inf", "-inf"])}
        holder[key] = None
    else:
        holder[key] = json.dumps(holder[key])


def _same_types(dice: Random, lines: list[Line]) -> list[Line]:
    """Some values at the ends of what their type holds: what a strict reader takes, and who shows it must bear."""
    return [_at_the_ends(dice, line) if dice.random() < 0.4 else line for line in lines]


def _at_the_ends(dice: Random, line: Line) -> Line:
    with suppress(ValueError, RecursionError, TypeError):  # of what is damaged already
        record = json.loads(line)
        places = [(holder, key) for holder in holders(record) for key in keys(holder) if key not in KEPT]
        for holder, key in dice.sample(places, min(len(places), dice.choice([1, 2, 9]))):
            value = holder[key]
            if isinstance(value, float) and isinstance(holder, dict) and holder is record and dice.random() < 0.4:
                record.setdefault("nonfinite", {})[key], record[key] = dice.choice(["nan", "inf", "-inf"]), None
            elif type(value) in EXTREMES:
                holder[key] = dice.choice(EXTREMES[type(value)])
        return json.dumps(record).encode()
    return line


def keys(holder: Any) -> list[Any]:
    return list(holder) if isinstance(holder, dict) else list(range(len(holder)))


def holders(value: Any, deep: int = 8) -> list[Any]:
    """Every list and object in a value that holds something."""
    if not isinstance(value, dict | list) or not value or not deep:
        return []
    inner = list(value.values() if isinstance(value, dict) else value)[:20]
    return [value, *(holder for one in inner for holder in holders(one, deep - 1))]


def _one_value(dice: Random, lines: list[Line]) -> list[Line]:
    return _with_line(dice, lines, damaged_value)


def _with_line(dice: Random, lines: list[Line], change: Callable[[Random, Line], Line]) -> list[Line]:
    at = dice.randrange(len(lines)) if lines and dice.random() < 0.8 else 0
    return [*lines[:at], change(dice, lines[at]), *lines[at + 1 :]] if lines else lines


def _some_bytes(dice: Random, line: Line) -> Line:
    found = bytearray(line)
    for _ in range(dice.choice([1, 1, 3, 30])):
        if found:
            found[dice.randrange(len(found))] = dice.randrange(256)
    return bytes(found)


def _part(dice: Random, line: Line) -> Line:
    begin, end = sorted(dice.randrange(len(line) + 1) for _ in range(2))
    return dice.choice([line[:begin], line[begin:], line[begin:end], line[:begin] + line[end:]])


def _insert(dice: Random, line: Line) -> Line:
    at = dice.choice([0, len(line), dice.randrange(len(line) + 1)])
    odd = [
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\r",
        b"\n",
        b"\xed\xa0\x80",
        b"\x00" * 5_000,
        "课".encode("gbk"),
        b"{",
        b"]",
    ]
    return line[:at] + dice.choice(odd) + line[at:]


def _return_between(dice: Random, line: Line) -> Line:
    return line.replace(b",", b",\r", 1) + dice.choice([b"", b"\r", b" \t"])


def _same_key_twice(dice: Random, line: Line) -> Line:
    return b'{"step":"first","step":2,' + line[1:] if dice.random() < 0.5 else line[:-1] + b',"step":7,"step":8}'


def _encoding(dice: Random, line: Line) -> Line:
    text = line.decode("utf-8", "replace")
    return text.encode(dice.choice(["utf-16", "utf-16-le", "utf-32", "gbk", "utf-8-sig", "utf-7"]), "replace")


def _of_one_line(change: Callable[[Random, Line], Line]) -> Mutation:
    return lambda dice, lines: _with_line(dice, lines, change)


def _shuffled(dice: Random, lines: list[Line]) -> list[Line]:
    return dice.sample(lines, len(lines))


def _two_writers(dice: Random, lines: list[Line]) -> list[Line]:
    return [line for pair in zip(lines, reversed(lines), strict=True) for line in pair]


def _clock_jumps(dice: Random, lines: list[Line]) -> list[Line]:
    """The wall clock runs backwards from somewhere on, or is nowhere near."""
    jump = dice.choice([-1e9, -5e9, 1e12, -1e300])
    at = dice.randrange(len(lines) + 1)
    return [*lines[:at], *(_later(line, jump) for line in lines[at:])]


def _later(line: Line, seconds: float) -> Line:
    with suppress(ValueError, RecursionError, TypeError):
        record = json.loads(line)
        record["wall_time"] += seconds
        return json.dumps(record).encode()
    return line


def _odd_line(dice: Random, lines: list[Line]) -> list[Line]:
    odd = [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        b"NaN",
        b"\x00" * 100,
        b"x" * 70_000,
        b"[" * 100_000,
        b"{" * 100_000,
        b"5" * 5_000,
    ]
    at = dice.randrange(len(lines) + 1)
    return [*lines[:at], *[dice.choice(odd)] * dice.choice([1, 1, 5]), *lines[at:]]


def _huge_line(dice: Random, lines: list[Line]) -> list[Line]:
    at = dice.randrange(len(lines) + 1)
    huge = dice.choice(
        [b'"' + b"x" * 5_000_000 + b'"', b'{"kind":"step","x":[' + b"1," * 500_000 + b"1]}", b"\x00" * 4_500_000]
    )
    return [*lines[:at], huge, *lines[at:]]


def _many_changed(dice: Random, lines: list[Line]) -> list[Line]:
    return [damaged_value(dice, line) if dice.random() < 0.5 else line for line in lines]


def _beginning_lost(dice: Random, lines: list[Line]) -> list[Line]:
    return lines[dice.randrange(len(lines) + 1) :]


VALUE = (_one_value, _one_value, _one_value, _many_changed)
BYTES = tuple(map(_of_one_line, (_some_bytes, _part, _insert, _return_between, _same_key_twice, _encoding)))
MUTATIONS: tuple[Mutation, ...] = (
    *VALUE, *VALUE, *[_same_types] * 3, *BYTES, _shuffled, _two_writers, _clock_jumps, _odd_line, _odd_line,
    _beginning_lost, _huge_line,
)  # fmt: skip
ENDINGS: tuple[Callable[[Random, bytes], bytes], ...] = (
    lambda dice, content: content[: dice.randrange(len(content) + 1)],
    lambda dice, content: content[:-1],
    lambda dice, content: b"\xef\xbb\xbf" + content,
    lambda dice, content: content.replace(b"\n", b"\r\n"),
    lambda dice, content: content.decode("utf-8", "replace").encode("utf-16"),
    lambda dice, content: content + b"\x00" * 10_000,
    lambda dice, content: dice.randbytes(5_000),
    lambda dice, content: b"",
    lambda dice, content: b"\n" * 50,
)


def damaged_folder(dice: Random, folder: Path, lines: list[Line], good: Path) -> Path:
    """A run folder below `folder` that is not what it should be; `good`: a whole run for links to point at."""
    number = f"{dice.randrange(10**9)}-".encode()
    name = dice.choice(NAMES) if dice.random() < 0.5 else b"run"
    run = Path(os.fsdecode(os.fsencode(folder) + b"/" + (name if len(name) == 255 else number + name)))
    with suppress(FileExistsError):
        run.mkdir()
    record = run / EVENTS
    for path in (record, run / CONFIG, run / SUMMARY, run / STUDENT):
        with suppress(OSError):
            usual = path is not record or dice.random() < 0.6
            _usual(dice, path, lines) if usual and dice.random() < 0.8 else _odd_file(dice, path, lines, good)
    if dice.random() < 0.2:
        damaged_folder(dice, run, lines, good)
    if dice.random() < 0.1:
        run.chmod(dice.choice([0o000, 0o444, 0o111]))
    return run


def _usual(dice: Random, path: Path, lines: list[Line]) -> None:
    if path.name == EVENTS:
        path.write_bytes(
            b"".join(line + b"\n" for line in lines) if dice.random() < 0.3 else damaged_record(dice, lines)
        )
    elif path.suffix:
        path.write_bytes(damaged_value(dice, lines[0]))
    elif dice.random() < 0.5:
        path.mkdir()


def _odd_file(dice: Random, path: Path, lines: list[Line], good: Path) -> None:
    way = dice.randrange(9)
    targets = [good / EVENTS, good, path, Path("/dev/zero"), Path("nowhere"), Path("/dev/null"), Path("/proc/self/mem")]
    if way == 0:
        os.mkfifo(path)
    elif way == 1:
        path.mkdir()
    elif way in (2, 3):
        path.symlink_to(dice.choice(targets))
    elif way == 4:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.relpath(path))
    elif way == 5:
        path.write_bytes(damaged_record(dice, lines))
        path.chmod(0)
    elif way == 6:
        path.write_bytes(b"")
    elif way == 7:
        with path.open("wb") as file:
            file.truncate(dice.choice([1, 10_000_000]))  # a hole: NUL bytes
