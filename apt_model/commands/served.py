"""The teacher of `apt-model cache-teacher` behind a server: its flags, and the source that asks it."""

import argparse
import os
import re
from typing import Any

from apt_model.commands.console import print_line, waiting
from apt_model.commands.options import Command
from apt_model.config import LessonConfig
from apt_model.distill.teachers.served.limits import KEY, refuse_temperature
from apt_model.errors import ConfigError
from apt_model.i18n import Phrases

KINDS = ("vllm", "sglang", "openai")


def add_server(parser: Command) -> None:
    """Add the flags of a served teacher."""
    group = parser.add_argument_group("a teacher behind a server")
    group.add_argument(
        "--server",
        choices=KINDS,
        help="--teacher is the URL of a server: vLLM, SGLang, or any with /v1/completions, echo, logprobs and token "
        f"ids; its key is read from {KEY}. Needs --tokenizer and --temperature 1",
    )
    group.add_argument(
        "--tokenizer",
        metavar="DIR_OR_ID",
        help="tokenizer of the served model; its config beside it is kept with the cache, weights are not needed",
    )
    group.add_argument("--served-model", metavar="NAME", help="its name at the server (default: the only one there)")
    group.add_argument("--in-flight", type=int, default=16, metavar="N", help="samples asked for at once (default: 16)")
    group.add_argument(
        "--server-patience",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="give up if a sample is not answered within so many seconds of trying (default: 600)",
    )


def refuse_server(arguments: argparse.Namespace, config: LessonConfig) -> None:
    """Refuse flags of a served teacher that do not go together, before anything is loaded.

    Raises:
        ConfigError: names them.
    """
    is_url = re.match("https?://", arguments.teacher) is not None
    if arguments.server is None:
        if is_url:
            fix = "say which server it is: --server vllm, sglang or openai, and --tokenizer DIR_OR_ID"
            raise ConfigError("--teacher is a URL", got=arguments.teacher, fix=fix)
        given = [f"--{name}" for name in ("tokenizer", "served-model") if vars(arguments)[name.replace("-", "_")]]
        if given:
            raise ConfigError(f"{given[0]} is for a teacher behind a server", fix="leave it out, or add --server")
        return
    if not is_url:
        raise ConfigError("--server needs a URL as --teacher", got=arguments.teacher, fix="give http://HOST:PORT")
    if arguments.tokenizer is None:
        raise ConfigError("--server needs --tokenizer", fix="name a directory or hub id of the served model")
    if arguments.teacher_dtype != "fp32" or arguments.teacher_quantization is not None:
        what = "--teacher-dtype and --teacher-quantization are for a teacher that is loaded here"
        raise ConfigError(what, fix="leave them out: the server decides")
    refuse_temperature(config.distill.temperature)


def open_served(arguments: argparse.Namespace, lang: str) -> tuple[Any, Any]:
    """The source that asks the server, and the tokenizer.

    Raises:
        ModelError: the server does not answer, or the tokenizer cannot be loaded. ConfigError: no address.
    """
    from apt_model.distill.teachers.served.connection import TeacherServer
    from apt_model.distill.teachers.served.source import ServedTopK
    from apt_model.models.pretrained import load_description

    server = TeacherServer(
        address=arguments.teacher,
        key=os.environ.get(KEY),
        in_flight=arguments.in_flight,
        patience=arguments.server_patience,
    )
    with waiting(lang, "teacher", name=arguments.teacher):
        config, tokenizer = load_description(arguments.tokenizer)
        source = ServedTopK(
            server,
            kind=arguments.server,
            tokenizer=tokenizer,
            config=config,
            k=arguments.k,
            model=arguments.served_model,
        )
    return source, tokenizer


def tell_served(source: Any, say: Phrases) -> None:
    """Print which model is asked, and how its answers repeat."""
    print_line(say("cache.served", model=source.card.name, apart=f"{source.rounding:.2g}"))
