"""Shared setup of the quality studies: the teacher, its texts, untrained students, and their evaluation.

Knows nothing of how a student is trained.
"""

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed
from torch import nn

from apt_model.data.dataset import load_dataset, make_dataloader, tokenize_dataset
from apt_model.demo.lesson import load_teacher, read_corpus, read_unseen
from apt_model.distill.students.fresh import create_compressed_model
from apt_model.distill.students.shrink import shrink
from apt_model.events.evaluation import Evaluation
from apt_model.generation.evaluator import evaluate_text_quality
from apt_model.models.pretrained import load_model

LOOKED_AT = 64  # rows that a width is cut by


class Portions:
    """`count` batches of a loader as an epoch; the next epoch continues where the last one ended."""

    def __init__(self, loader: Any, count: int) -> None:
        self._loader, self._count = loader, count
        self._left = self._forever()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return islice(self._left, self._count)

    def _forever(self) -> Iterator[Any]:
        while True:
            yield from self._loader


class School:
    """A teacher, its texts, untrained students, and their evaluation."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        if arguments.teacher is None:
            self.teacher, self.tokenizer = load_teacher()
            rows, looked = (
                [{"text": line} for lines in corpus.values() for line in lines]
                for corpus in (read_corpus(), read_unseen())
            )
        else:
            self.teacher, self.tokenizer, _ = load_model(arguments.teacher)
            rows = load_dataset(arguments.data)
            if arguments.rows is not None:
                rows = rows.select(range(min(arguments.rows, len(rows))))
            looked = list(islice(load_dataset(arguments.validation), arguments.documents))
        self.rows, self._looked = (self._tokenized(some) for some in (rows, looked))

    def _tokenized(self, rows: Any) -> Any:
        import datasets

        data = rows if hasattr(rows, "map") else datasets.Dataset.from_list(list(rows))
        return tokenize_dataset(data, tokenizer=self.tokenizer, max_length=self._arguments.max_length)

    def student(self, start: str, seed: int) -> Any:
        """An untrained student: `start` is "fresh", "layers" or "width", as in `quality.Arm`."""
        config = self.teacher.config
        set_seed(seed)
        if start == "width":
            width = self._arguments.width
            sizes = {name: int(getattr(config, name) * width) for name in ("hidden_size", "intermediate_size")}
            some = [self.rows[index] for index in range(0, len(self.rows), max(1, len(self.rows) // LOOKED_AT))]
            return shrink(self.teacher, [some], tokenizer=self.tokenizer, **sizes).student
        init = "fresh" if start == "fresh" else "teacher"
        return create_compressed_model(self.teacher, num_layers=max(1, config.num_hidden_layers // 2), init=init)

    def looked(self) -> Any:
        """Batches of the held-out text."""
        return make_dataloader(self._looked, batch_size=self._arguments.batch_size, shuffle=False)

    def judge(self, student: nn.Module, control: nn.Module | None) -> Evaluation:
        """Evaluate a student on the held-out text, beside its control if there is one."""
        return evaluate_text_quality(
            student, self.looked(), self.tokenizer, self.teacher, control=control, max_new_tokens=0
        )


def add_material(parser: argparse.ArgumentParser) -> None:
    """Add the options for teacher, data and students."""
    parser.add_argument("--teacher", metavar="DIR", help="a model directory (default: the demo's)")
    parser.add_argument("--data", nargs="+", metavar="FILE", help="training text")
    parser.add_argument("--rows", type=int, help="its first rows only (default: all)")
    parser.add_argument("--validation", nargs="+", metavar="FILE", help="held-out text")
    parser.add_argument("--documents", type=int, default=64, help="rows of it (default: 64)")
    parser.add_argument(
        "--width",
        type=float,
        default=0.75,
        help="share of the teacher's width that a rotated student keeps (default: 0.75, as large as half its layers)",
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
