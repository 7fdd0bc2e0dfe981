"""A byte-level tokenizer, as most models have one, trained on the spot."""

from typing import Any

import pytest
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

TEXTS = ["the cat sat on the mat, and the dog sat too.", "互联网是全球最大的计算机网络。", "好的 👍🏽 OK 🎓 done"]


@pytest.fixture(scope="session")
def byte_tokenizer() -> Any:
    """Characters outside ASCII, and emoji above all, are several tokens."""
    made = ByteLevelBPETokenizer()
    made.train_from_iterator(TEXTS, vocab_size=300, show_progress=False, special_tokens=["<pad>", "<s>", "</s>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=made._tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
