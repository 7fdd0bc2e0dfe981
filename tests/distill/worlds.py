"""A small run for one process or several: `python -m tests.distill.worlds JSON`, alone or under torchrun.

The JSON: `run` (a directory or null), `resume`, `anyway`, `data` (mapped, shuffled, generator, workers, stream, list,
or one of `streams.STREAMS`, whose files are in `files`), `rows`, `epochs`, `settings`, `dropout`, and `signals`
({"SIGKILL": [rank, step]}: that rank gets it at that step). Rank 0 writes a hash of the student to a file, or prints
it; each rank writes beside that, where `counts` asks for it, how many rows it read.
"""

import hashlib
import io
import json
import os
import signal
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from transformers import LlamaConfig, LlamaForCausalLM

from apt_model import DistillationPlugin
from apt_model.distill.optimizer_step import OptimizerStep
from apt_model.errors import AptModelError
from tests.distill import streams

VOCABULARY, LENGTH = 64, 12


def model(seed: int, hidden: int, dropout: float = 0.0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    sizes = {"intermediate_size": 2 * hidden, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=hidden, attention_dropout=dropout, **sizes)
    return LlamaForCausalLM(config)


def rows_of(count: int) -> list[dict[str, Tensor]]:
    """Rows of 3 to 12 tokens."""
    dice = torch.Generator().manual_seed(3)
    ids = torch.randint(4, VOCABULARY, (count, LENGTH), generator=dice)
    mask = (torch.arange(LENGTH) < torch.randint(3, LENGTH + 1, (count, 1), generator=dice)).long()
    return [{"input_ids": one, "attention_mask": texts} for one, texts in zip(ids, mask, strict=True)]


class Stream(IterableDataset[Any]):
    """Rows that can only be read in order."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __iter__(self) -> Any:
        return iter(self.rows)


def loader_of(kind: str, count: int, files: str = "") -> Any:
    if kind in streams.STREAMS:
        streams.count_rows()
        return streams.STREAMS[kind](Path(files), count)
    rows = rows_of(count)
    if kind == "list":
        return list(DataLoader(rows, 2))
    if kind == "stream":
        return DataLoader(Stream(rows), 2)
    if kind == "workers":
        return DataLoader(rows, 2, shuffle=True, num_workers=1)
    own = torch.Generator().manual_seed(11) if kind == "generator" else None
    return DataLoader(rows, 2, shuffle=kind != "mapped", generator=own)


def send_at(number: int, step: int) -> None:
    """Let this process send itself a signal within an optimizer step."""
    take = OptimizerStep.take

    def taken(self: OptimizerStep, window: Any, rows: Any, tokens: int, progress: Any) -> Any:
        if progress.step + 1 == step:
            os.kill(os.getpid(), number)
        return take(self, window, rows, tokens, progress)

    OptimizerStep.take = taken  # type: ignore[method-assign]


def main(asked: dict[str, Any]) -> str:
    torch.set_num_threads(1)
    rank = int(os.environ.get("RANK", "0"))
    for name, (who, step) in asked.get("signals", {}).items():
        if who == rank:
            send_at(getattr(signal, name), step)
    student = model(2, 16, asked.get("dropout", 0.0))
    run = asked.get("run")
    with redirect_stdout(io.StringIO()):
        DistillationPlugin({"seed": 0, "learning_rate": 0.01, "lang": "en", **asked.get("settings", {})}).distill_model(
            student,
            model(1, 32),
            loader_of(asked.get("data", "shuffled"), asked.get("rows", 29), asked.get("files", "")),
            eval_dataloader=list(DataLoader(rows_of(9), 2)),
            num_epochs=asked.get("epochs", 2),
            device="cpu",
            run_dir=run,
            resume_from=run if asked.get("resume") else None,
            resume_anyway=asked.get("anyway", False),
            sinks=[],
        )
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in student.parameters())).hexdigest()[:16]


if __name__ == "__main__":
    try:
        said = main(json.loads(sys.argv[1]))
        if json.loads(sys.argv[1]).get("counts"):
            Path(f"{sys.argv[2]}-{os.environ.get('RANK', '0')}").write_text(str(streams.READ[0]))
        if os.environ.get("RANK", "0") == "0":
            Path(sys.argv[2]).write_text(said) if len(sys.argv) > 2 else print(said)
    except AptModelError as error:
        print(f"rank {os.environ.get('RANK', '0')}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
