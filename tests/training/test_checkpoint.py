"""Models go to disk and come back; nothing is unpickled, nothing from outside runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from apt_model.errors import ModelError, StorageError
from apt_model.training.checkpoint import load_model, save_model


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
    with pytest.raises(ModelError, match="do not fill the model"):
        load_model(tmp_path, model=nn.Linear(4, 4))
    with pytest.raises(ModelError, match="do not fill the model"):
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
