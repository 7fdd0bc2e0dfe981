"""Plots of the step benchmark's results. Needs matplotlib, and prints so if it is missing; knows nothing of clocks."""

import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.rounds import quartiles
from benchmarks.step.tables import Found, ratios

OURS, THEIRS, FLOOR = "tab:orange", "tab:gray", "black"


def _pyplot() -> Any:
    try:
        import matplotlib
    except ModuleNotFoundError:
        print("no plot: matplotlib is not installed; it comes with benchmarks/step/requirements.txt", file=sys.stderr)
        return None
    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


def step(found: Found, path: Path) -> None:
    """Bars: time over the floor, a panel a size, fp32 and bf16, either allocator."""
    pyplot = _pyplot()
    cells = [cell for cell in found["cells"] if cell["kind"] == "time" and cell["laps"]]
    if pyplot is None or not cells:
        return
    sizes = list(dict.fromkeys(cell["size"] for cell in cells))
    keys = [key for key in dict.fromkeys(key for cell in cells for key in cell["laps"]) if key != "floor again"]
    figure, axes = pyplot.subplots(1, len(sizes), figsize=(1 + 3.2 * len(sizes), 1 + 0.28 * len(keys)), sharey=True)
    for axis, size in zip([axes] if len(sizes) == 1 else axes, sizes, strict=True):
        for cell in (cell for cell in cells if cell["size"] == size):
            is_kept = cell["allocator"] == "kept"
            for place, key in enumerate(keys):
                values = ratios(cell, key, "cpu")
                if not values:
                    continue
                low, middle, high = quartiles(values)
                colour = OURS if key.startswith("ours") else FLOOR if key.startswith("floor") else THEIRS
                offset = 0.2 if is_kept else -0.2
                error = [[middle - low], [high - middle]]
                axis.barh(place + offset, middle, 0.38, xerr=error, color=colour, alpha=0.55 if is_kept else 1)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_title(size)
        axis.set_xlabel("CPU time / floor")
    first = axes if len(sizes) == 1 else axes[0]
    first.set_yticks(range(len(keys)), [key.replace(" fp32", "").replace(" bf16", ", bf16") for key in keys])
    first.invert_yaxis()
    figure.suptitle("a distillation step; full colour: glibc, pale: an allocator that keeps its pages", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def scaling(found: Found, path: Path) -> None:
    """Curves: time, and peak memory above the floor's, over what grows."""
    pyplot = _pyplot()
    if pyplot is None:
        return
    points = found["cells"]
    names = list(dict.fromkeys(point["axis"] for point in points))
    figure, axes = pyplot.subplots(2, len(names), figsize=(1 + 3.8 * len(names), 6), squeeze=False)
    for column, name in enumerate(names):
        here = [point for point in points if point["axis"] == name]
        base = {point["value"]: point["peak"].get("floor fp32") for point in here if "floor fp32" in point["peak"]}
        for key in dict.fromkeys(key for point in here for key in point["peak"]):
            own = [point for point in here if key in point["peak"] and point["value"] in base]
            values = [point["value"] for point in own]
            seconds = [statistics.median(lap["cpu"] for lap in point["laps"][key]) for point in own]
            style = {"label": key.removesuffix(" fp32"), "marker": "o", "markersize": 3}
            axes[0][column].plot(values, seconds, **style)
            if not key.startswith("floor"):
                style["color"] = axes[0][column].lines[-1].get_color()
                axes[1][column].plot(values, [p["peak"][key] - base[p["value"]] for p in own], **style)
        axes[0][column].set_ylabel("CPU seconds a step")
        axes[1][column].set_ylabel("peak above the floor, MiB")
        for axis in axes[:, column]:
            axis.set_xlabel(name)
            axis.set_ylim(bottom=0)
            axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
