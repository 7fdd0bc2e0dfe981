"""Take the prompt out of a training row, for generation. Knows token ids and labels; knows nothing of models."""

from torch import Tensor

from apt_model.data.encoded import IGNORED

GIVEN_TOKENS = 8  # of a text in which every token is learned, so that it has no prompt of its own


def beginning(ids: Tensor, labels: Tensor, mask: Tensor) -> list[int]:
    """The prompt of a row: the token ids before the first label, or the beginning of a text that has no prompt.

    Of a text whose first or second token is already learned, the first GIVEN_TOKENS are taken, at most half of it.
    Empty if no token has a label.
    Shapes: ids, labels, mask (L) each, on the CPU.
    """
    real = mask.bool()
    text, learned = ids[real].tolist(), (labels[real] != IGNORED).nonzero().flatten().tolist()
    if not learned:
        return []
    given = learned[0] if learned[0] > 1 else min(GIVEN_TOKENS, len(text) // 2)
    return list(text[:given])
