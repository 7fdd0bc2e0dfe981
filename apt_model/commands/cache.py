"""`apt-model cache-teacher`: cache a teacher's top-k logits on a data set, to distill from without the teacher."""

import argparse
import math
import shlex
from typing import Any

from apt_model.commands.console import collector, importing, print_line, program, speaker, waiting
from apt_model.commands.options import (
    PACKING_HELP,
    add_command,
    add_settings,
    add_source,
    read_settings,
    tell_overruled,
)
from apt_model.commands.served import add_server, open_served, refuse_server, tell_served
from apt_model.commands.set_aside import tell
from apt_model.commands.teacher import add_precision, load_precisely
from apt_model.i18n import Phrases
from apt_model.ranks.group import ranks
from apt_model.ranks.signs import OUTSIDE

SETTINGS = ("temperature", "wide_matmul", "max_length", "device", "lang")


def add(commands: Any) -> None:
    """Add the parser."""
    parser = add_command(
        commands,
        "cache-teacher",
        _cache,
        "cache a teacher's top-k logits, to distill without the teacher",
        is_shared=True,
    )
    parser.add_argument(
        "--teacher",
        required=True,
        metavar="DIR_OR_ID",
        help="model directory, GGUF file or hub id of the teacher; with --server the URL that serves it",
    )
    add_precision(parser)
    add_server(parser)
    parser.add_argument(
        "--out",
        required=True,
        metavar="CACHE",
        help="cache directory, or fsspec URL such as s3://…; an interrupted cache is continued",
    )
    parser.add_argument(
        "--part",
        metavar="I/N",
        help="write the I-th of N parts; run all, anywhere: the one that ends last finishes the cache (default: "
        "all of it; processes of one launcher share it)",
    )
    group = parser.add_argument_group("what is cached")
    group.add_argument(
        "--k",
        type=int,
        default=64,
        metavar="N",
        help="logits to cache per position: the N highest (default: 64)",
    )
    group.add_argument(
        "--value-type",
        choices=("log8", "float16"),
        default="log8",
        help="how to store a logit: in 1 byte (log8) or 2 (default: log8)",
    )
    add_source(parser).add_argument("--packing", action="store_true", help=PACKING_HELP)
    add_settings(parser, only=SETTINGS)


def _cache(arguments: argparse.Namespace) -> None:
    config = read_settings(arguments)
    lang = config.display.lang
    say = speaker(lang)
    refuse_server(arguments, config)
    with importing(lang):
        from apt_model.data.dataset import load_dataset, tokenize_dataset
        from apt_model.distill.teachers.cache.manifest import CacheSettings, check_settings, prepare_store
        from apt_model.distill.teachers.cache.parts import parse_part
        from apt_model.distill.teachers.cache.store import open_store
        from apt_model.distill.teachers.cache.writer import CacheWriter
        from apt_model.models.devices import pick_device
        from apt_model.render.bar import ProgressBar
        from apt_model.render.terminal import make_console

    settings = CacheSettings(
        k=arguments.k,
        temperature=config.distill.temperature,
        value_type=arguments.value_type,
        max_length=config.train.max_length,
        packing=arguments.packing,
    )
    check_settings(settings, arguments.batch_size)
    team, part = ranks(), parse_part(arguments.part or "1/1")
    device, out = pick_device(config.train.device), open_store(arguments.out)
    with team.first("open the cache"):
        prepare_store(out)
    told: list[str] = []
    notice = collector(told, lang)
    tell_overruled(arguments, notice)
    with team.first("read the data"), waiting(lang, "data"):
        rows = load_dataset(
            arguments.data,
            split=arguments.split,
            text_column=arguments.text_column,
            columns=arguments.columns,
            tell=notice,
        )
    is_served = arguments.server is not None
    if is_served:
        team.at(OUTSIDE)
    teacher, tokenizer = open_served(arguments, lang) if is_served else load_precisely(arguments, config)
    with team.first("tokenize the data"), waiting(lang, "tokens"):
        rows = tokenize_dataset(rows, tokenizer, max_length=settings.max_length, packing=settings.packing, tell=notice)
    tell(told)
    caching = CacheWriter(
        teacher,
        rows,
        settings=settings,
        tokenizer=tokenizer,
        device=device,
        batch_size=arguments.batch_size,
        wide_matmul=config.train.wide_matmul,
    )
    caching.refuse_other(out)
    if is_served:
        teacher.refuse_other_weights(out)
        tell_served(teacher, say)
    _tell_plan(caching, say)
    if caching.uses_onednn:
        print_line("🔧 " + say("notice.wide_matmul"))
    with ProgressBar(make_console(), say) as bar:
        missing = caching.run(out, bar.advance, part=part.of(team.rank, team.size))
    missing = min(team.gather(missing, "write the cache"))  # of the rank that ended last
    if missing:
        print_line(say("cache.part_done", part=part, missing=missing, path=out))
        return
    print_line(say("cache.done", path=out))
    command = f"{program()} distill --teacher-cache {shlex.quote(str(out))} --student … --data … --out …"
    print_line(say("cache.use", command=command))


def _tell_plan(caching: Any, say: Phrases) -> None:
    """Print size, time and error of the cache before it is written."""
    from apt_model.render.sentences import duration, percent

    with waiting(say.lang, "estimate"):
        estimate, identity = caching.estimate(), caching.identity
    print_line(
        say(
            "cache.plan",
            rows=f"{identity.rows:,}",
            positions=f"{identity.tokens:,}",
            k=identity.settings.k,
            temperature=identity.settings.temperature,
        )
    )
    size = f"{estimate.total_bytes / 2**20:,.1f} MB"
    time = duration(estimate.seconds)
    print_line(say("cache.size", size=size, bytes=estimate.bytes_per_token, time=time))
    if math.isnan(estimate.hidden_kl_nats):  # of a server, which does not tell the tail's tokens
        return
    share = estimate.hidden_kl_nats / estimate.whole_kl_nats if estimate.whole_kl_nats else 0.0
    print_line(
        say(
            "cache.error",
            mass=percent(estimate.mass_kept),
            hidden=f"{estimate.hidden_kl_nats:.3f}",
            whole=f"{estimate.whole_kl_nats:.3f}",
            share=percent(share),
        )
    )
