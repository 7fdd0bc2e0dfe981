"""Study of a student's initialisation: fresh, copied layers or narrowed width; held-out quality before and after.

    python -m studies.students --teacher DIR --train train.txt --test test.txt

Students of about the same number of parameters: fresh; layers copied (evenly spaced, ranked by the loss without them,
ranked by angle); a narrower stream (channels picked, principal components); both. Each is measured on held-out text
before its first step and after its last. One seed, the same batches in the same order. The sizes are for
MiniMind2-Small (8 layers × 512); give others with --depth, --width and --both. Prints a Markdown table.
"""

import argparse
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from apt_model.distill.students.fresh import create_compressed_model, parse_student
from apt_model.distill.students.shrink import shrink
from apt_model.generation.evaluator import evaluate_text_quality
from apt_model.models.pretrained import load_model
from apt_model.plugins.distillation_plugin import DistillationPlugin

FRESH_RATE, CUT_RATE = 3e-3, 1e-3  # a fresh student needs the larger one, what is learned already does not outlive it
LOOKED_AT = 64  # rows that students are cut by


def evenly(rows: Sequence[str], count: int) -> list[str]:
    """`count` rows from all over."""
    return [rows[index * len(rows) // count] for index in range(count)]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, type=Path)
    parser.add_argument("--train", required=True, type=Path)
    parser.add_argument("--test", required=True, type=Path)
    parser.add_argument("--depth", default="layers=4")
    parser.add_argument("--width", default="hidden=384,mlp=960")
    parser.add_argument("--both", default="layers=6,hidden=416,mlp=1240")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names of rows")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.disable_progress_bar()
    teacher, tokenizer, _ = load_model(arguments.teacher)
    train, test = (path.read_text("utf-8").splitlines() for path in (arguments.train, arguments.test))
    how = {"tokenizer": tokenizer, "max_length": arguments.max_length}
    size = arguments.batch_size
    looked_at = _batches(evenly(train, LOOKED_AT), size)
    judged = _batches(test[:LOOKED_AT], size)

    def held_out(student: Any) -> str:
        """Perplexity, agreement with the teacher, KL to it in nats."""
        found = evaluate_text_quality(
            student, judged, teacher=teacher, max_new_tokens=0, resamples=100, device="cpu", **how
        )
        return f"{found['perplexity']:,.1f} · {found['agreement']:.1%} · {found['kl']:.2f}"

    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(arguments.seed)).tolist()
    taught = _batches([train[index] for index in order], size)[: arguments.steps]
    rows: dict[str, tuple[str, dict[str, Any] | None]] = {
        "fresh": (arguments.depth, None),
        "layers, even": (arguments.depth, {}),
        "layers, angle": (arguments.depth, {"rank": "angle"}),
        "layers, importance": (arguments.depth, {"rank": "importance"}),
        "channels": (arguments.width, {"method": "channels"}),
        "rotate": (arguments.width, {"method": "rotate"}),
        "rotate + layers, even": (arguments.both, {"method": "rotate"}),
        "rotate + layers, importance": (arguments.both, {"method": "rotate", "rank": "importance"}),
    }
    machine = f"torch {torch.__version__}, transformers {transformers.__version__}, {platform.machine()}"
    print(f"{machine}, {arguments.threads} thread; {len(taught)} steps of {size} rows, T = {arguments.temperature}")
    print("| student | sizes | parameters | layers kept | energy | cut in | before: ppl · agree · KL | after |")
    print("|---|---|---|---|---|---|---|---|")
    print(f"| teacher | | {teacher.num_parameters() / 1e6:.2f} M | | | | {held_out(teacher)} | |")
    for name, (sizes, choice) in rows.items():
        if arguments.only and name not in arguments.only:
            continue
        torch.manual_seed(arguments.seed)
        began, wanted = time.monotonic(), parse_student(sizes) or {}
        kept, energy = "", ""
        if choice is None:
            student = create_compressed_model(teacher, **wanted)
        else:
            cut = shrink(teacher, looked_at, **how, **wanted, **choice)
            student, kept, energy = cut.student, " ".join(map(str, cut.layers)), f"{cut.energy_kept:.1%}"
        took = time.monotonic() - began
        before = held_out(student)
        rate = FRESH_RATE if choice is None else CUT_RATE
        settings = {"temperature": arguments.temperature, "learning_rate": rate, "seed": arguments.seed}
        lesson = {"tokenizer": tokenizer, "num_epochs": 1, "device": "cpu", "sinks": []}
        plugin = DistillationPlugin(settings | {"max_length": arguments.max_length})
        plugin.distill_model(student, teacher, taught, **lesson)
        after, parameters = held_out(student), f"{student.num_parameters() / 1e6:.2f} M"
        print(
            f"| {name} | {sizes} | {parameters} | {kept} | {energy} | {took:.0f} s | {before} | {after} |", flush=True
        )


def _batches(rows: Sequence[str], size: int) -> list[list[str]]:
    return [list(rows[at : at + size]) for at in range(0, len(rows), size)]


if __name__ == "__main__":
    main()
