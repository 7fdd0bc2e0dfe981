"""Small real models, a real tokenizer, and a machine without a network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import copy
from collections.abc import Callable
from typing import Any

import datasets
import pytest
import torch
from hypothesis import HealthCheck, settings
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from apt_model.events.event import Event

VOCABULARY = 64
TEMPLATE = (
    "{% for m in messages %}{{ '<s>' + m['role'] + ' ' + m['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant ' }}{% endif %}"
)

settings.register_profile("seeded", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("seeded")
torch.set_num_threads(1)  # tiny models: more threads cost more than they give, above all on a busy machine


class Listener:
    """A sink that keeps what it heard."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closed = False

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed = True

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if type(event) is kind]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def datasets_in_a_cache_of_their_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def environment_stays_the_same_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """datasets replaces `os.environ` by a copy where it maps with several processes; rich would read the old one."""
    monkeypatch.setattr(os, "environ", os.environ)


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def make_model() -> Callable[..., LlamaForCausalLM]:
    """A tiny Llama; the same seed and sizes give the same weights."""

    def make(hidden: int = 32, layers: int = 2, vocabulary: int = VOCABULARY, seed: int = 0, **more: Any) -> Any:
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=2,
            max_position_embeddings=64,
            **{"tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0} | more,
        )
        return LlamaForCausalLM(config).eval()

    return make


@pytest.fixture
def teacher(make_model: Callable[..., LlamaForCausalLM]) -> LlamaForCausalLM:
    """Wide weights, so that its distribution is far from flat."""
    model = make_model(hidden=32, layers=2, seed=1)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    return model


@pytest.fixture
def student(make_model: Callable[..., LlamaForCausalLM]) -> LlamaForCausalLM:
    return make_model(hidden=16, layers=1, seed=2)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a character: ASCII letters, and some Chinese."""
    characters = "abcdefghijklmnopqrstuvwxyz ,.互联网是全球最大的计算机络，。人工智能医疗教育经济文化体"
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *dict.fromkeys(characters)])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture
def chatty(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer with a chat template of its own."""
    made = copy.deepcopy(tokenizer)
    made.chat_template = TEMPLATE
    return made


@pytest.fixture
def make_batches() -> Callable[..., list[dict[str, torch.Tensor]]]:
    """Batches of random ids whose rows have different lengths, the rest padded and masked."""

    def make(count: int = 4, rows: int = 4, length: int = 12, seed: int = 3) -> list[dict[str, torch.Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        batches = []
        for _ in range(count):
            ids = torch.randint(4, VOCABULARY, (rows, length), generator=generator)
            lengths = torch.randint(3, length + 1, (rows, 1), generator=generator)
            mask = (torch.arange(length) < lengths).long()
            batches.append({"input_ids": ids * mask, "attention_mask": mask})
        return batches

    return make
