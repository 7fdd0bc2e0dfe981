"""Data for studies: chats whose questions are made from page titles and whose answers a teacher samples.

    python -m studies.chats /tmp/texts/pages --teacher minimind2 --out /tmp/texts   # chats.jsonl, chats-test.jsonl

The questions are about the titles of LibreOffice's help (texts.py says where it is from); every tenth is held out. The
answers are sampled at temperature 1, so that the teacher is what a student should come to be.
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed

from apt_model.models.pretrained import load_model

HELD_OUT = 10  # every tenth question
FORMS = ("什么是{title}？", "请介绍一下{title}。", "{title}有什么用？", "怎样使用{title}？")
SHORTEST, LONGEST = 2, 12  # characters of a title


def questions(pages: Path) -> list[str]:
    """One for each title, in one of four forms."""
    found = dict.fromkeys(
        match[1].strip()
        for page in sorted(pages.rglob("*.html"))
        if (match := re.search(r"<title>([^<]*)</title>", page.read_text("utf-8")))
    )
    titles = [title for title in found if re.fullmatch(rf"[\u4e00-\u9fff]{{{SHORTEST},{LONGEST}}}", title)]
    return [FORMS[index % len(FORMS)].format(title=title) for index, title in enumerate(titles)]


@torch.inference_mode()
def answers(model: Any, tokenizer: Any, asked: list[str], length: int) -> list[str]:
    """The model's own words, at most `length` tokens each."""
    tokenizer.padding_side = "left"
    prompts = tokenizer.apply_chat_template(
        [[{"role": "user", "content": question}] for question in asked],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
        padding=True,
    )
    said = model.generate(**prompts, max_new_tokens=length, do_sample=True, temperature=1.0, top_k=0, top_p=1.0)
    found: list[str] = tokenizer.batch_decode(said[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Ask, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path)
    parser.add_argument("--teacher", required=True, metavar="DIR")
    parser.add_argument("--answer-tokens", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    set_seed(0)
    model, tokenizer, _ = load_model(arguments.teacher)
    lines: dict[bool, list[str]] = {True: [], False: []}
    asked = questions(arguments.pages)
    for start in range(0, len(asked), arguments.batch_size):
        some = asked[start : start + arguments.batch_size]
        said = answers(model.eval(), tokenizer, some, arguments.answer_tokens)
        for index, (question, answer) in enumerate(zip(some, said, strict=True), start=start):
            chat = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            lines[index % HELD_OUT == 0].append(json.dumps({"messages": chat}, ensure_ascii=False))
    for is_held, name in ((False, "chats.jsonl"), (True, "chats-test.jsonl")):
        (arguments.out / name).write_text("\n".join(lines[is_held]) + "\n", "utf-8")
        print(f"{name}: {len(lines[is_held]):,} chats")


if __name__ == "__main__":
    main()
