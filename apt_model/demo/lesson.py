"""Data, models and settings of `apt-model demo`: the corpus, its teacher, a fresh student.

Knows nothing of how the run is shown.
"""

from collections.abc import Mapping
from importlib.resources import as_file, files
from typing import Any

from transformers import PreTrainedModel

from apt_model.distill.students.fresh import create_compressed_model
from apt_model.models.pretrained import load_model

BATCH_SIZE = 16
SETTINGS: Mapping[str, Any] = {
    "temperature": 1.0,  # a fresh student learns far faster than at 4.0: docs/log.md
    "num_epochs": 10,
    "sample_frequency": 20,
    "learning_rate": 3e-3,
    "warmup_ratio": 0.1,
    "seed": 0,
    "exam_prompts": ("光缆铺在海底", "青霉素是弗莱明", "国画讲究留白"),  # beginnings of sentences in the corpus
    "exam_tokens": 40,
}


def read_corpus() -> dict[str, list[str]]:
    """The corpus: sentences by topic."""
    sentences: dict[str, list[str]] = {}
    topic = ""
    for line in files("apt_model.demo").joinpath("corpus.txt").read_text("utf-8").splitlines():
        if line.startswith("# "):
            topic = line.removeprefix("# ")
            sentences[topic] = []
        elif line:
            sentences[topic].append(line)
    return sentences


def load_teacher() -> tuple[Any, Any]:
    """The teacher and its tokenizer, from the package."""
    with as_file(files("apt_model.demo").joinpath("teacher")) as directory:
        model, tokenizer, _ = load_model(directory)
    return model, tokenizer


def new_student(teacher: PreTrainedModel) -> Any:
    """A fresh student: half the teacher's layers at half its width."""
    config = teacher.config
    return create_compressed_model(
        teacher, num_layers=config.num_hidden_layers // 2, hidden_size=config.hidden_size // 2
    )
