"""Several processes teach what one does: the mean is over the tokens of all of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys, torch
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM
from apt_model.config import LessonConfig
from apt_model.distill.inputs import Data, Models, Watching
from apt_model.distill.loop import distill
from apt_model.events.records import StepDone
from apt_model.events.sinks import Audience

def model(seed, hidden):
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=hidden, intermediate_size=32, num_hidden_layers=1,
                                        num_attention_heads=2, max_position_embeddings=32))

class Ear:
    def __init__(self): self.heard = []
    def emit(self, event):
        if isinstance(event, StepDone):
            self.heard.append([event.loss, event.kd, event.ce, event.grad_norm, event.tokens])
    def close(self): pass

torch.manual_seed(3)
ids = torch.randint(4, 64, (16, 12))
mask = (torch.arange(12) < torch.randint(3, 13, (16, 1))).long()
rows = [{"input_ids": i, "attention_mask": m} for i, m in zip(ids, mask)]
ear, student = Ear(), model(2, 16)
accumulation, size = map(int, sys.argv[1:3])
config = LessonConfig.from_dict({"num_epochs": 2, "learning_rate": 1e-2, "gradient_accumulation_steps": accumulation,
                                 **json.loads(sys.argv[4])})
distill(Models(student=student, teacher=model(1, 32)), Data(train=DataLoader(rows, batch_size=size)),
        config=config, device=torch.device("cpu"), watching=Watching(audience=Audience([ear])))
if ear.heard:
    weights = [p.double().sum().item() for p in student.parameters()]
    open(sys.argv[3], "w").write(json.dumps([ear.heard, weights]))
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"hidden_weight": 0.5, "attention_weight": 0.5}], ids=["last", "inner"])
def test_two_processes_of_two_times_two_teach_what_one_of_eight_does(
    tmp_path: Path, settings: dict[str, float]
) -> None:
    script, more = tmp_path / "teach.py", json.dumps(settings)
    script.write_text(SCRIPT, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29517"]
    alone = subprocess.run(
        [sys.executable, script, "1", "8", tmp_path / "1", more], capture_output=True, text=True, check=False
    )
    assert alone.returncode == 0, alone.stderr
    together = subprocess.run(
        [*launch, script, "2", "2", tmp_path / "2", more], capture_output=True, text=True, check=False
    )
    assert together.returncode == 0, together.stderr
    (steps, weights), (steps2, weights2) = (json.loads((tmp_path / name).read_text()) for name in ("1", "2"))
    assert len(steps) == len(steps2) == 4
    for one, two in zip(steps, steps2, strict=True):
        assert one == pytest.approx(two, rel=1e-4)
    assert weights == pytest.approx(weights2, rel=1e-4, abs=1e-4)
