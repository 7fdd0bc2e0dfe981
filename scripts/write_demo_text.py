"""Have a model write text for the demo: Chinese sentences on eight topics, or English stories.

    python scripts/write_demo_text.py zh --model MINIMIND_DIR --seed 0 --out zh-0.jsonl    # 10 CPU-minutes a seed
    python scripts/write_demo_text.py en --model apt_model/demo/en/teacher --out en.jsonl  # 1 CPU-minute

MiniMind2-Small (26 M, Apache-2.0; `convert_minimind.py` makes MINIMIND_DIR) writes in its chat template, whose first
token is <|im_start|>, on the subjects of demo_subjects.toml; the stories model begins at its start token. Rows: topic,
prompt, text. `choose_demo_text.py` takes it from there.
"""

import argparse
import json
import random
import tomllib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

SUBJECTS = Path(__file__).with_name("demo_subjects.toml")
STORIES = 2_048


def ask(tokenizer: Any, seed: int, size: int) -> Iterator[tuple[list[str], list[str], Any]]:
    """Batches of topics, questions and encoded chats: every subject in every form, in a seeded order."""
    table = tomllib.loads(SUBJECTS.read_text("utf-8"))
    asked = [
        (topic, form.format(subject))
        for topic, subjects in table["subjects"].items()
        for subject in subjects.split()
        for form in table["forms"]
    ]
    random.Random(seed).shuffle(asked)
    for start in range(0, len(asked), size):
        topics, questions = (list(column) for column in zip(*asked[start : start + size], strict=True))
        chats = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
            )
            for question in questions
        ]
        yield topics, questions, tokenizer(chats, return_tensors="pt", padding=True, add_special_tokens=False)


def begin(tokenizer: Any, size: int) -> Iterator[tuple[list[str], list[str], Any]]:
    """Batches of stories that have only their start token."""
    for _ in range(0, STORIES, size):
        start = torch.full((size, 1), tokenizer.bos_token_id)
        yield [""] * size, [""] * size, {"input_ids": start, "attention_mask": torch.ones_like(start)}


def written(tokenizer: Any, ids: list[int]) -> str:
    """The text up to the first special token."""
    ends = [place for place, token in enumerate(ids) if token in tokenizer.all_special_ids]
    return str(tokenizer.decode(ids[: ends[0]] if ends else ids))


def main() -> None:
    """Write and print how much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lang", choices=("zh", "en"))
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batches", type=int, help="stop after this many")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    torch.manual_seed(arguments.seed)
    chinese = arguments.lang == "zh"
    how = {"temperature": 0.6, "top_p": 0.95} if chinese else {"temperature": 0.8}
    batches = ask(tokenizer, arguments.seed, 128) if chinese else begin(tokenizer, 512)
    tokens = 0
    with arguments.out.open("w", encoding="utf-8") as file, torch.inference_mode():
        for topics, questions, inputs in islice(batches, arguments.batches):
            said = model.generate(
                **inputs,
                **how,
                do_sample=True,
                top_k=0,
                max_new_tokens=120 if chinese else 250,
                pad_token_id=tokenizer.pad_token_id,
            )[:, inputs["input_ids"].shape[1] :]
            tokens += int((said != tokenizer.pad_token_id).sum())
            for topic, question, ids in zip(topics, questions, said.tolist(), strict=True):
                file.write(json.dumps([topic, question, written(tokenizer, ids)], ensure_ascii=False) + "\n")
            print(f"{tokens:,} tokens", flush=True)


if __name__ == "__main__":
    main()
