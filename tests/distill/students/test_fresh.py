"""Students from a shrunken config: sizes, copied layers, and descriptions of students."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import LlamaConfig

from apt_model.distill.students.fresh import create_compressed_model, looks_at_text, parse_student
from apt_model.errors import ConfigError, ModelError
from apt_model.models.pretrained import save_model
from apt_model.plugins.distillation_plugin import DistillationPlugin

LLAMA = LlamaConfig(
    vocab_size=50,
    hidden_size=64,
    intermediate_size=172,
    num_hidden_layers=6,
    num_attention_heads=8,
    num_key_value_heads=4,
)


def test_layers_width_heads_and_mlp_shrink_in_proportion() -> None:
    small = create_compressed_model(LLAMA, num_layers=2, hidden_size=32).config
    assert (small.num_hidden_layers, small.hidden_size, small.num_attention_heads, small.num_key_value_heads) == (
        2,
        32,
        4,
        2,
    )
    assert (small.head_dim, small.intermediate_size) == (8, 88)
    assert (LLAMA.num_hidden_layers, LLAMA.hidden_size) == (6, 64)


SIZES = {
    "vocab_size": 50,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
}
SIZES |= {
    "num_key_value_heads": 4,
    "max_position_embeddings": 32,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
KINDS = {
    "Llama": {}, "Qwen2": {}, "Qwen3": {"head_dim": 16}, "Mistral": {}, "Gemma2": {"head_dim": 16},
    "Gemma3Text": {"head_dim": 16}, "Phi": {}, "Phi3": {}, "SmolLM3": {}, "GPT2": {}, "GPTNeoX": {},
    "GPTNeo": {"attention_types": [[["global", "local"], 2]], "window_size": 4},
    "OPT": {"ffn_dim": 128, "word_embed_proj_dim": 64},
}  # fmt: skip


def make_teacher(kind: str) -> Any:
    config = getattr(transformers, f"{kind}Config")(**SIZES | KINDS[kind])
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_shrunk_model_of_each_kind_runs_and_all_its_widths_have_shrunk(kind: str) -> None:
    config = getattr(transformers, f"{kind}Config")(**SIZES | KINDS[kind])
    student = create_compressed_model(config, num_layers=2, hidden_size=32)
    assert student(input_ids=torch.ones(1, 5, dtype=torch.long)).logits.shape == (1, 5, 50)
    matrices = [p for name, p in student.named_parameters() if p.ndim == 2]
    assert max(max(p.shape) for p in matrices) <= max(50, 4 * 32)
    assert student.num_parameters() < 0.5 * create_compressed_model(config).num_parameters()


def test_a_model_may_be_given_in_place_of_its_config(teacher: Any) -> None:
    assert create_compressed_model(teacher, num_layers=1).config.hidden_size == teacher.config.hidden_size


def test_what_cannot_be_shrunk_is_refused() -> None:
    with pytest.raises(ModelError, match="expected 1 to 6"):
        create_compressed_model(LLAMA, num_layers=7)
    with pytest.raises(
        ModelError, match="does not divide into heads; got 31, expected an even number, best a multiple of 8"
    ):
        create_compressed_model(LLAMA, hidden_size=31)
    with pytest.raises(ModelError, match="does not divide into heads; got 64, 5 heads"):
        create_compressed_model(LLAMA, num_attention_heads=5)
    with pytest.raises(ModelError, match="cannot make a student from this config"):
        create_compressed_model(LLAMA, hidden_size=36, num_attention_heads=4)  # heads of 9: no rotary halves
    with pytest.raises(ConfigError, match="init is unknown"):
        create_compressed_model(LLAMA, init="copied")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="got Linear"):
        create_compressed_model(torch.nn.Linear(2, 2))


def test_heads_that_do_not_divide_the_width_change_their_number() -> None:
    small = create_compressed_model(LLAMA, hidden_size=30).config
    assert (small.num_attention_heads, small.num_key_value_heads, small.head_dim) == (3, 1, 10)


def test_sizes_given_by_name_win_over_the_proportions() -> None:
    small = create_compressed_model(LLAMA, hidden_size=32, num_attention_heads=2, intermediate_size=40).config
    assert (small.num_attention_heads, small.head_dim, small.intermediate_size) == (2, 16, 40)
    gpt2 = create_compressed_model(make_teacher("GPT2"), intermediate_size=40)
    assert gpt2.transformer.h[0].mlp.c_fc.weight.shape == (64, 40)


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_with_all_of_its_teachers_layers_copied_says_what_the_teacher_says(kind: str) -> None:
    teacher = make_teacher(kind)
    ids = torch.randint(0, 50, (2, 7))
    copied = create_compressed_model(teacher, init="teacher")
    with torch.no_grad():
        assert torch.equal(copied(input_ids=ids).logits, teacher(input_ids=ids).logits)
    pointers = {p.data_ptr() for p in teacher.parameters()}
    assert not any(p.data_ptr() in pointers for p in copied.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_layers_copied_are_evenly_spaced_first_and_last_among_them(kind: str) -> None:
    teacher = make_teacher(kind)
    student = create_compressed_model(teacher, num_layers=2, init="teacher")
    theirs, mine = teacher.state_dict(), student.state_dict()
    layer = re.compile(r"\.(\d+)\.")
    for name, tensor in mine.items():
        source = layer.sub(lambda found: f".{ {'0': 0, '1': 3}[found[1]] }.", name, count=1)
        assert torch.equal(tensor, theirs[source]), name


def test_weights_that_do_not_fit_are_not_copied(teacher: Any) -> None:
    with pytest.raises(ModelError, match="let only num_layers differ"):
        create_compressed_model(teacher, hidden_size=16, init="teacher")
    with pytest.raises(ModelError, match="pass the loaded teacher"):
        create_compressed_model(teacher.config, num_layers=1, init="teacher")


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_of_each_kind_learns_a_step_is_saved_and_generates_the_same_under_plain_transformers(
    kind: str, tmp_path: Path, tokenizer: Any
) -> None:
    teacher = make_teacher(kind)
    student = create_compressed_model(teacher, num_layers=2, hidden_size=32)
    before = {name: tensor.clone() for name, tensor in student.named_parameters()}
    ids = torch.randint(3, 50, (2, 9))
    DistillationPlugin({"max_steps": 1, "learning_rate": 0.01, "warmup_ratio": 0.0}).distill_model(
        student, teacher, [ids], device="cpu", sinks=[]
    )
    assert any(not torch.equal(before[name], tensor) for name, tensor in student.named_parameters())
    save_model(student, tokenizer, tmp_path)
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    says, said = (
        model.generate(
            ids[:1, :4], attention_mask=torch.ones(1, 4, dtype=torch.long), max_new_tokens=6, do_sample=False
        )
        for model in (student, plain)
    )
    assert torch.equal(says, said)


def test_a_description_is_told_from_a_path() -> None:
    assert parse_student("layers=6,hidden=384") == {"num_layers": 6, "hidden_size": 384}
    assert parse_student("layers=2, init=teacher") == {"num_layers": 2, "init": "teacher"}
    assert parse_student("heads=6,mlp=1024") == {"num_attention_heads": 6, "intermediate_size": 1024}
    assert parse_student("models/student") is None
    for wrong in ("layers=0", "layers=six", "depth=3", "init=copied", "init=teacher,method=turn", "rank=best"):
        with pytest.raises(ConfigError, match="student description has an unknown key"):
            parse_student(wrong)


def test_a_description_tells_whether_it_takes_a_look_at_some_text() -> None:
    cut = parse_student("layers=4,hidden=256,init=teacher,method=channels,rank=importance")
    assert cut == {
        "num_layers": 4,
        "hidden_size": 256,
        "init": "teacher",
        "method": "channels",
        "rank": "importance",
    }
    looks = {
        "layers=4": False,
        "layers=4,hidden=256": False,
        "layers=4,init=teacher": False,
        "hidden=256,init=teacher": True,
        "layers=4,init=teacher,rank=angle": True,
    }
    assert {words: looks_at_text(parse_student(words) or {}) for words in looks} == looks
    with pytest.raises(ConfigError, match="Fix: add init=teacher"):
        parse_student("layers=4,rank=importance")


def test_making_a_student_whose_padding_is_token_0_advises_nobody_to_pass_a_mask(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = transformers.utils.logging.get_logger("transformers")
    monkeypatch.setattr(logger, "propagate", True)
    type(logger).warning_once.cache_clear()  # it would say so once in a process
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, **ids)
    create_compressed_model(config, num_layers=1)
    assert caplog.messages == []
