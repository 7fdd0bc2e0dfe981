"""Models and batches of the benchmarks, by size: Llama-style, untied heads, random weights, random ids.

Knows nothing of losses, contenders or clocks.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes of models and batch.

    Attributes:
        vocabulary: ids that both heads know.
        teacher: hidden width and number of layers.
        student: the same.
        rows: sequences a batch.
        length: tokens a sequence.
    """

    vocabulary: int
    teacher: tuple[int, int]
    student: tuple[int, int]
    rows: int
    length: int

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> "Size":
        """From a dict that went through JSON."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})

    def __str__(self) -> str:
        teacher, student = ("×".join(map(str, width_and_depth)) for width_and_depth in (self.teacher, self.student))
        return f"vocabulary {self.vocabulary:,}, {teacher} → {student}, batch {self.rows}×{self.length}"


SIZES = {
    "demo": Size(vocabulary=1_500, teacher=(256, 4), student=(128, 2), rows=16, length=40),
    "S": Size(vocabulary=8_000, teacher=(256, 8), student=(128, 4), rows=16, length=128),
    "M": Size(vocabulary=50_257, teacher=(512, 8), student=(256, 4), rows=8, length=256),
    "V": Size(vocabulary=151_936, teacher=(256, 4), student=(128, 2), rows=4, length=256),
}
SCALED = Size(vocabulary=50_257, teacher=(256, 4), student=(128, 2), rows=4, length=256)
CURVES = {  # what grows → (the size's value there, the size)
    "batch × length": [(rows * 256, replace(SCALED, rows=rows)) for rows in (2, 4, 8, 16)],
    "vocabulary": [(width, replace(SCALED, vocabulary=width)) for width in (8_000, 32_000, 64_000, 128_000, 256_000)],
}


def llama(vocabulary: int, hidden: int, layers: int) -> LlamaForCausalLM:
    """A fresh model of the benchmark's family."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        tie_word_embeddings=False,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A teacher, frozen, and its student with an optimizer."""

    teacher: LlamaForCausalLM
    student: LlamaForCausalLM
    optimizer: torch.optim.Optimizer


def make_pair(size: Size, *, dtype: torch.dtype, device: str = "cpu") -> Pair:
    """Models of that size, everything in `dtype`, seeded; AdamW in its fastest form, the same for every contender."""
    torch.manual_seed(0)
    teacher, student = (llama(size.vocabulary, *part).to(device, dtype) for part in (size.teacher, size.student))
    teacher.eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, fused=True)
    return Pair(teacher=teacher, student=student.train(), optimizer=optimizer)


def make_batch(size: Size, *, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Ids (B, L), and their labels: every position counts, but for the shift."""
    ids = torch.randint(size.vocabulary, (size.rows, size.length), generator=torch.Generator().manual_seed(1)).to(
        device
    )
    return ids, ids.clone()
