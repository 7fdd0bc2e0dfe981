"""`apt-model evaluate`: a model's text quality and speed, compared with its teacher's."""

import argparse
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from apt_model.commands.console import importing, print_line, speaker, teller, waiting
from apt_model.commands.options import add_command, add_source, tell_overruled
from apt_model.errors import ConfigError, StorageError
from apt_model.ranks.group import ranks

LEAST = {"batch_size": 1, "max_length": 2, "max_new_tokens": 0, "max_prompts": 1}


def add(commands: Any) -> None:
    """Add the parser."""
    evaluate = add_command(
        commands,
        "evaluate",
        _evaluate,
        "measure a model's text quality and speed, and compare it with a teacher",
        is_shared=True,
    )
    evaluate.add_argument("model", metavar="RUN_OR_MODEL", help="run directory, model directory or hub id")
    evaluate.add_argument(
        "--teacher", metavar="DIR_OR_ID", help="teacher to compare with: as RUN_OR_MODEL (default: none)"
    )
    add_source(evaluate)
    evaluate.add_argument("--out", metavar="FILE", help="also write the results to this JSON file")
    evaluate.add_argument(
        "--max-length", type=int, default=512, metavar="N", help="maximum tokens of a text (default: 512)"
    )
    evaluate.add_argument(
        "--max-new-tokens",
        type=int,
        default=128,
        metavar="N",
        help="maximum new tokens of an answer, for data with prompts; 0: generate none (default: 128)",
    )
    evaluate.add_argument(
        "--max-prompts", type=int, default=200, metavar="N", help="maximum number of prompts to answer (default: 200)"
    )
    evaluate.add_argument(
        "--speed",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure inference speed and memory (default: yes)",
    )
    evaluate.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:N, mps ... (default: this machine's accelerator, else cpu)"
    )
    evaluate.add_argument("--lang", default="zh", help="language of the table (default: zh)")


def _evaluate(arguments: argparse.Namespace) -> None:
    for name, least in LEAST.items():
        given = getattr(arguments, name)
        if given < least:
            raise ConfigError(f"{name} is too small", got=given, expected=f"{least} or more")
    say, out = speaker(arguments.lang), arguments.out and _writable(Path(arguments.out))
    tell = teller(arguments.lang)
    with importing(arguments.lang):
        from apt_model.data.answering import with_template
        from apt_model.data.dataset import load_dataset, make_dataloader, placed
        from apt_model.data.encode import refuse_other_tokenizer
        from apt_model.generation.evaluator import evaluate_text_quality
        from apt_model.models.devices import pick_device
        from apt_model.models.pretrained import load_model
        from apt_model.render.evaluation import show_evaluation

    device = pick_device(arguments.device)
    with ranks().first("read the data"), waiting(arguments.lang, "data"):
        rows = load_dataset(
            arguments.data,
            split=arguments.split,
            text_column=arguments.text_column,
            columns=arguments.columns,
            tell=tell,
        )
    tell_overruled(arguments, tell)
    with waiting(arguments.lang, "model", name=arguments.model):
        model, tokenizer, _ = load_model(arguments.model, tell=tell)
    teacher = None
    if arguments.teacher is not None:
        with waiting(arguments.lang, "teacher", name=arguments.teacher):
            teacher, teacher_tokenizer, _ = load_model(arguments.teacher, tell=tell)
        refuse_other_tokenizer(teacher_tokenizer, tokenizer)
        tokenizer = with_template(tokenizer, teacher_tokenizer)
    with waiting(arguments.lang, "evaluation"), placed(rows):
        results = evaluate_text_quality(
            model,
            make_dataloader(rows, batch_size=arguments.batch_size, shuffle=False),
            tokenizer,
            teacher,
            device=device,
            max_length=arguments.max_length,
            max_new_tokens=arguments.max_new_tokens,
            max_prompts=arguments.max_prompts,
            speed=arguments.speed,
            lang=arguments.lang,
            tell=tell,
            is_shared=True,
        )
    show_evaluation(results, lang=arguments.lang)
    if out:
        with ranks().agreed("save the results"):
            if ranks().is_first:
                results.save(out)
        print_line(say("evaluation.saved", path=out))


def _writable(path: Path) -> Path:
    """The path, checked to be writable before the work begins.

    Raises:
        StorageError: it is a directory, or cannot be written.
    """
    if path.is_dir():
        raise StorageError(f"{path} is a directory", expected="a file", fix=f"--out {path / 'evaluation.json'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            return path
    except OSError as error:
        raise StorageError(f"{path} cannot be written", got=error.strerror, fix="choose another file") from error
