"""Benchmark of a cached teacher: step time with the teacher's cache against the teacher run live.

    python -m benchmarks.micro.cached_steps

One student, teachers of 1, 4 and 10 times its size (by multiplications a token, heads counted). Both contenders run
the standard plugin on the same batches, in short blocks, one after the other in an order that turns each round, with
the thread count pinned; reported are medians of CPU time and the quartiles of their ratio. Prints a Markdown table.
"""

import argparse
import io
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from apt_model.distill.teachers.cache.manifest import CacheSettings
from apt_model.distill.teachers.cache.writer import CacheWriter
from apt_model.distill.teachers.cached import CachedTeacher
from apt_model.plugins.distillation_plugin import DistillationPlugin
from apt_model.render.log import LogSink
from benchmarks.machine import heading
from benchmarks.markdown import head, row
from benchmarks.rounds import interleaved, quartiles
from benchmarks.sizes import llama

VOCABULARY, ROWS, LENGTH = 8_000, 16, 128
STUDENT = (128, 4)  # hidden, layers
TEACHERS = {"1 ×": (128, 4), "4 ×": (256, 7), "10 ×": (384, 9)}
TEMPERATURE = 2.0


def measure(teacher_size: tuple[int, int], rounds: int, steps: int, k: int) -> tuple[dict[str, list[float]], float]:
    """CPU seconds per step of each contender, a number a round; and multiplications of teacher over student."""
    torch.manual_seed(0)
    teacher, student = llama(VOCABULARY, *teacher_size), llama(VOCABULARY, *STUDENT)
    batches = [torch.randint(VOCABULARY, (ROWS, LENGTH)) for _ in range(steps)]
    rows = [{"input_ids": ids} for batch in batches for ids in batch.tolist()]
    settings = CacheSettings(k=k, temperature=TEMPERATURE, value_type="log8", max_length=LENGTH, packing=False)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)
    with tempfile.TemporaryDirectory() as directory:
        CacheWriter(teacher, rows, settings=settings).run(Path(directory) / "cache")
        sources = {"live": teacher, "cached": CachedTeacher(Path(directory) / "cache")}

        def run(name: str) -> Callable[[], None]:
            def block() -> None:
                DistillationPlugin({"temperature": TEMPERATURE}).distill_model(
                    student_model=student,
                    teacher_model=sources[name],
                    train_dataloader=batches,
                    optimizer=optimizer,
                    num_epochs=1,
                    device="cpu",
                    sinks=[LogSink("zh", every=50, file=io.StringIO())],
                )

            return block

        contenders = {name: run(name) for name in sources}
        for contender in contenders.values():
            contender()  # warms up
        laps = interleaved(contenders, rounds)
    seconds = {name: [lap.cpu / steps for lap in own] for name, own in laps.items()}
    return seconds, _multiplications(teacher) / _multiplications(student)


def _multiplications(model: torch.nn.Module) -> int:
    """A token's: every weight once, but for the embedding, which is looked up."""
    return sum(p.numel() for name, p in model.named_parameters() if "embed_tokens" not in name)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--k", type=int, default=64)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    print(f"{heading(arguments.threads)}, {arguments.rounds} rounds, CPU time")
    print(
        f"vocabulary {VOCABULARY:,}, student {STUDENT[0]} × {STUDENT[1]}, batch {ROWS} × {LENGTH}, k = {arguments.k}\n"
    )
    columns = ["teacher over student", "live, ms a step", "cached, ms a step", "saved (quartiles)", "times faster"]
    print(head(columns))
    for name, size in TEACHERS.items():
        seconds, ratio = measure(size, arguments.rounds, arguments.steps, arguments.k)
        shares = [1 - cached / live for live, cached in zip(seconds["live"], seconds["cached"], strict=True)]
        low, middle, high = quartiles(shares)
        live, cached = (statistics.median(seconds[one]) for one in ("live", "cached"))
        saved = f"{100 * middle:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
        cells = [f"{name} ({ratio:.1f})", f"{1e3 * live:.0f}", f"{1e3 * cached:.0f}", saved, f"{live / cached:.2f}"]
        print(row(cells), flush=True)


if __name__ == "__main__":
    main()
