"""Every causal architecture of transformers through the product: shrunk, cut, taught, saved, loaded, generating.

`python -m tests.models.architectures [KIND ...]` prints the rows of docs/architectures.md.
"""

import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from apt_model.data.notices import Tell
from apt_model.distill.students.depth import chosen_layers, depth_of, stacks_of
from apt_model.distill.students.fresh import create_compressed_model
from apt_model.errors import AptModelError
from apt_model.models.generate import answer_ids
from apt_model.models.pretrained import load_model, save_model
from apt_model.plugins.distillation_plugin import DistillationPlugin
from tests.models.tiny import KINDS, VOCABULARY, tiny_config

STUDENTS: Mapping[str, Mapping[str, Any]] = {
    "1 layer": {"num_layers": 1},
    "narrow": {"num_layers": 2, "hidden_size": 16},
    "cut": {"num_layers": 2, "init": "teacher"},
}
STEPS = ("taught", "saved and loaded", "generates")
IDS = torch.randint(3, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(0))
PAD = slice(1, None)  # columns but that of padding, which Youtu sets to 0 whenever transformers loads it
RAW = "RAW ERROR"


def examine(kind: str) -> dict[str, str]:
    """What becomes of a teacher and its students, by step: "yes", the words of a refusal, or `RAW` and an error."""
    torch.manual_seed(0)
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as room, warnings.catch_warnings(action="ignore"):
        place = Path(room)

        def step(name: str, act: Callable[[], Any]) -> Any:
            result = None
            try:
                result, found[name] = act(), "yes"
            except AptModelError as error:
                found[name] = str(error).replace(str(place / "teacher"), "…")
            except Exception as error:  # noqa: BLE001 - a raw error is what is looked for
                found[name] = f"{RAW} {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            return result

        save_teacher(kind, place / "teacher")
        told: list[str] = []
        teacher = step("loaded", lambda: load_model(place / "teacher", tell=told_to(told))[0])
        if told:
            found["told"] = " ".join(told)
        wanted = STUDENTS if teacher is not None else {}
        made = {name: step(name, partial(create_compressed_model, teacher, **how)) for name, how in wanted.items()}
        for name, student in made.items():
            if student is not None:
                if name == "cut":
                    step("cut is the teacher without layers", partial(be_the_same, teacher, student))
                step(f"{name}: taught", partial(teach, student, teacher))
                step(f"{name}: saved and loaded", partial(come_back, student, place / name))
                step(f"{name}: generates", partial(write_on, student))
    return found


def told_to(told: list[str]) -> Tell:
    return lambda key, **values: told.append(f"{key}: {values.get('parts')}")


def save_teacher(kind: str, place: Path) -> None:
    """Save a tiny model of this kind; where it cannot be built here, its config beside weights of nothing."""
    config = tiny_config(kind)
    try:
        AutoModelForCausalLM.from_config(config).save_pretrained(place)
    except (ImportError, AttributeError):  # a package is missing; or no causal model has this config
        config.save_pretrained(place)
        save_file({"nothing": torch.zeros(1)}, place / "model.safetensors", metadata={"format": "pt"})


def logits_of(model: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS, attention_mask=torch.ones_like(IDS), use_cache=False).logits
    return found


def be_the_same(teacher: Any, student: Any) -> None:
    """The student says what the teacher says where the layers that were dropped hand their input on, or are not there.

    The second where a layer reads what another than the last has left.
    """
    kept = chosen_layers(teacher.config, 2)
    stacks = stacks_of(teacher, student, depth_of(teacher.config), 2)

    def hand_on(_: Any, args: Any, kwargs: Any, output: Any) -> Any:
        before = args[0] if args else kwargs["hidden_states"]
        return before if isinstance(output, torch.Tensor) else (before, *output[1:])

    if len(stacks) > 1 and stacks[0].endswith("attentions"):  # XLM has no layers, but lists of their parts
        return
    with ExitStack() as stack:
        for layers in (teacher.get_submodule(name) for name in stacks):
            for layer in (layer for at, layer in enumerate(layers) if at not in kept):
                stack.callback(layer.register_forward_hook(hand_on, with_kwargs=True).remove)
        said = logits_of(teacher)
    if torch.allclose(logits_of(student), said, rtol=1e-4, atol=1e-4):
        return
    shorter = deepcopy(teacher)
    for name in stacks:
        layers = shorter.get_submodule(name)
        shorter.set_submodule(name, torch.nn.ModuleList(layers[at] for at in kept))
    for module in shorter.modules():
        if type(getattr(module, "config", None)) is type(student.config):
            module.config = student.config
    torch.testing.assert_close(logits_of(student), logits_of(shorter), rtol=1e-4, atol=1e-4)


def teach(student: Any, teacher: Any) -> None:
    before = [parameter.detach().clone() for parameter in student.parameters()]
    plugin = DistillationPlugin({"seed": 0, "learning_rate": 1e-2, "lang": "en"})
    plugin.distill_model(student, teacher, [{"input_ids": IDS}], num_epochs=1, device="cpu", sinks=[])
    assert any(not torch.equal(now, old) for now, old in zip(student.parameters(), before, strict=True))
    assert logits_of(student).isfinite().all()


def come_back(student: Any, place: Path) -> None:
    save_model(student, None, place)
    columns = PAD if student.config.model_type == "youtu" else slice(None)
    said = logits_of(student)[..., columns]
    for again in (AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32), load_model(place)[0]):
        torch.testing.assert_close(logits_of(again)[..., columns], said)


def write_on(student: Any) -> None:
    rows = answer_ids(student, None, [[5, 6, 7], [9, 8]], max_new_tokens=4)
    assert len(rows) == 2
    assert any(rows)


def row_of(kind: str, found: Mapping[str, str]) -> str:
    """A row of the table: what can be made of this kind, what can be done with all of it, the words for what not."""
    made = [_mark([found.get(name)]) for name in STUDENTS]
    done = [_mark([found.get(f"{name}: {step}") for name in STUDENTS if found.get(name) == "yes"]) for step in STEPS]
    said = dict.fromkeys(words for name, words in found.items() if words != "yes")
    notes = "; ".join(" ".join(words.split()).replace("|", "/") for words in said)
    return f"| {kind} | {' | '.join((*made, *done))} | {notes} |"


def _mark(found: list[str | None]) -> str:
    if not found or None in found:
        return ""
    good = found.count("yes")
    return "✓" if good == len(found) else "–" if not good else f"{good} of {len(found)}"


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    for one in sys.argv[1:] or KINDS:
        print(row_of(one, examine(one)), flush=True)
