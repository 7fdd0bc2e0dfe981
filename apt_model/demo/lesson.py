"""Data, models and settings of `apt-model demo`, by language: the taught and the unseen text, the teacher, a student.

Knows nothing of how the run is shown.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from itertools import chain
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from apt_model.distill.students.fresh import create_compressed_model
from apt_model.errors import StorageError
from apt_model.models.pretrained import load_model

BATCH_SIZE = 16
SETTINGS: Mapping[str, Any] = {  # in Chinese; in English but for what LESSONS says
    "temperature": 1.0,  # a fresh student learns far faster than at 4.0: docs/log.md
    "num_epochs": 3,
    "sample_frequency": 60,
    "learning_rate": 3e-3,
    "warmup_ratio": 0.1,
    "seed": 0,
    "exam_prompts": ("随着互联网的普及", "糖尿病的诊断和", "好奇心可以驱动"),  # unseen beginnings
    "exam_tokens": 40,
    "save_total_limit": 4,  # the end of every epoch, 12 MB each: a lecturer branches at any of them
}


@dataclass(frozen=True, kw_only=True)
class DemoLesson:
    """The demo in one language.

    Attributes:
        settings: the demo's own defaults.
        taught: files of the text that the student learns.
        topics: keywords by topic, for text on other topics than the built-in ones.
    """

    settings: Mapping[str, Any]
    taught: Sequence[str] = ("written.txt",)
    topics: Mapping[str, Sequence[str]] = field(default_factory=dict)


LESSONS: Mapping[str, DemoLesson] = {
    "zh": DemoLesson(settings=SETTINGS, taught=("corpus.txt", "written.txt")),
    "en": DemoLesson(
        settings={
            **SETTINGS,
            "num_epochs": 4,
            "learning_rate": 0.01,
            "exam_prompts": (
                "Lily wanted to run down",
                "Sam did not like the cat",
                "One day, Lily went outside to play",
            ),
        },
        topics={
            "family": ("mom", "mommy", "dad", "daddy", "mother", "father", "brother", "sister", "grandma", "parent"),
            "animals": (
                *("dog", "cat", "bird", "rabbit", "bunny", "bear", "fish", "frog", "mouse", "duck", "lion", "puppy"),
                *("kitten", "butterfly", "squirrel", "monkey", "cow", "horse", "pig", "fox", "elephant", "animal"),
            ),
            "play": ("toy", "ball", "play", "played", "playing", "game", "doll", "car", "truck", "block", "swing"),
            "outdoors": (
                *("park", "tree", "garden", "forest", "wood", "sun", "sky", "rain", "wind", "flower", "grass"),
                *("river", "lake", "sea", "beach", "mountain", "cloud", "leaf", "hill", "pond"),
            ),
            "food": ("cake", "cookie", "food", "eat", "ate", "apple", "soup", "bread", "hungry", "lunch", "delicious"),
            "friends": ("friend", "together", "share", "shared", "help", "helped", "kind", "sorry", "love", "loved"),
            "home": ("house", "room", "bed", "door", "kitchen", "table", "chair", "box", "window", "home"),
        },
    ),
}


def lesson_of(lang: str) -> DemoLesson:
    """The lesson taught to who reads `lang`: a locale file of one's own gets the Chinese one."""
    return LESSONS[_language(lang)]


def read_corpus(lang: str = "zh") -> dict[str, list[str]]:
    """The text that the student is taught, by topic: sentences, or passages of stories."""
    return _read(lang, lesson_of(lang).taught)


def read_unseen(lang: str = "zh") -> dict[str, list[str]]:
    """Text of the same kind that neither the student nor its teacher has learned from, by topic."""
    return _read(lang, ("unseen.txt",))


def load_teacher(lang: str = "zh") -> tuple[Any, Any]:
    """The teacher and its tokenizer, from the package."""
    with as_file(_home(lang).joinpath("teacher")) as directory:
        model, tokenizer, _ = load_model(directory)
    return model, tokenizer


def write_material(folder: Path, lang: str = "zh") -> None:
    """Write the teacher (`teacher/`), the taught text (`book.txt`) and the unseen text (`unseen.txt`) into a folder.

    Raises:
        StorageError: it is there and not empty, or cannot be written.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise StorageError(f"{folder} is not empty", fix="give a folder that is not there yet")
    try:
        with as_file(_home(lang).joinpath("teacher")) as teacher:
            shutil.copytree(teacher, folder / "teacher")
        for name, lines in (("book.txt", read_corpus(lang)), ("unseen.txt", read_unseen(lang))):
            text = "".join(f"{line}\n" for line in chain.from_iterable(lines.values()))
            (folder / name).write_text(text, "utf-8")
    except OSError as error:
        raise StorageError(f"{folder} cannot be written", got=error.strerror, fix="give another folder") from error


def new_student(teacher: PreTrainedModel) -> Any:
    """A fresh student of about a fifth of the parameters: half the teacher's layers, rounded up, at half its width."""
    config = teacher.config
    return create_compressed_model(
        teacher, num_layers=(config.num_hidden_layers + 1) // 2, hidden_size=config.hidden_size // 2
    )


def parse(text: str) -> dict[str, list[str]]:
    """Lines by the `# topic` above them."""
    lines: dict[str, list[str]] = {}
    topic = ""
    for line in text.splitlines():
        if line.startswith("# "):
            topic = line.removeprefix("# ")
            lines.setdefault(topic, [])
        elif line:
            lines.setdefault(topic, []).append(line)
    return lines


def _read(lang: str, names: Sequence[str]) -> dict[str, list[str]]:
    return parse("\n".join(_home(lang).joinpath(name).read_text("utf-8") for name in names))


def _home(lang: str) -> Any:
    return files("apt_model.demo").joinpath(_language(lang))


def _language(lang: str) -> str:
    return lang if lang in LESSONS else "zh"
