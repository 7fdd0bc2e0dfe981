"""Under several processes the first one speaks, and the training stays what it is."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from apt_model.events.cards import ScoredObservation
from apt_model.events.records import RunFinished, StepDone
from apt_model.events.runfile import read_events

SCRIPT = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
from apt_model.integrations import VisualDistillationCallback

def model(seed, hidden):
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=hidden, intermediate_size=32, num_hidden_layers=1,
                                        num_attention_heads=2, max_position_embeddings=32, attention_dropout=0.1))

out, watched = sys.argv[1:]
torch.manual_seed(3)
rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(4, 64, (16, 12))]
lesson = VisualDistillationCallback(model(1, 32), config={"sample_frequency": 1}, run_dir=out + "/run")
args = TrainingArguments(out, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True, logging_steps=1,
                         per_device_train_batch_size=2, num_train_epochs=1, ddp_backend="gloo")
trainer = Trainer(model(2, 16), args, train_dataset=rows, callbacks=[lesson] if watched == "yes" else [])
trainer.train()
if trainer.is_world_process_zero():
    torch.save(trainer.model.state_dict(), out + "/weights.pt")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_train_as_without_the_lesson_and_one_of_them_tells_it(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29518"]
    weights, spoken = {}, {}
    for watched in ("yes", "no"):
        out = tmp_path / watched
        out.mkdir()
        ran = subprocess.run([*launch, script, out, watched], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        weights[watched], spoken[watched] = torch.load(out / "weights.pt", weights_only=True), ran.stdout
    assert all(torch.equal(weights["yes"][name], weights["no"][name]) for name in weights["no"])
    events = list(read_events(tmp_path / "yes" / "run"))
    assert [event.step for event in events if isinstance(event, StepDone)] == [1, 2, 3, 4]
    assert [event.step for event in events if isinstance(event, ScoredObservation)] == [0, 1, 2, 3, 4]
    assert sum(isinstance(event, RunFinished) for event in events) == 1
    assert spoken["yes"].count("📍 第 ") == 5
