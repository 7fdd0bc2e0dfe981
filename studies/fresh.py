"""Make new tokenizers and untrained models, for teachers and students of the studies."""

from typing import Any

from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def own_tokenizer(lines: list[str], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer trained on these lines."""
    made = ByteLevelBPETokenizer()
    special = ["<pad>", "<s>", "</s>"]
    made.train_from_iterator(lines, vocab_size=vocabulary, special_tokens=special, show_progress=False)
    names = dict(zip(("pad_token", "bos_token", "eos_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, **names)


def fresh_llama(vocabulary: int, **sizes: Any) -> LlamaForCausalLM:
    """A Llama of these sizes that knows the special tokens of `own_tokenizer`."""
    config = LlamaConfig(vocab_size=vocabulary, pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes)
    return LlamaForCausalLM(config)
