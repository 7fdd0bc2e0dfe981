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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from apt_model.distill.students.fresh import create_compressed_model, parse_student
from apt_model.distill.students.shrink import shrink
from apt_model.generation.evaluator import evaluate_text_quality
from apt_model.models.pretrained import load_model
from apt_model.plugins.distillation_plugin import DistillationPlugin
from benchmarks.markdown import head, row

FRESH_RATE, CUT_RATE = 3e-3, 1e-3  # a fresh student needs the larger one, what is learned already does not outlive it
LOOKED_AT = 64  # rows that students are cut by
STUDENTS: dict[str, tuple[str, dict[str, Any] | None]] = {  # the option with their sizes; how they are cut, None: fresh
    "fresh": ("depth", None),
    "layers, even": ("depth", {}),
    "layers, angle": ("depth", {"rank": "angle"}),
    "layers, importance": ("depth", {"rank": "importance"}),
    "channels": ("width", {"method": "channels"}),
    "rotate": ("width", {"method": "rotate"}),
    "rotate + layers, even": ("both", {"method": "rotate"}),
    "rotate + layers, importance": ("both", {"method": "rotate", "rank": "importance"}),
}


def evenly(rows: Sequence[str], count: int) -> list[str]:
    """`count` rows, evenly spaced."""
    return [rows[index * len(rows) // count] for index in range(count)]


class Trial:
    """A teacher and batches of its texts: makes students, trains them, measures them on held-out text."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        size, self._arguments = arguments.batch_size, arguments
        self.teacher, tokenizer, _ = load_model(arguments.teacher)
        train, test = (path.read_text("utf-8").splitlines() for path in (arguments.train, arguments.test))
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(arguments.seed)).tolist()
        self.taught = _batches([train[index] for index in order], size)[: arguments.steps]
        self._looked_at = _batches(evenly(train, LOOKED_AT), size)
        self._judged = _batches(test[:LOOKED_AT], size)
        self._how = {"tokenizer": tokenizer, "max_length": arguments.max_length}

    def held_out(self, student: Any) -> str:
        """Perplexity, agreement with the teacher, KL to it in nats."""
        found = evaluate_text_quality(
            student, self._judged, teacher=self.teacher, max_new_tokens=0, resamples=100, device="cpu", **self._how
        )
        return f"{found['perplexity']:,.1f} · {found['agreement']:.1%} · {found['kl']:.2f}"

    def student(self, sizes: str, choice: Mapping[str, Any] | None) -> tuple[Any, str, str]:
        """A student of these sizes, fresh or cut as chosen, the layers kept and the energy kept."""
        torch.manual_seed(self._arguments.seed)
        wanted = parse_student(sizes) or {}
        if choice is None:
            return create_compressed_model(self.teacher, **wanted), "", ""
        cut = shrink(self.teacher, self._looked_at, **self._how, **wanted, **choice)
        return cut.student, " ".join(map(str, cut.layers)), f"{cut.energy_kept:.1%}"

    def teach(self, student: Any, rate: float) -> None:
        """Train the student on the batches."""
        arguments = self._arguments
        settings = {"temperature": arguments.temperature, "learning_rate": rate, "seed": arguments.seed}
        plugin = DistillationPlugin(settings | {"max_length": arguments.max_length})
        lesson = {"tokenizer": self._how["tokenizer"], "num_epochs": 1, "device": "cpu", "sinks": []}
        plugin.distill_model(student, self.teacher, self.taught, **lesson)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
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
    parser.add_argument("--only", nargs="*", choices=STUDENTS, default=list(STUDENTS), help="names of rows")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    arguments = parse(argv)
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.disable_progress_bar()
    trial = Trial(arguments)
    machine = f"torch {torch.__version__}, transformers {transformers.__version__}, {platform.machine()}"
    lesson = f"{len(trial.taught)} steps of {arguments.batch_size} rows, T = {arguments.temperature}"
    print(f"{machine}, {arguments.threads} thread; {lesson}")
    columns = ["student", "sizes", "parameters", "layers kept", "energy", "cut in", "before: ppl · agree · KL", "after"]
    print(head(columns))
    print(row(["teacher", "", _millions(trial.teacher), "", "", "", trial.held_out(trial.teacher), ""]))
    for name in arguments.only:
        option, choice = STUDENTS[name]
        sizes, began = getattr(arguments, option), time.monotonic()
        student, kept, energy = trial.student(sizes, choice)
        took, before = f"{time.monotonic() - began:.0f} s", trial.held_out(student)
        trial.teach(student, FRESH_RATE if choice is None else CUT_RATE)
        cells = [name, sizes, _millions(student), kept, energy, took, before, trial.held_out(student)]
        print(row(cells), flush=True)


def _millions(model: Any) -> str:
    return f"{model.num_parameters() / 1e6:.2f} M"


def _batches(rows: Sequence[str], size: int) -> list[list[str]]:
    return [list(rows[at : at + size]) for at in range(0, len(rows), size)]


if __name__ == "__main__":
    main()
