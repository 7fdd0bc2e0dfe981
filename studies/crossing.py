"""Study of cross-tokenizer distillation: bits per byte of a student that learns from labels alone, by KL, by ULD.

    python -m studies.crossing --teacher DIR --train FILE --test FILE [--rows N] [--epochs N]

The student's tokenizer (byte-level BPE) is trained on the training text. Each arm has the same first weights, seed,
data, order and steps: labels alone, then with the teacher by KL (kl) and by sorted probabilities (uld). Judged by bits
and perplexity per byte on held-out text, which two tokenizers can be compared by.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from apt_model.data.dataset import make_dataloader
from apt_model.distill.teachers.cross_tokenizer import teachers_own_tokenizer
from apt_model.generation.evaluator import evaluate_text_quality
from apt_model.models.pretrained import load_model
from apt_model.plugins.distillation_plugin import DistillationPlugin
from studies.fresh import fresh_llama, own_tokenizer

ARMS: dict[str, dict[str, Any]] = {
    "labels alone": {"alpha": 0.0, "cross_tokenizer": "kl"},
    "kl": {"alpha": 0.7, "cross_tokenizer": "kl"},
    "uld": {"alpha": 0.7, "cross_tokenizer": "uld"},
}


def fresh_student(vocabulary: int, seed: int) -> LlamaForCausalLM:
    """A Llama of 192 × 4."""
    torch.manual_seed(seed)
    return fresh_llama(
        vocabulary,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )


def judge(model: Any, tokenizer: Any, held_out: Sequence[str]) -> dict[str, float]:
    """Metrics of a student on held-out lines."""
    batches = make_dataloader([{"text": line} for line in held_out], batch_size=8, shuffle=False)
    found = evaluate_text_quality(model, batches, tokenizer, max_length=256, max_new_tokens=0)
    return {"bits_per_byte": found["bits_per_byte"], "perplexity_per_byte": 2 ** found["bits_per_byte"]}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("teacher", "train", "test"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--test-rows", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=3000)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Train and judge the arms; print a line each."""
    given = parse(argv)
    torch.set_num_threads(1)
    lines, held_out = (Path(name).read_text("utf-8").splitlines() for name in (given.train, given.test))
    lines, held_out = lines[: given.rows], held_out[: given.test_rows]
    teacher, theirs, _ = load_model(given.teacher)
    mine = own_tokenizer(lines, given.vocabulary)
    print(json.dumps({"arm": "teacher", **judge(teacher, theirs, held_out)}), flush=True)
    settings = {"learning_rate": 3e-3, "sample_frequency": 10**6}
    settings |= {name: getattr(given, name) for name in ("temperature", "max_length", "seed")}
    for arm in given.arms:
        student = fresh_student(len(mine), given.seed)
        plugin = DistillationPlugin(settings | ARMS[arm])
        assert teachers_own_tokenizer(plugin.config.distill, teacher, mine, theirs) is theirs
        began = time.process_time()
        plugin.distill_model(
            student,
            teacher,
            make_dataloader([{"text": line} for line in lines], batch_size=16, seed=given.seed),
            tokenizer=mine,
            teacher_tokenizer=theirs,
            num_epochs=given.epochs,
            device="cpu",
            sinks=[],
        )
        seconds = round(time.process_time() - began)
        print(json.dumps({"arm": arm, **judge(student, mine, held_out), "cpu_seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
