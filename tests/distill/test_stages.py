"""A run keeps its small student's first, middle and last weights as int8; why it keeps none is one line."""

import copy
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

from apt_model.cli import main
from apt_model.distill.stages import Stages
from apt_model.errors import ConfigError, Interrupted
from apt_model.events.event import Event
from apt_model.events.records import RunFinished, StepDone
from apt_model.events.sinks import Guard
from apt_model.events.stages import read_stages, steps_to_keep
from apt_model.models.browser_tokenizer import UnknownTokenizerError, browser_tokenizer
from apt_model.models.browser_weights import refusal
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin

LLAMA = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture
def run(tmp_path: Path, student: Any, teacher: Any, tokenizer: Any, make_batches: Any) -> Callable[..., Any]:
    """Trains the same student in a directory, to a step or on to it."""
    begun = copy.deepcopy(student.state_dict())

    def train(name: str | None, steps: int, **more: Any) -> RunFinished:
        student.load_state_dict(begun)
        settings = {"seed": 0, "max_steps": steps, "learning_rate": 0.05, "save_steps": 3, "sample_frequency": 100}
        return VisualDistillationPlugin({**settings, **more.pop("settings", {})}).visual_distill_model(
            student,
            teacher,
            make_batches(12),
            tokenizer=tokenizer,
            run_dir=tmp_path / name if name else None,
            **{"sinks": [], **more},
        )

    return train


def kept(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "stages").iterdir()}


@pytest.mark.parametrize(
    ("steps", "half", "stay"),
    [
        ([0], None, [0]),
        ([0, 4], 50, [0, 4]),
        ([0, 1, 2], None, [0, 1, 2]),
        ([0, 2, 4, 8], None, [0, 4, 8]),
        ([0, 50, 64], 50, [0, 50, 64]),
        ([0, 50, 64, 100], 50, [0, 50, 100]),
        ([0, 256, 512, 633], None, [0, 256, 633]),
        ([7, 8, 16, 20], None, [7, 8, 20]),
    ],
)
def test_of_all_steps_the_first_the_middle_and_the_last_stay(steps: list[int], half: int | None, stay: Any) -> None:
    assert steps_to_keep(steps, half) == stay


def test_the_first_middle_and_last_student_are_kept_by_rows_of_eight_bits(
    tmp_path: Path, run: Any, student: Any
) -> None:
    first = copy.deepcopy(student.state_dict())
    assert run("one", 8).failures == ()
    stages = read_stages(tmp_path / "one").stages
    assert list(stages) == [0, 4, 8]
    for step, weights in ((0, first), (8, load_file(tmp_path / "one/student/model.safetensors"))):
        found, matrix = load(stages[step]), weights["model.layers.0.mlp.up_proj.weight"]
        scale = matrix.abs().amax(1) / 127
        torch.testing.assert_close(found["0.up.scale"], scale)
        torch.testing.assert_close(
            found["0.up"].float() * scale[:, None], matrix, atol=float(scale.max()) / 1.99, rtol=0
        )
        assert found["0.up"].abs().amax(1).tolist() == [127] * len(matrix)
        torch.testing.assert_close(found["0.norm1"], weights["model.layers.0.input_layernorm.weight"])
    assert not torch.equal(load(stages[0])["0.up"], load(stages[4])["0.up"])


class Terminate:
    """Ends this process's run at a step, as a scheduler's SIGTERM does."""

    def emit(self, event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    def close(self) -> None:
        pass


def test_a_run_taken_up_again_keeps_the_stages_of_one_never_broken_off(tmp_path: Path, run: Any) -> None:
    run("whole", 8)
    with pytest.raises(Interrupted):
        run("broken", 8, sinks=[Terminate()])
    (tmp_path / "broken/stages/step-00000099.safetensors").write_bytes(b"of a run that was left")
    run("broken", 8, resume_from=tmp_path / "broken")
    assert kept(tmp_path / "whole") == kept(tmp_path / "broken")


def test_stages_that_cannot_be_written_are_told_of_and_the_student_is_the_same(tmp_path: Path, run: Any) -> None:
    run("whole", 2)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/stages").write_text("no directory")
    (failure,) = run("odd", 2).failures
    assert failure.startswith("stages: ")
    one, other = ((tmp_path / name / "student/model.safetensors").read_bytes() for name in ("whole", "odd"))
    assert one == other


def test_a_run_without_a_student_for_the_browser_is_refused_in_one_line(
    tmp_path: Path, run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run("one", 1)
    about = tmp_path / "one/stages/student.json"
    about.write_text(json.dumps({"schema": 1, "refused": "a student of 7,241,748 parameters"}))
    assert main(["report", str(tmp_path / "one"), "--with-student"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "got a student of 7,241,748 parameters, expected a Llama or GPT-2 student of at most 5,000,000" in told
    about.unlink()
    for stage in (tmp_path / "one/stages").iterdir():
        stage.unlink()
    with pytest.raises(ConfigError, match="keeps no stage of its student"):
        read_stages(tmp_path / "one")
    assert not (tmp_path / "one/report.html").exists()


def test_other_students_are_refused_by_name() -> None:
    large = {"vocab_size": 60_000, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    rope = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    assert refusal(LlamaForCausalLM(LlamaConfig(**LLAMA))) is None
    assert refusal(GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2))) is None
    assert str(refusal(LlamaForCausalLM(LlamaConfig(**large)))).startswith("a student of 9,810,112 parameters")
    assert "dynamic" in str(refusal(LlamaForCausalLM(LlamaConfig(**LLAMA, rope_parameters=rope))))
    assert "activation gelu" in str(refusal(LlamaForCausalLM(LlamaConfig(**LLAMA, hidden_act="gelu"))))
    small = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16}
    other = OPTForCausalLM(OPTConfig(**small, max_position_embeddings=32, word_embed_proj_dim=16))
    assert refusal(other) == "a student of kind opt (OPTForCausalLM)"
    assert refusal(torch.nn.Linear(2, 2)) == "a student of kind Linear (Linear)"


def test_other_tokenizers_are_refused_by_name() -> None:
    unigram = Tokenizer(models.Unigram([("a", 0.0)], 0))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    prefixed = Tokenizer(models.BPE({"a": 0}, []))
    prefixed.pre_tokenizer, prefixed.decoder = pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()
    for made, words in ((unigram, "a Unigram tokenizer"), (prefixed, "a BPE tokenizer")):
        with pytest.raises(UnknownTokenizerError, match=words):
            browser_tokenizer(PreTrainedTokenizerFast(tokenizer_object=made))
    with pytest.raises(UnknownTokenizerError, match=r"without tokenizer\.json"):
        browser_tokenizer(None)


def test_a_student_that_is_not_for_the_browser_costs_a_line_and_no_failure(tmp_path: Path) -> None:
    guard = Guard()
    (tmp_path / "run").mkdir()
    stages = Stages(tmp_path / "run", torch.nn.Linear(2, 2), tokenizer=None, guard=guard, total_steps=None)
    stages.begin(0)
    stages.after_step(1)
    stages.at_end(2)
    assert guard.failures == {}
    assert [path.name for path in (tmp_path / "run/stages").iterdir()] == ["student.json"]
