"""A table of failures: two real processes under torchrun, a fault in one of them, what leaves on each.

python -m tests.ranks.failures DIR [FAULT ...]      # one JSON object a line: seconds, and of each rank code and line
... -m tests.ranks.failures rank FAULT DIR          # a rank of them, started by torchrun
"""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STEP, PATIENCE = 4, 15
FAULTS = (
    "none",
    "killed",
    "first killed",
    "stopped",
    "stalled in teacher",
    "stalled in forward",
    "stalled in data",
    "stalled in save",
    "exception",
    "disk full",
    "bad validation data",
    "NaN",
    "launcher killed",
)


def fail(fault: str) -> None:
    """What happens at the fault's place, and never comes back from most of them."""
    (Path(os.environ["TOLD"]) / "at").write_text(str(time.time()))
    if fault.endswith("killed") and fault != "launcher killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "launcher killed":
        os.kill(os.getppid(), signal.SIGKILL)
    if fault == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    if fault.startswith("stalled"):
        time.sleep(1000)
    if fault == "exception":
        raise RuntimeError("a bug")
    if fault == "disk full":
        raise OSError(28, "No space left on device")


def loaders(fault: str, is_struck: bool) -> tuple[Any, Any]:
    """Training and validation data of a rank."""
    import torch
    from torch.utils.data import DataLoader

    ids = torch.randint(4, 64, (32, 12), generator=torch.Generator().manual_seed(3))

    class Rows:
        def __init__(self) -> None:
            self.drawn = 0

        def __len__(self) -> int:
            return len(ids)

        def __getitem__(self, index: int) -> dict[str, Any]:
            self.drawn += 1
            if is_struck and fault == "stalled in data" and self.drawn == 2 * STEP:
                fail(fault)
            return {"input_ids": ids[index]}

    bad = is_struck and fault == "bad validation data"
    looked_at = [{"input_ids": ids[:2] + (1000 if bad else 0)}]
    if bad:
        (Path(os.environ["TOLD"]) / "at").write_text(str(time.time()))
    return DataLoader(Rows(), batch_size=2), looked_at  # type: ignore[arg-type]


def lesson(fault: str, directory: Path) -> None:
    """Train as a rank, with the fault in the struck one."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils.logging import disable_progress_bar

    from apt_model import faults
    from apt_model.plugins.distillation_plugin import DistillationPlugin

    def model(seed: int, hidden: int) -> Any:
        torch.manual_seed(seed)
        return LlamaForCausalLM(
            LlamaConfig(vocab_size=64, hidden_size=hidden, intermediate_size=32, num_hidden_layers=1,
                        num_attention_heads=2, max_position_embeddings=32)
        )  # fmt: skip

    disable_progress_bar()
    writes = fault in ("disk full", "stalled in save")
    is_struck = os.environ["RANK"] == ("0" if writes or fault == "first killed" else "1")
    teacher, student, passes = model(1, 32), model(2, 16), [0]

    def before(module: Any, given: Any) -> None:
        passes[0] += 1
        if (
            passes[0] == STEP + 1
            and not writes
            and fault not in ("NaN", "stalled in data", "bad validation data", "none")
        ):
            fail(fault)
        if passes[0] >= STEP + 1 and fault == "NaN":
            if passes[0] == STEP + 1:
                (Path(os.environ["TOLD"]) / "at").write_text(str(time.time()))
            teacher.lm_head.weight.data.fill_(float("nan"))

    if is_struck:
        (student if fault == "stalled in forward" else teacher).register_forward_pre_hook(before)
        if writes:
            faults.arm("checkpoint.begin" if fault == "stalled in save" else "whole.begin", lambda: fail(fault))
    train, looked_at = loaders(fault, is_struck)
    config = {"save_steps": 2, "mixed_precision": "no", "learning_rate": 1e-3, "seed": 0}
    DistillationPlugin(config).distill_model(
        student, teacher, train, None, None, 2, "cpu", eval_dataloader=looked_at, run_dir=directory / "run", sinks=[]
    )


def as_rank(fault: str, directory: Path) -> int:
    """A rank: its exit code, and what it said, as a script that prints the error's line would leave them."""
    from apt_model.errors import AptModelError

    said = directory / f"said-{os.environ['RANK']}"
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT, 0o600), 2)
    code = 0
    try:
        lesson(fault, directory)
    except AptModelError as error:
        print(f"error[{error.code}]: {error}", file=sys.stderr, flush=True)
        code = error.exit_code
    except RuntimeError as error:
        print(f"error[BUG]: RuntimeError: {error}", file=sys.stderr, flush=True)
        code = 1
    (directory / f"code-{os.environ['RANK']}").write_text(str(code))
    return code


def tried(fault: str, directory: Path) -> dict[str, Any]:
    """Run one fault; what came of it on each rank."""
    directory.mkdir(parents=True)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    environment = {**os.environ, "TOLD": str(directory), "APT_RANK_PATIENCE": str(PATIENCE), "OMP_NUM_THREADS": "1"}
    environment["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # as the docs ask of a script that imports torch first
    command = [*launch, "-m", "tests.ranks.failures", "rank", fault, str(directory)]
    with (directory / "launcher").open("w") as out:
        run = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    ended = awaited(run, directory, struck=None if fault == "none" else 120)
    began = directory / "at"
    texts = {
        rank: (directory / f"said-{rank}").read_text() if (directory / f"said-{rank}").exists() else "" for rank in "01"
    }
    return {
        "fault": fault,
        "launcher": run.returncode,
        "seconds": {rank: round(when - float(began.read_text()), 1) for rank, when in ended.items()}
        if began.exists()
        else None,
        "lines": {
            rank: [line for line in text.splitlines() if line.startswith("error[")] for rank, text in texts.items()
        },
        "codes": {rank: _code(directory, rank) for rank in "01"},
        "says reset": [rank for rank, text in texts.items() if "reset by peer" in text or "gloo" in text.lower()],
        "stacks": sorted(path.name for path in (directory / "run").glob("stacks-*")),
    }


def _code(directory: Path, rank: str) -> str:
    """A rank's exit code, as it says itself, or as torchrun tells of it."""
    with contextlib.suppress(OSError):
        return (directory / f"code-{rank}").read_text()
    lines = (directory / "launcher").read_text().splitlines()
    for index, line in enumerate(lines):
        if line.strip().startswith("rank ") and f": {rank} (" in line:
            return lines[index + 1].strip()
    return "?"


def awaited(run: "subprocess.Popen[bytes]", directory: Path, struck: float | None) -> dict[str, float]:
    """When each rank ended, by the PIDs that its launcher had as children."""
    import psutil

    ranks: dict[str, psutil.Process] = {}
    ended: dict[str, float] = {}
    end = time.time() + 180
    while time.time() < end and (run.poll() is None or len(ended) < len(ranks)):
        if run.poll() is None and len(ranks) < 2:
            with contextlib.suppress(psutil.Error):
                for child in psutil.Process(run.pid).children():
                    with contextlib.suppress(psutil.Error, KeyError):
                        ranks[child.environ()["RANK"]] = child
        for rank, process in ranks.items():
            if rank not in ended and (not process.is_running() or process.status() == psutil.STATUS_ZOMBIE):
                ended[rank] = time.time()
        time.sleep(0.05)
    for process in ranks.values():
        with contextlib.suppress(psutil.Error):
            process.kill()
    run.kill()
    run.wait()
    return ended


def main() -> int:
    """A rank, or the table."""
    if sys.argv[1] == "rank":
        with contextlib.redirect_stdout(io.StringIO()):
            return as_rank(sys.argv[2], Path(sys.argv[3]))
    for fault in sys.argv[2:] or FAULTS:
        print(json.dumps(tried(fault, Path(sys.argv[1]) / fault.replace(" ", "-"))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
