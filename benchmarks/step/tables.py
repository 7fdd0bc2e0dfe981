"""Markdown tables of the step benchmark's results. Knows nothing of how they were measured."""

import statistics
from typing import Any

from benchmarks.markdown import MISSING, grid
from benchmarks.rounds import quartiles, spread
from benchmarks.sizes import SIZES
from benchmarks.step.objective import TASK
from benchmarks.step.worker import CONTENDERS

Found = dict[str, Any]  # {"machine": ..., "cells": [...]}, as `step` writes it
ALLOCATOR_NOTES = {
    "glibc": "glibc as it comes: big tensors go back to the kernel and come anew, page by page",
    "kept": "glibc told to keep its pages (`MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=200000000000`), as a GPU's "
    "caching allocator does",
}


def ratios(cell: Found, key: str, clock: str) -> list[float]:
    """A contender's laps over the floor's, round by round; the floor is the mean of its two laps."""
    if key not in cell["laps"]:
        return []
    first = next(iter(cell["laps"]))
    floors = zip(cell["laps"][first], cell["laps"]["floor again"], strict=True)
    base = [(one[clock] + two[clock]) / 2 for one, two in floors]
    return [own[clock] / floor for own, floor in zip(cell["laps"][key], base, strict=True)]


def label(key: str) -> str:
    """A row's name: ours in bold, with a dagger if it computes something other than the task."""
    name, _, dtype = key.partition(" ")
    if name not in CONTENDERS:
        return key
    is_task = str(CONTENDERS[name].objective) == str(TASK)
    mark = "" if is_task or name.startswith("floor") or name == "no-kd" else " †"
    text = f"{name}{mark}{'' if dtype == 'fp32' else f', all {dtype}'}"
    return f"**{text}**" if name.startswith("ours") else text


def noise(cell: Found) -> str:
    """The floor against itself."""
    first = next(iter(cell["laps"]))
    pairs = zip(cell["laps"][first], cell["laps"]["floor again"], strict=True)
    return spread([two["cpu"] / one["cpu"] for one, two in pairs])


def times(found: Found, allocator: str) -> str:
    """Ratios to the floor, a row a contender."""
    cells = [c for c in found["cells"] if c["kind"] == "time" and c["allocator"] == allocator and c["laps"]]
    if not cells:
        return ""
    keys = [key for key in dict.fromkeys(key for cell in cells for key in cell["laps"]) if key != "floor again"]
    head = ["contender", *(f"{cell['size']}: CPU time / floor (quartiles)" for cell in cells)]
    head += [f"{cell['size']}: wall" for cell in cells] + [f"{cell['size']}: in the kernel" for cell in cells]
    rows = []
    for key in keys:
        cpu = [spread(found) if (found := ratios(cell, key, "cpu")) else MISSING for cell in cells]
        wall = [f"{quartiles(found)[1]:.2f}" if (found := ratios(cell, key, "wall")) else MISSING for cell in cells]
        kernel = [f"{share(cell, key):.0%}" if key in cell["laps"] else MISSING for cell in cells]
        rows.append([label(key), *cpu, *wall, *kernel])
    lines = []
    for cell in cells:
        first = next(iter(cell["laps"]))
        seconds = statistics.median(one["cpu"] for one in cell["laps"][first])
        rounds = len(cell["laps"][first])
        lines.append(
            f"- {cell['size']}: {SIZES[cell['size']]}; the floor takes {seconds:.2f} s of CPU time; rounds: {rounds}; "
            f"the floor over itself {noise(cell)}"
        )
    title = f"### Time over the floor: {ALLOCATOR_NOTES[allocator]}\n"
    return "\n".join([title, grid(head, rows), *lines, ""])


def share(cell: Found, key: str) -> float:
    """Of a contender's CPU time, what the kernel took."""
    laps = cell["laps"][key]
    return float(statistics.median(min(lap["kernel"] / lap["cpu"], 1.0) for lap in laps))


def memory(found: Found) -> str:
    """Peak above the floor's, a row a contender."""
    cells = [cell for cell in found["cells"] if cell["kind"] == "memory"]
    peak = {(key, cell["size"]): mib for cell in cells for key, mib in cell["peak"].items()}
    sizes, keys = list(dict.fromkeys(s for _, s in peak)), list(dict.fromkeys(k for k, _ in peak))
    if not peak:
        return ""
    rows = []
    for key in keys:
        row = [label(key)]
        for size in sizes:
            own, floor = peak.get((key, size)), peak.get((f"floor {key.partition(' ')[2]}", size))
            if own is None or floor is None:
                row.append(MISSING)
            elif key.startswith("floor"):
                row.append(f"({own:,.0f} above rest)")
            else:
                row.append(f"{own - floor:,.0f}")
        rows.append(row)
    return "### Peak memory above the floor's, MiB\n\n" + grid(["contender", *sizes], rows)


def agreement(found: Found) -> str:
    """What each computes, and whether it does; who is missing, and why."""
    checks = [cell for cell in found["cells"] if cell["kind"] == "check"]
    rows = []
    for name, (loss, gradient) in (item for cell in checks for item in cell["errors"].items()):
        contender = CONTENDERS[name]
        verdict = "yes" if max(loss, gradient) <= contender.objective.tolerance else "**no**"
        version = found["machine"]["versions"].get(contender.package, "")
        said = [f"{contender.package} {version}", contender.note, str(contender.objective)]
        rows.append([label(f"{name} fp32"), *said, f"{verdict} ({loss:.0e}, {gradient:.0e})"])
    head = ["contender", "from", "called through", "computes", "agrees with float64 (loss, gradient)"]
    text = "### Who computes what\n\n" + grid(head, rows) if rows else ""
    text += "\n† computes something else than the task, " + str(TASK) + ": mostly less.\n" if "†" in text else ""
    failed = {
        (key.split()[0], reason): f"{cell['kind']} {cell.get('size', '')}".strip()
        for cell in reversed(found["cells"])
        for key, reason in cell["failed"].items()
    }
    if failed:
        text += "\n### Who is missing\n\n"
        text += "".join(f"- {name} ({where}): {why}\n" for (name, why), where in sorted(failed.items()))
    return text


def heading(found: Found) -> str:
    """The machine and the versions."""
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    measured = f"{machine['device']}; {machine['threads']} thread(s); load average at the start {machine['load']}"
    return f"{measured}; {versions}\n"


def step(found: Found) -> str:
    """The whole report of the table."""
    parts = [
        heading(found),
        *(times(found, allocator) for allocator in ALLOCATOR_NOTES),
        memory(found),
        agreement(found),
    ]
    return "\n".join(part for part in parts if part)


def scaling(found: Found) -> str:
    """The curves as tables: seconds of CPU time a step, and peak above the floor's."""
    parts = [heading(found)]
    points = found["cells"]
    for axis in dict.fromkeys(point["axis"] for point in points):
        here = [point for point in points if point["axis"] == axis]
        values = sorted({point["value"] for point in here})
        peak = {(key, point["value"]): mib for point in here for key, mib in point["peak"].items()}
        laps = {(key, point["value"]): laps for point in here for key, laps in point["laps"].items()}
        rows = []
        for key in dict.fromkeys(key for key, _ in peak):
            row = [label(key)]
            for value in values:
                if (key, value) not in peak or ("floor fp32", value) not in peak:
                    row.append(MISSING)
                    continue
                seconds = statistics.median(lap["cpu"] for lap in laps[key, value])
                row.append(f"{seconds:.2f} s, {peak[key, value] - peak['floor fp32', value]:,.0f} MiB")
            rows.append(row)
        parts.append(f"### Over {axis}: CPU time a step, peak memory above the floor's\n")
        parts.append(grid([axis, *(f"{value:,}" for value in values)], rows))
    return "\n".join(parts)


def profile(found: Found) -> str:
    """What steps are made of: replicas of their parts, and the profiler's shares."""
    parts = [heading(found)]
    cells = [cell for cell in found["cells"] if cell["laps"]]
    rows = []
    for cell in cells:
        seconds = {part: statistics.median(lap["cpu"] for lap in laps) for part, laps in cell["laps"].items()}
        whole = seconds.pop("step")
        needed = [f"{spent:.2f} s, {spent / whole:.0%}" for spent in seconds.values()]
        left = whole - sum(seconds.values())
        rows.append([label(cell["key"]), cell["size"], f"{whole:.2f} s", *needed, f"{left:.2f} s, {left / whole:.0%}"])
    head = ["step", "size", "CPU time", "bodies and optimizer alone", "the heads' four products alone", "all else"]
    parts.append(grid(head, rows))
    groups = list(cells[0]["shares"]) if cells else []
    rows = [[label(c["key"]), c["size"], *(f"{c['shares'][group]:.0%}" for group in groups)] for c in cells]
    parts += ["By torch's profiler, bodies and heads together:\n", grid(["step", "size", *groups], rows)]
    parts += [f"- {key} ({cell['size']}): {why}\n" for cell in found["cells"] for key, why in cell["failed"].items()]
    return "\n".join(parts)
