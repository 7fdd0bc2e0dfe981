"""A language whose every probability is known, and real tiny models that learn it: material of `studies.truth`."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from studies.fresh import fresh_llama

CHARACTERS = "互联网是全球最大的计算机络人工智能医疗教育经济文化体天地玄黄宇宙洪荒日月盈昃辰宿列张"
SUCCESSORS = (0.6, 0.2, 0.1, 0.05, 0.03, 0.02)  # probabilities of what may follow two characters
LENGTH = 24  # characters of a row
ROWS_OF_TRUTH = 384  # by which a student is really judged


class Language:
    """A second-order Markov chain over Chinese characters.

    Args:
        seed: other seeds are other languages.
    """

    def __init__(self, seed: int) -> None:
        self.characters = list(dict.fromkeys(CHARACTERS))
        count, dice = len(self.characters), torch.Generator().manual_seed(seed)
        order = torch.rand(count, 2, count, generator=dice).argsort(dim=2)
        self._followers = order[:, :, : len(SUCCESSORS)]  # by the last character, and by whether the one before is even

    def rows(self, count: int, seed: int) -> list[str]:
        """Random rows."""
        dice = torch.Generator().manual_seed(seed)
        now = torch.randint(len(self.characters), (2, count), generator=dice)
        before, last, columns = now[0], now[1], [now[0], now[1]]
        shares = torch.tensor(SUCCESSORS)
        while len(columns) < LENGTH:
            choice = torch.multinomial(shares, count, replacement=True, generator=dice)
            before, last = last, self._followers[last, before % 2, choice]
            columns.append(last)
        table = torch.stack(columns, dim=1).tolist()
        return ["".join(self.characters[place] for place in row) for row in table]

    @cached_property
    def tokenizer(self) -> Any:
        """One token a character."""
        words = {token: at for at, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *self.characters])}
        made = Tokenizer(WordLevel(words, unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
        made.decoder = decoders.Fuse()
        return PreTrainedTokenizerFast(
            tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
        )

    def ids(self, rows: list[str]) -> Tensor:
        """Token ids (rows, LENGTH)."""
        return torch.tensor([self.tokenizer.convert_tokens_to_ids(list(row)) for row in rows])


def llama(vocabulary: int, *, hidden: int, layers: int, seed: int, tied: bool = False) -> PreTrainedModel:
    """An untrained Llama."""
    torch.manual_seed(seed)
    return fresh_llama(
        vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
    )


def gpt2(vocabulary: int, *, hidden: int, layers: int, seed: int) -> PreTrainedModel:
    """An untrained GPT-2: tied embeddings, dropout."""
    torch.manual_seed(seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary,
            n_embd=hidden,
            n_layer=layers,
            n_head=2,
            n_positions=128,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def taught(model: PreTrainedModel, language: Language, *, steps: int, seed: int) -> PreTrainedModel:
    """The model trained on ever new rows of the language."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        ids = language.ids(language.rows(32, seed * 10_000 + step))
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@dataclass(frozen=True, kw_only=True)
class TrueState:
    """What a student really is, by many rows that no lesson has read: token laziness and agreement, 0..1."""

    laziness: float
    agreement: float


@dataclass(frozen=True, kw_only=True)
class TrueStates:
    """What it was before the first step, half-way, and after the last."""

    before: TrueState
    middle: TrueState
    after: TrueState


@torch.no_grad()
def true_state(student: nn.Module, teacher: nn.Module, rows: Tensor) -> TrueState:
    """Student against teacher in float64: 0.6 · (1 − agreement) + 0.4 · mean(1 − exp(−KL))."""
    was_training = student.training
    student.eval()
    lazy, agreed = [], []
    for ids in _batches(rows):
        theirs, own = (model(input_ids=ids).logits[:, :-1].double().log_softmax(-1) for model in (teacher, student))
        kl = (theirs.exp() * (theirs - own)).sum(-1)
        agreed.append((theirs.argmax(-1) == own.argmax(-1)).double())
        lazy.append(0.6 * (1 - agreed[-1]) + 0.4 * (1 - (-kl).exp()))
    student.train(was_training)
    return TrueState(laziness=float(torch.cat(lazy).mean()), agreement=float(torch.cat(agreed).mean()))


def _batches(rows: Tensor) -> Iterator[Tensor]:
    yield from rows.split(64)
