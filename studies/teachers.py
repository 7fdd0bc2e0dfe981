"""Teachers for studies: a fresh or given model trained on labels alone by transformers' own Trainer.

    python -m studies.teachers --data train.txt --out fresh   # Llama of 256 x 4, byte-level BPE of 3,000 tokens
    python -m studies.teachers --data train.txt --model minimind2 --rate 3e-4 --out tuned

Labels only, by transformers' own trainer; so nothing of ours has made the teachers that our students are judged by.
"""

import argparse
from collections.abc import Sequence

import torch
from accelerate.utils import set_seed
from transformers import DataCollatorForSeq2Seq, LlamaForCausalLM, Trainer, TrainingArguments

from apt_model.data.dataset import load_dataset, tokenize_dataset
from apt_model.models.pretrained import load_model
from studies.fresh import fresh_llama, own_tokenizer

SEED, VOCABULARY = 0, 3_000


def fresh_teacher(vocabulary: int) -> LlamaForCausalLM:
    """As large as the demo's."""
    return fresh_llama(
        vocabulary,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=8,
        max_position_embeddings=256,
        tie_word_embeddings=False,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Train, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE")
    parser.add_argument("--model", metavar="DIR", help="begin with this one")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    set_seed(SEED)
    rows = load_dataset(arguments.data)
    if arguments.model is None:
        tokenizer = own_tokenizer([row["text"] for row in rows], VOCABULARY)
        model = fresh_teacher(len(tokenizer))
    else:
        model, tokenizer, _ = load_model(arguments.model)
    how = TrainingArguments(
        output_dir=f"{arguments.out}/trainer",
        num_train_epochs=arguments.epochs,
        per_device_train_batch_size=arguments.batch_size,
        learning_rate=arguments.rate,
        lr_scheduler_type="cosine",
        warmup_steps=50,
        weight_decay=0.05,
        logging_steps=50,
        save_strategy="no",
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
        seed=SEED,
    )
    data = tokenize_dataset(rows, tokenizer=tokenizer, max_length=arguments.max_length)
    Trainer(model=model, args=how, train_dataset=data, data_collator=DataCollatorForSeq2Seq(tokenizer)).train()
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
