"""The `generation_config` of a student: its teacher's, with every token that ends an answer.

Knows models and tokenizers; knows nothing of what is generated.
"""

from copy import deepcopy
from tempfile import TemporaryDirectory
from typing import Any

from transformers import GenerationConfig

from apt_model.data.answering import turn_end
from apt_model.data.notices import Tell, warn
from apt_model.errors import brief
from apt_model.models.lora import has_adapters

TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
SILENT = ("transformers_version", "use_cache")  # change no answer
MOST = 8  # settings named


def inherit_settings(student: Any, teacher: Any) -> None:
    """Give a new student a copy of its teacher's `generation_config`; nothing if the teacher has none."""
    theirs = getattr(teacher, "generation_config", None)
    if theirs is not None and hasattr(student, "generation_config"):
        student.generation_config = deepcopy(theirs)


def complete_settings(student: Any, teacher: Any, tokenizer: Any, *, tell: Tell = warn) -> None:
    """Let a student end its answers where its teacher does, where its tokenizer ends a text and its template a turn.

    Its own `generation_config` stays, with end tokens and a padding token added that it lacks; one that only repeats
    its model's config is replaced by the teacher's.

    Args:
        student: nothing happens to one without a `generation_config`.
        teacher: has a `generation_config`, or not; None for a teacher whose token ids are others.
        tokenizer: the student's, or None.
        tell: told of end tokens that are added.
    """
    holder = student.get_base_model() if has_adapters(student) else student
    if getattr(holder, "generation_config", None) is None:
        return
    if _says_nothing(holder):
        inherit_settings(holder, teacher)
    own = deepcopy(holder.generation_config)
    before = listed(own.eos_token_id)
    theirs = listed(getattr(getattr(teacher, "generation_config", None), "eos_token_id", None))
    others = [*theirs, getattr(tokenizer, "eos_token_id", None), turn_end(tokenizer)]
    ends = list(dict.fromkeys([*before, *(id_ for id_ in others if isinstance(id_, int))]))
    if ends != before:
        own.update(eos_token_id=ends if len(ends) > 1 else ends[0])
        if before:
            tell("end_tokens", tokens=spelled(ends[len(before) :], tokenizer))
    if own.pad_token_id is None:
        own.update(pad_token_id=getattr(tokenizer, "pad_token_id", None))
    holder.generation_config = savable_settings(own, tell)


def _says_nothing(model: Any) -> bool:
    """Whether the `generation_config` only repeats the model's config, as where none was saved."""
    try:
        repeated = GenerationConfig.from_model_config(model.config)
    except NotImplementedError:  # then transformers takes the empty one too
        repeated = GenerationConfig()  # type: ignore[no-untyped-call]
    return bool(model.generation_config == repeated)


def savable_settings(settings: GenerationConfig, tell: Tell = warn) -> GenerationConfig:
    """These settings if transformers will save them, else their token ids alone; `tell` says what is wrong."""
    try:
        with TemporaryDirectory() as folder:
            settings.save_pretrained(folder)
    except Exception as error:  # noqa: BLE001 - by place: whatever a model came with is compared and written
        why = next((line for line in str(error).splitlines() if line.startswith("- ")), str(error))
        tell("generation_reset", why=why.removeprefix("- ")[:300])
        return GenerationConfig(**{name: getattr(settings, name) for name in TOKENS})  # type: ignore[no-untyped-call]
    return settings


def tell_unused(model: Any, tell: Tell) -> None:
    """Tell of what a model's `generation_config` asks for and greedy answers of a given length do not use."""
    settings = getattr(model, "generation_config", None)
    asked = settings.to_diff_dict() if isinstance(settings, GenerationConfig) else {}
    unused = [
        f"{key}={brief(value)}"
        for key, value in asked.items()
        if value not in (None, False) and not key.startswith("_") and key not in (*TOKENS, *SILENT)
    ]
    if unused:
        tell("generation_unused", settings=", ".join(unused[:MOST]) + (" …" if len(unused) > MOST else ""))


def spelled(ids: list[int], tokenizer: Any) -> str:
    """Token ids as the tokenizer spells them, or as numbers."""
    convert = getattr(tokenizer, "convert_ids_to_tokens", None)
    return ", ".join(map(str, ids if convert is None else convert(ids)))


def listed(value: int | list[int] | None) -> list[int]:
    """An `eos_token_id` as a list: none, one id or several."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
