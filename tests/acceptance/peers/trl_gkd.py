"""What TRL's GKD trainer does under a fault."""

import math
from pathlib import Path
from typing import Any

from tests.acceptance.peers.toys import attempt, finite, losses, toy


def gkd(out: Path, rows: int = 4, **more: Any) -> Any:
    """TRL's GKD trainer on a toy."""
    import datasets
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    words = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", "a", "b", "user", "assistant"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **names)
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' </s> ' }}{% endfor %}"
    chat = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "b a b"}]
    data = (
        datasets.Dataset.from_dict({"messages": [chat] * rows})
        if rows
        else datasets.Dataset.from_dict({"messages": []})
    )
    how = {"per_device_train_batch_size": 2, "max_steps": 3, "logging_steps": 1, "use_cpu": True, "report_to": []}
    how |= {"disable_tqdm": True, "bf16": False, "lmbda": 0.0, "max_length": 16, "save_strategy": "no"}
    teacher = more.pop("teacher", None) or toy(32)
    arguments = GKDConfig(str(out / "out"), **how | more)
    return GKDTrainer(toy(), teacher, arguments, train_dataset=data, processing_class=tokenizer)


def gkd_settings(out: Path) -> str:
    """12 and 14."""
    from trl.experimental.gkd import GKDConfig

    tried = [("temperature", value) for value in (0, -1.0, math.nan, math.inf, "hot", True)]
    tried += [("beta", math.nan), ("lmbda", math.nan), ("beta", 7.0)]
    taken = [
        f"{key}={value}"
        for key, value in tried
        if attempt(
            lambda key=key, value=value: GKDConfig(str(out), use_cpu=True, bf16=False, **{key: value})
        ).startswith("no error")  # type: ignore[misc]
    ]
    return f"taken without a word: {', '.join(taken) or 'none'} (of {len(tried)})"


def gkd_teacher_nan(out: Path) -> str:
    """11."""
    teacher = toy(32)
    teacher.lm_head.weight.data[:] = float("nan")
    one = gkd(out, teacher=teacher)
    ended = attempt(one.train)
    return f"{ended}; logged losses {losses(one)}; weights finite: {finite(one.model)}"


def gkd_empty(out: Path) -> str:
    """35."""
    return attempt(lambda: gkd(out, rows=0).train())
