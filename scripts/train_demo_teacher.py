"""Train the demo's teacher from the demo's corpus, and save it into the package.

    python scripts/train_demo_teacher.py            # about 3 minutes on 2 cores

Character tokens, a Llama of 256 x 4, trained on the labels only. The corpus is small, and the teacher is meant to
memorise it: it teaches these sentences, not the language. Prints the loss per epoch, and samples at the end.
"""

import argparse
import random
from itertools import chain
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, get_cosine_schedule_with_warmup

from apt_model.config.sections import TrainConfig
from apt_model.data.batch import to_batch
from apt_model.demo.lesson import read_corpus
from apt_model.distill.setup import make_optimizer

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
HOME = Path(__file__).parent.parent / "apt_model" / "demo" / "teacher"


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


def train(teacher: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, sentences: list[str], epochs: int) -> None:
    """AdamW with warm-up and cosine, batches of 16 sentences, labels only."""
    batches = [sentences[i : i + 16] for i in range(0, len(sentences), 16)]
    optimizer = make_optimizer(teacher, TrainConfig(learning_rate=2e-3, weight_decay=0.05))
    schedule = get_cosine_schedule_with_warmup(optimizer, 50, epochs * len(batches))
    for epoch in range(1, epochs + 1):
        random.shuffle(sentences)
        batches = [sentences[i : i + 16] for i in range(0, len(sentences), 16)]
        losses = []
        for texts in batches:
            batch = to_batch(texts, tokenizer=tokenizer)
            logits = teacher(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(teacher.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        print(f"epoch {epoch}/{epochs}: loss {sum(losses) / len(losses):.4f}", flush=True)


def main() -> None:
    """Train, show, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=32)
    parser.add_argument("--out", type=Path, default=HOME)
    arguments = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    by_topic = read_corpus()
    sentences = list(chain.from_iterable(by_topic.values()))
    tokenizer = make_tokenizer(sentences)
    teacher = make_teacher(tokenizer)
    print(f"{len(sentences)} sentences, {len(tokenizer)} tokens, {teacher.num_parameters():,} parameters")
    train(teacher, tokenizer, sentences, arguments.epochs)
    teacher.eval()
    for lines in by_topic.values():
        start = torch.tensor([[tokenizer.bos_token_id, *tokenizer(lines[0][:6])["input_ids"]]])
        said = teacher.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=50, do_sample=False)
        print(tokenizer.decode(said[0], skip_special_tokens=True))
    teacher.half().save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
