"""Models go to disk and come back; nothing is unpickled, nothing from outside runs."""

import copy
import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers
from tokenizers import pre_tokenizers
from torch import nn

from apt_model.errors import ConfigError, ModelError, StorageError
from apt_model.models import loading
from apt_model.models.pretrained import load_model, save_model
from apt_model.models.weights import get_model_size
from tests.chats import CHATML, byte_level, small_llama


def test_a_model_comes_back_with_its_tokenizer_and_config(teacher: Any, tokenizer: Any, tmp_path: Path) -> None:
    save_model(teacher, tokenizer, tmp_path / "model")
    model, words, config = load_model(tmp_path / "model")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), teacher.parameters(), strict=True))
    assert (words("人工")["input_ids"], config.hidden_size) == (tokenizer("人工")["input_ids"], 32)
    assert not model.training


def test_a_model_without_a_tokenizer_comes_back_without_one(teacher: Any, tmp_path: Path) -> None:
    save_model(teacher, None, tmp_path)
    assert load_model(tmp_path)[1] is None


def test_a_plain_module_is_filled_again(tmp_path: Path) -> None:
    model, other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    save_model(model, None, tmp_path)
    filled, _, _ = load_model(tmp_path, model=other)
    assert torch.equal(filled[1].weight, model[1].weight)
    with pytest.raises(ModelError, match="do not fit the model"):
        load_model(tmp_path, model=nn.Linear(4, 4))
    with pytest.raises(ModelError, match="do not fit the model"):
        load_model(tmp_path / "nowhere", model=other)


def test_a_models_own_config_cannot_switch_on_remote_code(teacher: Any, tmp_path: Path) -> None:
    save_model(teacher, None, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"auto_map": {"AutoModelForCausalLM": "evil.Evil"}, "model_type": "evil", "trust_remote_code": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'was_here')!r}, 'w')")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(tmp_path)
    assert not (tmp_path / "was_here").exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage"])
def test_a_damaged_model_is_one_clear_line(damage: str, teacher: Any, tmp_path: Path) -> None:
    save_model(teacher, None, tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "garbage": b"\x80\x04" * 100}[damage])
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_model(tmp_path)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def test_a_directory_that_is_not_there_and_a_run_without_a_student_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no directory"):
        load_model(tmp_path / "nowhere" / "model")
    (tmp_path / "events.jsonl").touch()
    with pytest.raises(ModelError, match="has no student"):
        load_model(tmp_path)


def test_a_model_with_a_weight_missing_is_refused_not_filled_with_noise(teacher: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_model(teacher, None, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("model.layers.0.mlp.up_proj.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"weights are missing: model\.layers\.0\.mlp\.up_proj\.weight"):
        load_model(tmp_path)


def test_a_place_that_cannot_be_written_is_a_storage_error(teacher: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be saved") as caught:
        save_model(teacher, None, tmp_path / "file" / "model")
    assert caught.value.exit_code == 5


def write_gguf(path: Path, model: Any, *, quantized: bool = False) -> Path:
    """A Qwen2 and a byte-level tokenizer in one file, as llama.cpp's converter writes it."""
    config = model.config
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(64)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*letters, "ab", "<|endoftext|>"])
    writer.add_token_types([1] * (len(letters) + 1) + [3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(len(letters) + 1)
    writer.add_eos_token_id(len(letters) + 1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        values = tensor.float().numpy()
        short = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if quantized and values.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(short, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(short, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def qwen_model() -> Any:
    config = transformers.Qwen2Config(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    return transformers.Qwen2ForCausalLM(config).eval()


@pytest.fixture
def qwen() -> Any:
    return qwen_model()


@pytest.mark.parametrize("quantized", [False, True])
def test_a_gguf_file_is_loaded_saved_and_loaded_again_without_us(quantized: bool, qwen: Any, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "qwen.gguf", qwen, quantized=quantized)
    model, words, config = load_model(file)
    assert words("abc")["input_ids"] == [256, 66]
    ids = torch.tensor([words("abc 人")["input_ids"]])
    with torch.no_grad():
        said = model(ids).logits
        torch.testing.assert_close(said, qwen(ids).logits, rtol=0, atol=5e-2 if quantized else 1e-6)
        save_model(model, words, tmp_path / "saved")
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
        assert torch.equal(again(ids).logits, said)
    assert not hasattr(config, "quantization_config")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")("abc")["input_ids"] == [256, 66]


def test_a_package_with_one_model_inside_is_loaded_by_its_directory(qwen: Any, teacher: Any, tmp_path: Path) -> None:
    write_gguf(tmp_path / "qwen.gguf", qwen)
    assert type(load_model(tmp_path)[0]) is transformers.Qwen2ForCausalLM
    save_model(teacher, None, tmp_path / "package" / "data" / "model")
    assert type(load_model(tmp_path / "package")[0]) is type(teacher)
    with pytest.raises(ModelError, match=r"holds 2 models; .* Fix: name one of them"):
        load_model(tmp_path)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ModelError, match="holds no model"):
        load_model(tmp_path / "nothing")


def test_a_missing_gguf_package_is_named(qwen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_gguf(tmp_path / "qwen.gguf", qwen)
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'apt-model\[gguf\]'"):
        load_model(file)


def test_a_models_size_counts_its_bytes_once(make_model: Any) -> None:
    layer = nn.Linear(256, 1024, bias=False)
    assert get_model_size(layer) == 1.0
    assert get_model_size(nn.ModuleList([layer, layer])) == 1.0
    assert get_model_size(layer.half()) == 0.5
    tied, untied = (make_model(tie_word_embeddings=tied) for tied in (True, False))
    assert get_model_size(untied) - get_model_size(tied) == pytest.approx(64 * 32 * 4 / 2**20)


def saved_by(version: str, directory: Path, **more: Any) -> None:
    """Write into a saved model's config that this version of transformers saved it."""
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"transformers_version": version, **more}))


def test_a_model_saved_by_a_newer_transformers_says_so_once(teacher: Any, tmp_path: Path) -> None:
    save_model(teacher, None, tmp_path)
    saved_by("99.1.0", tmp_path)
    told: list[Any] = []
    load_model(tmp_path, tell=lambda key, **values: told.append((key, values)))
    here = transformers.__version__
    fix = "pip install -U 'transformers>=99.1.0'"
    assert told == [("newer_transformers", {"name": str(tmp_path), "saved": "99.1.0", "here": here, "fix": fix})]
    with pytest.warns(UserWarning, match=r"was saved by transformers 99\.1\.0, this is"):
        load_model(tmp_path)


@pytest.mark.parametrize("version", ["4.30.0", transformers.__version__, "4.57.0.dev0", "mine"])
def test_a_model_saved_by_this_or_an_older_transformers_says_nothing(
    version: str, teacher: Any, tmp_path: Path
) -> None:
    save_model(teacher, None, tmp_path)
    saved_by(version, tmp_path)
    load_model(tmp_path)  # a warning would fail the test


@pytest.mark.parametrize("change", [{"model_type": "llama9"}, {"num_attention_heads": "many"}])
def test_a_model_that_a_newer_transformers_saved_and_this_cannot_load_names_the_version(
    change: dict[str, Any], teacher: Any, tmp_path: Path
) -> None:
    save_model(teacher, None, tmp_path)
    saved_by("99.1.0", tmp_path, **change)
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path)
    line = str(caught.value)
    assert f"it was saved by transformers 99.1.0, and this is {transformers.__version__}" in line
    assert "Fix: pip install -U 'transformers>=99.1.0'" in line
    assert "\n" not in line


@pytest.mark.parametrize("templates", ["{{ messages }}", {"default": "{{ messages }}", "tool_use": "{{ tools }}"}])
def test_a_chat_template_and_the_further_ones_come_back(
    templates: Any, teacher: Any, tokenizer: Any, tmp_path: Path
) -> None:
    made = copy.deepcopy(tokenizer)
    made.chat_template = templates
    save_model(teacher, made, tmp_path)
    assert load_model(tmp_path)[1].chat_template == templates


def test_a_tokenizer_without_a_template_does_not_get_that_of_the_one_it_is_saved_over(tmp_path: Path) -> None:
    save_model(small_llama(), byte_level(CHATML), tmp_path)
    save_model(small_llama(), byte_level(None), tmp_path)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path).chat_template is None
