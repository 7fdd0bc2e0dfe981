"""A student ends its answers where its teacher does, also when plain transformers generates."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from apt_model.distill.students.fresh import create_compressed_model
from apt_model.distill.students.shrink import shrink
from apt_model.distill.teachers.cache.manifest import CacheSettings
from apt_model.distill.teachers.cache.writer import CacheWriter
from apt_model.distill.teachers.cached import CachedTeacher
from apt_model.models.generate import end_ids
from apt_model.models.generation_settings import complete_settings
from apt_model.models.lora import Lora, add_lora
from apt_model.models.pretrained import load_model, save_model
from apt_model.plugins.distillation_plugin import DistillationPlugin
from tests.chats import CHATML, FACTS, IM_END, byte_level, chat, learn_by_heart, small_llama

SAMPLING = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}


@pytest.fixture
def instructed() -> Any:
    """A teacher with two end tokens and sampling defaults, as Llama 3 and Qwen publish theirs."""
    teacher = small_llama(layers=2)
    teacher.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=[2, IM_END], pad_token_id=0, **SAMPLING)
    return teacher


def saved_settings(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "generation_config.json").read_text("utf-8"))
    found.pop("transformers_version")
    return found


def test_new_and_cut_students_are_saved_with_their_teachers_settings(instructed: Any, tmp_path: Path) -> None:
    ids = [{"input_ids": torch.arange(4, 40).view(2, 18)}]
    students = {
        "fresh": create_compressed_model(instructed, num_layers=1),
        "copied": create_compressed_model(instructed, num_layers=1, init="teacher"),
        "cut": shrink(instructed, ids, hidden_size=32).student,
    }
    instructed.save_pretrained(tmp_path / "teacher")
    for name, student in students.items():
        save_model(student, byte_level(), tmp_path / name)
        assert saved_settings(tmp_path / name) == saved_settings(tmp_path / "teacher"), name
        assert student.generation_config is not instructed.generation_config


def test_a_student_taught_by_a_plugin_stops_where_its_teacher_does_in_plain_transformers(
    instructed: Any, tmp_path: Path
) -> None:
    """Its own config has one end token; the one that ends a turn is the teacher's."""
    tokenizer = byte_level(CHATML)
    student = small_llama(seed=1)
    chats = [chat(question, answer) for question, answer in FACTS.items()]
    learn_by_heart(student, tokenizer, chats)
    quiet = {"show_samples": False, "max_steps": 1, "learning_rate": 1e-9}
    rows = [[{"messages": one} for one in chats]]
    DistillationPlugin(quiet).distill_model(
        student, instructed, rows, tokenizer=tokenizer, device="cpu", run_dir=tmp_path / "run", sinks=[]
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "student")
    reads = AutoTokenizer.from_pretrained(tmp_path / "run" / "student")
    asked = reads.apply_chat_template(chat("A lake?"), add_generation_prompt=True, return_tensors="pt")
    said = model.generate(**asked, max_new_tokens=30, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert reads.decode(said) == "Como.<|im_end|>"


@pytest.mark.parametrize("eos", ["</s>", "<|im_end|>"])
def test_what_ends_a_turn_or_a_text_is_added_to_what_a_given_student_has(eos: str, tmp_path: Path) -> None:
    given = small_llama(eos_token_id=7)
    given.generation_config = GenerationConfig(eos_token_id=7, repetition_penalty=1.5)
    save_model(given, None, tmp_path)
    student, _, _ = load_model(tmp_path)
    told: list[tuple[str, Any]] = []
    tokenizer = byte_level(CHATML, eos=eos)
    complete_settings(student, small_llama(), tokenizer, tell=lambda key, **values: told.append((key, values)))
    ends = [7, 2, IM_END]  # its own, its teacher's, its template's
    assert (student.generation_config.eos_token_id, student.generation_config.repetition_penalty) == (ends, 1.5)
    assert told == [("end_tokens", {"tokens": "</s>, <|im_end|>"})]
    assert end_ids(student, tokenizer) == sorted(ends)
    complete_settings(student, small_llama(), tokenizer, tell=lambda key, **values: told.append((key, values)))
    assert len(told) == 1


def test_a_given_student_without_settings_of_its_own_gets_its_teachers(instructed: Any) -> None:
    student = small_llama(seed=1)
    with warnings.catch_warnings(action="error"):  # nothing is missing, nothing is told
        complete_settings(student, instructed, None)
    assert student.generation_config == instructed.generation_config
    assert student.generation_config is not instructed.generation_config


def test_ids_of_another_tokenizer_are_no_ends(instructed: Any) -> None:
    student = small_llama(seed=1)
    complete_settings(student, None, byte_level(None))
    assert student.generation_config.eos_token_id == 2


def test_adapters_are_saved_and_loaded_with_the_settings_and_stop_there(instructed: Any, tmp_path: Path) -> None:
    save_model(small_llama(seed=1), None, tmp_path / "base")
    student = add_lora(load_model(tmp_path / "base")[0], Lora(r=2), base=tmp_path / "base")
    complete_settings(student, instructed, byte_level())
    save_model(student, byte_level(), tmp_path / "adapters")
    loaded, tokenizer, _ = load_model(tmp_path / "adapters")
    assert end_ids(loaded, tokenizer) == [2, IM_END]
    assert loaded.generation_config.temperature == 0.6


def test_settings_that_transformers_will_not_save_do_not_cost_the_student(tmp_path: Path) -> None:
    """Published with a temperature but greedy: transformers loads it, and saves it only as long as nothing changes."""
    teacher = small_llama(layers=2)
    teacher.generation_config = GenerationConfig(eos_token_id=[2, IM_END], **SAMPLING)
    save_model(teacher, None, tmp_path)
    greedy = saved_settings(tmp_path) | {"do_sample": False}
    (tmp_path / "generation_config.json").write_text(json.dumps(greedy))
    teacher, _, _ = load_model(tmp_path)
    student = create_compressed_model(teacher, num_layers=1)
    student.generation_config.pad_token_id = 0
    with pytest.raises(ValueError, match="GenerationConfig is invalid"):
        student.save_pretrained(tmp_path / "plain")
    with pytest.warns(UserWarning, match="contradict each other.*temperature"):
        save_model(student, None, tmp_path / "student")
    assert saved_settings(tmp_path / "student") == {"eos_token_id": [2, IM_END], "pad_token_id": 0}


def test_a_module_without_settings_is_left_alone() -> None:
    complete_settings(torch.nn.Linear(2, 2), None, None)


def test_a_cached_teacher_hands_its_settings_on(instructed: Any, tmp_path: Path) -> None:
    tokenizer, rows = byte_level(CHATML), [{"messages": chat("A lake?", "Como.")}]
    settings = CacheSettings(k=8, temperature=2.0, value_type="float16", max_length=64, packing=False)
    CacheWriter(instructed, rows, settings=settings, tokenizer=tokenizer).run(tmp_path)
    cached = CachedTeacher(tmp_path)
    student = create_compressed_model(cached.load_config()[0], num_layers=1)
    complete_settings(student, cached, tokenizer)
    assert student.generation_config.eos_token_id == [2, IM_END]
    assert student.generation_config.temperature == 0.6
