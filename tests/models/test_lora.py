"""Students with LoRA adapters: trained alone, kept in checkpoints, saved alone or merged."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaForCausalLM

from apt_model.cli import main
from apt_model.errors import ConfigError, ModelError, StorageError
from apt_model.models.generate import generate
from apt_model.models.lora import Lora, adapter_tensors, add_lora, has_adapters, merged, parse_lora
from apt_model.models.output_head import find_head
from apt_model.models.pretrained import load_model, save_model
from apt_model.models.quiet import quiet_peft
from apt_model.plugins.distillation_plugin import DistillationPlugin
from tests.distill.plain import write_everything_out

peft = pytest.importorskip("peft")
BATCHES = [torch.randint(4, 60, (4, 8), generator=torch.Generator().manual_seed(n)) for n in range(4)]
SETTINGS = {"learning_rate": 1e-2, "temperature": 1.0, "seed": 0, "alpha": 1.0}


def adapted(model: Any, **more: Any) -> Any:
    torch.manual_seed(3)
    return add_lora(model, Lora(r=4), **more)


def taught(student: Any, teacher: Any, **more: Any) -> Any:
    settings = {**SETTINGS, **more.pop("settings", {})}
    how = {"num_epochs": 4, "device": "cpu", "sinks": [], **more}
    return DistillationPlugin(settings).distill_model(student, teacher, BATCHES, **how)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Lora()),
        ("r=4,alpha=32", Lora(r=4, alpha=32.0)),
        ("target=q_proj+v_proj, dropout=0.1", Lora(target=("q_proj", "v_proj"), dropout=0.1)),
    ],
)
def test_a_description_gives_adapters(text: str, expected: Lora) -> None:
    assert parse_lora(text) == expected


@pytest.mark.parametrize("text", ["r=0", "r=1.5", "alpha=-1", "alpha=x", "dropout=1", "rank=3", "target="])
def test_a_description_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="lora description has an unknown key"):
        parse_lora(text)


def test_layers_that_are_not_there_are_refused(student: Any) -> None:
    with pytest.raises(ModelError, match="adapters do not fit the student"):
        add_lora(student, Lora(target=("nothing",)))
    with pytest.raises(ModelError, match="need a model of transformers; got Linear"):
        add_lora(torch.nn.Linear(2, 2), Lora())


def test_the_fused_step_finds_the_head_through_pefts_wrappers(student: Any) -> None:
    head = find_head(adapted(student))
    assert head is not None
    assert head.linear is student.get_output_embeddings()


def test_only_adapters_learn_and_as_by_the_loss_that_is_written_out(
    make_model: Callable[..., Any], teacher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = [make_model(hidden=16, layers=1, seed=2) for _ in range(2)]
    with torch.no_grad():
        for one in plain:
            one.lm_head.weight.mul_(20)  # a frozen head that can say something
    students = [adapted(one) for one in plain]
    base = copy.deepcopy(students[0])
    first = taught(students[0], teacher)
    write_everything_out(monkeypatch)
    taught(students[1], teacher)
    assert first.last_loss < 0.95 * first.first_loss
    learned, before = adapter_tensors(students[0]), adapter_tensors(base)
    assert learned.keys() == before.keys()
    assert any(not torch.equal(learned[name], before[name]) for name in learned)
    for name, tensor in students[0].state_dict().items():
        if name not in learned:
            assert torch.equal(tensor, base.state_dict()[name]), name
    for name, tensor in adapter_tensors(students[1]).items():
        torch.testing.assert_close(tensor, learned[name], rtol=1e-3, atol=1e-5)


def test_a_head_with_adapters_of_its_own_still_learns(make_model: Callable[..., Any], teacher: Any) -> None:
    student = make_model(hidden=16, layers=1, seed=2)
    torch.manual_seed(3)
    wrapped = add_lora(student, Lora(r=4, target=("lm_head", "q_proj")))
    assert find_head(wrapped) is None
    verdict = taught(wrapped, teacher)
    assert verdict.last_loss < verdict.first_loss


def test_a_run_goes_on_exactly_from_a_checkpoint_that_holds_adapters_alone(
    make_model: Callable[..., Any], teacher: Any, tmp_path: Path
) -> None:
    whole, cut, again = (adapted(make_model(hidden=16, layers=1, seed=2)) for _ in range(3))
    keep = {"save_steps": 3, "save_total_limit": 99}
    taught(whole, teacher, run_dir=tmp_path / "whole", settings=keep)
    taught(cut, teacher, run_dir=tmp_path / "cut", settings=keep)
    checkpoint = tmp_path / "cut" / "checkpoints" / "step-00000006"
    with safe_open(checkpoint / "student.safetensors", "pt") as kept:
        assert set(kept.keys()) == set(adapter_tensors(cut))
    taught(again, teacher, run_dir=tmp_path / "cut", resume_from=checkpoint, settings=keep)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_checkpoint_does_not_go_on_with_another_base(
    make_model: Callable[..., Any], teacher: Any, tmp_path: Path
) -> None:
    taught(
        adapted(make_model(hidden=16, layers=1, seed=2)), teacher, run_dir=tmp_path / "run", settings={"max_steps": 2}
    )
    other = adapted(make_model(hidden=16, layers=1, seed=9))
    with pytest.raises(ConfigError, match="the run differs from that of the checkpoint; got base: "):
        taught(other, teacher, run_dir=tmp_path / "run", resume_from=tmp_path / "run", settings={"max_steps": 2})


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")  # plain peft 0.21 asks for it
def test_adapters_saved_alone_are_loaded_by_plain_peft_and_by_us(
    make_model: Callable[..., Any], teacher: Any, tokenizer: Any, tmp_path: Path
) -> None:
    save_model(make_model(hidden=16, layers=1, seed=2), tokenizer, tmp_path / "base")
    student = adapted(load_model(tmp_path / "base")[0], base=tmp_path / "base")
    taught(student, teacher, run_dir=tmp_path / "run", tokenizer=tokenizer)
    saved = tmp_path / "run" / "student"
    assert not (saved / "model.safetensors").exists()
    assert json.loads((saved / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tmp_path / "base")
    with torch.no_grad():
        expected = student(input_ids=BATCHES[0]).logits
        theirs = peft.AutoPeftModelForCausalLM.from_pretrained(saved).eval()(input_ids=BATCHES[0]).logits
        plain = AutoModelForCausalLM.from_pretrained(saved).eval()(input_ids=BATCHES[0]).logits
        ours, own, _ = load_model(tmp_path / "run")
        assert torch.equal(ours(input_ids=BATCHES[0]).logits, expected)
    assert torch.equal(theirs, expected)
    assert torch.equal(plain, expected)
    assert len(own) == len(tokenizer)
    assert has_adapters(ours)


def test_answering_leaves_the_generation_settings_of_the_model_inside(student: Any, tokenizer: Any) -> None:
    student.generation_config = own = GenerationConfig(do_sample=True, temperature=0.6)
    model = adapted(student)
    before = model.generation_config
    generate(model, tokenizer, [[1, 5, 6]], new_tokens=3)
    assert model.generation_config is before
    assert model.get_base_model().generation_config is own


def test_merged_it_is_a_plain_model_that_says_the_same(
    make_model: Callable[..., Any], teacher: Any, tmp_path: Path
) -> None:
    student = adapted(make_model(hidden=16, layers=1, seed=2))
    taught(student, teacher, run_dir=tmp_path / "run", settings={"merge_adapters": True})
    assert not (tmp_path / "run" / "student" / "adapter_config.json").exists()
    plain, report = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "student", output_loading_info=True)
    assert type(plain) is LlamaForCausalLM
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert adapter_tensors(student)  # the one that was trained is as it was
    with torch.no_grad():
        expected = student(input_ids=BATCHES[0]).logits
        torch.testing.assert_close(plain(input_ids=BATCHES[0]).logits, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(merged(student)(input_ids=BATCHES[0]).logits, expected, rtol=1e-4, atol=1e-5)


def said_by_a_plain_model(student: Any, place: Path) -> tuple[torch.Tensor, Any]:
    """What a student says once it is merged, saved and loaded by plain transformers; that model."""
    save_model(student, None, place, merge_adapters=True)
    plain = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    with torch.no_grad():
        return plain(input_ids=BATCHES[0]).logits, plain


TIED = {
    "all-linear": True, "q_proj": True, "lm_head": False, "embed_tokens": False, "embed_tokens+lm_head": False,
    "lm_head+q_proj": False,
}  # fmt: skip


@pytest.mark.parametrize(("target", "stays_tied"), TIED.items())
def test_adapters_on_tied_matrices_are_merged_into_the_one_that_they_adapt(
    target: str, stays_tied: bool, make_model: Callable[..., Any], teacher: Any, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    base = make_model(hidden=16, layers=1, seed=2, tie_word_embeddings=True)
    student = add_lora(base, Lora(r=4, target=target if target == "all-linear" else tuple(target.split("+"))))
    taught(student, teacher)
    with torch.no_grad():
        expected = student(input_ids=BATCHES[0]).logits
    said, plain = said_by_a_plain_model(student, tmp_path)
    torch.testing.assert_close(said, expected, rtol=1e-4, atol=1e-5)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["tie_word_embeddings"] is stays_tied
    assert (plain.lm_head.weight is plain.model.embed_tokens.weight) is stays_tied
    assert base.config.tie_word_embeddings  # the one that was trained is as it was


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_adapters_of_a_tied_matrix_saved_alone_say_the_same_on_their_base(
    target: str, make_model: Callable[..., Any], teacher: Any, tmp_path: Path
) -> None:
    base = make_model(hidden=16, layers=1, seed=2, tie_word_embeddings=True)
    save_model(base, None, tmp_path / "base")
    student = add_lora(base, Lora(r=4, target=(target,)), base=tmp_path / "base")
    taught(student, teacher, run_dir=tmp_path / "run")
    again = load_model(tmp_path / "run")[0]
    with torch.no_grad():
        expected = student(input_ids=BATCHES[0]).logits
        torch.testing.assert_close(again(input_ids=BATCHES[0]).logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kept", ["lm_head", "embed_tokens"])
def test_a_tied_matrix_that_is_trained_whole_beside_adapters_is_merged_as_it_is(
    kept: str, make_model: Callable[..., Any], teacher: Any, tmp_path: Path
) -> None:
    base = make_model(hidden=16, layers=1, seed=2, tie_word_embeddings=True)
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=[kept], task_type="CAUSAL_LM")
    with quiet_peft():
        student = peft.get_peft_model(base, config)
    taught(student, teacher)
    with torch.no_grad():
        expected = student(input_ids=BATCHES[0]).logits
    said, plain = said_by_a_plain_model(student, tmp_path)
    torch.testing.assert_close(said, expected, rtol=1e-4, atol=1e-5)
    tied = json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"]
    assert tied is (plain.lm_head.weight is plain.model.embed_tokens.weight)


@pytest.mark.parametrize("reentrant", [True, False])
def test_with_checkpointed_activations_all_adapters_of_a_tied_model_learn(
    reentrant: bool, make_model: Callable[..., Any], teacher: Any
) -> None:
    base = make_model(hidden=16, layers=2, seed=2, tie_word_embeddings=True)
    student = add_lora(base, Lora(r=4, target=("q_proj", "lm_head", "embed_tokens")))
    student.base_model.model.activation_checkpointing_enable({"use_reentrant": reentrant})
    taught(student, teacher)
    still = [name for name, tensor in adapter_tensors(student).items() if "lora_B" in name and not tensor.abs().sum()]
    assert not still


def test_the_teacher_with_adapters_is_no_student_of_itself(teacher: Any) -> None:
    with pytest.raises(ModelError, match="student shares weights with the teacher"):
        taught(adapted(teacher), teacher)


def test_adapters_without_safe_weights_or_a_base_are_refused(student: Any, tmp_path: Path) -> None:
    save_model(adapted(student), None, tmp_path / "lost")
    with pytest.raises(ModelError, match="do not name their base model"):
        load_model(tmp_path / "lost")
    (tmp_path / "lost" / "adapter_model.safetensors").rename(tmp_path / "lost" / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"have no weights; expected adapter_model\.safetensors"):
        load_model(tmp_path / "lost")


@pytest.fixture
def school(teacher: Any, student: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    save_model(teacher, tokenizer, "teacher")
    save_model(student, tokenizer, "student")
    Path("text.txt").write_text("the network, is large\n人工智能医疗\n" * 4, encoding="utf-8")
    fixed = ["--teacher", "teacher", "--data", "text.txt", "--out", "run", "--device", "cpu", "--plain"]
    return ["distill", *fixed, "--max-steps", "2", "--batch-size", "4"]


def test_the_command_line_saves_adapters_alone_or_merged(school: list[str]) -> None:
    assert main([*school, "--student", "student", "--lora", "r=2,target=q_proj"]) == 0
    assert json.loads(Path("run/student/adapter_config.json").read_text())["r"] == 2
    assert has_adapters(load_model("run")[0])
    again = [flag if flag != "run" else "merged" for flag in school]
    assert main([*again, "--student", "layers=1", "--lora", "--merge-adapters"]) == 0
    assert type(load_model("merged")[0]) is LlamaForCausalLM


def test_adapters_of_a_student_that_nobody_keeps_are_refused(school: list[str], capsys: Any) -> None:
    assert main([*school, "--student", "layers=1", "--lora"]) == 2
    assert "--merge-adapters" in capsys.readouterr().err


def test_a_model_saved_over_adapters_is_what_plain_transformers_loads(
    teacher: Any, make_model: Any, tmp_path: Any
) -> None:
    teacher.save_pretrained(tmp_path / "base")
    student = adapted(teacher, base=tmp_path / "base")
    for tensor in adapter_tensors(student).values():
        tensor.add_(0.3)
    save_model(student, None, tmp_path / "student")
    other = make_model(hidden=16, layers=1, seed=7)
    save_model(other, None, tmp_path / "student")
    for found in (load_model(tmp_path / "student")[0], AutoModelForCausalLM.from_pretrained(tmp_path / "student")):
        assert torch.equal(found(BATCHES[0]).logits, other(BATCHES[0]).logits)


def test_adapters_are_not_saved_where_a_whole_model_would_be_loaded_in_their_place(teacher: Any, tmp_path: Any) -> None:
    teacher.save_pretrained(tmp_path / "base")
    with pytest.raises(StorageError, match=r"holds a whole model.*another directory, or merge"):
        save_model(adapted(teacher, base=tmp_path / "base"), None, tmp_path / "base")
    assert not (tmp_path / "base" / "adapter_config.json").exists()


def test_adapters_that_would_not_be_loaded_again_are_refused_before_the_training(teacher: Any, make_model: Any) -> None:
    with quiet_peft():
        student = peft.get_peft_model(make_model(hidden=16, layers=1), peft.LoraConfig(target_modules=["q_proj"]))
        student.add_adapter("second", peft.LoraConfig(target_modules=["v_proj"]))
        student.set_adapter("second")
    before = {name: tensor.clone() for name, tensor in adapter_tensors(student).items()}
    with pytest.raises(ModelError, match="would not all be loaded again; got default, second"):
        taught(student, teacher)
    assert all(torch.equal(before[name], tensor) for name, tensor in adapter_tensors(student).items())
