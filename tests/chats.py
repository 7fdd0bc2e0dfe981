"""Chats for tests: a byte-level tokenizer that gives any text back, chat templates as published, a small Llama."""

from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIALS = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|end|>", "<|eot|>")
IM_END = SPECIALS.index("<|im_end|>")
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
THINKING = CHATML.replace("assistant\n' }}{% endif %}", "assistant\n<think>\n' }}{% endif %}")
LLAMA_2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<s>[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' </s>' }}{% endif %}{% endfor %}"
)
NO_END = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
FACTS = {"A river?": "The Loire.", "A lake?": "Como.", "A hill?": "Box Hill.", "A town?": "Bath."}


def byte_level(template: str | None = CHATML, *, eos: str = "</s>", turned: bool = False) -> Any:
    """A token for each byte, and SPECIALS; `turned`: the bytes' ids the other way round."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet(), reverse=turned)
    core = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate([*SPECIALS, *letters])}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    made = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token=eos)
    made.chat_template = template
    return made


def small_llama(seed: int = 0, hidden: int = 64, layers: int = 1, **more: Any) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(SPECIALS) + 256,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        **{"max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0} | more,
    )
    return LlamaForCausalLM(config).eval()


def chat(question: str, *answers: str) -> list[dict[str, str]]:
    """The turns of a chat: a question, and its answer if there is one."""
    return [{"role": "user", "content": question}, *({"role": "assistant", "content": answer} for answer in answers)]


def learn_by_heart(model: Any, tokenizer: Any, chats: list[list[dict[str, str]]], most: int = 600) -> Any:
    """Plain cross-entropy on the rendered chats, until what stands behind each question is the model's first choice."""
    rows = [tokenizer(tokenizer.apply_chat_template(one, tokenize=False), add_special_tokens=False) for one in chats]
    asked = [tokenizer.apply_chat_template(one[:1], add_generation_prompt=True, return_dict=False) for one in chats]
    batch = tokenizer.pad(rows, return_tensors="pt")
    places = torch.arange(batch["input_ids"].shape[1])
    given = torch.stack([places < len(ids) for ids in asked]) | (batch["attention_mask"] == 0)
    labels = batch["input_ids"].masked_fill(given, -100)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(most):
        out = model(**batch, labels=labels)
        if out.loss < 0.01:
            return model.eval()
        out.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    raise AssertionError("not learned by heart")
