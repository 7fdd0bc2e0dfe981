"""What does watching cost? Step time of the visual plugin over the standard one.

    python -m benchmarks.overhead            # or: make bench

Both plugins train the same student from the same teacher on the same batches, in short blocks, one after the other,
in an order that turns each round (so that a drift of the machine hits both), with the thread count pinned. Reported:
the median over rounds of the ratio of their times, its quartiles, and the standard plugin against itself, which says
how much of the ratio is noise. The visual plugin decodes, compares, scores and draws its cards as in real use, into a
buffer. Prints a Markdown table.
"""

import argparse
import io
import platform
import statistics
import time
from collections.abc import Callable

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from apt_model.config import DisplayConfig
from apt_model.plugins.distillation_plugin import DistillationPlugin
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin
from apt_model.render.log import LogSink
from apt_model.render.terminal import TerminalSink

SIZES = {  # vocabulary, teacher (hidden, layers), student, batch (rows, tokens)
    "demo": (1_500, (256, 4), (128, 2), (16, 40)),
    "S": (8_000, (256, 8), (128, 4), (16, 128)),
}
CASES = (("demo", 50, 50), ("demo", 1, 50), ("S", 1, 5))  # size, batches per card, steps a block


class Characters:
    """Decodes ids as Chinese characters, so that texts have a real length."""

    def decode(self, ids: list[int], **_: object) -> str:
        """One character an id."""
        return "".join(chr(0x4E00 + index % 20_000) for index in ids)


def llama(vocabulary: int, hidden: int, layers: int) -> LlamaForCausalLM:
    """A fresh model of the benchmark's family."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def measure(size: str, frequency: int, rounds: int, steps: int) -> dict[str, list[float]]:
    """CPU seconds per step of each contender, a number a round."""
    vocabulary, teacher_size, student_size, (rows, length) = SIZES[size]
    torch.manual_seed(0)
    teacher, student = llama(vocabulary, *teacher_size), llama(vocabulary, *student_size)
    batches = [torch.randint(vocabulary, (rows, length)) for _ in range(steps)]
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)
    models = {"student_model": student, "teacher_model": teacher, "optimizer": optimizer, "tokenizer": Characters()}
    lesson = {**models, "train_dataloader": batches, "num_epochs": 1, "device": "cpu"}
    config = {"sample_frequency": frequency}

    def standard() -> None:
        log = LogSink("zh", every=50, file=io.StringIO())
        DistillationPlugin(config).distill_model(**lesson, sinks=[log])

    def visual() -> None:
        terminal = TerminalSink(DisplayConfig(sample_frequency=frequency), file=io.StringIO())
        VisualDistillationPlugin(config).visual_distill_model(**lesson, sinks=[terminal])

    contenders: dict[str, Callable[[], None]] = {"standard": standard, "visual": visual, "standard again": standard}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        names = list(contenders)
        for name in names[turn % 3 :] + names[: turn % 3]:
            started = time.process_time()
            contenders[name]()
            if turn:  # the first round warms up
                seconds[name].append((time.process_time() - started) / steps)
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{platform.machine()}, {arguments.threads} thread(s), {versions}, {arguments.rounds} rounds, CPU time")
    print()
    print("| size | one card every | standard, ms a step | visual / standard (quartiles) | standard / itself |")
    print("|---|---|---|---|---|")
    for size, frequency, steps in CASES:
        seconds = measure(size, frequency, arguments.rounds, steps)
        pairs = list(zip(seconds["standard"], seconds["standard again"], strict=True))
        base = [(one + two) / 2 for one, two in pairs]
        ratios = [visual / plain for visual, plain in zip(seconds["visual"], base, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        spread = f"{middle:.3f} ({low:.3f} to {high:.3f})"
        noise = statistics.median(two / one for one, two in pairs)
        row = (size, f"{frequency} batches", f"{1000 * statistics.median(base):.1f}", spread, f"{noise:.3f}")
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
