"""FSDP2: where the disk of a sharded student fails, the student is kept elsewhere, and all ranks leave with code 5."""

import re
from pathlib import Path

import pytest
import torch

from apt_model.models.pretrained import load_model
from tests.distill.test_fsdp import started

SCRIPT = """
import json, shutil, sys, torch, torch.distributed as dist
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM
from apt_model import DistillationPlugin
from apt_model.errors import AptModelError
from apt_model.models.pretrained import load_model

out, (case, how) = sys.argv[1], *json.loads(sys.argv[2]).items()
dist.init_process_group("gloo")

class Then:
    def emit(self, event):
        if dist.get_rank() == 0 and (event.kind, event.step) == (how["kind"], how["step"]):
            shutil.rmtree(f"{out}/run")
    def close(self): ...

def model(seed, hidden):
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=64, hidden_size=hidden, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2))

torch.manual_seed(3)
try:
    DistillationPlugin({"seed": 0, "max_steps": 4, "fsdp": how["fsdp"]}).distill_model(
        model(2, 16), model(1, 32), DataLoader(torch.randint(4, 64, (16, 12)), batch_size=2), device="cpu",
        run_dir=f"{out}/run", sinks=[Then()])
except AptModelError as error:
    print(f"rank {dist.get_rank()}: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""


def ended(folder: Path, kind: str, step: int, fsdp: str) -> tuple[list[int], list[str]]:
    """Exit codes and last lines of both ranks of a run whose directory is removed after an event."""
    folder.mkdir()
    ranks = started(folder, {"lost": {"kind": kind, "step": step, "fsdp": fsdp}}, script=SCRIPT)
    said = [one.communicate(timeout=120)[1] for one in ranks]
    return [one.returncode for one in ranks], [text.strip().splitlines()[-1] for text in said]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "step"), [("step", 2), ("epoch_finished", 4), ("run_finished", 4)])
def test_a_sharded_student_is_kept_where_its_directory_is_removed(tmp_path: Path, kind: str, step: int) -> None:
    (codes, lines), (_, plain) = (ended(tmp_path / fsdp, kind, step, fsdp) for fsdp in ("both", "none"))
    assert codes == [5, 5]
    both = [re.search(r"the student of step \d+ is kept in (.*); start a new run", line[0]) for line in (lines, plain)]
    kept, expected = (load_model(one[1])[0].state_dict() for one in both if one is not None)
    assert all(torch.equal(kept[name], value) for name, value in expected.items())
    assert re.search("the student of step .* is kept in|cannot be read|is gone", lines[1])
