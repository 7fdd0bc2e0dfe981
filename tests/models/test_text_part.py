"""Models that also take images or sound: their text part is used, and what is left out is told."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, LlamaConfig, LlamaForCausalLM, LlavaConfig

from apt_model.distill.students.fresh import create_compressed_model
from apt_model.errors import ModelError
from apt_model.models.pretrained import load_model
from apt_model.models.text_part import text_part
from tests.models.tiny import tiny_config

IDS = torch.arange(3, 15).reshape(1, -1)
SIGHT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
WORDS = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}


def told_of(place: Path) -> tuple[Any, list[str]]:
    told: list[str] = []
    model = load_model(place, tell=lambda key, **values: told.append(f"{key}: {values['parts']} ({values['model']})"))[
        0
    ]
    return model, told


def llava() -> Any:
    sight = {"model_type": "clip_vision_model", "image_size": 8, "patch_size": 4, "projection_dim": 16, **SIGHT}
    config = LlavaConfig(text_config=LlamaConfig(**WORDS), vision_config=sight, image_token_index=60)
    return AutoModelForImageTextToText.from_config(config).eval()


def test_of_a_llava_the_llama_is_left_and_says_the_same(tmp_path: Path) -> None:
    whole = llava()
    whole.save_pretrained(tmp_path)
    model, told = told_of(tmp_path)
    assert type(model) is LlamaForCausalLM
    assert told == ["towers_left_out: vision_tower, multi_modal_projector (LlamaForCausalLM)"]
    with torch.no_grad():
        assert torch.equal(model(input_ids=IDS).logits, whole(input_ids=IDS).logits)


@pytest.mark.parametrize("kind", ["gemma3", "gemma4", "fuyu", "got_ocr2"])
def test_of_models_whose_causal_class_has_towers_the_text_part_says_the_same(kind: str) -> None:
    torch.manual_seed(0)
    whole = AutoModelForCausalLM.from_config(tiny_config(kind)).eval()
    alone, left_out = text_part(whole)
    assert left_out
    assert alone.num_parameters() < whole.num_parameters()
    assert {p.data_ptr() for p in alone.parameters()} <= {p.data_ptr() for p in whole.parameters()}
    with torch.no_grad():
        said, expected = alone(input_ids=IDS).logits, whole(input_ids=IDS).logits
    torch.testing.assert_close(said, expected)


@pytest.mark.parametrize("kind", ["llama4", "qwen3_5"])
def test_towers_that_transformers_leaves_out_by_itself_are_told_too(kind: str, tmp_path: Path) -> None:
    config = tiny_config(kind)
    AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path)
    _, told = told_of(tmp_path)
    assert [words.split(" (")[0] for words in told] == ["towers_left_out: vision_config"]


def test_a_student_cut_out_of_a_model_with_towers_has_none(tmp_path: Path) -> None:
    student = create_compressed_model(llava(), num_layers=2, init="teacher")
    assert type(student) is LlamaForCausalLM
    assert student.config.num_hidden_layers == 2


def test_a_text_part_without_a_causal_model_of_its_own_is_refused_by_name(tmp_path: Path) -> None:
    from transformers import Qwen2VLConfig

    sight = {"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 32, "patch_size": 4}
    words = {**WORDS, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
    config = Qwen2VLConfig(text_config=words, vision_config=sight)
    AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no causal language model; got Qwen2VLForConditionalGeneration"):
        load_model(tmp_path)


@pytest.mark.parametrize("kind", ["git", "phi4_multimodal"])
def test_a_student_that_would_keep_towers_is_refused_by_name(kind: str) -> None:
    with pytest.raises(ModelError, match=f"a student of {kind} cannot be made without its towers"):
        create_compressed_model(tiny_config(kind), num_layers=1)


@pytest.mark.parametrize("kind", ["reformer", "gemma4_assistant", "musicgen"])
def test_what_no_text_can_be_taught_with_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    from tests.models.architectures import save_teacher

    save_teacher(kind, tmp_path)
    with pytest.raises(ModelError, match=kind):
        load_model(tmp_path)
