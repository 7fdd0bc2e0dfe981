"""The rows of a batch in the tokens of a teacher with another tokenizer, aligned with the student's tokens.

Knows tokens and spans of them; knows nothing of tokenizers, models or losses.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TeachersRows:
    """The rows of a batch in the tokens of a teacher with another tokenizer: B rows of at most M tokens.

    Attributes:
        input_ids: (B, M), int64.
        attention_mask: (B, M), int64; 1 where there is text.
        spans: (S, 5), int64: for each aligned span of learned text its row, first student token, number of student
            tokens, first teacher token, number of teacher tokens. No span begins at the first token of a row, which
            nothing predicts.
    """

    input_ids: Tensor
    attention_mask: Tensor
    spans: Tensor

    def to(self, device: torch.device) -> "TeachersRows":
        """The same rows on another device."""
        return TeachersRows(
            input_ids=self.input_ids.to(device, non_blocking=True),
            attention_mask=self.attention_mask.to(device, non_blocking=True),
            spans=self.spans.to(device, non_blocking=True),
        )

    def covers(self, length: int) -> Tensor:
        """Which of the student's tokens are in a span, (B, `length`), bool."""
        row, first, count = self.spans[:, :3].unbind(dim=1)
        # +1 where a span begins, -1 behind its end: the running sum is above 0 exactly inside of spans
        edges = torch.zeros(len(self.input_ids), length + 1, dtype=torch.int64, device=self.spans.device)
        edges.index_put_((row, first), torch.ones_like(row), accumulate=True)
        edges.index_put_((row, first + count), -torch.ones_like(row), accumulate=True)
        return edges.cumsum(dim=1)[:, :length] > 0

    def begin(self, row: int) -> Tensor:
        """The student's tokens of a row at which a span begins, (N)."""
        return self.spans[self.spans[:, 0] == row, 1]

    def at(self, row: int, start: int, count: int) -> tuple[list[int], int]:
        """What the teacher reads before the span that begins at the student's token `start`, and how many of its tokens
        are in that span and those behind it, as far as they begin within `count` of the student's tokens.
        """
        spans = self.spans[self.spans[:, 0] == row]
        spans = spans[(spans[:, 1] >= start) & (spans[:, 1] < start + count)]
        first, end = int(spans[0, 3]), int(spans[-1, 3:].sum())
        return self.input_ids[row, :first].tolist(), end - first

    def up_to(self, row: int, prompt: list[int]) -> tuple[list[int], list[int]]:
        """The longest beginning of the prompt that is the same text in both tokenizers: student ids, teacher ids.

        Both are empty if no span of the row begins in the prompt or right behind it.
        """
        spans = self.spans[self.spans[:, 0] == row]
        inside = spans[spans[:, 1] <= len(prompt)]
        if not len(inside):
            return [], []
        _, first, _, teacher_first, _ = inside[inside[:, 1].argmax()].tolist()
        return prompt[:first], self.input_ids[row, :teacher_first].tolist()
