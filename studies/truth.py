"""Is what the lesson says of a student true? Runs whose truth is known, and a table of what was said of each.

python -m studies.truth --out /tmp/truth            # every set-up, three seeds
python -m studies.truth --out /tmp/truth --only "rate 0" "overfitted" --seeds 1
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from apt_model.events.event import Event
from apt_model.events.records import StepDone
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin
from studies.truth_claims import Claim, claims_of
from studies.truth_language import TrueState, TrueStates, true_state
from studies.truth_setups import BATCH, SETUPS, Setup, World


class _Listener:
    """A sink that keeps what it heard, and looks at the student half-way."""

    def __init__(self, look: Callable[[], TrueState], half: int) -> None:
        self.events: list[Event] = []
        self.middle: TrueState | None = None
        self._look, self._half = look, half

    def emit(self, event: Event) -> None:
        """Keep an event."""
        self.events.append(event)
        if isinstance(event, StepDone) and event.step == self._half:
            self.middle = self._look()

    def close(self) -> None:
        """Nothing to close."""


def run(setup: Setup, world: World, seed: int, *, steps: int = 160) -> tuple[list[Claim], list[Event]]:
    """Run a set-up once; returns the lesson's claims, judged, and its events."""
    settings = {"max_steps": steps, "sample_frequency": 20, "seed": seed, "alpha": 0.7, **setup.settings}
    student = setup.student(world, seed)
    teacher = world.teacher if setup.teacher is None else setup.teacher(world, seed)
    rows = setup.rows or BATCH * settings["max_steps"]
    look = partial(true_state, student, teacher, world.truth)
    before = look()
    listener = _Listener(look, settings["max_steps"] // 2)
    VisualDistillationPlugin({**settings, "lang": "zh"}).visual_distill_model(
        student_model=student,
        teacher_model=teacher,
        train_dataloader=world.batches(rows, 1000 + seed, setup.labels),
        eval_dataloader=world.batches(64, 2000 + seed, setup.labels) if setup.unseen else None,
        optimizer=setup.optimizer(student) if setup.optimizer else None,
        tokenizer=world.language.tokenizer,
        device="cpu",
        sinks=[listener],
    )
    states = TrueStates(before=before, middle=listener.middle or before, after=look())
    found = claims_of(listener.events, states, advice=setup.advice, parrots=setup.parrots, lang="zh")
    return list(found), listener.events


def table(found: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> str:
    """A Markdown table: what was said of each set-up over the seeds, and the share of it that was true."""
    lines = ["| set-up | trend | grade | advice | remarks | true | contradictions |", "|---|---|---|---|---|---|---|"]
    every: list[Mapping[str, Any]] = []
    for name, runs in found.items():
        claims = [claim for one in runs for claim in one]
        every += claims
        cells = [_said(claims, by) for by in ("trend", "grade", "advice", "remark")]
        lines.append(f"| {name} | {' | '.join(cells)} | {_share(claims)} | {_contradictions(claims)} |")
    lines.append(f"| **all** | | | | | **{_share(every)}** | **{_contradictions(every)}** |")
    return "\n".join(lines)


def _said(claims: Sequence[Mapping[str, Any]], by: str) -> str:
    said = {}
    for claim in claims:
        if claim["by"] == by:
            key = claim["said"] if claim["true"] else f"~~{claim['said']}~~"
            said[key] = said.get(key, 0) + 1
    return ", ".join(f"{key} {count}" for key, count in said.items())


def _share(claims: Sequence[Mapping[str, Any]]) -> str:
    true = sum(claim["true"] for claim in claims)
    return f"{true} of {len(claims)} ({true / max(len(claims), 1):.1%})"


def _contradictions(claims: Sequence[Mapping[str, Any]]) -> str:
    return str(sum(bool(claim["contradicts"]) for claim in claims))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the set-ups and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="results, a file for each set-up and seed")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these set-ups (default: all)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=160, help="of a run that says nothing else (default: 160)")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    chosen = [setup for setup in SETUPS if arguments.only is None or setup.name in arguments.only]
    found: dict[str, list[list[dict[str, Any]]]] = {setup.name: [] for setup in chosen}
    for seed in range(arguments.seeds):
        world: World | None = None
        for setup in chosen:
            file = arguments.out / f"{seed} {setup.name}.json"
            if not file.exists():
                world = world or World(seed)
                claims, _ = run(setup, world, seed, steps=arguments.steps)
                file.write_text(json.dumps([asdict(claim) for claim in claims]), "utf-8")
            found[setup.name].append(json.loads(file.read_text("utf-8")))
    print(table(found))


if __name__ == "__main__":
    main()
