"""What the rebuilt reports share: a byte-level tokenizer, tiny models, files of rows, and what the product did of them.

A report is done right if its rows are learned as they stand, or refused in one line that names what is wrong, or if
what is left out is told.
"""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from apt_model import VisualDistillationPlugin, load_dataset
from apt_model.data.batch import to_batch
from apt_model.data.dataset import tokenize_dataset
from apt_model.errors import AptModelError
from apt_model.events.event import Event
from apt_model.events.records import Notice, StepDone

SPECIALS = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TOOLS = (  # like the templates of models that call tools: `tools` in front, calls as JSON, roles as they are
    "{% if tools %}{{ '<|im_start|>tools\\n' }}{% for t in tools %}{{ (t if t is string else t | tojson) }}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}{% if m['content'] %}{{ m['content'] }}{% endif %}"
    "{% for c in m['tool_calls'] or [] %}{{ '<call>' + c['function']['name'] + ' ' }}"
    "{{ c['function']['arguments'] | tojson }}{{ '</call>' }}{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
FAST = {"lang": "en", "show_samples": False, "seed": 0, "exam_prompts": []}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a call gave, refused, or told.

    Attributes:
        value: what it returned; None if it was refused.
        refusal: the line of the product's own error; empty if there was none.
        told: its warnings, and the notices of its runs, one a line.
    """

    value: Any = None
    refusal: str = ""
    told: str = ""

    def names(self, *words: str) -> bool:
        """Whether the refusal, or a thing told, has all these words (in one line)."""
        lines = [line.lower() for line in (self.refusal, *self.told.splitlines())]
        return any(all(word.lower() in line for word in words) for line in lines)


def outcome_of(call: Callable[[], Any]) -> Outcome:
    """Make a call; errors other than the product's own pass through."""
    _notices.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            value, refusal = call(), ""
        except AptModelError as error:
            value, refusal = None, str(error)
    return Outcome(value=value, refusal=refusal, told="\n".join([*(str(one.message) for one in caught), *_notices]))


def byte_tokenizer(template: str | None = None, *, more: Sequence[str] = (), **roles: str) -> PreTrainedTokenizerFast:
    """One token a byte, so that it reads anything and gives it back; `roles` name its special tokens."""
    specials = [*SPECIALS, *more]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*specials, *letters])}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True) for token in specials])
    named = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"} | roles
    made = PreTrainedTokenizerFast(tokenizer_object=core, **named)
    made.chat_template = template
    return made


def tiny(kind: str = "Llama", *, vocabulary: int = 300, seed: int = 0, spread: float = 1.0, **more: Any) -> Any:
    """A tiny model; `spread` widens its matrices, so that what it reads makes a difference."""
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    if kind == "GPT2":
        sizes = {k: v for k, v in sizes.items() if k.endswith("_id") or k == "vocab_size"}
        sizes |= {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
        more = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0} | more
    config = getattr(transformers, f"{kind}Config")(**sizes | more)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(spread)
    return model


def save(model: Any, tokenizer: Any, directory: Path) -> Path:
    """Save a model with its tokenizer by transformers alone."""
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows by `json` alone."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def learned(source: Any, tokenizer: Any, *, max_length: int = 512, packing: bool = False, **how: Any) -> Outcome:
    """Of each row of a file its whole text and its learned text, as the product encodes them."""

    def read() -> list[tuple[str, str]]:
        rows = tokenize_dataset(load_dataset(source, **how), tokenizer, max_length=max_length, packing=packing)
        return [
            (tokenizer.decode(row["input_ids"]), tokenizer.decode([x for x in row["labels"] if x != -100]))
            for row in rows
        ]

    return outcome_of(read)


def learned_rows(rows: Sequence[Mapping[str, Any]], tokenizer: Any, *, max_length: int = 512) -> Outcome:
    """The same of rows that Python holds, as a batch of `collate_fn=list` has them."""

    def read() -> list[tuple[str, str]]:
        batch = to_batch(rows, tokenizer=tokenizer, max_length=max_length)
        return [
            (tokenizer.decode(ids[mask != 0]), tokenizer.decode(labels[labels != -100]))
            for ids, mask, labels in zip(batch.input_ids, batch.attention_mask, batch.labels, strict=True)
        ]

    return outcome_of(read)


_notices: list[str] = []  # of the runs within a call of `outcome_of`


class Listener:
    """A sink that keeps the steps that it heard of, and puts the notices down for `outcome_of`."""

    def __init__(self) -> None:
        self.steps: list[StepDone] = []

    def emit(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self.steps.append(event)
        if isinstance(event, Notice):
            _notices.append(f"{event.key} {dict(event.values)}")

    def close(self) -> None:
        pass


def steps_of(student: Any, teacher: Any, batches: Any, tokenizer: Any = None, **settings: Any) -> list[StepDone]:
    """The steps of a run on these batches."""
    listener = Listener()
    epochs = settings.pop("num_epochs", 1)
    VisualDistillationPlugin({**FAST, "temperature": 1.0, **settings}).visual_distill_model(
        student, teacher, batches, tokenizer=tokenizer, num_epochs=epochs, device="cpu", sinks=[listener]
    )
    return listener.steps


def row_losses(model: Any, rows: Iterable[tuple[Sequence[int], Sequence[int]]]) -> float:
    """Mean loss over the labels of all rows, each row alone, by transformers' own loss; labels are not shifted."""
    total, count = 0.0, 0
    for ids, labels in rows:
        learns = sum(label != -100 for label in labels[1:])
        if learns:
            with torch.no_grad():
                loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
            total, count = total + float(loss) * learns, count + learns
    return total / count


def command(*words: object, cwd: Path) -> tuple[int, str]:
    """apt-model on the command line: its exit code, and all that it printed."""
    environment = {**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1", "HF_HOME": str(cwd / "hf")}
    done = subprocess.run(
        [sys.executable, "-m", "apt_model", *map(str, words)],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=240,
        cwd=cwd,
        env=environment,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr
