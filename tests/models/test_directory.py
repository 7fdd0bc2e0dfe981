"""Nothing in a model's own files leads to code, or to files outside of its directory; a hub's cache goes on working."""

import json
import math
import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassError
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import CONFIG_MAPPING, LlamaConfig, LlamaForCausalLM
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from apt_model.errors import ModelError
from apt_model.models import directory as looked_at
from apt_model.models.directory import check_directory, check_hub_model
from apt_model.models.lora import Lora, add_lora
from apt_model.models.pretrained import load_model, save_model
from apt_model.models.stored_tensors import LARGER, SMALL, refuse_unstored_layers, stored_tensors
from tests.chats import byte_level, small_llama
from tests.models.mutants import make_bases


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture(params=[0, 1])
def model(request: pytest.FixtureRequest, bases: list[Path], tmp_path: Path) -> Path:
    return shutil.copytree(bases[request.param], tmp_path / "model")


def as_hub_cache(model: Path, cache: Path) -> Path:
    """The snapshot of a model in a cache as huggingface_hub lays it out: links into `blobs`, named by hash."""
    repository = cache / "models--owner--model"
    snapshot = repository / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    (repository / "blobs").mkdir(parents=True)
    (repository / "refs").mkdir()
    snapshot.mkdir(parents=True)
    (repository / "refs" / "main").write_text(snapshot.name)
    for number, file in enumerate(sorted(path for path in model.iterdir() if path.is_file())):
        shutil.copy(file, repository / "blobs" / f"{number:040x}")
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / f"{number:040x}")
    return snapshot


def test_a_snapshot_in_a_hubs_cache_is_loaded(model: Path, tmp_path: Path) -> None:
    snapshot = as_hub_cache(model, tmp_path / "hub")
    assert load_model(snapshot)[1] is not None


def test_a_hub_id_is_loaded_from_the_cache(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_hub_cache(model, tmp_path / "hub")
    for module in ("huggingface_hub.constants", "transformers.utils.hub"):
        monkeypatch.setattr(f"{module}.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    loaded, words, _ = load_model("owner/model")
    assert (loaded is not None, words is not None) == (True, True)


def test_a_snapshot_whose_blobs_are_elsewhere_is_loaded(model: Path, tmp_path: Path) -> None:
    snapshot = as_hub_cache(model, tmp_path / "hub")
    blobs = snapshot.parent.parent / "blobs"
    blobs.rename(tmp_path / "large-disk")
    blobs.symlink_to(tmp_path / "large-disk")
    load_model(snapshot)


def test_a_directory_of_links_into_the_users_own_cache_is_loaded(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot, local = as_hub_cache(model, tmp_path / "hub"), tmp_path / "local"
    local.mkdir()
    for file in snapshot.iterdir():
        (local / file.name).symlink_to(file.resolve())
    with pytest.raises(ModelError, match="it leads to"):
        load_model(local)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    load_model(local)


def test_odd_links_that_nobody_reads_are_left_alone(model: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("a model")
    (model / "README.md").unlink(missing_ok=True)
    links = {
        "notes": "/tmp",
        "README.md": "../README.md",
        ".#config.json": "somebody@host.1234:1",  # Emacs' lock
        "training_args.json": "../README.md",
        "logs": "nowhere",
        "requirements.txt": "/etc/passwd",
        "other.safetensors": "/dev/zero",
    }
    for name, goal in links.items():
        (model / name).symlink_to(goal)
    load_model(model)


def test_every_file_that_a_tokenizer_of_transformers_reads_is_looked_at() -> None:
    import transformers

    classes = [getattr(transformers, name, None) for name in TOKENIZER_MAPPING_NAMES.values() if name]
    names = {file for one in classes for file in vars(one or object).get("vocab_files_names", {}).values()}
    assert len(names) > 10
    assert [name for name in names if not looked_at.READ.fullmatch(name)] == []


@pytest.mark.parametrize("name", ["source.spm", "vocab.txt", "additional_chat_templates/tools.jinja"])
def test_a_link_out_that_a_tokenizer_would_read_is_refused(name: str, model: Path) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).symlink_to("/etc/passwd")
    with pytest.raises(ModelError, match=rf"cannot be loaded: {name}; got it leads to"):
        check_directory(model)


def test_code_named_by_a_model_on_the_hub_is_refused_before_it_is_loaded(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((model / "config.json").read_text()) | {"attn_implementation": "owner/repo"}
    (model / "config.json").write_text(json.dumps(config))
    as_hub_cache(model, tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"config\.json; got attn_implementation='owner/repo'"):
        load_model("owner/model")


def test_what_a_proxy_makes_of_a_hub_id_is_one_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class ProxyError(Exception): ...

    def refused(*_: Any, **__: Any) -> None:
        raise ProxyError("407 Proxy Authentication Required")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", refused)
    monkeypatch.setattr("huggingface_hub.file_download.hf_hub_download", refused)
    with pytest.raises(ModelError, match=r"^model owner/model cannot be loaded: config\.json; got 407"):
        load_model("owner/model")


@pytest.mark.parametrize("goal", ["../../../outside", "/etc/passwd", "../../refs/main"])
def test_a_link_out_of_the_blobs_of_a_cache_is_refused(goal: str, model: Path, tmp_path: Path) -> None:
    snapshot = as_hub_cache(model, tmp_path / "hub")
    (tmp_path / "hub" / "outside").write_text("{}")
    (snapshot / "generation_config.json").unlink()
    (snapshot / "generation_config.json").symlink_to(goal)
    with pytest.raises(ModelError, match=r"cannot be loaded: generation_config\.json; got it leads to"):
        load_model(snapshot)


def test_a_link_to_the_directory_itself_and_links_within_it_are_followed(model: Path, tmp_path: Path) -> None:
    (model / "generation_config.json").rename(model / "real.json")
    (model / "generation_config.json").symlink_to("real.json")
    (tmp_path / "link").symlink_to(model)
    load_model(tmp_path / "link")


@pytest.mark.parametrize("kind", ["out", "self", "nowhere", "pipe", "folder"])
def test_what_is_no_file_of_the_directory_is_refused_by_name(kind: str, model: Path, tmp_path: Path) -> None:
    for file in sorted(path.name for path in model.iterdir() if path.suffix in (".json", ".jinja", ".safetensors")):
        place = model / file
        before = place.read_bytes()
        place.unlink()
        (tmp_path / "outside").write_bytes(before)
        if kind == "pipe":
            os.mkfifo(place)
        elif kind == "folder":
            place.mkdir()
        else:
            place.symlink_to({"out": tmp_path / "outside", "self": place, "nowhere": "nowhere"}[kind])
        with pytest.raises(ModelError, match=rf"cannot be loaded: {file}; got ") as caught:
            load_model(model)
        assert "/outside" in str(caught.value) or kind != "out"
        place.rmdir() if kind == "folder" else place.unlink()
        place.write_bytes(before)
    load_model(model)


NAMES = ("../{}", "/etc/passwd", "{abs}", "sub/../../{}", "", ".", 5, None, "config.json", "a\0b.safetensors",
         "evil.bin")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_an_index_names_only_safetensors_beside_it(name: Any, bases: list[Path], tmp_path: Path) -> None:
    model = shutil.copytree(bases[1], tmp_path / "model")
    index = json.loads((model / "model.safetensors.index.json").read_text())
    shard = "model-00002-of-00005.safetensors"
    shutil.copy(model / shard, tmp_path / shard)  # whole, but outside
    other = name.format(shard, abs=tmp_path / shard) if isinstance(name, str) else name
    index["weight_map"] = {key: other if file == shard else file for key, file in index["weight_map"].items()}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"cannot be loaded: model\.safetensors\.index\.json; got "):
        load_model(model)


@pytest.mark.parametrize("name", ["../llama/model.safetensors", "/etc/passwd", "evil.bin", "adapter_model.bin", 5])
def test_a_config_names_only_safetensors_beside_it(name: Any, bases: list[Path], tmp_path: Path) -> None:
    model = shutil.copytree(bases[0], tmp_path / "model")
    shutil.copytree(bases[0], tmp_path / "llama")
    config = json.loads((model / "config.json").read_text()) | {"transformers_weights": name}
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"cannot be loaded: (config\.json|\S*model\.safetensors|/etc/passwd); got "):
        load_model(model)


CODE = (
    {"attn_implementation": "owner/repo"},
    {"_attn_implementation": "owner/repo"},
    {"attn_implementation": "owner/repo@main:function"},
    {"attn_implementation": "flash_attention_2"},
    {"attn_implementation": "evil"},
    {"attn_implementation": {"": "owner/repo"}},
    {"attn_implementation": {"text_config": "owner/repo"}},
    {"attn_implementation": ["owner/repo"]},
    {"experts_implementation": "owner/repo"},
    {"_experts_implementation": "evil"},
    {"text_config": {"vision": [{"_attn_implementation": "owner/repo"}]}},
)


@pytest.mark.parametrize("named", CODE)
@pytest.mark.skipif(find_spec("flash_attn") is not None, reason="then flash_attention_2 needs no code of a hub")
@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_no_file_names_attention_code_on_a_hub(
    file: str, named: dict[str, Any], bases: list[Path], tmp_path: Path
) -> None:
    model = shutil.copytree(bases[0], tmp_path / "model")
    (model / file).write_text(json.dumps(json.loads((model / file).read_text()) | named))
    with pytest.raises(ModelError, match=rf"cannot be loaded: {file}; got .*_implementation\S*=.*Fix: delete "):
        load_model(model)


HARMLESS = (
    {"attn_implementation": "eager"},
    {"attn_implementation": "sdpa"},
    {"attn_implementation": None},
    {"attn_implementation": {"": "sdpa"}},
    {"_attn_implementation_autoset": True},  # transformers 4 wrote it
    {"_attn_implementation_internal": "owner/repo"},  # transformers does not read it
    {"experts_implementation": "sonicmoe"},
    {"experts_implementation": "deepgemm"},
)


@pytest.mark.parametrize("named", HARMLESS)
def test_code_that_transformers_has_itself_may_be_named(
    named: dict[str, Any], bases: list[Path], tmp_path: Path
) -> None:
    model = shutil.copytree(bases[0], tmp_path / "model")
    config = json.loads((model / "config.json").read_text()) | named
    (model / "config.json").write_text(json.dumps(config))
    load_model(model)


def test_a_model_on_the_hub_is_looked_at_before_it_is_loaded(
    bases: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = shutil.copytree(bases[0], tmp_path / "model")

    def had(_: str, file: str) -> str | None:
        return str(model / file) if (model / file).exists() else None

    monkeypatch.setattr(looked_at, "try_to_load_from_cache", had)
    check_hub_model("owner/model")
    config = json.loads((model / "config.json").read_text()) | {"attn_implementation": "owner/repo"}
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"model owner/model cannot be loaded: config\.json"):
        check_hub_model("owner/model")


def defaults() -> Iterator[tuple[str, dict[str, Any]]]:
    """The config that each kind of model of transformers has by default, as its file says it."""
    for kind, config in CONFIG_MAPPING.items():
        try:
            yield kind, json.loads(config().to_json_string(use_diff=False))
        except (ImportError, TypeError, ValueError, StrictDataclassError):  # a few need a package, or arguments
            continue


@pytest.mark.filterwarnings("ignore")
def test_no_default_config_of_any_kind_of_model_is_refused(tmp_path: Path) -> None:
    kinds = []
    for kind, config in defaults():
        (tmp_path / "config.json").write_text(json.dumps(config | {"transformers_weights": None}))
        check_directory(tmp_path)
        refuse_unstored_layers(tmp_path, {"lm_head.weight": (1, 1)})
        kinds.append(kind)
    assert len(kinds) > 300
    assert {"gemma3n", "llama", "gpt2", "mamba2"} <= set(kinds)


def test_attention_whose_package_is_installed_may_be_named(
    bases: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = shutil.copytree(bases[0], tmp_path / "model")
    config = json.loads((model / "config.json").read_text()) | {"attn_implementation": "flash_attention_3"}
    (model / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(looked_at, "find_spec", lambda package: package == "flash_attn_interface" or None)
    check_directory(model)


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_that_is_nearly_all_embedding_is_made(tied: bool, tmp_path: Path) -> None:
    config = LlamaConfig(vocab_size=200_000, hidden_size=64, intermediate_size=64, num_hidden_layers=1,
                         num_attention_heads=1, num_key_value_heads=1, tie_word_embeddings=tied)  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    stored = sum(math.prod(shape) for shape in (stored_tensors(tmp_path) or {}).values())
    seen = list[int]()

    def count(_: Any, __: str, part: Any) -> None:
        seen.append(part.numel() if part is not None else 0)

    hook = register_module_parameter_registration_hook(count)
    load_model(tmp_path)
    hook.remove()
    assert 2 * sum(seen) < SMALL + LARGER * stored


@pytest.fixture
def adapters(tmp_path: Path) -> Path:
    pytest.importorskip("peft")
    save_model(small_llama(hidden=32), byte_level(), tmp_path / "base")
    student = add_lora(small_llama(hidden=32), Lora(r=4), base=tmp_path / "base")
    save_model(student, byte_level(), tmp_path / "adapters")
    load_model(tmp_path / "adapters")
    return tmp_path / "adapters"


ADAPTERS = (
    {"r": 10**9},
    {"rank_pattern": {"q_proj": 10**9}},
    {"megatron_config": {"a": 1}, "megatron_core": "os.path"},
    {"base_model_name_or_path": None},
    {"base_model_name_or_path": 5},
    {"base_model_name_or_path": "SELF"},
    {"peft_type": "EVIL"},
    {"peft_type": 5},
    {"target_modules": 5},
    {"target_modules": "("},
    {"lora_alpha": "evil"},
    {"layer_replication": [[0, 10**9]]},
    {"auto_mapping": {"base_model_class": "Evil", "parent_library": "evil"}, "lora_dropout": 7},
    {"r": 0},
)


@pytest.mark.parametrize("change", ADAPTERS)
def test_adapters_that_ask_for_code_or_the_absurd_are_refused_by_file(change: dict[str, Any], adapters: Path) -> None:
    file = adapters / "adapter_config.json"
    change = {key: str(adapters) if value == "SELF" else value for key, value in change.items()}
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelError, match=r"adapter_config\.json|base model"):
        load_model(adapters)


def test_damaged_adapter_weights_are_named(adapters: Path) -> None:
    file = adapters / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ModelError, match=r"cannot be loaded: adapter_model\.safetensors"):
        load_model(adapters)


def test_a_directory_is_looked_at_without_opening_what_is_not_a_models(model: Path) -> None:
    (model / "notes.md").write_bytes(b"\xff")
    (model / "training_args.json").write_text("[]")  # not read by transformers
    check_directory(model)
