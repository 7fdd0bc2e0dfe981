"""README.md of a saved model: its model card in Hugging Face's form, with what is known of it and nothing else.

Knows what a card says; knows nothing of how the model was trained or saved. Cards are English, as the field's are.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but not listed
from transformers import PreTrainedModel

from apt_model.config import LessonConfig
from apt_model.data.template import has_template
from apt_model.events.records import ModelCard, RunFinished
from apt_model.events.results import MeanEstimate
from apt_model.models.generation_settings import listed, spelled
from apt_model.models.lora import has_adapters
from apt_model.models.versions import INSTALLED

README = "README.md"
MARK = "<!-- written by apt_model: another save replaces this file; without this line it is kept -->"
PACKAGES = ("apt-model", "transformers", "torch")
PLACE = "path/to/this/directory"


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a student was trained, for its model card.

    Attributes:
        teacher: its class and size.
        teacher_name: path or hub id; empty if it has none.
        data: names of the training data, as the user gave them.
        batch_size: rows of a batch; None if unknown.
        optimizer: class of an optimizer that the caller made; None: AdamW by the settings.
        config: all settings.
        finished: the end of the run, with its readings.
    """

    teacher: ModelCard
    teacher_name: str
    data: Sequence[str]
    batch_size: int | None
    optimizer: str | None
    config: LessonConfig
    finished: RunFinished


def may_write(directory: Path) -> bool:
    """Whether a directory has no README.md yet, or one that was written here; somebody's own is kept."""
    try:
        return MARK in (directory / README).read_text("utf-8", "replace")
    except FileNotFoundError:
        return True


def write_readme(directory: Path, model: Any, tokenizer: Any, training: Training | None) -> None:
    """Write the model card of the model that was saved in a directory.

    Args:
        directory: of the model.
        model: as it was saved.
        tokenizer: saved beside it, or None.
        training: None if nothing is known of it.
    """
    names = [str(getattr(model, "name_or_path", "") or ""), training.teacher_name if training else ""]
    bases = list(dict.fromkeys(name for name in names if _is_on_hub(name)))
    about = ModelCardData(
        base_model=bases or None,
        datasets=[name for name in training.data if _is_on_hub(name)] or None if training else None,
        library_name="peft" if has_adapters(model) else "transformers" if isinstance(model, PreTrainedModel) else None,
        pipeline_tag="text-generation" if isinstance(model, PreTrainedModel) or has_adapters(model) else None,
        tags=["apt-model", *(["knowledge-distillation"] if training and _has_taught(training.config) else [])],
    )
    lines = [f"---\n{about.to_yaml()}\n---\n{MARK}\n", *_title(model, training)]
    if training is not None:
        lines += ["## Training\n", *_training(training), "## Evaluation\n", *_evaluation(training.finished)]
    lines += ["## Use\n", *_use(model, tokenizer), "## Versions\n", *_versions()]
    (directory / README).write_text("\n".join(lines), encoding="utf-8")


def quoted(text: str) -> str:
    """Any text as a code span of Markdown, on one line, in which nothing is markup."""
    plain = " ".join(text.encode("utf-8", "replace").decode().split())
    plain = "".join(letter if letter.isprintable() else "\ufffd" for letter in plain)
    fence = "`" * (max(map(len, re.findall("`+", plain)), default=0) + 1)
    pad = " " if plain[:1] == "`" or plain[-1:] == "`" else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def _is_on_hub(name: str) -> bool:
    """Whether a name can be one of the hub: the hub refuses cards whose base_model is a path."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name and not Path(name).exists()


def _has_taught(config: LessonConfig) -> bool:
    loss = config.distill
    return bool(loss.alpha or loss.hidden_weight or loss.attention_weight)


def _title(model: Any, training: Training | None) -> Iterator[str]:
    base = model.get_base_model() if has_adapters(model) else model
    size = _size(type(base).__name__, sum(parameter.numel() for parameter in model.parameters()))
    what = f"LoRA adapters on a causal language model ({size})" if base is not model else f"A language model ({size})"
    if training is None:
        yield f"# {type(base).__name__}\n\n{what}, saved by apt_model. Nothing was recorded of how it was trained.\n"
        return
    teacher = _size(training.teacher.name, training.teacher.parameters)
    name = f", {quoted(training.teacher_name)}" if training.teacher_name else ""
    if _has_taught(training.config):
        yield f"# Distilled {type(base).__name__}\n"
        yield f"{what}, trained by knowledge distillation on the predictions of a teacher ({teacher}{name}).\n"
    else:
        yield f"# {type(base).__name__}\n"
        yield f"{what}, trained on the labels of its data. A teacher ({teacher}{name}) was only compared with it.\n"


def _size(name: str, parameters: int) -> str:
    return f"{quoted(name)} of {parameters:,} parameters"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _training(training: Training) -> Iterator[str]:
    """Lines of the section on training."""
    loss, train, finished = training.config.distill, training.config.train, training.finished
    data = ", ".join(map(quoted, training.data)) or "not named"
    yield f"- Data: {data}; at most {train.max_length:,} tokens a row"
    tokens = f", {finished.tokens:,} tokens with a label" if finished.tokens is not None else ""
    yield f"- Length: {_counted(finished.step, 'optimizer step')} in {_counted(finished.epochs, 'epoch')}{tokens}"
    yield (
        f"- Loss: {loss.alpha:g} · T² · {quoted(loss.loss_kind)} to the teacher at temperature T = {loss.temperature:g}"
        f" and {loss.beta:g} · cross-entropy on the labels"
        + "".join(
            f"; {name} {value:g}"
            for name in ("hidden_weight", "attention_weight", "on_policy")
            if (value := getattr(loss, name))
        )
    )
    batch = f"{training.batch_size} rows" if training.batch_size else "unknown size"
    if train.gradient_accumulation_steps > 1:
        batch += f", {train.gradient_accumulation_steps} of them a step"
    if training.optimizer is not None:
        yield f"- Optimizer: {quoted(training.optimizer)}, made by the caller; batches of {batch}"
    else:
        yield (
            f"- Optimizer: AdamW, peak learning rate {train.learning_rate:g}, {train.lr_scheduler_type} schedule, "
            f"{train.warmup_ratio:.0%} warm-up, weight decay {train.weight_decay:g}; batches of {batch}"
        )
    precision = "float32" if train.mixed_precision == "no" else f"{train.mixed_precision} autocast"
    yield f"- Precision: {precision}; seed: {'not set' if train.seed is None else train.seed}\n"


def _evaluation(finished: RunFinished) -> Iterator[str]:
    """Lines of the section on what was measured."""
    unseen, measured = finished.unseen, finished.validation
    if unseen is not None:
        yield f"On {unseen.rows} rows that it did not learn from ({unseen.tokens:,} tokens), ± is a 95 % interval:\n"
        yield f"- Agreement with the teacher on the most probable token: {_share(unseen.agreement)}"
        yield f"- KL(teacher ‖ student): {_number(unseen.kl)} nats a token"
        theirs = f"; the teacher's: {_perplexity(unseen.teacher_ce.value)}" if unseen.teacher_ce is not None else ""
        yield f"- Perplexity: {_perplexity(unseen.ce.value)}{theirs}\n"
    elif measured is not None:
        yield f"On validation data that it did not learn from ({measured.tokens:,} tokens):\n"
        yield f"- Agreement with the teacher on the most probable token: {measured.agreement:.1%}"
        yield f"- Perplexity: {_perplexity(measured.ce)}\n"
    else:
        yield "Not measured on text that it did not learn from.\n"


def _share(estimate: MeanEstimate) -> str:
    return f"{estimate.value:.1%}" + (f" ± {1.96 * estimate.error:.1%}" if estimate.error is not None else "")


def _number(estimate: MeanEstimate) -> str:
    return f"{estimate.value:.3f}" + (f" ± {1.96 * estimate.error:.3f}" if estimate.error is not None else "")


def _perplexity(nats: float) -> str:
    return f"{math.exp(nats):,.2f}" if nats < 100 else "above e^100"


def _use(model: Any, tokenizer: Any) -> Iterator[str]:
    """Lines of the section on how to use it; the code runs as it stands, but for the path."""
    if not isinstance(model, PreTrainedModel) and not has_adapters(model):
        yield f'```python\nmodel = apt_model.load_model("{PLACE}", model=the_same_module)[0]\n```\n'
        return
    adapters = has_adapters(model)
    kind = "AutoPeftModelForCausalLM" if adapters else "AutoModelForCausalLM"
    names = [*(["AutoTokenizer"] if tokenizer is not None else []), *([] if adapters else [kind])]
    code = ([f"from peft import {kind}"] if adapters else []) + (
        [f"from transformers import {', '.join(sorted(names))}"] if names else []
    )
    code.append(f'\nmodel = {kind}.from_pretrained("{PLACE}")')
    if tokenizer is not None:
        code.append(f'tokenizer = AutoTokenizer.from_pretrained("{PLACE}")')
        if has_template(tokenizer):
            code += [
                'chat = [{"role": "user", "content": "Hello"}]',
                "inputs = tokenizer.apply_chat_template(",
                '    chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
                ")",
            ]
        else:
            start = "tokenizer.bos_token + " if _leaves_out_start(tokenizer) else ""
            code.append(f'inputs = tokenizer({start}"Hello", return_tensors="pt")')
        code.append("print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0]))")
    yield "```python\n" + "\n".join(code) + "\n```\n"
    ends = listed(getattr(getattr(model, "generation_config", None), "eos_token_id", None))
    if ends:
        yield f"An answer ends with {' or '.join(quoted(spelled([one], tokenizer)) for one in ends)}.\n"


def _leaves_out_start(tokenizer: Any) -> bool:
    """Whether the tokenizer has a start token, which the student learned with, but does not add it itself."""
    start = getattr(tokenizer, "bos_token_id", None)
    return start is not None and tokenizer("a")["input_ids"][:1] != [start]


def _versions() -> Iterator[str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from its sources
            continue
    saved = ", ".join(f"{name} {number}" for name, number in found.items())
    yield f"Saved with {saved}.\nRead it with transformers {INSTALLED} or newer: an older one may read it wrongly.\n"
