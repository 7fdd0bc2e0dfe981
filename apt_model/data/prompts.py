"""What of a row is given to a model that shall go on by itself. Knows rows; knows nothing of models."""

from torch import Tensor

from apt_model.data.encode import IGNORED

GIVEN_TOKENS = 8  # of a text without a question


def beginning(ids: Tensor, labels: Tensor, mask: Tensor) -> list[int]:
    """The tokens to go on from, of a row on the CPU: ids, labels and attention mask, (L) each.

    All before the first token to learn, where that is a question; else the first GIVEN_TOKENS of a text, at most half
    of it. Empty where nothing is learned.
    """
    real = mask.bool()
    text, learned = ids[real].tolist(), (labels[real] != IGNORED).nonzero().flatten().tolist()
    if not learned:
        return []
    given = learned[0] if learned[0] > 1 else min(GIVEN_TOKENS, len(text) // 2)
    return list(text[:given])
