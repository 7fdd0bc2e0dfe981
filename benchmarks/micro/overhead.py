"""Benchmark of the display's overhead: step time of the visual plugin over that of the standard one.

    python -m benchmarks.micro.overhead            # or: make bench

Both plugins train the same student from the same teacher on the same batches, in short blocks, one after the other,
in an order that turns each round (so that a drift of the machine hits both), with the thread count pinned. Reported:
the median over rounds of the ratio of their times, its quartiles, and the standard plugin against itself, which says
how much of the ratio is noise. The visual plugin decodes, compares, scores and draws its cards as in real use, into a
buffer. Prints a Markdown table.
"""

import argparse
import io
import statistics
from collections.abc import Callable, Sequence

import torch

from apt_model.config.sections import DisplayConfig
from apt_model.events.cards import CardText
from apt_model.plugins.distillation_plugin import DistillationPlugin
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin
from apt_model.render.log import LogSink
from apt_model.render.terminal import TerminalSink
from benchmarks.machine import heading
from benchmarks.markdown import head, row
from benchmarks.rounds import interleaved, spread
from benchmarks.sizes import SIZES, make_pair

CASES = (  # size, texts of a card, batches per card, steps a block
    ("demo", "predicted", 50, 200),  # long enough for the readings at the start and the end not to weigh
    ("demo", "continued", 50, 200),
    ("demo", "predicted", 1, 50),
    ("S", "predicted", 1, 5),
    ("S", "continued", 50, 100),
)


class Characters:
    """Decodes ids as Chinese characters, so that texts have a real length."""

    def decode(self, ids: list[int], **_: object) -> str:
        """One character an id."""
        return "".join(chr(0x4E00 + index % 20_000) for index in ids)


def measure(size: str, card_text: CardText, frequency: int, rounds: int, steps: int) -> dict[str, list[float]]:
    """CPU seconds per step of each contender, a number a round."""
    shape, pair = SIZES[size], make_pair(SIZES[size], dtype=torch.float32)
    batches = [torch.randint(shape.vocabulary, (shape.rows, shape.length)) for _ in range(steps)]
    models = {"student_model": pair.student, "teacher_model": pair.teacher, "optimizer": pair.optimizer}
    lesson = {**models, "tokenizer": Characters(), "train_dataloader": batches, "num_epochs": 1, "device": "cpu"}
    config = {"sample_frequency": frequency, "card_text": card_text}

    def standard() -> None:
        log = LogSink("zh", every=50, file=io.StringIO())
        DistillationPlugin(config).distill_model(**lesson, sinks=[log])

    def visual() -> None:
        terminal = TerminalSink(DisplayConfig(sample_frequency=frequency), file=io.StringIO())
        VisualDistillationPlugin(config).visual_distill_model(**lesson, sinks=[terminal])

    contenders: dict[str, Callable[[], None]] = {"standard": standard, "visual": visual, "standard again": standard}
    for contender in contenders.values():
        contender()  # warms up
    laps = interleaved(contenders, rounds)
    return {name: [lap.cpu / steps for lap in own] for name, own in laps.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    print(f"{heading(arguments.threads)}, {arguments.rounds} rounds, CPU time\n")
    columns = [
        "size",
        "texts",
        "one card every",
        "standard, ms a step",
        "visual / standard (quartiles)",
        "standard / itself",
    ]
    print(head(columns))
    for size, card_text, frequency, steps in CASES:
        seconds = measure(size, card_text, frequency, arguments.rounds, steps)
        pairs = list(zip(seconds["standard"], seconds["standard again"], strict=True))
        base = [(one + two) / 2 for one, two in pairs]
        ratios = [visual / plain for visual, plain in zip(seconds["visual"], base, strict=True)]
        noise = statistics.median(two / one for one, two in pairs)
        milliseconds = f"{1000 * statistics.median(base):.1f}"
        cells = [size, card_text, f"{frequency} batches", milliseconds, spread(ratios, digits=3), f"{noise:.3f}"]
        print(row(cells), flush=True)


if __name__ == "__main__":
    main()
