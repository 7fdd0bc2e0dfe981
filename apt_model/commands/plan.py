"""`apt-model doctor --plan`: print the memory of a distillation on GPUs that are not there. Nothing is loaded."""

import argparse
import shutil
from collections.abc import Sequence

from apt_model.commands.console import print_line, speaker
from apt_model.commands.flags import flag_of
from apt_model.commands.options import Command
from apt_model.doctor.plan import Plan, advise, parse_plan
from apt_model.doctor.shapes import ModelShape
from apt_model.errors import ConfigError
from apt_model.i18n import Phrases
from apt_model.render.plan import PlanColumn, Sentence, plan_lines

WIDEST, NARROWEST = 78, 24  # columns
HEADS = {"teacher": "shards_teacher", "student": "shards_student"}  # keys of the table's heads
BESIDE = ("plan", "lang", "debug", "command")  # what may stand beside --plan


def refuse_beside(parser: Command, arguments: argparse.Namespace) -> None:
    """Refuse flags that a plan would not read.

    Raises:
        ConfigError: there are some.
    """
    given = {key for key, value in vars(arguments).items() if value not in (None, parser.get_default(key))}
    if others := sorted(flag_of(key) for key in given - set(BESIDE)):
        raise ConfigError("--plan stands alone", got=", ".join(others), fix="write all of it as KEY=VALUE after --plan")


def print_plan(words: Sequence[str], *, lang: str) -> None:
    """Print the table of a plan and what follows from it.

    Raises:
        ConfigError: a key or value that is not known. ModelError: the config of a directory.
    """
    say, plan = speaker(lang), parse_plan(words)
    columns = [
        PlanColumn(
            name=HEADS.get(name, name), needs=need.by_purpose(), fits=plan.fits(name), rows=plan.largest_batch(name)
        )
        for name, need in plan.needs.items()
    ]
    width = max(NARROWEST, min(WIDEST, shutil.get_terminal_size().columns - 1))
    for line in plan_lines(_setting(plan, say), columns, _conclusion(plan, say), say=say, width=width):
        print_line(line)


def _setting(plan: Plan, say: Phrases) -> list[Sentence]:
    """What the table is about: models, GPUs, batch, precision."""
    card = f"{plan.card_bytes / 10**9:g}"
    values = {"batch": plan.batch, "length": plan.length, "dtype": plan.dtype, "optimizer": plan.optimizer}
    return [
        ("title", {"gpus": plan.gpus, "nodes": plan.nodes, "card": card}),
        _of_model("teacher", plan.teacher, say),
        _of_model("student", plan.student, say),
        ("recomputed" if plan.checkpointing else "kept", values),
    ]


def _of_model(role: str, shape: ModelShape, say: Phrases) -> Sentence:
    values = {
        "role": say(f"plan.{role}"),
        "parameters": f"{shape.parameters / 1e9:,.3g}",
        "layers": shape.layers,
        "hidden": shape.hidden,
        "vocabulary": f"{shape.vocabulary:,}",
        "like": shape.like,
    }
    return "like" if shape.like else "of_config", values


def _conclusion(plan: Plan, say: Phrases) -> list[Sentence]:
    """The advice, the command that it means, and what the numbers leave out."""
    advice = advise(plan)
    values = {key: say(f"plan.{value}") if key == "part" else value for key, value in advice.values.items()}
    flags = f" --fsdp {advice.arrangement}" if advice.arrangement in ("teacher", "student", "both") else ""
    half = " --teacher-dtype bf16 --mixed-precision bf16" if plan.dtype == "bf16" else ""
    nodes = advice.values.get("nodes", plan.nodes)
    machines = "" if nodes == 1 else f" --nnodes {nodes} --node-rank … --master-addr …"
    is_many = plan.gpus > 1 or nodes != 1
    launch = f"torchrun --nproc-per-node {plan.gpus}{machines} -m apt_model" if is_many else "apt-model"
    command = f"{launch} distill …{half}{flags}"
    return [(advice.key, values), *([("command", {"command": command})] if advice.arrangement else []), ("bound", {})]
