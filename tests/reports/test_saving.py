"""Reports of what was saved and used: settings that cannot be saved, end tokens, templates, merged heads, more epochs.

Right values: what plain transformers reads from the saved directory, and its own schedule.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, get_scheduler

from apt_model import (
    VisualDistillationPlugin,
    create_compressed_model,
    evaluate_text_quality,
    load_model,
    quick_visual_distill,
    read_events,
    save_model,
)
from apt_model.models.lora import Lora, add_lora
from tests.reports.kit import (
    CHATML,
    FAST,
    Listener,
    assistant,
    byte_tokenizer,
    command,
    jsonl,
    outcome_of,
    save,
    steps_of,
    tiny,
    user,
)

CHATS = [{"messages": [user("A lake?"), assistant("Como.")]}, {"messages": [user("A river?"), assistant("The Ob.")]}]


def taught(student: Any, teacher: Any, tokenizer: Any, run: Path, batches: Any = (("The Ob is long.",),)) -> Path:
    """Where a short lesson saves its student."""
    quick_visual_distill(student, teacher, list(map(list, batches)), tokenizer, FAST, 1, "cpu", run_dir=run)
    return run / "student"


def ends(directory: Path) -> set[int]:
    """The end tokens at which plain transformers stops."""
    eos = GenerationConfig.from_pretrained(directory).eos_token_id
    return set(eos if isinstance(eos, list) else [eos])


def test_settings_of_generation_that_cannot_be_saved_do_not_cost_the_trained_student(tmp_path: Path) -> None:
    # huggingface/transformers#29988, hiyouga/LlamaFactory#2767, HKUDS/UrbanGPT#21, QwenLM/Qwen3-ASR#210
    tokenizer = byte_tokenizer()
    directory = save(tiny(vocabulary=len(tokenizer)), tokenizer, tmp_path / "base")
    settings = {"do_sample": False, "temperature": 0.9, "top_p": 0.6, "eos_token_id": 2}
    (directory / "generation_config.json").write_text(json.dumps(settings))
    student, own, _ = load_model(directory)
    done = outcome_of(lambda: taught(student, tiny(vocabulary=len(tokenizer), seed=1), own, tmp_path / "run"))
    if done.value is not None:
        AutoModelForCausalLM.from_pretrained(done.value)
        assert ends(done.value) == {2}
    else:  # then before the first step
        record = tmp_path / "run" / "events.jsonl"
        assert not record.exists() or not [e for e in read_events(tmp_path / "run") if e.kind == "step"], done.refusal


def test_a_student_of_the_teachers_config_stops_where_the_teacher_does(tmp_path: Path) -> None:
    # meta-llama/llama-cookbook#640, vllm-project/vllm#4180, unslothai/unsloth#384: two end tokens, one of them lost
    tokenizer = byte_tokenizer(CHATML)
    teacher = tiny(vocabulary=len(tokenizer), seed=1)
    teacher.generation_config.eos_token_id = [2, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    teacher, own, _ = load_model(save(teacher, tokenizer, tmp_path / "teacher"))
    student = create_compressed_model(teacher, num_layers=1)
    assert ends(taught(student, teacher, own, tmp_path / "run")) == ends(tmp_path / "teacher") == {2, 4}


def test_a_base_model_that_was_taught_chats_stops_at_the_end_of_a_turn(tmp_path: Path) -> None:
    # hiyouga/LlamaFactory#7454: eos is the base's <|endoftext|>, the template closes turns with <|im_end|>
    tokenizer = byte_tokenizer(CHATML)
    student, teacher = tiny(vocabulary=len(tokenizer)), tiny(vocabulary=len(tokenizer), seed=1)
    done = outcome_of(lambda: taught(student, teacher, tokenizer, tmp_path / "run", [CHATS]))
    assert done.names("<|im_end|>") or tokenizer.convert_tokens_to_ids("<|im_end|>") in ends(done.value)


def test_an_answer_known_by_heart_is_scored_without_what_follows_its_turn() -> None:
    # huggingface/trl#2059, axolotl-ai-cloud/axolotl#3754: it goes on after the turn, up to the limit
    tokenizer = byte_tokenizer(CHATML)
    student = tiny(vocabulary=len(tokenizer))
    settings = {"alpha": 0.0, "beta": 1.0, "learning_rate": 1e-2, "num_epochs": 80}
    last = steps_of(student, tiny(vocabulary=len(tokenizer), seed=1), [CHATS], tokenizer, **settings)[-1]
    assert last.ce is not None
    assert last.ce < 0.05
    results = evaluate_text_quality(student, [CHATS], tokenizer, max_new_tokens=24, resamples=100)
    assert results["chrf"] == pytest.approx(100)


def test_the_saved_student_has_the_template_that_it_was_taught_in(tmp_path: Path) -> None:
    # hiyouga/LlamaFactory#5836, #8399, #5904, modelscope/ms-swift#2831: no chat_template beside the tuned model
    tokenizer = byte_tokenizer(CHATML)
    teacher = save(tiny(vocabulary=len(tokenizer), seed=1), tokenizer, tmp_path / "teacher")
    student = save(tiny(vocabulary=len(tokenizer)), byte_tokenizer(), tmp_path / "student")
    data = jsonl(tmp_path / "a.jsonl", CHATS)
    words = ["--teacher", teacher, "--student", student, "--data", data, "--out", "run", "--max-steps", 2]
    code, said = command("distill", *words, "--device", "cpu", "--lang", "en", "--no-show-samples", cwd=tmp_path)
    if code == 0:
        saved = AutoTokenizer.from_pretrained(tmp_path / "run" / "student")
        assert saved.chat_template is not None, said[-500:]
        chat = CHATS[0]["messages"]
        assert saved.apply_chat_template(chat, tokenize=False) == tokenizer.apply_chat_template(chat, tokenize=False)
    else:
        assert "chat template" in said
        assert "student" in said


@pytest.mark.parametrize("target", [("lm_head", "q_proj"), ("embed_tokens", "lm_head"), ("embed_tokens",)])
def test_adapters_of_a_tied_head_are_in_the_merged_model_or_refused(target: tuple[str, ...], tmp_path: Path) -> None:
    # unslothai/unsloth#4098, #1971, #9331: the trained head was thrown away when merged
    tokenizer = byte_tokenizer()
    base = tiny(vocabulary=len(tokenizer), tie_word_embeddings=True)

    def merge() -> torch.Tensor:
        student = add_lora(base, Lora(r=2, target=target))
        teacher = tiny(vocabulary=len(tokenizer), seed=1)
        steps_of(student, teacher, [["The Ob is long."]] * 3, tokenizer, learning_rate=5e-2)
        with torch.no_grad():
            logits: torch.Tensor = student(torch.tensor([[1, 20, 30, 40]])).logits
        save_model(student, tokenizer, tmp_path / "merged", merge_adapters=True)
        return logits

    done = outcome_of(merge)
    if done.value is not None:
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
        with torch.no_grad():
            torch.testing.assert_close(plain(torch.tensor([[1, 20, 30, 40]])).logits, done.value, rtol=1e-3, atol=1e-4)
    else:
        assert "tied" in done.refusal.lower() or any(name in done.refusal for name in target)


def test_more_epochs_go_on_at_the_rate_of_the_longer_schedule(tmp_path: Path) -> None:
    # hiyouga/LlamaFactory#7476, #9325, #6146: a finished run is given more epochs
    tokenizer = byte_tokenizer()
    batches = [["The Ob is long."], ["Como is deep."], ["The Po is flat."], ["Garda is warm."]]
    teacher = tiny(vocabulary=len(tokenizer), seed=1)

    def run(epochs: int, **how: Any) -> list[float]:
        listener = Listener()
        plugin = VisualDistillationPlugin({**FAST, "learning_rate": 1e-3, "lr_scheduler_type": "linear"})
        plugin.visual_distill_model(
            tiny(vocabulary=len(tokenizer)),
            teacher,
            batches,
            tokenizer=tokenizer,
            num_epochs=epochs,
            device="cpu",
            run_dir=tmp_path / "run",
            sinks=[listener],
            **how,
        )
        return [step.learning_rate for step in listener.steps]

    run(1)
    done = outcome_of(lambda: run(3, resume_from=tmp_path / "run", resume_anyway=True))
    assert done.value is not None, done.refusal
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    schedule = get_scheduler("linear", optimizer, num_warmup_steps=int(0.05 * 12), num_training_steps=12)
    rates = []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert done.value == pytest.approx(rates[4:])


def test_the_saved_config_lets_the_student_cache_what_it_reads(tmp_path: Path) -> None:
    # turbo-llm/turbo-alignment#47, huggingface/trl#3891: use_cache: false, left behind by gradient checkpointing
    tokenizer = byte_tokenizer()
    student, teacher = tiny(vocabulary=len(tokenizer)), tiny(vocabulary=len(tokenizer), seed=1)
    outcome_of(student.gradient_checkpointing_enable)  # which warns of its own next name
    saved = taught(student, teacher, tokenizer, tmp_path / "run")
    assert AutoModelForCausalLM.from_pretrained(saved).config.use_cache is True


def test_a_student_with_fewer_layers_has_their_kinds_in_its_config(tmp_path: Path) -> None:
    # peremartra/optipfair#20: layer_types kept the teacher's length, and the saved student could not be loaded
    tokenizer = byte_tokenizer()
    kinds = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    more = {"num_hidden_layers": 4, "layer_types": kinds, "head_dim": 8, "sliding_window": 16}
    teacher = tiny("Gemma3Text", vocabulary=len(tokenizer), seed=1, **more)
    student = create_compressed_model(teacher, num_layers=2, init="teacher")
    saved = taught(student, teacher, tokenizer, tmp_path / "run")
    plain = AutoModelForCausalLM.from_pretrained(saved)
    assert len(plain.config.layer_types) == plain.config.num_hidden_layers == len(plain.model.layers) == 2
    ids = torch.tensor([[1, 20, 30, 40]])
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, student(ids).logits)


def test_a_limit_under_its_former_name_is_taken_or_answered_with_the_name_of_today() -> None:
    # huggingface/trl#3910, huggingface/open-r1#419: max_seq_length was set, and another limit held
    done = outcome_of(lambda: VisualDistillationPlugin({"max_seq_length": 64}).config.train.max_length)
    assert done.value == 64 or done.names("max_length")
