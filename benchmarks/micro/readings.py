"""Benchmark of one reading of the fixed rows: its time over that of a training step.

    python -m benchmarks.micro.readings            # about two minutes

The visual plugin, without cards, trains the same student with a reading after every step, and with none but those at
the start and the end, in short blocks, one after the other, in an order that turns each round. The difference, over the
number of readings, is what one costs: 32 rows, both models, the numbers, the event. A step's time is that of the
standard plugin. Prints a Markdown table.
"""

import argparse
import io
from collections.abc import Callable, Sequence

import torch

from apt_model.config.sections import DisplayConfig
from apt_model.distill.fixed_rows import MOST_ROWS
from apt_model.plugins.distillation_plugin import DistillationPlugin
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin
from apt_model.render.log import LogSink
from apt_model.render.terminal import TerminalSink
from benchmarks.machine import heading
from benchmarks.markdown import head, row
from benchmarks.rounds import interleaved, spread
from benchmarks.sizes import SIZES, make_pair

CASES = (("demo", 20), ("S", 5))  # size, steps a block
NEVER = 10**6


def measure(size: str, rounds: int, steps: int) -> list[tuple[float, float]]:
    """CPU seconds of a step and of a reading, a pair a round."""
    shape, pair = SIZES[size], make_pair(SIZES[size], dtype=torch.float32)
    batches = [torch.randint(shape.vocabulary, (shape.rows, shape.length)) for _ in range(steps)]
    models = {"student_model": pair.student, "teacher_model": pair.teacher, "optimizer": pair.optimizer}
    lesson = {**models, "train_dataloader": batches, "num_epochs": 1, "device": "cpu"}

    def standard() -> None:
        DistillationPlugin({}).distill_model(**lesson, sinks=[LogSink("zh", every=50, file=io.StringIO())])

    def reading(every: int) -> Callable[[], None]:
        def visual() -> None:
            config = {"sample_frequency": NEVER, "reading_frequency": every}
            terminal = TerminalSink(DisplayConfig.model_validate(config), file=io.StringIO())
            VisualDistillationPlugin(config).visual_distill_model(**lesson, sinks=[terminal])

        return visual

    contenders = {"standard": standard, "seldom": reading(NEVER), "always": reading(1)}
    for contender in contenders.values():
        contender()  # warms up
    laps = interleaved(contenders, rounds)
    steps_taken, seldom, always = ([lap.cpu for lap in laps[name]] for name in contenders)
    more = max(1, steps - 1)  # both read at the start and after the last step
    return [
        (step / steps, (often - rare) / more) for step, rare, often in zip(steps_taken, seldom, always, strict=True)
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    print(f"{heading(arguments.threads)}, {arguments.rounds} rounds, {MOST_ROWS} rows, CPU time\n")
    print(head(["size", "step, ms", "reading, ms", "reading / step"]))
    for size, steps in CASES:
        pairs = measure(size, arguments.rounds, steps)
        step, reading = ([1000 * pair[at] for pair in pairs] for at in (0, 1))
        ratio = [one / other for other, one in zip(step, reading, strict=True)]
        print(row([size, spread(step, digits=1), spread(reading, digits=1), spread(ratio)]), flush=True)


if __name__ == "__main__":
    main()
